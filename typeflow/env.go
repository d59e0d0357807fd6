package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
)

// A Func is what is known of a function.
type Func struct {
	Name  string
	Proto *ctype.Type // its prototype; nil if not known
	// Exact: the registers hold what the prototype says. The compiler makes
	// copies of functions (foo.isra.0, foo.part.0) with other parameters.
	Exact bool
}

// A Variable is an object with a name.
type Variable struct {
	Name string
	Addr uint64
	Type *ctype.Type // nil if not known
	Size uint64      // up to the next one, where Type is nil
	CPU  int         // of a per-CPU variable, else -1
}

// An Env gives a run its names and types. All addresses are virtual ones.
type Env interface {
	Types() *ctype.Types
	// Func returns the function that begins at addr.
	Func(addr uint64) (Func, bool)
	// Variable returns the variable, per-CPU ones included, that addr lies in.
	Variable(addr uint64) (Variable, bool)
	// Symbol names an address: "function+0x12", or "" if it has no name.
	Symbol(addr uint64) string
}
