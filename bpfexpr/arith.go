package bpfexpr

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

func (c *checker) binaryNode(n *cexpr.Binary) (operand, int, error) {
	if n.Op == "&&" || n.Op == "||" {
		x, err := c.scalar(n.X)
		if err != nil {
			return operand{}, n.OpAt, err
		}
		y, err := c.scalar(n.Y)
		if err != nil {
			return operand{}, n.OpAt, err
		}
		return boolean(logic(n.Op, x, y)), n.OpAt, nil
	}
	x, err := c.check(n.X)
	if err != nil {
		return operand{}, n.OpAt, err
	}
	y, err := c.check(n.Y)
	if err != nil {
		return operand{}, n.OpAt, err
	}
	o, err := c.binary(n.Op, x, y)
	return o, n.OpAt, err
}

func (c *checker) binary(tok cexpr.Token, x, y operand) (operand, error) {
	if (tok == "==" || tok == "!=") && (isLiteral(x) || isLiteral(y)) {
		return c.sameText(tok, x, y)
	}
	a, err := x.value()
	if err != nil {
		return operand{}, err
	}
	b, err := y.value()
	if err != nil {
		return operand{}, err
	}
	xt, yt := cexpr.Decay(x.typ), cexpr.Decay(y.typ)
	if isPointer(xt) || isPointer(yt) {
		o, err := c.pointers(tok, xt, yt, a, b)
		o.user = x.user && isPointer(xt) || y.user && isPointer(yt)
		return o, err
	}
	t := cexpr.Promote(xt, x.bitSize)
	if tok == "<<" || tok == ">>" {
		return shift(tok, t, a, b)
	}
	return integers(tok, cexpr.Usual(t, cexpr.Promote(yt, y.bitSize)), a, b)
}

// integers computes in the common type t. Overflow wraps, also where C leaves
// it undefined.
func integers(tok cexpr.Token, t *ctype.Type, a, b *node) (operand, error) {
	bits, err := width(t)
	if err != nil {
		return operand{}, err
	}
	signed := t.IsSigned()
	switch tok {
	case "+", "-", "*", "&", "|", "^": // the low bits do not depend on the high ones
		return number(t, arith(tok, signed, a, b)), nil
	}
	a, b = extend(a, bits, signed), extend(b, bits, signed)
	switch tok {
	case "==", "!=", "<", "<=", ">", ">=":
		return boolean(compare(tok, signed, a, b)), nil
	case "/", "%":
		if b.isConst() && b.value == 0 {
			return operand{}, errors.New("division by zero")
		}
		return number(t, arith(tok, signed, a, b)), nil
	}
	return operand{}, fmt.Errorf("unknown operator %s", tok)
}

// shift has the type of its promoted left operand (C17 6.5.7).
func shift(tok cexpr.Token, t *ctype.Type, a, b *node) (operand, error) {
	bits, err := width(t)
	if err != nil {
		return operand{}, err
	}
	if b.isConst() && b.value >= uint64(bits) {
		return operand{}, fmt.Errorf("a shift of %s by %d bits is undefined in C", t, int64(b.value))
	}
	n := arith(tok, t.IsSigned(), extend(a, bits, t.IsSigned()), b)
	if !b.isConst() {
		n.limit = bits
	}
	return number(t, n), nil
}

// pointers computes where one operand at least is a pointer (C17 6.5.6).
func (c *checker) pointers(tok cexpr.Token, xt, yt *ctype.Type, a, b *node) (operand, error) {
	switch tok {
	case "==", "!=", "<", "<=", ">", ">=":
		return boolean(compare(tok, false, a, b)), nil
	}
	if tok == "+" && isPointer(yt) {
		xt, yt, a, b = yt, xt, b, a
	}
	if tok != "+" && tok != "-" || !isPointer(xt) || tok == "+" && isPointer(yt) {
		return operand{}, fmt.Errorf("%s does not apply to %s and %s", tok, xt, yt)
	}
	size, err := c.size(xt.Strip().Elem())
	switch {
	case err != nil:
		return operand{}, err
	case !isPointer(yt):
		return number(xt, scaled(tok, a, b, size)), nil
	case size == 0:
		return operand{}, fmt.Errorf("%s points to nothing that has a size", xt)
	}
	diff := arith("/", true, arith("-", false, a, b), constant(uint64(size)))
	return number(ctype.Builtin("long"), diff), nil
}

// sameText compares text with a string literal. In C that would compare
// addresses, which nobody wants.
func (c *checker) sameText(tok cexpr.Token, x, y operand) (operand, error) {
	if isLiteral(x) {
		x, y = y, x
	}
	want, _, _ := strings.Cut(y.text, "\x00")
	n, err := c.textNode(x, want)
	if err == nil && tok == "!=" {
		n = not(n)
	}
	return operand{typ: ctype.Builtin("int"), n: n}, err
}

func (c *checker) textNode(x operand, want string) (*node, error) {
	if isLiteral(x) {
		have, _, _ := strings.Cut(x.text, "\x00")
		return truthOf(have == want), nil
	}
	s := x.typ.Strip()
	if s.Kind() != ctype.Array && s.Kind() != ctype.Pointer {
		return nil, fmt.Errorf("%s is not text: it cannot be compared with a string", x.typ)
	}
	if size, err := s.Elem().Size(); err != nil || size != 1 {
		return nil, fmt.Errorf("%s is not text: it cannot be compared with a string", x.typ)
	}
	n := &node{op: opText, text: want, user: x.user, exit: x.exit}
	if s.Kind() == ctype.Array {
		n.array = s.Len()
		if n.array != 0 && len(want) > n.array {
			return constant(0), nil
		}
	}
	if x.place == inCall && s.Kind() == ctype.Array {
		n.off = x.off
		return n.settled(), nil
	}
	var err error
	n.x, err = x.value()
	if err != nil {
		return nil, err
	}
	return n.settled(), nil
}
