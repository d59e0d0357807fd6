package unwind

import (
	"math"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/x86"
)

// step changes what is known to what holds behind an instruction of the
// function at entry.
func (st *state) step(in *x86.Inst, entry uint64) {
	sp := st.get(x86asm.RSP)
	switch in.Op {
	case x86.PUSH, x86.PUSHF:
		st.push(in)
	case x86.POP:
		st.pop(in)
	case x86.POPF:
		st.move(sp.plus(8))
	case x86.LEAVE:
		st.set(x86asm.RSP, st.get(x86asm.RBP))
		st.popTo(x86asm.RBP)
	case x86.MOV:
		st.mov(in, entry)
	case x86.LEA:
		st.lea(in)
	case x86.ADD, x86.SUB, x86.AND:
		st.arithmetic(in, entry)
	case x86.CMP, x86.TEST:
	case x86.ENTER, x86.VMLAUNCH, x86.VMRESUME, x86.VMRUN, x86.TDCALL, x86.SEAMCALL:
		st.forget()
	case x86.CPUID:
		st.set(x86asm.RBX, value{})
	default:
		if f := in.Flow(); f == x86.FlowCall || f == x86.FlowIndirectCall {
			st.call()
			return
		}
		st.other(in)
	}
	// What is below the stack pointer is lost to the next interrupt. (The kernel
	// has no red zone.)
	if now := st.get(x86asm.RSP); now.isAddr() && now != sp {
		st.drop(now.of, math.MinInt64, now.n)
	}
}

func isReg(a x86.Arg) bool { return a.Kind == x86.KindReg && general(a.Reg) }

// address returns the place a memory operand means, as far as it is on the stack.
func (st *state) address(in *x86.Inst, a x86.Arg) value {
	m := in.Mem(a)
	v := st.get(m.Base)
	if a.Kind != x86.KindMem || m.Index != 0 || m.Addr32 || m.Seg == x86asm.FS || m.Seg == x86asm.GS || !v.isAddr() {
		return value{}
	}
	return v.plus(m.Disp)
}

// move sets the stack pointer to what may be unknown.
func (st *state) move(sp value) {
	if !sp.isAddr() {
		st.forget()
		return
	}
	st.set(x86asm.RSP, sp)
}

func (st *state) push(in *x86.Inst) {
	sp := st.get(x86asm.RSP)
	if !sp.isAddr() || in.OperandSize() != 8 {
		st.forget()
		return
	}
	var v value
	if in.Op == x86.PUSH && isReg(in.Args[0]) {
		v = st.get(in.Args[0].Reg)
	}
	sp = sp.plus(-8)
	st.set(x86asm.RSP, sp)
	st.store(sp, 8, v)
}

func (st *state) pop(in *x86.Inst) {
	switch a := in.Args[0]; {
	case in.OperandSize() != 8:
		st.forget()
	case isReg(a):
		st.popTo(a.Reg)
	default:
		st.move(st.get(x86asm.RSP).plus(8))
		st.store(st.address(in, a), 8, value{})
	}
}

func (st *state) popTo(r x86.Reg) {
	sp := st.get(x86asm.RSP)
	if !sp.isAddr() {
		st.forget()
		return
	}
	v := st.load(sp)
	st.set(x86asm.RSP, sp.plus(8))
	if r == x86asm.RSP {
		st.move(v)
		return
	}
	st.set(r, v)
}

func (st *state) mov(in *x86.Inst, entry uint64) {
	to, from := in.Args[0], in.Args[1]
	var v value
	if isReg(from) {
		v = st.get(from.Reg)
	}
	switch {
	case to.Kind == x86.KindMem:
		addr := st.address(in, to)
		if v.isAddr() { // of a local variable, of which there are many
			st.store(addr, int64(to.Size), value{})
		} else {
			st.store(addr, int64(to.Size), v)
		}
		if m := in.Mem(to); v.isAddr() && !addr.isAddr() && m.Index == 0 && m.Disp == 0 && m.Seg == 0 {
			st.noted.reg, st.noted.v = m.Base, v
		}
	case !isReg(to):
		st.other(in)
	case from.Kind == x86.KindMem:
		v = st.load(st.address(in, from))
		if to.Reg == x86asm.RSP {
			st.move(v)
			return
		}
		st.set(to.Reg, v)
	case to.Reg == x86asm.RSP && isReg(from) && !v.isAddr():
		st.leave(in, entry, from.Reg)
	case isReg(from):
		st.set(to.Reg, v)
	default:
		st.other(in)
	}
}

// leave leaves the stack for another, which a register points at.
func (st *state) leave(in *x86.Inst, entry uint64, to x86.Reg) {
	sp := st.base(in, entry)
	if st.noted.reg == to {
		st.store(sp, 8, st.noted.v)
	}
	st.set(x86asm.RSP, sp)
	st.set(to, sp)
}

// base returns a new base for addresses: what the instruction gives.
func (st *state) base(in *x86.Inst, entry uint64) value {
	v := value{fromHere + origin(int32(in.Addr-entry)&math.MaxInt32>>1), 0}
	// What is left of the last time round.
	st.cells = slices.DeleteFunc(st.cells, func(c cell) bool { return c.base == v.of || c.v.of == v.of })
	for i := range st.reg {
		if st.reg[i].of == v.of {
			st.reg[i] = value{}
		}
	}
	return v
}

func (st *state) lea(in *x86.Inst) {
	v := st.address(in, in.Args[1])
	switch to := in.Args[0]; {
	case !isReg(to):
		st.other(in)
	case to.Reg == x86asm.RSP:
		st.move(v)
	default:
		st.set(to.Reg, v)
	}
}

func (st *state) arithmetic(in *x86.Inst, entry uint64) {
	to, n := in.Args[0], in.Args[1]
	v := st.get(to.Reg)
	switch {
	case !isReg(to) || !v.isAddr():
		st.other(in)
	case in.Op == x86.ADD && n.Kind == x86.KindImm:
		st.set(to.Reg, v.plus(n.Val))
	case in.Op == x86.SUB && n.Kind == x86.KindImm:
		st.set(to.Reg, v.plus(-n.Val))
	case to.Reg == x86asm.RSP && in.Op != x86.ADD: // aligned, or made room of some size
		st.set(to.Reg, st.base(in, entry))
	default:
		st.other(in)
	}
}

// call is for a called function, which may change what need not be kept.
func (st *state) call() {
	for _, r := range []x86.Reg{
		x86asm.RAX, x86asm.RCX, x86asm.RDX, x86asm.RSI, x86asm.RDI, x86asm.R8, x86asm.R9, x86asm.R10, x86asm.R11,
	} {
		st.set(r, value{})
	}
}

// other is for instructions that do nothing but write their operands, and
// registers that are not followed.
func (st *state) other(in *x86.Inst) {
	for _, a := range in.Args[:in.NArgs] {
		if a.Access&x86.Write == 0 {
			continue
		}
		switch full := x86.Full(a.Reg); {
		case a.Kind == x86.KindMem:
			const most = 512 // of what has no fixed size: fxsave
			size := int64(a.Size)
			if size == 0 {
				size = most
			}
			st.store(st.address(in, a), size, value{})
		case a.Kind == x86.KindReg && full == x86asm.RSP:
			st.forget()
		case a.Kind == x86.KindReg:
			st.set(full, value{})
		}
	}
	// Implicit operands are rax, rcx, rdx, rsi and rdi.
	for _, r := range []x86.Reg{x86asm.RAX, x86asm.RCX, x86asm.RDX, x86asm.RSI, x86asm.RDI, x86asm.R11} {
		st.set(r, value{})
	}
}
