package unwind

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/x86"
)

// A depth says how far the stack pointer stands below the function's return
// address at some instruction, and whether the caller's frame pointer has been
// saved, and the function's own set, by then.
type depth struct {
	bytes   int64 // the return address is at rsp + bytes
	saved   bool  // the caller's rbp is at the canonical frame address - 16 - slot
	slot    int64
	framed  bool // rbp holds the canonical frame address - 16
	visited bool
	lost    bool // rsp was loaded with what is not known
}

// cfa returns the canonical frame address: the stack pointer before the call.
func (d depth) cfa(sp uint64) uint64 { return sp + uint64(d.bytes) + 8 }

const maxFunction = 1 << 20 // bytes of code followed; a BPF program has at most 1M instructions

// depths follows the control flow of the function whose code is given from its
// entry and returns the depth before each instruction, by offset. Offsets that
// control flow does not reach from the entry are not visited.
//
// BPF programs and trampolines keep frame pointers, but a frame pointer is
// memory that a bug can overwrite; the code that moved the stack pointer is
// not. The JIT (arch/x86/net/bpf_jit_comp.c) moves it by constants alone.
func depths(code []byte, entry uint64) []depth {
	code = code[:min(len(code), maxFunction)]
	at := make([]depth, len(code))
	type edge struct {
		off int
		d   depth
	}
	work := []edge{{0, depth{visited: true}}}
	for len(work) > 0 {
		e := work[len(work)-1]
		work = work[:len(work)-1]
		for d, off := e.d, e.off; off >= 0 && off < len(code) && !at[off].visited; {
			at[off] = d
			in, err := x86.Decode(code[off:], entry+uint64(off))
			if err != nil {
				break
			}
			d = d.after(&in)
			target, _ := in.Target()
			next := off + in.Len
			switch in.Flow() {
			case x86.FlowJump:
				next = int(int64(target - entry))
			case x86.FlowCondJump:
				work = append(work, edge{int(int64(target - entry)), d})
			case x86.FlowRet, x86.FlowTrap, x86.FlowIndirectJump:
				next = -1
			}
			off = next
		}
	}
	return at
}

// after returns the depth behind an instruction.
func (d depth) after(in *x86.Inst) depth {
	reg := func(i int, r x86.Reg) bool { return in.Args[i].Kind == x86.KindReg && in.Args[i].Reg == r }
	switch in.Op {
	case x86.PUSH:
		if !d.saved && reg(0, x86asm.RBP) {
			d.saved, d.slot = true, d.bytes
		}
		d.bytes += 8
	case x86.PUSHF:
		d.bytes += 8
	case x86.POP:
		d.bytes -= 8
		if reg(0, x86asm.RBP) {
			d.saved, d.framed = false, false
		}
		d.lost = d.lost || reg(0, x86asm.RSP)
	case x86.POPF:
		d.bytes -= 8
	case x86.SUB:
		if reg(0, x86asm.RSP) {
			d.bytes += in.Args[1].Val
		}
	case x86.ADD:
		if reg(0, x86asm.RSP) {
			d.bytes -= in.Args[1].Val
		}
	case x86.MOV:
		if reg(0, x86asm.RBP) && reg(1, x86asm.RSP) {
			d.framed = d.saved && d.slot == 0 && d.bytes == 8
		}
		d.lost = d.lost || reg(0, x86asm.RSP)
	case x86.LEAVE:
		d.lost = !d.framed
		d.bytes, d.saved, d.framed = 0, false, false
	case x86.LEA, x86.AND, x86.XCHG, x86.ENTER:
		d.lost = d.lost || reg(0, x86asm.RSP) || reg(1, x86asm.RSP) || in.Op == x86.ENTER
	}
	return d
}

// depthAt returns the depth at offset pc. For a return address (not exact) it
// is the depth before the call in front of it, which is the same as behind it,
// but is also known where the call is the last instruction reached.
func depthAt(code []byte, entry uint64, pc int, exact bool) depth {
	at := depths(code, entry)
	if exact {
		if pc < 0 || pc >= len(at) {
			return depth{}
		}
		return at[pc]
	}
	for back := 0; back < 15 && pc-back >= 0; back++ {
		if p := pc - back; p < len(at) && at[p].visited {
			return at[p]
		}
	}
	return depth{}
}
