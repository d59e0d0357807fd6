// Package rerun runs a kernel's own functions and BPF programs again, offline, on
// a copy-on-write view of a dump or of live memory, and says why they answered what
// they did.
//
// A [Session] knows the kernel: arguments are C expressions, per-CPU data is that
// of a CPU, `current` is a task, what must not or cannot run (the scheduler,
// the log, the allocators, locks) is stood in for and said to be. The machine
// itself is package emulate's.
package rerun

import (
	"github.com/ksleuth/ksleuth/mem"
)

// An Emulation is the answer of a run.
type Emulation struct {
	Call     string   `json:"call"`                // as asked, the arguments as expressions
	Function string   `json:"function"`            // name of what ran
	Addr     mem.Addr `json:"addr"`                // where it begins
	Args     []Arg    `json:"args"`                // what it was given
	Outcome  string   `json:"outcome"`             // returned, fault, limit, loop, watched, trap, unsupported, stopped
	Return   mem.Addr `json:"return"`              // rax, cut to the width of the return type; 0 unless it returned
	Text     string   `json:"return_text"`         // the same by its type: "-22 (-EINVAL)", "true", "NULL"; "" unless it returned, or returns nothing
	Type     string   `json:"return_type"`         // in C
	Insns    uint64   `json:"insns"`               // executed
	Stop     *Stop    `json:"stop,omitempty"`      // where and why it ended, unless it returned
	Why      []Reason `json:"why"`                 // what decided the answer, in order
	WhyGap   string   `json:"why_gap,omitempty"`   // what is missing from why
	Stubs    []Use    `json:"stubs"`               // what was stood in for
	Writes   []Change `json:"writes"`              // to the target's memory, which stays as it is
	Watch    []Hit    `json:"watch,omitempty"`     // writes to watched memory
	Set      []Change `json:"set,omitempty"`       // what was changed beforehand
	Trace    []Line   `json:"trace,omitempty"`     // as asked for
	TraceGap uint64   `json:"trace_gap,omitempty"` // lines left out beyond the limit
}

// An Arg is an argument of a call.
type Arg struct {
	Name  string   `json:"name"` // of the parameter; "" if unknown
	Type  string   `json:"type"`
	Expr  string   `json:"expr,omitempty"` // as asked
	Value mem.Addr `json:"value"`
	Text  string   `json:"text,omitempty"` // the value by its type, where that says more
	// After is what is in memory of the run's own afterwards, a buffer or a string,
	// where the run changed it.
	After string `json:"after,omitempty"`
}

// A Place is an instruction with its names.
type Place struct {
	Addr   mem.Addr `json:"addr"`
	Symbol string   `json:"symbol"`           // function+0xoffset, of BPF code by the names of its source
	Source string   `json:"source,omitempty"` // file:line of BPF code
	Insn   string   `json:"insn"`             // in AT&T syntax
}

// A Stop says where and why a run ended.
type Stop struct {
	Place
	Text string `json:"text"` // why
	// Fault is the address that could not be accessed, Access read, write or execute.
	Fault  mem.Addr `json:"fault,omitzero"`
	Access string   `json:"access,omitempty"`
	Calls  []string `json:"calls"` // the functions it was in, innermost first
}

// A Reason is one thing that decided an answer: a condition on values, with
// what they were loaded from, or where the answer itself came from.
type Reason struct {
	Place
	Kind  string   `json:"kind"` // condition, value, call, loop
	Text  string   `json:"text"` // "cpu_buffer->head_page->read (0xff0) != cpu_buffer->commit_page->page->commit (0x0)"
	Left  *Operand `json:"left,omitempty"`
	Op    string   `json:"op,omitempty"` // that held: == != < <= > >= &
	Right *Operand `json:"right,omitempty"`
	Count uint64   `json:"count,omitempty"` // how often it decided, if more than once
}

// An Operand is a value with a name.
type Operand struct {
	Name  string   `json:"name,omitempty"` // C expression; "" for constants
	Value mem.Addr `json:"value"`
	Text  string   `json:"text"`          // the value by its type
	Addr  mem.Addr `json:"addr,omitzero"` // what it was loaded from
	Type  string   `json:"type,omitempty"`
}

// A Use is a stub that was called.
type Use struct {
	Name  string `json:"name"`
	Why   string `json:"why"` // it does not run, and what happens instead
	Count int    `json:"count"`
	From  string `json:"from"` // function+0xoffset of the first call
}

// A Change is memory that was written.
type Change struct {
	Addr mem.Addr `json:"addr"`
	Name string   `json:"name,omitempty"` // C expression or symbol+offset, if known
	Len  int      `json:"len"`
	Old  string   `json:"old"` // bytes in hexadecimal, at most 64
	New  string   `json:"new"`
	By   *Place   `json:"by,omitempty"` // the last instruction that wrote it
	// Stack says that it lies below the stack pointer that a run from a frame
	// began with: the run's own frames.
	Stack bool `json:"stack,omitempty"`
}

// A Hit is a write to watched memory.
type Hit struct {
	Place
	To    mem.Addr `json:"to"`
	Bytes string   `json:"bytes"`          // what was written, in hexadecimal
	Value mem.Addr `json:"value"`          // the same as a number
	Name  string   `json:"name,omitempty"` // what was written, as a C expression: "opts->error"
	Calls []string `json:"calls"`          // the functions it happened in, innermost first
	Step  uint64   `json:"step"`
}

// A Line is one line of a trace.
type Line struct {
	Step  uint64 `json:"step"`
	Depth int    `json:"depth"` // of calls
	Kind  string `json:"kind"`  // call, return, load, store, insn, stub
	Place
	Text string `json:"text"`
}
