package bpfexpr

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

// An Error says which part of an expression cannot be compiled, and why. It
// wraps the reason: a [ctype.NotFoundError] and so on.
type Error struct{ cexpr.EvalError }

// As lets [errors.As] find the [cexpr.EvalError] that it is.
func (e *Error) As(target any) bool {
	t, ok := target.(**cexpr.EvalError)
	if ok {
		*t = &e.EvalError
	}
	return ok
}

// A checker gives the parts of an expression their types, as C does, and makes
// nodes of them.
type checker struct {
	env    Env
	ts     *ctype.Types
	src    string
	pinned int // in what stands for a name: where that name is; else -1
	at     int // of the member that is looked for
	depth  int // of names that stand for expressions
	self   *operand
	exit   int // in exit(EXPR) or what stands for a name known only then
	nodes  int
}

// maxDepth bounds names that stand for expressions with such names.
const maxDepth = 8

func newChecker(env Env, x *cexpr.Expr) *checker {
	return &checker{env: env, ts: env.Types(), src: x.Src, pinned: -1}
}

// fail puts a position on an error, unless a deeper node has.
func (c *checker) fail(at int, err error) error {
	var have *Error
	if err == nil || errors.As(err, &have) {
		return err
	}
	if c.pinned >= 0 {
		at = c.pinned
	}
	return &Error{cexpr.EvalError{Expr: c.src, Pos: at, Err: err}}
}

func (c *checker) errorf(at int, msg string, args ...any) error {
	return c.fail(at, fmt.Errorf(msg, args...))
}

// check returns what a part of an expression gives.
func (c *checker) check(n cexpr.Node) (operand, error) {
	if c.nodes++; c.nodes > maxNodes {
		return operand{}, c.errorf(n.Pos(), "the expression is too large for the kernel")
	}
	o, at, err := c.node(n)
	if err == nil && o.n != nil && o.n.count > maxNodes {
		err = errors.New("the expression is too large for the kernel")
	}
	if err != nil {
		return operand{}, c.fail(at, err)
	}
	if c.exit > 0 {
		o.exit = true
	}
	return o, nil
}

// node is check without a position: errors are at the one it returns.
func (c *checker) node(n cexpr.Node) (o operand, at int, err error) {
	switch n := n.(type) {
	case *cexpr.Ident:
		o, err = c.ident(n)
	case *cexpr.IntLit:
		o = number(ctype.Builtin(n.Type), constant(n.Value))
	case *cexpr.StringLit:
		o = operand{place: literal, typ: ctype.ArrayOf(ctype.Builtin("char"), uint32(len(n.Value)+1)), text: n.Value}
	case *cexpr.Unary:
		if o, err = c.check(n.X); err == nil {
			o, err = c.unary(n.Op, o)
		}
	case *cexpr.Binary:
		return c.binaryNode(n)
	case *cexpr.Cond:
		return c.cond(n)
	case *cexpr.Cast:
		var t *ctype.Type
		if t, err = c.typ(n.Type); err != nil {
			break
		}
		if o, err = c.check(n.X); err == nil {
			o, err = c.cast(o, t)
		}
	case *cexpr.Sizeof:
		o, err = c.sizeof(n)
	case *cexpr.Member:
		if o, err = c.check(n.X); err == nil {
			c.at = n.NameAt
			o, err = c.member(o, n.Name, n.Arrow)
		}
		return o, n.NameAt, err
	case *cexpr.Index:
		o, err = c.index(n)
		return o, n.I.Pos(), err
	case *cexpr.Call:
		o, err = c.call(n)
	case *cexpr.TypeName:
		err = fmt.Errorf("%s is a type, where a value is needed", n.Text)
	default:
		err = fmt.Errorf("cannot compile %T", n)
	}
	return o, n.Pos(), err
}

// scalar returns the value of a part that must be a number or pointer.
func (c *checker) scalar(n cexpr.Node) (*node, error) {
	o, err := c.check(n)
	if err != nil {
		return nil, err
	}
	v, err := o.value()
	return v, c.fail(n.Pos(), err)
}

func (c *checker) typ(n *cexpr.TypeName) (*ctype.Type, error) {
	t, err := c.ts.ParseType(n.Text)
	var bad *ctype.ParseError
	if errors.As(err, &bad) {
		return nil, c.errorf(n.At+bad.Pos, "%s", bad.Msg)
	}
	return t, c.fail(n.At, err)
}

func (c *checker) unary(tok cexpr.Token, o operand) (operand, error) {
	switch tok {
	case "&":
		n, err := o.address()
		return operand{typ: ctype.PointerTo(o.typ), n: n, user: o.user}, err
	case "*":
		return c.deref(o)
	}
	n, err := o.value()
	if err != nil {
		return operand{}, err
	}
	if tok == "!" {
		return operand{typ: ctype.Builtin("int"), n: not(n)}, nil
	}
	if !o.typ.IsInteger() {
		return operand{}, fmt.Errorf("%s is not a number: %s does not apply", o.typ, tok)
	}
	switch tok {
	case "-":
		n = negate(n)
	case "~":
		n = invert(n)
	}
	return number(cexpr.Promote(o.typ, o.bitSize), n), nil
}

func (c *checker) index(n *cexpr.Index) (operand, error) {
	x, err := c.check(n.X)
	if err != nil {
		return operand{}, err
	}
	i, err := c.check(n.I)
	if err != nil {
		return operand{}, err
	}
	if x.typ.IsInteger() && isPointer(cexpr.Decay(i.typ)) { // i[x]
		x, i = i, x
	}
	if !i.typ.IsInteger() {
		return operand{}, fmt.Errorf("%s is not a number: it cannot be an index", i.typ)
	}
	v, err := i.value()
	if err != nil {
		return operand{}, err
	}
	return c.element(x, v)
}

func (c *checker) sizeof(n *cexpr.Sizeof) (operand, error) {
	var t *ctype.Type
	var err error
	if n.Type != nil {
		t, err = c.typ(n.Type)
	} else {
		var o operand
		o, err = c.check(n.X)
		if t = o.typ; err == nil && o.bitSize != 0 {
			err = errors.New("a bitfield has no size in bytes")
		}
	}
	if err != nil {
		return operand{}, err
	}
	size, err := c.size(t)
	return number(ctype.Builtin("unsigned long"), constant(uint64(size))), err
}

// size is sizeof, with GNU C's 1 for void and functions.
func (c *checker) size(t *ctype.Type) (int, error) {
	switch t.Strip().Kind() {
	case ctype.Void, ctype.Func, ctype.FuncProto:
		return 1, nil
	}
	return c.ts.Sizeof(t)
}

func (c *checker) cond(n *cexpr.Cond) (operand, int, error) {
	test, err := c.scalar(n.Test)
	if err != nil {
		return operand{}, n.Pos(), err
	}
	x, err := c.check(n.Then)
	if err != nil {
		return operand{}, n.Pos(), err
	}
	y, err := c.check(n.Else)
	if err != nil {
		return operand{}, n.Pos(), err
	}
	t, err := branches(x, y)
	if err != nil {
		return operand{}, n.Else.Pos(), err
	}
	xn, err := x.value()
	if err != nil {
		return operand{}, n.Then.Pos(), err
	}
	yn, err := y.value()
	if err != nil {
		return operand{}, n.Else.Pos(), err
	}
	o := number(t, choose(test, number(t, xn).n, number(t, yn).n))
	o.user = x.user || y.user
	return o, n.Pos(), nil
}

// branches returns the type of a conditional expression (C17 6.5.15).
func branches(x, y operand) (*ctype.Type, error) {
	xt, yt := cexpr.Decay(x.typ), cexpr.Decay(y.typ)
	null := func(o operand) bool { return o.place == computed && o.n.isConst() && o.n.value == 0 }
	toVoid := func(t *ctype.Type) bool { return t.Strip().Elem().Strip().Kind() == ctype.Void }
	switch {
	case xt.IsInteger() && yt.IsInteger():
		return cexpr.Usual(cexpr.Promote(xt, x.bitSize), cexpr.Promote(yt, y.bitSize)), nil
	case isPointer(xt) && null(y):
		return xt, nil
	case isPointer(yt) && null(x):
		return yt, nil
	case isPointer(xt) && isPointer(yt) && ctype.Identical(xt, yt):
		return xt, nil
	case isPointer(xt) && isPointer(yt) && toVoid(yt):
		return xt, nil
	case isPointer(xt) && isPointer(yt) && toVoid(xt):
		return yt, nil
	}
	return nil, fmt.Errorf("the branches of ?: are of different types, %s and %s: cast one", xt, yt)
}
