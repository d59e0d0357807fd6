package emulate

import (
	"fmt"

	"github.com/ksleuth/ksleuth/x86"
)

// An exec carries out an instruction.
type exec = func(m *Machine, u *uop) bool

// An opRow says how an operation is carried out, and which memory it accesses
// without an operand saying so.
type opRow struct {
	exec exec
	acc  accesses // besides those of the operands
}

// ops are the operations that are executed.
var ops = joinOps(moveOps, arithmeticOps, shiftOps, bitOps, stringOps, flowOps, systemOps, vectorOps)

func joinOps(tables ...map[x86.Op]opRow) map[x86.Op]opRow {
	all := map[x86.Op]opRow{}
	for _, t := range tables {
		for op, row := range t {
			all[op] = row
		}
	}
	return all
}

// same returns a table of operations with one exec.
func same(e exec, of ...x86.Op) map[x86.Op]opRow {
	t := map[x86.Op]opRow{}
	for _, op := range of {
		t[op] = opRow{exec: e}
	}
	return t
}

// idle returns a table of operations that do nothing.
func idle(of ...x86.Op) map[x86.Op]opRow { return same(execNop, of...) }

// choose gives u its exec.
func choose(u *uop, in *x86.Inst) {
	row, ok := ops[in.Op]
	if !ok {
		u.exec, u.ends = execUnsupported, true
		return
	}
	u.exec = row.exec
	u.acc |= row.acc
	if in.Prefix&x86.Lock != 0 && u.dstKind != kMem {
		u.exec, u.ends = trap(InvalidOpcode, "invalid opcode"), true
		return
	}
	u.cc |= repetition(in)
	switch in.Op {
	case x86.LEA:
		u.seg = segNone
	case x86.ENTER:
		u.imm = uint64(in.Args[0].Val)&0xffff | uint64(in.Args[1].Val)&31<<16
	case x86.RDTSC, x86.RDTSCP:
		u.begins = true
	}
	system(u, in)
	if !u.ends {
		specialise(u, in)
	}
}

// repetition returns which prefix repeats a string instruction.
func repetition(in *x86.Inst) uint8 {
	switch _, is := stringOps[in.Op]; {
	case is && in.Prefix&x86.Rep != 0:
		return repEqual
	case is && in.Prefix&x86.Repne != 0:
		return repNotEqual
	}
	return repNone
}

// execUnsupported is for what is not executed here.
func execUnsupported(m *Machine, u *uop) bool { return m.cannot(u, why(m.insts[u.id].Op)) }

func (m *Machine) cannot(u *uop, why string) bool {
	m.stop = &Stop{Outcome: Unsupported, Err: &UnsupportedError{Inst: &m.insts[u.id], Why: why}}
	return false
}

// misaligned raises the exception for an address that an instruction wants to be aligned.
func (m *Machine) misaligned(addr uint64) bool {
	return m.raise(&Exception{Vector: GeneralProtect, Addr: addr, Err: fmt.Errorf("address %#x is not aligned to 16 bytes", addr)})
}
