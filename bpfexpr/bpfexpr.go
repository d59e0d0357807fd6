// Package bpfexpr compiles C expressions over BTF types, the ones that package
// cexpr parses, to BPF instructions, which evaluate them in the kernel while a
// call is observed. What it cannot compile it refuses; what it compiles gives
// what cexpr.Expr.Eval gives on the same memory.
package bpfexpr

import (
	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

// A Var is a variable that the observed call has.
type Var struct {
	Type *ctype.Type
	// Off is where its value stands in struct call, which R1 points to on
	// entry: 8 bytes of which the type's size count, or, of arrays, the object.
	Off int16
	// Shift right by so many bits after loading, before the type's size counts.
	Shift int
	// Exit: it is known only when the call returns.
	Exit bool
	// Expr is an expression to take in place of the variable, over other
	// variables: "now - start" may stand for duration.
	Expr string
}

// An Env gives an expression its names.
type Env interface {
	// Types are the types of casts, sizeof and enumerators.
	Types() *ctype.Types
	// Var returns a variable. If there is none the error wraps
	// [ctype.ErrNotFound] and suggests near names.
	Var(name string) (Var, error)
	// Member returns an expression to take for x.member, where x is of type t
	// and the program sees another layout than the kernel has: "$->rxq->dev->
	// ifindex" for ingress_ifindex of struct xdp_md. $ stands for x's address,
	// cast to what it really is.
	Member(t *ctype.Type, member string) (string, bool)
}

// A Form says how a slot is filled.
type Form uint8

// The forms of slots.
const (
	Scalar Form = iota // 8 bytes
	String             // text of a char pointer or array, ended by 0 where there is room
	Memory             // an object, or its first bytes
)

// A Slot is where an expression's value is left.
type Slot struct {
	Name  string // the expression
	Form  Form
	Off   int // of an s64 status: 0, or why there is no value (see [ReadError]); the value stands 8 bytes behind
	Size  int // bytes of the value
	Type  *ctype.Type
	Shown bool // asked for by the user; else kept for the filter
}

// A Plan is what to do when a call is entered and when it returns. The
// instructions are bodies of functions int f(struct call *c, void *slots).
type Plan struct {
	Filter, Show, ExitFilter, ExitShow asm.Instructions
	Slots                              []Slot
	Bytes                              int // of all slots, a multiple of 8
}

// Options change how a plan is made.
type Options struct {
	// ExitOnly: nothing is seen of a call but its return; everything is
	// evaluated then.
	ExitOnly bool
	// StringBytes is how much of a string is kept, MemoryBytes of an object;
	// 0 is 64 and 256.
	StringBytes, MemoryBytes int
	// Faults is where struct call has the u32 that counts what could not be
	// evaluated: memory that could not be read, a division by zero, a shift
	// that C does not define.
	Faults int16
}

// An Input is what to compile.
type Input struct {
	Filter *cexpr.Expr // nil: every call
	// Show are evaluated when the call is entered. Of one that uses what is
	// known only later, the parts that do not are: skb->len - ret takes the
	// length from the entry. What is in exit(EXPR) is evaluated when the call
	// returns, there as in a filter.
	Show []*cexpr.Expr
}
