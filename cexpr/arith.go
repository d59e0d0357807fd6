package cexpr

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/ctype"
)

// uint reads a scalar, as C converts it to u64.
func (e *evaluator) uint(v ctype.Value) (uint64, error) {
	if e.dry > 0 && v.IsLvalue() && (arithmetic(v.Type()) || isPointer(v.Type())) {
		return 1, nil // 1 divides
	}
	return v.Uint()
}

// arithmetic says whether values of the type can be calculated with.
func arithmetic(t *ctype.Type) bool { return t != nil && t.IsInteger() }

func isPointer(t *ctype.Type) bool { return t.Strip().Kind() == ctype.Pointer }

// Decay returns the type an operand has in an expression: arrays and functions
// become pointers (C17 6.3.2.1).
func Decay(t *ctype.Type) *ctype.Type {
	switch s := t.Strip(); s.Kind() {
	case ctype.Array:
		return ctype.PointerTo(s.Elem())
	case ctype.Func:
		return ctype.PointerTo(s.Elem())
	case ctype.FuncProto:
		return ctype.PointerTo(s)
	}
	return t
}

// promoted returns the type of an integer value after the integer promotions.
func promoted(v ctype.Value) *ctype.Type { return Promote(v.Type(), v.BitSize()) }

// Promote returns the type of an integer after the integer promotions (C17
// 6.3.1.1p2): what fits in int becomes int. A bitfield is as wide as bitSize
// says; 0 is none.
func Promote(t *ctype.Type, bitSize int) *ctype.Type {
	t = t.Strip()
	size, err := t.Size()
	if err != nil {
		return ctype.Builtin("int")
	}
	bits := size * 8
	if n := bitSize; n != 0 {
		if bits = n; n > 32 {
			bits = 64
		}
	}
	switch {
	case bits < 32, bits == 32 && t.IsSigned():
		return ctype.Builtin("int")
	case bits == 32:
		return ctype.Builtin("unsigned int")
	case t.IsSigned():
		return ctype.Builtin("long")
	}
	return ctype.Builtin("unsigned long")
}

// Usual returns the common type of two promoted types (C17 6.3.1.8): the wider
// one; of equally wide ones the unsigned one.
func Usual(a, b *ctype.Type) *ctype.Type {
	an, _ := a.Size()
	bn, _ := b.Size()
	if an > bn || an == bn && !a.IsSigned() {
		return a
	}
	return b
}

// number makes a computed integer of a type.
func (e *evaluator) number(t *ctype.Type, u uint64) ctype.Value {
	return e.ts.Scalar(e.env.Mem(), t, u, "result")
}

func (e *evaluator) truth(b bool) ctype.Value {
	if b {
		return e.number(ctype.Builtin("int"), 1)
	}
	return e.number(ctype.Builtin("int"), 0)
}

func (e *evaluator) unary(op Token, v ctype.Value) (ctype.Value, error) {
	switch op {
	case "&":
		return v.AddrOf()
	case "*":
		return e.deref(v)
	case "!":
		u, err := e.scalar(v)
		return e.truth(u == 0), err
	}
	if !arithmetic(v.Type()) {
		return ctype.Value{}, fmt.Errorf("%s is not a number: %s does not apply", v.Type(), op)
	}
	u, err := e.uint(v)
	switch op {
	case "-":
		u = -u
	case "~":
		u = ^u
	}
	return e.number(promoted(v), u), err
}

// scalar reads what can be tested for zero.
func (e *evaluator) scalar(v ctype.Value) (uint64, error) {
	if t := Decay(v.Type()); !arithmetic(t) && !isPointer(t) {
		return 0, fmt.Errorf("%s is neither a number nor a pointer", v.Type())
	}
	return e.uint(v)
}

// held returns v in a form whose navigation reads no memory while dry.
func (e *evaluator) held(v ctype.Value) ctype.Value {
	if e.dry > 0 && v.IsLvalue() && isPointer(v.Type()) {
		return e.ts.Scalar(nil, v.Type(), 0, v.Path())
	}
	return v
}

func (e *evaluator) deref(v ctype.Value) (ctype.Value, error) {
	if isPointer(v.Type()) && v.Type().Strip().Elem().Strip().Kind() == ctype.Void {
		return ctype.Value{}, errors.New("void * points to no known type: cast it")
	}
	return e.held(v).Deref()
}

func (e *evaluator) member(v ctype.Value, name string, arrow bool) (ctype.Value, error) {
	switch pointer := isPointer(Decay(v.Type())); {
	case arrow && !pointer:
		return ctype.Value{}, fmt.Errorf("%s is not a pointer: use . for its members", v.Type())
	case !arrow && pointer && v.Type().Strip().Kind() == ctype.Pointer:
		return ctype.Value{}, fmt.Errorf("%s is a pointer: use -> for its members", v.Type())
	case arrow:
		d, err := e.deref(v)
		if err != nil {
			return ctype.Value{}, err
		}
		v = d
	}
	return v.Field(name)
}

// index is x[i], or as C has it, i[x].
func (e *evaluator) index(x, i ctype.Value) (ctype.Value, error) {
	if arithmetic(x.Type()) && isPointer(Decay(i.Type())) {
		x, i = i, x
	}
	if !arithmetic(i.Type()) {
		return ctype.Value{}, fmt.Errorf("%s is not a number: it cannot be an index", i.Type())
	}
	n, err := e.uint(i)
	if err != nil {
		return ctype.Value{}, err
	}
	return e.held(x).Index(int64(n))
}

func (e *evaluator) cast(v ctype.Value, t *ctype.Type) (ctype.Value, error) {
	if e.dry > 0 && v.IsLvalue() && !v.Type().IsRecord() {
		return e.number(t, 1), nil
	}
	return v.Cast(t)
}

func (e *evaluator) binaryNode(n *Binary) (Result, error) {
	if n.Op != "&&" && n.Op != "||" {
		return e.each2(n.OpAt, n.X, n.Y, func(x, y ctype.Value) (ctype.Value, error) { return e.binary(n.Op, x, y) })
	}
	r, err := e.eval(n.X)
	if err != nil {
		return Result{}, err
	}
	if r.Seq {
		return e.with(n.OpAt, r, n.Y, func(x, y ctype.Value) (ctype.Value, error) {
			a, err := e.scalar(x)
			if err != nil || (a != 0) == (n.Op == "||") {
				return e.truth(a != 0), err
			}
			b, err := e.scalar(y)
			return e.truth(b != 0), err
		})
	}
	u, err := e.scalar(r.Values[0])
	if err != nil || (u != 0) == (n.Op == "||") { // the right operand is not evaluated
		return Single(e.truth(u != 0)), e.fail(n.X.Pos(), err)
	}
	return e.each1(n.OpAt, n.Y, func(v ctype.Value) (ctype.Value, error) {
		u, err := e.scalar(v)
		return e.truth(u != 0), err
	})
}

func (e *evaluator) binary(op Token, x, y ctype.Value) (ctype.Value, error) {
	if op == "==" || op == "!=" {
		if same, ok, err := e.sameText(x, y); ok {
			return e.truth(same == (op == "==")), err
		}
	}
	xt, yt := Decay(x.Type()), Decay(y.Type())
	for _, t := range [...]*ctype.Type{xt, yt} {
		if !arithmetic(t) && !isPointer(t) {
			return ctype.Value{}, fmt.Errorf("%s is neither a number nor a pointer: %s does not apply", t, op)
		}
	}
	a, err := e.uint(x)
	if err != nil {
		return ctype.Value{}, err
	}
	b, err := e.uint(y)
	if err != nil {
		return ctype.Value{}, err
	}
	if isPointer(xt) || isPointer(yt) {
		return e.pointers(op, xt, yt, a, b)
	}
	pt := promoted(x)
	if op == "<<" || op == ">>" {
		return e.shift(op, pt, a, int64(b))
	}
	return e.integers(op, Usual(pt, promoted(y)), a, b)
}

// isLiteral says whether a value is a string literal: an array of char that is
// not in memory.
func isLiteral(v ctype.Value) bool {
	return !v.IsLvalue() && v.Type().Strip().Kind() == ctype.Array
}

// sameText compares text with a string literal. In C that would compare
// addresses, which nobody wants.
func (e *evaluator) sameText(x, y ctype.Value) (same, ok bool, err error) {
	if !isLiteral(x) && !isLiteral(y) {
		return false, false, nil
	}
	if e.dry > 0 {
		return false, true, nil
	}
	a, err := x.CString()
	if err != nil {
		return false, true, err
	}
	b, err := y.CString()
	return a == b, true, err
}

// shift has the type of its promoted left operand (C17 6.5.7).
func (e *evaluator) shift(op Token, t *ctype.Type, a uint64, n int64) (ctype.Value, error) {
	size, err := t.Size()
	if err != nil {
		return ctype.Value{}, err
	}
	if e.dry > 0 {
		n = 0
	}
	if n < 0 || n >= int64(size*8) {
		return ctype.Value{}, fmt.Errorf("a shift of %s by %d bits is undefined in C", t, n)
	}
	switch a = e.converted(t, a); {
	case op == "<<":
		a <<= uint(n)
	case t.IsSigned():
		a = uint64(int64(a) >> uint(n))
	default:
		a >>= uint(n)
	}
	return e.number(t, a), nil
}

// converted returns u converted to t.
func (e *evaluator) converted(t *ctype.Type, u uint64) uint64 {
	u, _ = e.number(t, u).Uint() // computed: nothing is read
	return u
}

// integers computes in the common type t. Overflow wraps, also where C leaves
// it undefined.
func (e *evaluator) integers(op Token, t *ctype.Type, a, b uint64) (ctype.Value, error) {
	a, b = e.converted(t, a), e.converted(t, b)
	if e.dry > 0 && b == 0 {
		b = 1 // divides
	}
	signed := t.IsSigned()
	if less, ok := compare(op, signed, a, b); ok {
		return e.truth(less), nil
	}
	var u uint64
	switch op {
	case "+":
		u = a + b
	case "-":
		u = a - b
	case "*":
		u = a * b
	case "&":
		u = a & b
	case "|":
		u = a | b
	case "^":
		u = a ^ b
	case "/", "%":
		switch {
		case b == 0:
			return ctype.Value{}, errors.New("division by zero")
		case op == "/" && signed:
			u = uint64(int64(a) / int64(b))
		case op == "/":
			u = a / b
		case signed:
			u = uint64(int64(a) % int64(b))
		default:
			u = a % b
		}
	default:
		return ctype.Value{}, fmt.Errorf("unknown operator %s", op)
	}
	return e.number(t, u), nil
}

func compare(op Token, signed bool, a, b uint64) (result, ok bool) {
	if signed { // keep the order, unsigned
		a, b = a^1<<63, b^1<<63
	}
	switch op {
	case "==":
		return a == b, true
	case "!=":
		return a != b, true
	case "<":
		return a < b, true
	case "<=":
		return a <= b, true
	case ">":
		return a > b, true
	case ">=":
		return a >= b, true
	}
	return false, false
}

// pointers computes where one operand at least is a pointer (C17 6.5.6).
func (e *evaluator) pointers(op Token, xt, yt *ctype.Type, a, b uint64) (ctype.Value, error) {
	if result, ok := compare(op, false, a, b); ok {
		return e.truth(result), nil
	}
	if op == "+" && isPointer(yt) {
		xt, yt, a, b = yt, xt, b, a
	}
	if op != "+" && op != "-" || !isPointer(xt) || op == "+" && isPointer(yt) {
		return ctype.Value{}, fmt.Errorf("%s does not apply to %s and %s", op, xt, yt)
	}
	size, err := e.size(xt.Strip().Elem())
	if err != nil {
		return ctype.Value{}, err
	}
	switch {
	case op == "+":
		return e.number(xt, a+b*uint64(size)), nil
	case !isPointer(yt):
		return e.number(xt, a-b*uint64(size)), nil
	case size == 0:
		return ctype.Value{}, fmt.Errorf("%s points to nothing that has a size", xt)
	}
	return e.number(ctype.Builtin("long"), uint64(int64(a-b)/int64(size))), nil
}
