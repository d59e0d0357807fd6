package bpf

import (
	"fmt"

	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/mem"
)

// readCode adds what the machine code of an image tells: where it calls the
// function, whether it keeps the tail-call count, and how long it is where the
// kernel notes only what holds it. Code that is not understood tells nothing.
func (r *trampolineReader) readCode(t *Trampoline) {
	if t.Image == 0 {
		return
	}
	room := t.Size
	if room == 0 { // up to the end of its page
		room = int(pageSize - uint64(t.Image)%pageSize)
	}
	b, err := mem.Bytes(r.k.Mem(), uint64(t.Image), room)
	if err != nil {
		r.errs.Add(fmt.Errorf("code of the image at %v: %w", t.Image, err))
		return
	}
	opts := jit.Options{Kind: jit.Trampoline, Sym: r.symbol, TailCallReachable: r.takesCount(t.Target)}
	if t.Kind == "struct_ops" {
		opts.Kind = jit.StructOps
	}
	code, err := jit.ReadTrampoline(b, uint64(t.Image), opts)
	if err != nil {
		return
	}
	if !r.exact[t] {
		t.Size = code.Len
	}
	t.Original, t.Call = code.Calls, mem.Addr(code.Original)
	if t.Target.Kind == TargetProgram {
		t.KeepsTailCalls, t.Evidence = code.KeepsTailCalls, code.Evidence
	}
}

// symbol names an address for package jit.
func (r *trampolineReader) symbol(addr uint64) (string, uint64, bool) {
	s, off, ok := r.k.Symbolize(addr)
	return s.String(), off, ok
}

// takesCount says whether the function that a trampoline hangs on is handed a
// tail-call count, by its own machine code: a main function sets the count
// itself, behind the place where the trampoline is called. It is nil if that
// cannot be told.
func (r *trampolineReader) takesCount(t Target) *bool {
	const enough = 160 // bytes, more than any prologue
	if t.Kind != TargetProgram || t.Addr == 0 {
		return nil
	}
	o, ok := r.owner(uint64(t.Addr))
	if !ok {
		return nil
	}
	s := o.Prog.Subprogs[o.Subprog]
	b, err := mem.Bytes(r.k.Mem(), uint64(s.Addr), min(s.Len, enough))
	if err != nil {
		return nil // the program's own reader says so
	}
	p, ok := jit.ReadPrologue(b, uint64(s.Addr))
	if !ok {
		return nil
	}
	takes := p.CountBy != jit.CountNone && !p.Resets
	return &takes
}
