package probe

import (
	"encoding/binary"
	"fmt"
)

// A constant is a number that a template leaves open: the K_ list of
// probe.bpf.c, in its order.
type constant int

const (
	kPoint constant = iota
	kCookie
	kKind
	kNargs
	kDirect
	kReturns
	kSelf
	kTaskStack
	kPID
	kComm
	kComm0
	kComm1
	kCgroup
	kNetns
	kMinimum
	kTree
	kMode
	kByReturn
	kFull
	kFilter
	kShow
	kExitFilter
	kExitShow
	kSlots
	kPacket
	kPacketArg
	kPacketFilter
	kRawFilter
	kSnap
	kTrack
	kFresh
	kStack
	kRecord
	kAtSlots
	kAtPacket
	kAtStack
	kAtSnap
	kAtTrace
	kResident
	kNeedEntry
	kSPEntry
	kSPExit
	constants
)

// constantMagic and the constant's index is what a template loads in its place.
const constantMagic = 0x6b736c7500000000

// values are the constants of one program.
type values [constants]uint64

// lddw is the opcode of a 64-bit immediate load, of two instructions.
const lddw = 0x18

// patch puts the constants into a program, but for one.
func (v *values) patch(code []byte, but constant) error {
	for i := 0; i+16 <= len(code); i += 8 {
		if code[i] != lddw {
			continue
		}
		lo, hi := code[i+4:i+8], code[i+12:i+16]
		if code[i+1]>>4 == 0 && binary.LittleEndian.Uint32(hi) == constantMagic>>32 {
			n := binary.LittleEndian.Uint32(lo)
			if n >= uint32(constants) {
				return fmt.Errorf("the object has a constant %d of %d", n, constants)
			}
			if constant(n) != but {
				binary.LittleEndian.PutUint32(lo, uint32(v[n]))
				binary.LittleEndian.PutUint32(hi, uint32(v[n]>>32))
			}
		}
		i += 8
	}
	return nil
}

// flag is 1 for true.
func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
