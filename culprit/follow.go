package culprit

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// An overwrite is a register's copy in memory that was written before it was
// loaded again.
type overwrite struct {
	reg             string
	cell            uint64
	saved, restored emulate.Event
	store           emulate.Event
	first, len      int // bytes of the cell that the store wrote
}

// overwritten follows the registers that a fault at rip depends on back through
// the places in which they were saved.
func overwritten(m *emulate.Machine, rip uint64) (overwrite, bool) {
	if _, err := mem.U8(m.Mem, rip); err != nil { // no code is there: something led there
		for ev := range m.History().Backward(m.Step) {
			if ev.Stub != nil || ev.Inst.Op != x86.RET {
				return overwrite{}, false
			}
			if o, ok := follow(m, ev); ok {
				o.reg = "rip"
				return o, true
			}
			return register(m, emulate.RSP) // it returned from a wrong place
		}
	}
	in, err := x86.DecodeAt(m.Mem, rip)
	if err != nil {
		return overwrite{}, false
	}
	for _, r := range addressed(&in) {
		if o, ok := register(m, r); ok {
			return o, true
		}
	}
	return overwrite{}, false
}

// addressed returns the numbers of the registers by which an instruction
// addresses memory, those of its operands first.
func addressed(in *x86.Inst) (out []int) {
	if a, _, _, ok := in.MemOperand(); ok {
		for _, r := range a.Regs() {
			if n, ok := emulate.RegNumber(r); ok {
				out = append(out, n)
			}
		}
	}
	if in.Op == x86.LEAVE {
		return []int{emulate.RBP}
	}
	return append(out, emulate.RSP) // of push, pop, ret and the like
}

// register follows a register, as it is at the end of a run.
func register(m *emulate.Machine, n int) (overwrite, bool) {
	before := m.Step
	if n == emulate.RSP {
		// leave takes it from rbp, and what pops behind it does not change
		// where it is from.
		for ev := range m.History().Backward(before) {
			if ev.Stub != nil || ev.Inst.Op != x86.LEAVE && ev.Inst.Op != x86.POP && ev.Inst.Op != x86.RET {
				return overwrite{}, false
			}
			if ev.Inst.Op == x86.LEAVE {
				before, n = ev.Step, emulate.RBP
				break
			}
		}
	}
	ev, ok := writerOf(m.History(), before, n)
	if !ok {
		return overwrite{}, false
	}
	o, ok := follow(m, ev)
	o.reg = emulate.RegNames[n]
	return o, ok
}

// writerOf returns the last instruction that wrote a register.
func writerOf(h *emulate.History, before uint64, reg int) (emulate.Event, bool) {
	want := emulate.LocsReg(reg, 8)
	ev, ok := h.Writer(before, &want)
	return ev, ok && ev.Stub == nil
}

// cellWriter returns the last event that wrote any of the eight bytes at addr.
func cellWriter(h *emulate.History, before, addr uint64) (emulate.Event, bool) {
	want := emulate.LocsMem(addr, 8)
	return h.Writer(before, &want)
}

// maxCopies bounds how many times one value is followed.
const maxCopies = 256

// follow goes back from an instruction that set a register, through copies,
// until it comes to one that restored a register, or returned, from a cell that was written by
// something else than what saved it there.
func follow(m *emulate.Machine, ev emulate.Event) (overwrite, bool) {
	h := m.History()
	for range maxCopies {
		src, ok := copied(ev)
		if !ok {
			return overwrite{}, false
		}
		if src.Kind == x86.KindMem {
			cell := ev.Reads[0]
			w, ok := cellWriter(h, ev.Step, cell.Addr)
			switch {
			case !ok || cell.N != 8 || w.Stub != nil:
				return overwrite{}, false
			case !saves(w, ev, cell.Addr):
				return split(h, ev, w, cell.Addr)
			case w.Inst.Op == x86.CALL:
				return overwrite{}, false
			}
			ev, src = w, w.Inst.Args[w.Inst.NArgs-1]
		}
		n, ok := emulate.RegNumber(src.Reg)
		if src.Kind != x86.KindReg || !ok {
			return overwrite{}, false
		}
		if ev, ok = writerOf(h, ev.Step, n); !ok {
			return overwrite{}, false
		}
	}
	return overwrite{}, false
}

// copied returns what an instruction copied all of a register from: another
// register, or memory.
func copied(ev emulate.Event) (x86.Arg, bool) {
	in := ev.Inst
	switch in.Op {
	case x86.POP, x86.LEAVE, x86.RET:
		return x86.Arg{Kind: x86.KindMem}, len(ev.Reads) > 0
	case x86.MOV:
		return in.Args[1], in.OperandSize() == 8
	}
	return x86.Arg{}, false
}

// saves says whether w put a whole register into the cell that load took it
// from, in the way that fits that instruction.
func saves(w, load emulate.Event, cell uint64) bool {
	if w.Stub != nil || len(w.Writes) == 0 || w.Writes[len(w.Writes)-1] != (emulate.Access{Addr: cell, N: 8}) {
		return false
	}
	op := w.Inst.Op
	switch load.Inst.Op {
	case x86.RET:
		// An indirect jump through a thunk puts where it goes to in the place of a
		// return address, and returns to it.
		return op == x86.CALL || op == x86.PUSH || op == x86.MOV && load.Step == w.Step+1
	case x86.POP, x86.LEAVE:
		return op == x86.PUSH
	}
	return op == x86.MOV || op == x86.PUSH
}

// split tells a store into a cell from what saved the register there. Only a
// register that functions keep for their callers is saved to be restored; other
// loads of what was written in parts are everyday's work, and so are pops of what
// was pushed to make room.
func split(h *emulate.History, load, store emulate.Event, cell uint64) (overwrite, bool) {
	if store.Stub != nil || len(store.Writes) == 0 || !restores(load) {
		return overwrite{}, false
	}
	o := overwrite{cell: cell, restored: load, store: store}
	for before := store.Step; ; {
		w, ok := cellWriter(h, before, cell)
		if !ok {
			return overwrite{}, false
		}
		if saves(w, load, cell) && sameRegister(w, load) {
			o.saved = w
			break
		}
		before = w.Step
	}
	w := store.Writes[len(store.Writes)-1]
	from, to := max(w.Addr, cell), min(w.Addr+uint64(w.N), cell+8)
	o.first, o.len = int(from-cell), int(to-from)
	return o, o.len > 0
}

// restores says whether an instruction restores a callee-saved register, or
// returns.
func restores(load emulate.Event) bool {
	switch load.Inst.Op {
	case x86.RET, x86.LEAVE:
		return true
	case x86.POP:
		for _, r := range calleeSaved {
			if load.Inst.Args[0].Reg == r {
				return true
			}
		}
	}
	return false
}

// sameRegister says whether what was saved is what is restored.
func sameRegister(save, load emulate.Event) bool {
	switch load.Inst.Op {
	case x86.RET:
		return save.Inst.Op == x86.CALL
	case x86.LEAVE:
		return save.Inst.Args[0].Reg == x86asm.RBP
	}
	return save.Inst.Args[0].Reg == load.Inst.Args[0].Reg
}
