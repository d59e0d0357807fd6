package kernel

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// env lets C expressions name the kernel's variables and functions.
type env struct {
	k     *Kernel
	types *ctype.Types
}

// Eval evaluates a C expression over the kernel's variables, types and memory.
func (k *Kernel) Eval(expr string) (cexpr.Result, error) {
	types, err := k.Types()
	if err != nil {
		return cexpr.Result{}, err
	}
	return cexpr.Eval(expr, &env{k, types})
}

func (e *env) Types() *ctype.Types { return e.types }
func (e *env) Mem() mem.Reader     { return e.k.mem }

func (e *env) Ident(name string) (ctype.Value, error) {
	v, err := e.k.Global(name)
	var no *NoSymbolError
	if errors.As(err, &no) {
		return v, fmt.Errorf("%w: %w", err, ctype.ErrNotFound)
	}
	return v, err
}

func (e *env) Call(name string, _ []ctype.Value) (cexpr.Result, error) {
	return cexpr.Result{}, &ctype.NotFoundError{Kind: "function to call", Name: name}
}

// PerCPU implements [cexpr.PerCPU].
func (e *env) PerCPU(addr uint64, cpu int) (uint64, error) { return e.k.PerCPU(addr, cpu) }

// Suggest implements [cexpr.Suggester].
func (e *env) Suggest(name string) []string { return e.k.syms.Suggest(name) }
