package typeflow

import (
	"math/bits"

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
	for i := range f.in.Args[:f.in.NArgs] {
		a := &f.in.Args[i]
		if a.Access&x86.Write == 0 {
			continue
		}
		switch a.Kind {
		case x86.KindReg:
			if r, ok := emulate.RegNumber(a.Reg); ok {
				f.setReg(r, Value{Size: 8, Step: f.m.Step})
			}
		case x86.KindMem:
			n := uint64(max(a.Size, 1))
			if f.in.Prefix&(x86.Rep|x86.Repne) != 0 {
				n *= min(f.m.GP[emulate.RCX], 1<<20)
			}
			f.clobber(f.m.EA(f.in, *a), n)
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

// operators are the instructions with two operands that make a third.
var operators = map[x86.Op]string{
	x86.ADD: "+", x86.SUB: "-", x86.AND: "&", x86.OR: "|", x86.XOR: "^",
	x86.SHL: "<<", x86.SHR: ">>", x86.SAR: ">>", x86.IMUL: "*",
}

func doArith(f *Flow, in *x86.Inst) {
	size := uint8(min(in.Args[0].Size, 8))
	a, b := f.arg(0), Value{}
	switch {
	case in.NArgs == 1:
		b = constant(1, size)
	case in.Args[1].Kind == x86.KindReg && in.Args[0].Kind == x86.KindReg && in.Args[0].Reg == in.Args[1].Reg &&
		(in.Op == x86.XOR || in.Op == x86.SUB):
		f.flags = flags{}
		f.write(0, constant(0, size))
		return
	default:
		b = f.arg(1)
	}
	op := operators[in.Op]
	if in.Op == x86.SHL || in.Op == x86.SHR || in.Op == x86.SAR {
		if b.Expr == nil || b.IsConst() || b.Val >= 8*uint64(size) {
			b = constant(b.Val&63, size)
		}
	}
	v := f.arith(op, a, b, size)
	if in.Op == x86.SAR && a.Type != nil && !a.Type.IsSigned() && a.Val>>(8*size-1) != 0 {
		v.Expr = nil
	}
	kind := flagsResult
	switch in.Op {
	case x86.SUB:
		kind = flagsCompare
	case x86.ADD:
		kind = flagsSum
	case x86.AND:
		kind = flagsMask
	}
	f.flags = flags{kind: kind, left: a, right: b, result: v, size: size}
	f.write(0, v)
}

// compute does an operation on numbers.
func compute(op string, a, b uint64, size uint8) uint64 {
	var r uint64
	switch op {
	case "+":
		r = a + b
	case "-":
		r = a - b
	case "&":
		r = a & b
	case "|":
		r = a | b
	case "^":
		r = a ^ b
	case "<<":
		r = a << (b & 63)
	case ">>":
		r = a >> (b & 63)
	case "*":
		r = a * b
	}
	return r & mask(size)
}

// arith returns the result of an operation.
func (f *Flow) arith(op string, a, b Value, size uint8) Value {
	r := Value{Val: compute(op, a.Val, b.Val, size), Size: size, Step: f.m.Step}
	if a.Expr == nil || b.Expr == nil {
		return r
	}
	if a.IsConst() && b.IsConst() {
		return constant(r.Val, size)
	}
	if size == 8 && (op == "+" || op == "-") {
		if op == "+" && !a.isPointer() && b.isPointer() {
			a, b = b, a
		}
		if a.isPointer() && !b.isPointer() {
			return f.displaced(op, a, b, r)
		}
	}
	switch {
	case b.IsConst() && op == "&":
		return f.masked(a, b.Val, r)
	case b.IsConst() && op == ">>" && a.Expr.Op == OpBits:
		return f.shifted(a, b.Val, r)
	case b.IsConst() && b.Val == 0 && (op == "+" || op == "-" || op == "|" || op == "^" || op == "<<" || op == ">>"):
		a.Size, a.Val = size, r.Val
		return a
	case a.Expr.Op == OpValue && a.Val == 0 && op == "+":
		b.Size, b.Val = size, r.Val
		return b
	case b.IsConst() && op == "+" && sext(b.Val, size)>>63 != 0:
		op, b = "-", constant(-b.Val&mask(size), size)
	}
	if r.Expr == nil {
		r.Expr = binop(op, pointerExpr(a), pointerExpr(b))
	}
	switch {
	case a.isPointer() || b.isPointer():
		r.Type = unsigned(size)
	case !b.IsConst() && (a.Type == nil || a.IsConst()):
		r.Type = b.Type
	default:
		r.Type = a.Type
	}
	return r
}

// displaced returns a pointer that was moved.
func (f *Flow) displaced(op string, p, by, r Value) Value {
	d := int64(by.Val)
	if op == "-" {
		d = -d
	}
	if !by.IsConst() {
		if p.idx != nil || op == "-" {
			if r.Expr = binop(op, pointerExpr(p), pointerExpr(by)); r.Expr != nil {
				r.Expr.Type, r.Type = p.Type, p.Type
			}
			return r
		}
		p.idx = indexOf(by, 1)
	}
	p.Off += d
	p.Val, p.Size, p.Addr, p.Step = r.Val, 8, 0, r.Step
	if t := f.objects[p.Val]; t != nil && p.Off < 0 && by.IsConst() {
		// Behind the member was a record that is known: container_of.
		p.Type, p.Expr, p.Off = ctype.PointerTo(t), castExpr(ctype.PointerTo(t), pointerExpr(p)), 0
	}
	return p
}

// masked returns a value of which bits were cleared.
func (f *Flow) masked(a Value, m uint64, r Value) Value {
	if a.Expr.Op == OpBits {
		if x, t := f.bitsExpr(a.Expr, m); x != nil && m&1 != 0 {
			r.Expr, r.Type = x, t
			return r
		}
	}
	if x := a.Expr; x.Op == OpCast && x.Type == unsigned(a.Size) && m <= mask(a.Size) {
		a.Expr = x.X // what the cast cuts off the mask does, too
	}
	if n, ok := f.xaNode(a); ok && n.Val == r.Val {
		return n
	}
	if a.isPointer() && r.Size == 8 && ^m < 1<<12 {
		// A pointer with flags in its low bits stays one.
		if r.Val == a.Val {
			a.Step = r.Step
			return a
		}
		r.Expr, r.Type = binop("&", pointerExpr(a), newExpr(Expr{Op: OpUnary, Name: "~", X: constExpr(^m)})), a.Type
		r.Expr.Type = a.Type
		return r
	}
	r.Expr = binop("&", pointerExpr(a), constExpr(m&mask(r.Size)))
	r.Type = a.Type
	if a.isPointer() {
		r.Type = unsigned(r.Size)
	}
	return r
}

// xaNode returns the node that an entry of an XArray or radix tree stands for:
// a pointer with its low bits 2 (include/linux/xarray.h, xa_is_node).
func (f *Flow) xaNode(v Value) (Value, bool) {
	x := v.Expr
	if v.Val&3 != 2 || v.Val <= 4096 || v.Off != 0 || v.Size != 8 || x == nil {
		return v, false
	}
	for x.Op == OpIndex {
		x = x.X
	}
	if (x.Op != OpArrow && x.Op != OpDot) || x.Name != "xa_head" && x.Name != "slots" {
		return v, false
	}
	t, err := f.types.Struct("xa_node")
	if err != nil {
		return v, false
	}
	v.Expr = binop("&", v.Expr, newExpr(Expr{Op: OpUnary, Name: "~", X: constExpr(3)}))
	v.Expr = castExpr(ctype.PointerTo(t), v.Expr)
	v.Type, v.Val, v.Addr = ctype.PointerTo(t), v.Val&^3, 0
	return v, true
}

// bitsExpr returns the bitfield that a mask cuts out of the bytes x.
func (f *Flow) bitsExpr(x *Expr, m uint64) (*Expr, *ctype.Type) {
	if m == 0 {
		return nil, nil
	}
	low := bits.TrailingZeros64(m)
	width := bits.OnesCount64(m)
	if width < 64 && m>>low != 1<<width-1 {
		return nil, nil
	}
	return f.bitfieldExpr(x, x.N+uint64(low), width)
}

func (f *Flow) bitfieldExpr(x *Expr, bit uint64, width int) (*Expr, *ctype.Type) {
	names, t, ok := f.bitfield(x.Type, bit, width)
	if !ok {
		return nil, nil
	}
	e := x.X
	for _, n := range names {
		if e.Op == OpDeref && e.Type == nil {
			e = newExpr(Expr{Op: OpArrow, X: e.X, Name: n})
		} else {
			e = newExpr(Expr{Op: OpDot, X: e, Name: n})
		}
	}
	e.Type = t
	return e, t
}

// shifted returns bytes of bitfields that were shifted right.
func (f *Flow) shifted(a Value, n uint64, r Value) Value {
	x := a.Expr
	left := int(8*uint64(x.Size)) - int(n)
	if n >= 64 || left <= 0 {
		return r
	}
	if e, t := f.bitfieldExpr(x, x.N+n, left); e != nil {
		r.Expr, r.Type = e, t
		return r
	}
	if n%8 == 0 {
		r.Expr = newExpr(Expr{Op: OpBits, X: x.X, N: x.N + n, Size: uint8(left / 8), Type: x.Type})
		return r
	}
	r.Expr = binop(">>", x, constExpr(n))
	return r
}

func binop(op string, x, y *Expr) *Expr {
	if x == nil || y == nil {
		return nil
	}
	return newExpr(Expr{Op: OpBinary, Name: op, X: x, Y: y})
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
