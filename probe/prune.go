package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The verifier leaves out what constants rule out, but slowly: it moves all
// instructions for each gap. So prune does the same before, in one go, for
// programs that are loaded by the hundred.

// Classes and fields of opcodes: Documentation/bpf/standardization.
const (
	classMask  = 0x07
	classLD    = 0x00
	classLDX   = 0x01
	classSTX   = 0x03
	classALU   = 0x04
	classJMP   = 0x05
	classJMP32 = 0x06
	classALU64 = 0x07

	srcReg = 0x08 // the operand is a register

	opMov  = 0xb0
	opJA   = 0x00
	opCall = 0x80
	opExit = 0x90

	pseudoCall  = 1 // src of a call of a function of the program
	modeAtomic  = 0xc0
	sizeDW      = 0x18
	atomicFetch = 0x01
	frameReg    = 10
)

// An insn is an instruction; a 64-bit load is one, too.
type insn struct {
	op, dst, src uint8
	off          int16
	imm          uint64 // sign-extended
	wide         bool
	target       int // of a jump or call: index
	live         bool
}

// known are the registers whose values are known.
type known struct {
	mask  uint16
	value [frameReg]uint64
}

func (k *known) get(r uint8) (uint64, bool) {
	if r >= frameReg || k.mask&(1<<r) == 0 {
		return 0, false
	}
	return k.value[r], true
}

func (k *known) set(r uint8, v uint64, ok bool) {
	if r >= frameReg {
		return
	}
	k.mask &^= 1 << r
	if ok {
		k.mask |= 1 << r
		k.value[r] = v
	}
}

// meet keeps what both know, and reports whether that is less.
func (k *known) meet(o *known) bool {
	before := k.mask
	for r := range uint8(frameReg) {
		if v, ok := o.get(r); !ok || v != k.value[r] {
			k.mask &^= 1 << r
		}
	}
	return k.mask != before
}

// prune removes what cannot be reached, and loads of constants that are not
// used. The program's functions are in one piece each, the main one first.
func prune(code []byte) ([]byte, error) {
	insns, err := decodeInsns(code)
	if err != nil {
		return nil, err
	}
	reach(insns)
	dropDead(insns)
	return encodeInsns(insns), nil
}

func decodeInsns(code []byte) ([]insn, error) {
	le := binary.LittleEndian
	var insns []insn
	index := make([]int, len(code)/8+1) // of what begins there
	var slots []int
	for at := 0; at+8 <= len(code); at += 8 {
		in := insn{op: code[at], dst: code[at+1] & 15, src: code[at+1] >> 4, off: int16(le.Uint16(code[at+2:])), imm: uint64(int64(int32(le.Uint32(code[at+4:]))))}
		index[at/8] = len(insns)
		slots = append(slots, at/8)
		if in.op == lddw {
			if at+16 > len(code) {
				return nil, errors.New("the program ends in a load")
			}
			in.wide = true
			in.imm = uint64(le.Uint32(code[at+4:])) | uint64(le.Uint32(code[at+12:]))<<32
			at += 8
			index[at/8] = -1
		}
		insns = append(insns, in)
	}
	for i := range insns {
		in := &insns[i]
		to := slots[i] + 1
		switch {
		case in.isJump():
			to += int(in.off)
		case in.isCall():
			to += int(int32(in.imm))
		default:
			continue
		}
		if to < 0 || to >= len(code)/8 || index[to] < 0 {
			return nil, fmt.Errorf("instruction %d jumps out of the program", slots[i])
		}
		in.target = index[to]
	}
	return insns, nil
}

// isJump reports whether an instruction may go to its target by its offset.
func (in *insn) isJump() bool {
	c := in.op & classMask
	return (c == classJMP || c == classJMP32) && in.op&0xf0 != opCall && in.op&0xf0 != opExit
}

// isCall reports whether an instruction calls a function of the program.
func (in *insn) isCall() bool { return in.op == classJMP|opCall && in.src == pseudoCall }

// reach marks the instructions that can be reached, and decides jumps: those
// always taken go anywhere, those never taken to the next instruction.
func reach(insns []insn) {
	in := make([]known, len(insns))
	taken := make([]uint8, len(insns)) // bit 0: it falls through; 1: it jumps
	var work []int
	visit := func(i int, k *known) {
		if i >= len(insns) {
			return
		}
		switch {
		case !insns[i].live:
			insns[i].live, in[i] = true, *k
		case !in[i].meet(k):
			return
		}
		work = append(work, i)
	}
	visit(0, &known{})
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		ins, k := &insns[i], in[i]
		switch {
		case ins.op == classJMP|opExit:
			continue
		case ins.isJump():
			yes, no := ins.decide(&k)
			if yes {
				taken[i] |= 2
				visit(ins.target, &k)
			}
			if no {
				taken[i] |= 1
				visit(i+1, &k)
			}
			continue
		case ins.isCall():
			visit(ins.target, &known{})
		}
		ins.apply(&k)
		visit(i+1, &k)
	}
	for i := range insns {
		if ins := &insns[i]; ins.live && ins.isJump() && taken[i] != 3 {
			ins.op, ins.dst, ins.src, ins.imm = classJMP|opJA, 0, 0, 0
			if taken[i] == 1 {
				ins.target = i + 1
			}
		}
	}
}

// apply does to the registers what an instruction does, as far as constants go.
func (in *insn) apply(k *known) {
	switch in.op & classMask {
	case classLD:
		k.set(in.dst, in.imm, in.wide && in.src == 0 && in.imm>>32 != constantMagic>>32)
	case classLDX:
		k.set(in.dst, 0, false)
	case classSTX:
		if in.op&0xe0 == modeAtomic && in.imm&atomicFetch != 0 {
			k.set(in.src, 0, false)
			k.set(0, 0, false) // cmpxchg
		}
	case classALU, classALU64:
		v, ok := in.imm, true
		if in.op&srcReg != 0 {
			v, ok = k.get(in.src)
		}
		if in.op&classMask == classALU {
			v = uint64(uint32(v))
		}
		k.set(in.dst, v, ok && in.op&0xf0 == opMov && in.off == 0)
	case classJMP:
		if in.op&0xf0 == opCall {
			for r := range uint8(6) {
				k.set(r, 0, false)
			}
		}
	}
}

// decide returns whether a jump can be taken and can be not.
func (in *insn) decide(k *known) (yes, no bool) {
	if in.op&0xf0 == opJA {
		return true, false
	}
	a, ok := k.get(in.dst)
	b, okb := in.imm, true
	if in.op&srcReg != 0 {
		b, okb = k.get(in.src)
	}
	if !ok || !okb {
		return true, true
	}
	sa, sb := int64(a), int64(b)
	if in.op&classMask == classJMP32 {
		a, b = uint64(uint32(a)), uint64(uint32(b))
		sa, sb = int64(int32(a)), int64(int32(b))
	}
	switch in.op & 0xf0 {
	case 0x10:
		yes = a == b
	case 0x20:
		yes = a > b
	case 0x30:
		yes = a >= b
	case 0x40:
		yes = a&b != 0
	case 0x50:
		yes = a != b
	case 0x60:
		yes = sa > sb
	case 0x70:
		yes = sa >= sb
	case 0xa0:
		yes = a < b
	case 0xb0:
		yes = a <= b
	case 0xc0:
		yes = sa < sb
	case 0xd0:
		yes = sa <= sb
	default:
		return true, true
	}
	return yes, !yes
}

// dropDead removes constants in registers that nothing reads.
func dropDead(insns []insn) {
	out := make([]uint16, len(insns)) // registers read behind
	for changed := true; changed; {
		changed = false
		for i := len(insns) - 1; i >= 0; i-- {
			in := &insns[i]
			if !in.live {
				continue
			}
			need := uint16(0)
			if in.op != classJMP|opExit && !(in.isJump() && in.op&0xf0 == opJA) && i+1 < len(insns) {
				need |= insns[i+1].reads(out[i+1])
			}
			if in.isJump() {
				need |= insns[in.target].reads(out[in.target])
			}
			if need != out[i] {
				out[i], changed = need, true
			}
		}
	}
	for i := range insns {
		if in := &insns[i]; in.live && in.isConstant() && out[i]&(1<<in.dst) == 0 {
			in.live = false
		}
	}
}

// isConstant reports whether an instruction does nothing but to put a number
// into a register.
func (in *insn) isConstant() bool {
	return in.wide && in.src == 0 || in.op == classALU64|opMov || in.op == classALU|opMov
}

// reads returns the registers that are read from an instruction on, given those
// read behind it. A jump that was removed reads what is behind it.
func (in *insn) reads(out uint16) uint16 {
	if !in.live {
		return out
	}
	dst, src := uint16(1)<<in.dst, uint16(1)<<in.src
	switch in.op & classMask {
	case classLD:
		if in.wide {
			return out &^ dst
		}
		return 1<<(frameReg+1) - 1
	case classLDX:
		return out&^dst | src
	case classSTX:
		return out | dst | src | 1
	case classALU, classALU64:
		if in.op&0xf0 == opMov {
			out &^= dst
		} else {
			out |= dst
		}
		if in.op&srcReg != 0 {
			out |= src
		}
		return out
	case classJMP, classJMP32:
		switch {
		case in.op == classJMP|opExit:
			return 1
		case in.op&0xf0 == opCall && in.op&classMask == classJMP:
			return out&^0x3f | 0x3e
		case in.op&0xf0 == opJA:
			return out
		}
		out |= dst
		if in.op&srcReg != 0 {
			out |= src
		}
		return out
	}
	return out | dst // ST
}

// encodeInsns writes what is left.
func encodeInsns(insns []insn) []byte {
	// A jump to the next instruction that is left is none.
	next := make([]int, len(insns)+1)
	for again := true; again; {
		again = false
		next[len(insns)] = len(insns)
		for i := len(insns) - 1; i >= 0; i-- {
			next[i] = next[i+1]
			if insns[i].live {
				next[i] = i
			}
		}
		for i := range insns {
			in := &insns[i]
			if in.live && in.isJump() && in.op&0xf0 == opJA && next[in.target] == next[i+1] {
				in.live, again = false, true
			}
		}
	}
	at := make([]int, len(insns)+1)
	n := 0
	for i := range insns {
		at[i] = n
		if insns[i].live {
			n++
			if insns[i].wide {
				n++
			}
		}
	}
	at[len(insns)] = n
	out := make([]byte, 0, 8*n)
	le := binary.LittleEndian
	for i := range insns {
		in := &insns[i]
		if !in.live {
			continue
		}
		off, imm := in.off, uint32(in.imm)
		switch {
		case in.isJump():
			off = int16(at[in.target] - at[i] - 1)
		case in.isCall():
			imm = uint32(at[in.target] - at[i] - 1)
		}
		out = le.AppendUint16(append(out, in.op, in.dst|in.src<<4), uint16(off))
		out = le.AppendUint32(out, imm)
		if in.wide {
			out = le.AppendUint32(append(out, 0, 0, 0, 0), uint32(in.imm>>32))
		}
	}
	return out
}
