package x86

import (
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/mem"
)

// MaxLen is the longest instruction the processor accepts, in bytes (SDM vol. 2, 2.3.11).
const MaxLen = 15

// An Op is an operation, named by its Intel mnemonic: MOV, JE, CMPXCHG16B.
// Forms that differ only in operand size share an Op, except where Intel names
// them apart (CWDE and CDQE, IRET and IRETQ).
type Op uint16

// String returns the Intel mnemonic in lower case, "(bad)" for [BAD].
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("Op(%d)", uint16(o))
}

// A Reg is a register; zero is none. The names are x86asm.RAX and so on.
type Reg = x86asm.Reg

// A Kind tells what an [Arg] is.
type Kind uint8

// The kinds of operands.
const (
	KindNone Kind = iota
	KindReg       // Reg
	KindMem       // memory: see [Arg.Mem]
	KindImm       // Val, Size bytes wide; sign-extended where the processor does so
	KindRel       // Val is the address jumped to
)

// An Access tells what an instruction does to an operand.
type Access uint8

// The accesses; an operand can have both. Operands of lea, nop, prefetch and
// cache control have none.
const (
	Read Access = 1 << iota
	Write
)

// An Arg is an explicit operand.
type Arg struct {
	Kind   Kind
	Access Access
	Reg    Reg    // the register, or the base register of a memory operand
	Index  Reg    // index register of a memory operand, 0 if none
	Seg    Reg    // segment the encoding names; 0 where the default applies
	Scale  uint8  // factor of Index: 1, 2, 4, 8
	Size   uint16 // width in bytes; 0 where it is not fixed (xsave)
	Val    int64  // immediate, target address or displacement
}

// A Prefix is a set of legacy prefixes an instruction carries.
type Prefix uint16

// The prefixes. Rep is F3 and Repne F2, also where they select an instruction.
const (
	Lock Prefix = 1 << iota
	Rep
	Repne
	Data16
	Addr32
	SegCS
	SegDS
	SegES
	SegSS
	SegFS
	SegGS
)

// An Inst is one decoded instruction. It holds no pointers into the code it was
// decoded from and can be reused for the next one with [Inst.Decode].
type Inst struct {
	Addr   uint64
	Op     Op
	Len    int    // bytes
	Opcode uint8  // the last opcode byte
	Prefix Prefix // legacy prefixes present
	Rex    uint8  // REX byte, 0 if none
	NArgs  int
	Args   [4]Arg // in Intel order: destination first

	// Of EVEX encodings: the mask register, whether masked-off elements become
	// zero, and the number of elements a broadcast memory operand is spread to.
	Mask      Reg
	Zeroing   bool
	Broadcast uint8

	raw     [MaxLen]byte
	row     uint16 // index into rows
	shown   uint16 // bit i: prefix byte i does nothing here and is printed
	pfxLen  uint8  // prefix bytes, REX included
	osz     uint8  // operand size in bytes: 2, 4, 8
	hasDisp bool   // the memory operand has a displacement, be it zero
	riz     bool   // a SIB byte without index that a shorter encoding could have done without
	vexLen  uint8  // vector length in bytes of VEX and EVEX encodings
	hintBit uint16 // the prefix byte of hint, as in shown
	hint    uint8  // branch hint: 0x2e not taken, 0x3e taken
}

// Bytes returns the machine code of the instruction; it is valid until the
// Inst is decoded into again.
func (in *Inst) Bytes() []byte { return in.raw[:in.Len] }

// A DecodeError says that bytes are no instruction this package knows, or only
// the beginning of one.
type DecodeError struct {
	Addr      uint64
	Bytes     []byte // the bytes looked at, at most MaxLen
	Truncated bool   // the code ended before the instruction did
}

// Error names the address and the bytes.
func (e *DecodeError) Error() string {
	why := "no known x86-64 instruction"
	if e.Truncated {
		why = "incomplete x86-64 instruction"
	}
	return fmt.Sprintf("address %#x: % x: %s", e.Addr, e.Bytes, why)
}

// Decode decodes the instruction at the start of code, which lies at addr. It
// reads at most [MaxLen] bytes. The error is a [*DecodeError].
func Decode(code []byte, addr uint64) (Inst, error) {
	var in Inst
	err := in.Decode(code, addr)
	return in, err
}

// DecodeAt decodes the instruction at addr. At the end of what can be read, the
// bytes before the end of the page have to do. The error is of the memory, or a
// [*DecodeError].
func DecodeAt(r mem.Reader, addr uint64) (Inst, error) {
	const page = 4096
	var raw [MaxLen]byte
	code := raw[:]
	if r.ReadMem(code, addr) != nil {
		code = code[:min(page-addr%page, MaxLen)]
		if err := r.ReadMem(code, addr); err != nil {
			return Inst{}, err
		}
	}
	return Decode(code, addr)
}

// Decode is the package's Decode into an existing Inst, without allocating
// unless it fails. On failure the Inst is a [BAD] one of one byte (none if code
// is empty).
func (in *Inst) Decode(code []byte, addr uint64) error {
	if len(code) > 0 && code[0] == 0xcc { // padding: half of the text of a kernel built with retpolines
		in.setSimple(addr, 0xcc, int3Row)
		return nil
	}
	d := decoder{in: in, code: code[:min(len(code), MaxLen)]}
	if d.decode(addr) {
		return nil
	}
	e := &DecodeError{Addr: addr, Bytes: append([]byte(nil), d.code...), Truncated: d.short && len(code) < MaxLen}
	in.setSimple(addr, 0, 0)
	in.Len = copy(in.raw[:1], code)
	return e
}

var int3Row = tree[0xcc]

func (in *Inst) setSimple(addr uint64, b byte, row uint16) {
	*in = Inst{Addr: addr, Op: rows[row].op, Len: 1, Opcode: b, row: row, osz: 4}
	in.raw[0] = b
}

// A row is one encoding of gen/insns.txt.
type row struct {
	gnu, intel string
	op         Op
	args       [4]operand
	flags      flags
}

type flags uint32

const (
	flagSuffix flags = 1 << iota
	flagSuffixDst
	flagDef64
	flagForce64
	flagW
	flagR
	flagX
	flagWW
	flagNoAccess
	flagRep
	flagBnd
	flagNotrack
	flagHLE
	flagHLEX
	flagHLER
	flagJmp
	flagJcc
	flagCall
	flagRet
	flagTrap
	flagHalt
	flagIntelOrder
	flagCC
	flagPred
	flagClmul
	flagXY
	flagModRM
	flagMod3
)
