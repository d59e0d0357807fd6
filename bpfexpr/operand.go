package bpfexpr

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

// A place says where an operand is.
type place uint8

const (
	computed place = iota // n is its value
	inMemory              // n is its address
	inCall                // off bytes into struct call
	literal               // text
)

// An operand is what a part of an expression gives: its type, and where its
// value is. Nothing is read before the value is needed, as in C.
type operand struct {
	place   place
	typ     *ctype.Type
	n       *node
	off     int
	shift   int
	bitOff  int
	bitSize int
	text    string
	user    bool // in, or pointing to, user space
	exit    bool // to be read when the call returns
}

func isPointer(t *ctype.Type) bool { return t.Strip().Kind() == ctype.Pointer }

// isArray says whether an operand stands for its address when it is used.
func isArray(t *ctype.Type) bool {
	switch t.Strip().Kind() {
	case ctype.Array, ctype.Func, ctype.FuncProto:
		return true
	}
	return false
}

func isLiteral(o operand) bool { return o.place == literal }

// width returns how many bits a scalar type has.
func width(t *ctype.Type) (int, error) {
	n, err := t.Size()
	if err != nil {
		return 0, err
	}
	switch n {
	case 1, 2, 4, 8:
		return n * 8, nil
	}
	return 0, fmt.Errorf("%s: numbers of %d bytes are not evaluated in the kernel", t, n)
}

// scalar checks that an operand is a number or pointer, or decays to one.
func scalar(o operand) error {
	t := cexpr.Decay(o.typ)
	if t.Strip().Kind() == ctype.Float {
		return fmt.Errorf("%s: floating-point numbers are not evaluated in the kernel", o.typ)
	}
	if !t.IsInteger() && !isPointer(t) {
		return fmt.Errorf("%s is neither a number nor a pointer", o.typ)
	}
	return nil
}

// errNoAddress is about what is in struct call.
var errNoAddress = errors.New("it is a copy: it has no address in the kernel's memory")

// value returns the node that computes an operand's value as C converts it to
// u64; of an array, its address.
func (o operand) value() (*node, error) {
	n, err := o.read()
	if err == nil && o.exit && !n.exit && !n.isConst() {
		m := *n
		m.exit = true
		n = &m
	}
	return n, err
}

func (o operand) read() (*node, error) {
	if err := scalar(o); err != nil {
		return nil, err
	}
	if isArray(o.typ) {
		return o.address()
	}
	if o.place == computed {
		return o.n, nil
	}
	bits, err := width(o.typ)
	if err != nil {
		return nil, err
	}
	n := &node{op: opLoad, size: bits / 8, width: bits, signed: o.typ.IsSigned(), x: o.n, user: o.user, exit: o.exit}
	if o.bitSize != 0 {
		n.bitOff, n.bitSize, n.width = o.bitOff, o.bitSize, o.bitSize
		n.size = (o.bitOff + o.bitSize + 7) / 8
	}
	if o.place == inCall {
		n.op, n.off, n.shift = opFrame, o.off, o.shift
		if n.shift != 0 {
			n.size = 8
		}
		if s := n.size; s != 1 && s != 2 && s != 4 && s != 8 || n.off%s != 0 {
			return nil, errors.New("this member of a struct in registers is not supported")
		}
	}
	return n.settled(), nil
}

// address returns the node that computes an operand's address.
func (o operand) address() (*node, error) {
	switch {
	case o.place == literal:
		return nil, errors.New("a string can only be compared, by == and !=, with text")
	case o.place == inCall:
		return nil, errNoAddress
	case o.place != inMemory:
		return nil, errors.New("a computed value has no address")
	case o.bitSize != 0:
		return nil, errors.New("a bitfield has no address")
	}
	return o.n, nil
}

// number returns a computed operand of a scalar type, cut to it.
func number(t *ctype.Type, n *node) operand {
	bits, err := width(t)
	if err != nil {
		bits = 64
	}
	return operand{typ: t, n: extend(n, bits, t.IsSigned())}
}

func boolean(n *node) operand { return operand{typ: ctype.Builtin("int"), n: truth(n)} }

// deref returns what a pointer points to.
func (c *checker) deref(o operand) (operand, error) {
	s := o.typ.Strip()
	switch s.Kind() {
	case ctype.Array:
		return c.element(o, constant(0))
	case ctype.Func, ctype.FuncProto:
		return o, nil
	case ctype.Pointer:
	default:
		return operand{}, fmt.Errorf("%s is not a pointer", o.typ)
	}
	if s.Elem().Strip().Kind() == ctype.Void {
		return operand{}, errors.New("void * points to no known type: cast it")
	}
	n, err := o.value()
	return operand{place: inMemory, typ: c.ts.Complete(s.Elem()), n: n, user: o.user}, err
}

// element returns o[i].
func (c *checker) element(o operand, i *node) (operand, error) {
	s := o.typ.Strip()
	if s.Kind() != ctype.Array && s.Kind() != ctype.Pointer {
		return operand{}, fmt.Errorf("%s is neither array nor pointer", o.typ)
	}
	if s.Elem().Strip().Kind() == ctype.Void {
		return operand{}, errors.New("void * points to no known type: cast it")
	}
	size, err := c.ts.Sizeof(s.Elem())
	if err != nil {
		return operand{}, err
	}
	out := o
	out.typ, out.bitSize = c.ts.Complete(s.Elem()), 0
	switch {
	case o.place == inCall && s.Kind() == ctype.Array:
		if !i.isConst() {
			return operand{}, fmt.Errorf("%s is a copy: only a constant can be its index", o.typ)
		}
		if i.value >= uint64(s.Len()) {
			return operand{}, fmt.Errorf("element %d of %s is not known", int64(i.value), o.typ)
		}
		out.off += int(i.value) * size
		return out, nil
	case isLiteral(o):
		return operand{}, errors.New("an element of a string is not supported")
	}
	n, err := o.value() // of an array, its address
	if err != nil {
		return operand{}, err
	}
	out.place, out.n, out.off, out.shift = inMemory, scaled("+", n, i, size), 0, 0
	return out, nil
}

// scaled is n + i*size or n - i*size.
func scaled(tok cexpr.Token, n, i *node, size int) *node {
	return arith(tok, false, n, arith("*", false, i, constant(uint64(size))))
}

// member returns o.name or o->name.
func (c *checker) member(o operand, name string, arrow bool) (operand, error) {
	switch pointer := isPointer(cexpr.Decay(o.typ)); {
	case arrow && !pointer:
		return operand{}, fmt.Errorf("%s is not a pointer: use . for its members", o.typ)
	case !arrow && isPointer(o.typ):
		return operand{}, fmt.Errorf("%s is a pointer: use -> for its members", o.typ)
	case arrow:
		d, err := c.deref(o)
		if err != nil {
			return operand{}, err
		}
		o = d
	}
	if o.place == inMemory && o.typ.IsRecord() {
		if x, ok := c.env.Member(o.typ, name); ok {
			return c.rewritten(o, name, x)
		}
	}
	p, err := c.ts.Member(o.typ, name)
	if err != nil {
		return operand{}, err
	}
	o.typ, o.bitOff, o.bitSize = p.Type, int(p.BitOffset), int(p.BitSize)
	switch o.place {
	case inMemory:
		o.n = arith("+", false, o.n, constant(p.Offset))
	case inCall:
		o.off += int(p.Offset)
	default:
		return operand{}, fmt.Errorf("%s has no members", o.typ)
	}
	return o, nil
}

// cast converts a scalar, as C does; a record only to its own type.
func (c *checker) cast(o operand, t *ctype.Type) (operand, error) {
	to := t.Strip()
	switch {
	case o.typ.IsRecord() && ctype.Identical(o.typ, t):
		o.typ = t
		return o, nil
	case to.Kind() == ctype.Void:
		return operand{}, errors.New("void has no value")
	case !t.IsInteger() && to.Kind() != ctype.Pointer:
		return operand{}, fmt.Errorf("cannot cast %s to %s", o.typ, t)
	}
	if _, err := width(t); err != nil {
		return operand{}, err
	}
	n, err := o.value()
	if err != nil {
		return operand{}, err
	}
	if t.IsBool() {
		n = truth(n)
	}
	out := number(t, n)
	out.user = o.user
	return out, nil
}
