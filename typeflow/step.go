package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/x86"
)

// A handler follows an instruction.
type handler func(f *Flow, in *x86.Inst)

// handlers are the instructions that are followed. Of others it is known that
// they write their operands, and no more.
var handlers = withConditions(map[x86.Op]handler{
	x86.MOV: doMove, x86.MOVZX: doMove,
	x86.MOVSX: doExtend, x86.MOVSXD: doExtend,
	x86.CDQE: doCDQE,
	x86.LEA:  doLea,
	x86.PUSH: doPush, x86.POP: doPop, x86.LEAVE: doLeave,
	x86.ADD: doArith, x86.SUB: doArith, x86.AND: doArith, x86.OR: doArith, x86.XOR: doArith,
	x86.SHL: doArith, x86.SHR: doArith, x86.SAR: doArith,
	x86.IMUL: doMul,
	x86.INC:  doIncDec, x86.DEC: doIncDec,
	x86.NEG: doUnary, x86.NOT: doUnary,
	x86.CMP: doCompare, x86.TEST: doCompare, x86.BT: doBitTest,
	x86.XCHG: doExchange, x86.CMPXCHG: doCompareExchange, x86.XADD: doExchangeAdd,
	x86.SBB:  doSubBorrow,
	x86.CALL: doCall, x86.RET: doNothing, x86.JMP: doNothing,
	x86.NOP: doNothing, x86.ENDBR64: doNothing, x86.CLI: doNothing, x86.STI: doNothing,
	x86.STAC: doNothing, x86.CLAC: doNothing, x86.LFENCE: doNothing, x86.MFENCE: doNothing,
	x86.SFENCE: doNothing, x86.PAUSE: doNothing, x86.PUSHF: doPushFlags, x86.POPF: doFlags,
})

func withConditions(t map[x86.Op]handler) map[x86.Op]handler {
	for _, op := range []x86.Op{
		x86.JO, x86.JNO, x86.JB, x86.JAE, x86.JE, x86.JNE, x86.JBE, x86.JA,
		x86.JS, x86.JNS, x86.JP, x86.JNP, x86.JL, x86.JGE, x86.JLE, x86.JG,
	} {
		t[op] = doJump
	}
	for _, op := range []x86.Op{
		x86.SETO, x86.SETNO, x86.SETB, x86.SETAE, x86.SETE, x86.SETNE, x86.SETBE, x86.SETA,
		x86.SETS, x86.SETNS, x86.SETP, x86.SETNP, x86.SETL, x86.SETGE, x86.SETLE, x86.SETG,
	} {
		t[op] = doSet
	}
	for _, op := range []x86.Op{
		x86.CMOVO, x86.CMOVNO, x86.CMOVB, x86.CMOVAE, x86.CMOVE, x86.CMOVNE, x86.CMOVBE, x86.CMOVA,
		x86.CMOVS, x86.CMOVNS, x86.CMOVP, x86.CMOVNP, x86.CMOVL, x86.CMOVGE, x86.CMOVLE, x86.CMOVG,
	} {
		t[op] = doMoveIf
	}
	return t
}

func (f *Flow) step() {
	if h := handlers[f.in.Op]; h != nil {
		h(f, f.in)
		return
	}
	f.other()
}

// other is any instruction that is not followed.
func (f *Flow) other() {
	f.flags = flags{}
	e := f.in.Effects()
	w := e.Writes()
	for r, m := range w.GP {
		if m != 0 {
			f.forgetReg(r)
		}
	}
	for i := range f.in.Args[:f.in.NArgs] {
		a := &f.in.Args[i]
		if a.Access&x86.Write == 0 {
			continue
		}
		switch a.Kind {
		case x86.KindReg:
			if r, ok := emulate.RegNumber(a.Reg); ok {
				f.forgetReg(r)
			}
		case x86.KindMem:
			n := uint64(max(a.Size, 1))
			if f.in.Prefix&(x86.Rep|x86.Repne) != 0 {
				n *= min(f.m.GP[emulate.RCX], 1<<20)
			}
			f.clobber(f.m.EA(f.in, *a), n)
			if n <= 8 {
				p := f.place(a)
				f.storing, f.storeStep = &p, f.m.Step
			}
		}
	}
}

// arg returns what an operand holds; of memory, a load.
func (f *Flow) arg(i int) Value {
	a := &f.in.Args[i]
	switch a.Kind {
	case x86.KindReg:
		r, ok := emulate.RegNumber(a.Reg)
		if !ok {
			return Value{}
		}
		if high(a) {
			v := f.use(r, 8)
			if v.Expr != nil {
				v.Expr = castExpr(unsigned(1), binop(">>", pointerExpr(v), constExpr(8)))
			}
			return Value{Expr: v.Expr, Type: unsigned(1), Val: v.Val >> 8 & 0xff, Size: 1, Step: v.Step}
		}
		return f.use(r, uint8(min(a.Size, 8)))
	case x86.KindImm:
		size := uint8(min(a.Size, 8))
		if i > 0 && f.in.Args[0].Kind != x86.KindImm {
			size = uint8(min(f.in.Args[0].Size, 8))
		}
		return constant(uint64(a.Val), size)
	case x86.KindMem:
		p := f.place(a)
		return f.load(p)
	}
	return Value{}
}

func (f *Flow) load(p place) Value {
	v := f.loadFrom(p)
	if _, ok := f.read(p.addr, p.size); ok && p.size > 0 { // else it faults
		f.emit(Event{Kind: Load, Value: v, Place: p.expr, Addr: p.addr, Size: p.size, Stack: p.stack})
	}
	return v
}

// high says whether an operand is ah, ch, dh or bh.
func high(a *x86.Arg) bool {
	return a.Size == 1 && len(a.Reg.String()) == 2 && a.Reg.String()[1] == 'H'
}

// write notes that an operand is written with v.
func (f *Flow) write(i int, v Value) {
	a := &f.in.Args[i]
	v.Size = uint8(min(a.Size, 8))
	switch a.Kind {
	case x86.KindReg:
		r, ok := emulate.RegNumber(a.Reg)
		switch {
		case !ok:
		case high(a):
			f.setReg(r, Value{Size: 8, Step: f.m.Step})
		default:
			f.setReg(r, v)
		}
	case x86.KindMem:
		f.storeTo(f.place(a), v)
	}
}

func doNothing(*Flow, *x86.Inst) {}

func doFlags(f *Flow, _ *x86.Inst) { f.flags = flags{} }

func doPushFlags(f *Flow, _ *x86.Inst) { f.clobber(f.m.GP[emulate.RSP]-8, 8) }

func doMove(f *Flow, in *x86.Inst) { f.write(0, f.arg(1)) }

// doExtend follows a move that extends the sign: the value is the same number.
func doExtend(f *Flow, in *x86.Inst) {
	v := f.arg(1)
	to := uint8(min(in.Args[0].Size, 8))
	f.write(0, extended(v, to))
}

// extended returns v with its sign extended.
func extended(v Value, to uint8) Value {
	if v.Size == 0 || v.Size >= to {
		return v
	}
	negative := v.Val>>(8*v.Size-1)&1 != 0
	switch {
	case v.IsConst():
		return constant(sext(v.Val, v.Size), to)
	case !negative, v.Expr == nil:
	case v.Type == nil || !v.Type.IsSigned():
		v.Expr = castExpr(signed(v.Size), v.Expr)
		v.Type = signed(v.Size)
	}
	v.Val = sext(v.Val, v.Size) & mask(to)
	v.Size = to
	return v
}

func signed(size uint8) *ctype.Type {
	switch size {
	case 1:
		return ctype.Builtin("s8")
	case 2:
		return ctype.Builtin("s16")
	case 4:
		return ctype.Builtin("s32")
	}
	return ctype.Builtin("s64")
}

func doCDQE(f *Flow, _ *x86.Inst) {
	f.setReg(emulate.RAX, extended(f.use(emulate.RAX, 4), 8))
}

func doLea(f *Flow, in *x86.Inst) {
	a := &in.Args[1]
	size := uint8(in.Args[0].Size)
	base, bok := emulate.RegNumber(a.Reg)
	indexReg, iok := emulate.RegNumber(a.Index)
	v := constant(uint64(a.Val), 8)
	switch {
	case !bok && !iok: // an address of the code's own
		v = constant(f.m.EA(in, *a), 8)
	case bok && base == emulate.RSP:
		v = Value{}
	default:
		disp := v
		v = Value{}
		if bok {
			v = f.use(base, 8)
		}
		if iok {
			i := f.use(indexReg, 8)
			if a.Scale > 1 {
				i = f.arith("*", i, constant(uint64(a.Scale), 8), 8)
			}
			if bok {
				v = f.arith("+", v, i, 8)
			} else {
				v = i
			}
		}
		if a.Val != 0 {
			v = f.arith("+", v, disp, 8)
		}
	}
	if size < 8 {
		v.Size, v.Val = 8, f.m.EA(in, *a)
		v = v.low(size)
	}
	v.Step = f.m.Step
	f.write(0, v)
}

func doPush(f *Flow, in *x86.Inst) {
	v := f.arg(0)
	v.Val = sext(v.Val, v.Size)
	v.Size = 8
	f.storeTo(place{addr: f.m.GP[emulate.RSP] - 8, size: 8, stack: true}, v)
}

func doPop(f *Flow, in *x86.Inst) {
	f.write(0, f.loadFrom(place{addr: f.m.GP[emulate.RSP], size: 8, stack: true}))
}

func doLeave(f *Flow, _ *x86.Inst) {
	f.setReg(emulate.RSP, Value{Size: 8})
	f.setReg(emulate.RBP, f.loadFrom(place{addr: f.m.GP[emulate.RBP], size: 8, stack: true}))
}

func doMul(f *Flow, in *x86.Inst) {
	f.flags = flags{}
	size := uint8(min(in.Args[0].Size, 8))
	switch in.NArgs {
	case 2:
		f.write(0, f.arith("*", f.arg(0), f.arg(1), size))
	case 3:
		f.write(0, f.arith("*", f.arg(1), f.arg(2), size))
	default:
		f.setReg(emulate.RAX, Value{Size: 8})
		f.setReg(emulate.RDX, Value{Size: 8})
	}
}

func doIncDec(f *Flow, in *x86.Inst) {
	op := "+"
	if in.Op == x86.DEC {
		op = "-"
	}
	size := uint8(min(in.Args[0].Size, 8))
	v := f.arith(op, f.arg(0), constant(1, size), size)
	f.flags = flags{kind: flagsResult, result: v, size: size}
	f.write(0, v)
}

func doUnary(f *Flow, in *x86.Inst) {
	size := uint8(min(in.Args[0].Size, 8))
	a := f.arg(0)
	v := Value{Size: size, Step: f.m.Step, Type: a.Type}
	name := "~"
	v.Val = ^a.Val & mask(size)
	if in.Op == x86.NEG {
		name, v.Val = "-", -a.Val&mask(size)
		f.flags = flags{kind: flagsResult, result: v, size: size}
	}
	if x := pointerExpr(a); x != nil {
		v.Expr = newExpr(Expr{Op: OpUnary, Name: name, X: x})
		if a.IsConst() {
			v = constant(v.Val, size)
		}
	}
	if a.isPointer() {
		v.Type = unsigned(size)
	}
	v.Type = f.promoted(v.Type, v.Val, size)
	if in.Op == x86.NEG {
		f.flags.result = v
	}
	f.write(0, v)
}

func doExchange(f *Flow, in *x86.Inst) {
	a, b := f.arg(0), f.arg(1)
	f.write(0, b)
	f.write(1, a)
}

func doCompareExchange(f *Flow, in *x86.Inst) {
	size := uint8(min(in.Args[0].Size, 8))
	was, want := f.arg(0), f.use(emulate.RAX, size)
	f.flags = flags{kind: flagsCompare, left: was, right: want, size: size}
	if was.Val == want.Val {
		f.write(0, f.arg(1))
	} else {
		f.setReg(emulate.RAX, was)
	}
}

func doExchangeAdd(f *Flow, in *x86.Inst) {
	size := uint8(min(in.Args[0].Size, 8))
	a, b := f.arg(0), f.arg(1)
	v := f.arith("+", a, b, size)
	f.flags = flags{kind: flagsSum, left: a, right: b, result: v, size: size}
	f.write(0, v)
	f.write(1, a)
}

// doSubBorrow follows sbb r,r, which makes -1 or 0 of the carry.
func doSubBorrow(f *Flow, in *x86.Inst) {
	size := uint8(min(in.Args[0].Size, 8))
	v := Value{Size: size, Step: f.m.Step}
	if in.Args[0].Kind == x86.KindReg && in.Args[1].Kind == x86.KindReg && in.Args[0].Reg == in.Args[1].Reg {
		if c, ok := f.condition(2); ok {
			if x := condExpr(c); x != nil {
				v.Expr = newExpr(Expr{Op: OpUnary, Name: "-", X: x})
			}
			v.Type = signed(size)
			if c.Held {
				v.Val = mask(size)
			}
		}
	}
	f.flags = flags{}
	f.write(0, v)
}

func doCall(f *Flow, in *x86.Inst) {
	if in.Args[0].Kind == x86.KindMem {
		f.arg(0)
	}
}
