// Package cexpr parses C expressions and evaluates them over the types and
// memory of a target kernel.
//
// [Parse] gives a tree that knows nothing of values; [Expr.Eval] evaluates it
// with C's promotions, conversions and pointer arithmetic for x86-64 (LP64).
// Nothing is ever written: there is no assignment. Two things go beyond C: a
// list walk gives a sequence, over which operators apply to each element; and
// == and != compare text with a string literal.
package cexpr

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// An Env gives an expression its names.
type Env interface {
	// Types returns the target's types.
	Types() *ctype.Types
	// Mem returns the memory that addresses point into.
	Mem() mem.Reader
	// Ident returns a variable. If there is none the error wraps
	// ctype.ErrNotFound; the name is then looked up among the enumerators.
	Ident(name string) (ctype.Value, error)
	// Call calls a function that is not built in here. If there is none the
	// error wraps ctype.ErrNotFound.
	Call(name string, args []ctype.Value) (Result, error)
}

// A PerCPU is an [Env] that can find a CPU's copy of a per-CPU object. Without
// it per_cpu and per_cpu_ptr are refused.
type PerCPU interface {
	// PerCPU returns the address of the copy for a CPU, given the address of
	// the per-CPU variable (or a __percpu pointer).
	PerCPU(addr uint64, cpu int) (uint64, error)
}

// A Suggester is an [Env] that knows which names are like one that it lacks.
type Suggester interface {
	Suggest(name string) []string
}

// A Result is what an expression gives: one value, or the sequence that a list
// walk made.
type Result struct {
	Values []ctype.Value
	Seq    bool  // a sequence, of any length; else Values has one element
	Err    error // why a sequence is not complete: a list broke off here
}

// Single returns a Result of one value.
func Single(v ctype.Value) Result { return Result{Values: []ctype.Value{v}} }

// Value returns the only value. A sequence is an error.
func (r Result) Value() (ctype.Value, error) {
	if r.Seq || len(r.Values) != 1 {
		return ctype.Value{}, fmt.Errorf("a sequence of %d values, where one value is needed", len(r.Values))
	}
	return r.Values[0], nil
}

// Eval parses and evaluates an expression. Errors are a [*SyntaxError] or an
// [*EvalError].
func Eval(src string, env Env) (Result, error) {
	x, err := Parse(src, IsType(env.Types()))
	if err != nil {
		return Result{}, err
	}
	return x.Eval(env)
}

// IsType returns the function [Parse] needs: whether a name is a typedef or
// integer type of the target.
func IsType(ts *ctype.Types) func(string) bool {
	return func(name string) bool {
		if ctype.Builtin(name) != nil {
			return true
		}
		return ts != nil && ts.IsTypedef(name)
	}
}

// Eval evaluates the expression. Errors are an [*EvalError].
func (x *Expr) Eval(env Env) (Result, error) {
	e := &evaluator{env: env, ts: env.Types(), src: x.Src, steps: maxSteps}
	return e.eval(x.Root)
}

// maxSteps bounds how many values one evaluation makes.
const maxSteps = 16 << 20

type evaluator struct {
	env   Env
	ts    *ctype.Types
	src   string
	steps int
	// dry is set while only the type of an operand matters, in sizeof and
	// the branch of ?: that is not taken: memory is not read then.
	dry int
}

// fail puts a position on an error, unless a deeper node has.
func (e *evaluator) fail(at int, err error) error {
	var have *EvalError
	if err == nil || errors.As(err, &have) {
		return err
	}
	return &EvalError{e.src, at, err}
}

func (e *evaluator) errorf(at int, msg string, args ...any) error {
	return &EvalError{e.src, at, fmt.Errorf(msg, args...)}
}

func (e *evaluator) eval(n Node) (Result, error) {
	switch n := n.(type) {
	case *Ident:
		v, err := e.ident(n.Name)
		return Single(v), e.fail(n.At, err)
	case *IntLit:
		return Single(e.ts.Scalar(e.env.Mem(), ctype.Builtin(n.Type), n.Value, n.Text)), nil
	case *StringLit:
		t := ctype.ArrayOf(ctype.Builtin("char"), uint32(len(n.Value)+1))
		return Single(e.ts.Blob(e.env.Mem(), t, append([]byte(n.Value), 0), "string")), nil
	case *Unary:
		return e.each1(n.At, n.X, func(v ctype.Value) (ctype.Value, error) { return e.unary(n.Op, v) })
	case *Binary:
		return e.binaryNode(n)
	case *Cond:
		return e.cond(n)
	case *Cast:
		t, err := e.typ(n.Type)
		if err != nil {
			return Result{}, err
		}
		return e.each1(n.At, n.X, func(v ctype.Value) (ctype.Value, error) { return e.cast(v, t) })
	case *Sizeof:
		return e.sizeof(n)
	case *Member:
		return e.each1(n.NameAt, n.X, func(v ctype.Value) (ctype.Value, error) { return e.member(v, n.Name, n.Arrow) })
	case *Index:
		return e.each2(n.I.Pos(), n.X, n.I, e.index)
	case *Call:
		return e.call(n)
	case *TypeName:
		return Result{}, e.errorf(n.At, "%s is a type, where a value is needed", n.Text)
	}
	return Result{}, e.errorf(n.Pos(), "cannot evaluate %T", n)
}

// value evaluates a node that must give one value.
func (e *evaluator) value(n Node) (ctype.Value, error) {
	r, err := e.eval(n)
	if err != nil {
		return ctype.Value{}, err
	}
	v, err := r.Value()
	return v, e.fail(n.Pos(), err)
}

func (e *evaluator) typ(n *TypeName) (*ctype.Type, error) {
	t, err := e.ts.ParseType(n.Text)
	at := n.At
	var bad *ctype.ParseError
	if errors.As(err, &bad) {
		return nil, e.errorf(at+bad.Pos, "%s", bad.Msg)
	}
	return t, e.fail(at, err)
}

// each1 applies f to a value, or to each element of a sequence. An element for
// which it fails ends a sequence.
func (e *evaluator) each1(at int, x Node, f func(ctype.Value) (ctype.Value, error)) (Result, error) {
	r, err := e.eval(x)
	if err != nil {
		return Result{}, err
	}
	return e.apply(at, r, func(_ int, v ctype.Value) (ctype.Value, error) { return f(v) })
}

func (e *evaluator) apply(at int, r Result, f func(int, ctype.Value) (ctype.Value, error)) (Result, error) {
	out := Result{Seq: r.Seq, Err: r.Err, Values: make([]ctype.Value, 0, len(r.Values))}
	for i, v := range r.Values {
		if e.steps--; e.steps < 0 {
			return Result{}, e.errorf(at, "more than %d values", maxSteps)
		}
		v, err := f(i, v)
		if err != nil {
			if !r.Seq || i == 0 {
				return Result{}, e.fail(at, err)
			}
			out.Err = e.fail(at, fmt.Errorf("element %d: %w", i, err))
			break
		}
		out.Values = append(out.Values, v)
	}
	return out, nil
}

// each2 is each1 for two operands; two sequences must be equally long.
func (e *evaluator) each2(at int, x, y Node, f func(x, y ctype.Value) (ctype.Value, error)) (Result, error) {
	a, err := e.eval(x)
	if err != nil {
		return Result{}, err
	}
	return e.with(at, a, y, f)
}

// with is each2 for a left operand that has been evaluated.
func (e *evaluator) with(at int, a Result, y Node, f func(x, y ctype.Value) (ctype.Value, error)) (Result, error) {
	b, err := e.eval(y)
	switch {
	case err != nil:
		return Result{}, err
	case a.Seq && b.Seq && len(a.Values) != len(b.Values):
		return Result{}, e.errorf(at, "sequences of %d and of %d values", len(a.Values), len(b.Values))
	case b.Seq:
		r, err := e.apply(at, b, func(i int, v ctype.Value) (ctype.Value, error) {
			if a.Seq {
				return f(a.Values[i], v)
			}
			return f(a.Values[0], v)
		})
		r.Err = errors.Join(a.Err, r.Err)
		return r, err
	}
	return e.apply(at, a, func(_ int, v ctype.Value) (ctype.Value, error) { return f(v, b.Values[0]) })
}

// ident finds a name: a variable of the target, an enumerator, or one of the
// constants that are macros in the kernel.
func (e *evaluator) ident(name string) (ctype.Value, error) {
	v, err := e.env.Ident(name)
	if err == nil || !errors.Is(err, ctype.ErrNotFound) {
		return v, err
	}
	if c, t, err := e.ts.Enumerator(name); err == nil {
		// An enumerator is an int if it fits (C17 6.7.2.2p3).
		if int64(c.Value) == int64(int32(c.Value)) {
			t = ctype.Builtin("int")
		}
		return e.ts.Scalar(nil, t, c.Value, name), nil
	}
	switch name {
	case "NULL":
		return e.ts.Scalar(e.env.Mem(), ctype.PointerTo(ctype.Builtin("void")), 0, name), nil
	case "true":
		return e.ts.Scalar(nil, ctype.Builtin("bool"), 1, name), nil
	case "false":
		return e.ts.Scalar(nil, ctype.Builtin("bool"), 0, name), nil
	}
	var missing *ctype.NotFoundError
	if errors.As(err, &missing) && missing.Suggestions != nil {
		return v, err
	}
	nf := &ctype.NotFoundError{Kind: "variable or enumerator", Name: name}
	if s, ok := e.env.(Suggester); ok {
		nf.Suggestions = s.Suggest(name)
	}
	return v, nf
}

func (e *evaluator) cond(n *Cond) (Result, error) {
	test, err := e.value(n.Test)
	if err != nil {
		return Result{}, err
	}
	u, err := e.uint(test)
	if err != nil {
		return Result{}, e.fail(n.Test.Pos(), err)
	}
	taken, other := n.Then, n.Else
	if u == 0 {
		taken, other = n.Else, n.Then
	}
	r, err := e.eval(taken)
	if err != nil || r.Seq || !arithmetic(r.Values[0].Type()) {
		return r, err
	}
	// The other branch has a say in the type (C17 6.5.15p5), if it has one.
	e.dry++
	o, err := e.value(other)
	e.dry--
	if err != nil || !arithmetic(o.Type()) {
		return r, nil
	}
	v, err := e.cast(r.Values[0], Usual(promoted(r.Values[0]), promoted(o)))
	return Single(v), e.fail(taken.Pos(), err)
}

func (e *evaluator) sizeof(n *Sizeof) (Result, error) {
	var t *ctype.Type
	var err error
	at := n.At
	if n.Type != nil {
		t, err = e.typ(n.Type)
	} else {
		e.dry++
		var v ctype.Value
		v, err = e.value(n.X)
		e.dry--
		if t = v.Type(); err == nil && v.BitSize() != 0 {
			err = errors.New("a bitfield has no size in bytes")
		}
	}
	if err != nil {
		return Result{}, e.fail(at, err)
	}
	size, err := e.size(t)
	return Single(e.ulong(uint64(size), "sizeof")), e.fail(at, err)
}

// size is sizeof, with GNU C's 1 for void and functions.
func (e *evaluator) size(t *ctype.Type) (int, error) {
	switch t.Strip().Kind() {
	case ctype.Void, ctype.Func, ctype.FuncProto:
		return 1, nil
	}
	return e.ts.Sizeof(t)
}

func (e *evaluator) ulong(u uint64, name string) ctype.Value {
	return e.ts.Scalar(e.env.Mem(), ctype.Builtin("unsigned long"), u, name)
}
