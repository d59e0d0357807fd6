// Package jit recognises what the x86-64 BPF JIT compiler of the kernel wrote:
// prologues, the tail-call count and tail calls, inlined helpers, trampolines
// and dispatchers, as kernels from 5.10 to 7.2 emit them.
//
// It works on machine code alone: what a kernel does is read from its bytes and
// never from its version. Code that is none of the known idioms gets no note.
// The source of every idiom is arch/x86/net/bpf_jit_comp.c, of inlined helpers
// and rewritten instructions kernel/bpf/verifier.c and the map types.
package jit

import "github.com/ksleuth/ksleuth/x86"

// A Kind tells what a piece of generated code is.
type Kind uint8

// The kinds of code.
const (
	Program           Kind = iota + 1 // the main function of a program
	Subprogram                        // another function of a program
	ExceptionCallback                 // the function that bpf_throw ends a program with (fd5d27b70188, 6.7)
	Trampoline                        // runs programs at the entry and the return of a function
	StructOps                         // trampoline that the kernel calls as a member of a struct_ops map
	Dispatcher                        // jumps to one of the XDP programs in use
)

// Options say what is known of the code, and how to name addresses. All but
// Kind may be left out.
type Options struct {
	Kind Kind
	// Sym names code and data of the kernel.
	Sym x86.SymbolFunc
	// MapAt returns the name of the map whose struct bpf_map or whose values
	// lie at addr, such as "map 5 packets", or "".
	MapAt func(addr uint64) string
	// TailCallReachable says of a trampoline whether the function it hangs on
	// is BPF code that gets a tail-call count; nil is unknown.
	TailCallReachable *bool
}

// A Note is a remark on consecutive instructions.
type Note struct {
	Off  int    // of the first instruction, into the code
	Len  int    // bytes of the instructions
	Text string // at most about 70 columns
}

// maxCode bounds what is decoded: no program's code comes near.
const maxCode = 16 << 20
