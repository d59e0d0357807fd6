// Package tracee finds what a tracer can be asked to observe: functions of BPF
// programs, of the kernel and its modules, and tracepoints, by the names that
// people give them; and says of each why it can not be observed, if so.
//
// [Resolve] takes names, which [Help] explains to people:
//
//	pattern   = program [ "/" glob ] | hook | function | tracepoint .
//	program   = ( "prog" | "link" | "map" | "type" | "pin" | "pid" ) ":" glob .
//	hook      = ( "xdp" | "tc" | "tcx" | "netkit" | "cgroup" ) "@" glob [ ":" attach ] .
//	function  = [ module ":" ] glob .
//	tracepoint = ( "tracepoint" | "tp" ) ":" [ category ":" ] glob .
//
// "/" glob names functions of a program and follows "prog" alone. A word
// without ":" and "@" is a function of the kernel if its BTF has one of the
// name; else it is BPF programs of the name; else functions of BPF programs; else a
// symbol of the kernel, which then comes with the reason why it is refused.
package tracee

import (
	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// A Kind says what sort of code a function is.
type Kind string

// The kinds.
const (
	Program    Kind = "program"    // the main function of a BPF program
	Subprogram Kind = "subprogram" // another function of a BPF program
	Extension  Kind = "extension"  // the main function of a freplace program
	Kernel     Kind = "function"   // of the kernel or a module
	Tracepoint Kind = "tracepoint" // a raw tracepoint, whose arguments have types
)

// A Function is what can be observed.
type Function struct {
	Kind   Kind
	Name   string // in full, where BTF has it
	Module string // of a kernel function or tracepoint; "" for the kernel itself
	Addr   mem.Addr
	Len    int // bytes of machine code; 0 if not known

	// Prog and Subprog are of BPF code.
	Prog    *bpf.Program
	Subprog int
	// Stub is the function that an extension stands in for.
	Stub *Stub
	// Slots are the places in program arrays that lead here: the program can
	// be entered by a tail call, past the place where trampolines are called.
	Slots []Slot

	// Types describe the function: those of the program's own BTF, or the
	// kernel's with its modules'. They are nil where there are none.
	Types *ctype.Types
	BTF   int    // id of the BTF object
	ID    uint32 // of the function in that BTF
	// Proto is of kind Func, or FuncProto of a tracepoint; nil if it is not
	// known. Ask Params and Result.
	Proto *ctype.Type
	// Context is what the first argument of a BPF program points to in the
	// kernel's own terms: struct xdp_buff behind struct xdp_md. It is nil for
	// other functions. It is a type of the kernel, not of Types.
	Context *ctype.Type

	// Refused is why nothing can observe it; nil if something can.
	Refused *Refusal
}

// A Stub is a function of a program in whose place a freplace program runs.
type Stub struct {
	ProgID   int
	ProgName string
	Type     string // of the program
	Func     string
}

// A Slot is an element of a program array.
type Slot struct {
	MapID int
	Map   string // its name
	Index int
}

// A Refusal says why a function cannot be observed.
type Refusal struct {
	Reason string // a sentence
	Remedy string // what the user can do; may be empty
}

// String names the function as a user would: xdp_main, fw_mod (freplace),
// nf_conntrack:nf_ct_get_tuple, tracepoint:net/netif_rx.
func (f *Function) String() string {
	switch {
	case f.Kind == Tracepoint:
		return "tracepoint:" + f.Name
	case f.Module != "":
		return f.Module + ":" + f.Name
	}
	return f.Name
}

// Params returns the parameters of the function; nil where they are not known.
func (f *Function) Params() []ctype.Param {
	if f.Proto == nil {
		return nil
	}
	return f.Proto.Params()
}

// Result returns the type of what the function returns; nil where that is not
// known.
func (f *Function) Result() *ctype.Type {
	t := f.Proto
	if t == nil {
		return nil
	}
	if t.Kind() == ctype.Func {
		t = t.Elem()
	}
	return t.Elem()
}
