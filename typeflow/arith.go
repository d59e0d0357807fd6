package typeflow

import (
	"math/bits"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/x86"
)

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
	if size > 0 && a.Val>>(8*size-1)&1 != 0 && a.Expr != nil && !a.IsConst() {
		switch negative := a.Type != nil && a.Type.IsSigned(); {
		case in.Op == x86.SHR && negative:
			a.Expr, a.Type = castExpr(unsigned(size), pointerExpr(a)), unsigned(size)
			a.Off, a.idx = 0, nil
		case in.Op == x86.SAR && !negative:
			a.Expr, a.Type = castExpr(signed(size), pointerExpr(a)), signed(size)
			a.Off, a.idx = 0, nil
		}
	}
	v := f.arith(op, a, b, size)
	if in.Op == x86.SAR {
		v.Val = uint64(int64(sext(a.Val, size))>>(b.Val&63)) & mask(size)
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
	if op == "<<" || op == ">>" {
		r.Type = a.Type
	}
	r.Type = f.promoted(r.Type, r.Val, size)
	return r
}

// promoted returns the type of a result: that of the operands, unless the value
// does not fit into it.
func (f *Flow) promoted(t *ctype.Type, v uint64, size uint8) *ctype.Type {
	if t == nil {
		return nil
	}
	if n, err := f.types.Sizeof(t); err == nil && n < int(size) && v > mask(uint8(n)) {
		return signed(size)
	}
	return t
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
	if t := v.pointee(); t == nil || t.Strip().Kind() != ctype.Void {
		return v, false
	}
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
