package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
)

// An Op is the kind of an [Expr].
type Op uint8

// The kinds of expressions.
const (
	OpConst     Op = iota // N
	OpValue               // a number that was computed: N
	OpParam               // a parameter of a function
	OpGlobal              // a variable, an lvalue
	OpPerCPU              // a CPU's copy of a variable, an lvalue: Name, N the CPU
	OpCurrent             // the current task
	OpArrow               // X->Name, an lvalue
	OpDot                 // X.Name, an lvalue
	OpIndex               // X[Y], an lvalue
	OpDeref               // *X, or *(Type *)X if there is a Type: an lvalue
	OpAddr                // &X
	OpCast                // (Type)X
	OpBinary              // X Name Y
	OpUnary               // Name X
	OpCall                // Name(Args...)
	OpBits                // bytes of record X that hold bitfields: N is the first bit, Size bytes
	OpPart                // Size bytes from byte N of the scalar X
	OpOffset              // Size bytes at byte N from where pointer X points, where is no single member
	OpDisplaced           // the pointer X moved by N bytes in what it points at, a Type
)

// An Expr is a C expression. It does not change once made.
type Expr struct {
	Op   Op
	X, Y *Expr
	Name string
	N    uint64
	Size uint8
	Type *ctype.Type // of a cast; of a record of bitfields; of an lvalue where known
	Args []Value
	// Hidden: a member that wraps a single number (atomic_t's counter), which is
	// not written.
	Hidden bool

	param *param
	cond  *Cond  // of a truth value
	dyn   *index // of a displacement
	nodes int
}

// A param is a parameter of one call of a function.
type param struct {
	frame *Frame
	value Value // as the caller knows it
}

// maxNodes bounds expressions: beyond, the number itself says more.
const maxNodes = 28

func newExpr(e Expr) *Expr {
	e.nodes = 1
	if e.X != nil {
		e.nodes += e.X.nodes
	}
	if e.Y != nil {
		e.nodes += e.Y.nodes
	}
	for i := range e.Args {
		if x := e.Args[i].Expr; x != nil {
			e.nodes += x.nodes
		}
	}
	return &e
}

func constExpr(n uint64) *Expr { return &Expr{Op: OpConst, N: n, nodes: 1} }

func castExpr(t *ctype.Type, x *Expr) *Expr {
	if x == nil {
		return nil
	}
	return newExpr(Expr{Op: OpCast, X: x, Type: t})
}

func addrOf(x *Expr) *Expr {
	if x.Op == OpDeref && x.Type == nil {
		return x.X
	}
	return newExpr(Expr{Op: OpAddr, X: x})
}

// same says whether two expressions are written alike, parameters being those of
// the same call.
func same(a, b *Expr) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.Op != b.Op || a.Name != b.Name || a.N != b.N || a.Size != b.Size ||
		a.param != b.param || a.nodes != b.nodes || len(a.Args) != len(b.Args) {
		return false
	}
	for i := range a.Args {
		if !same(a.Args[i].Expr, b.Args[i].Expr) || a.Args[i].Off != b.Args[i].Off {
			return false
		}
	}
	return same(a.X, b.X) && same(a.Y, b.Y)
}

// Equal says whether two values are named alike: the same expression, whatever
// it was worth.
func Equal(a, b Value) bool {
	return a.Expr != nil && same(a.Expr, b.Expr) && a.Off == b.Off && (a.idx == nil) == (b.idx == nil)
}

// path says whether an expression does no more than name a place, or a
// constant of a place's address.
func (e *Expr) path() bool {
	for e != nil {
		switch e.Op {
		case OpParam, OpGlobal, OpPerCPU, OpCurrent:
			return true
		case OpArrow, OpDot, OpAddr, OpDeref, OpPart, OpBits:
			e = e.X
		case OpCast:
			e = e.X
		case OpIndex:
			if e.Y.Op != OpConst && !e.Y.path() {
				return false
			}
			e = e.X
		default:
			return false
		}
	}
	return false
}

// bounded returns e, or the number it is worth if e has grown too long.
func bounded(e *Expr, v uint64, t *ctype.Type) *Expr {
	if e == nil || e.nodes <= maxNodes {
		return e
	}
	n := &Expr{Op: OpValue, N: v, nodes: 1}
	if t != nil && t.Strip().Kind() == ctype.Pointer {
		return castExpr(t, n)
	}
	return n
}

// postfix says whether an expression is written as a name with what follows it.
func (e *Expr) postfix() bool {
	for e.Hidden {
		if e.Op == OpArrow {
			return false
		}
		e = e.X
	}
	switch e.Op {
	case OpArrow, OpDot, OpIndex, OpCall, OpGlobal, OpPerCPU, OpCurrent:
		return true
	}
	return false
}

// Cond returns the relation that the value is the truth value of.
func (v Value) Cond() (Cond, bool) {
	if v.Expr == nil || v.Off != 0 {
		return Cond{}, false
	}
	if v.Expr.cond == nil {
		return Cond{}, false
	}
	return *v.Expr.cond, true
}

// IsCall says whether the value is what a function returned.
func (v Value) IsCall() bool { return v.Expr != nil && v.Expr.Op == OpCall }

// Computed says whether the value was computed from others that have names.
func (v Value) Computed() bool {
	return v.Expr != nil && (v.Expr.Op == OpBinary || v.Expr.Op == OpUnary) && v.Expr.nodes > 1
}

// Raw says whether the name has memory in it that has no member's name.
func (v Value) Raw() bool { return v.Expr.raw() }

func (e *Expr) raw() bool {
	return e != nil && (e.Op == OpOffset || e.Op == OpBits || e.Op == OpValue || e.X.raw() || e.Y.raw())
}
