package bpf

import "github.com/ksleuth/ksleuth/mem"

// A Trampoline is generated code that runs programs at the entry and the
// return of a function, or in its place.
type Trampoline struct {
	Addr   mem.Addr `json:"addr"` // of the struct bpf_trampoline; 0 for an image without one (struct_ops)
	Kind   string   `json:"kind"` // trampoline, dispatcher, struct_ops; retired: an image that a task may still be in, but nothing calls
	Name   string   `json:"name"` // of its symbol: bpf_trampoline_6442536467; "" for an image without one
	Key    mem.Addr `json:"key,omitzero"`
	Image  mem.Addr `json:"image"`  // of its code; 0 if it has none, as where there is but a freplace program
	Size   int      `json:"size"`   // of the code; of what holds it where the kernel does not note the code's
	Target Target   `json:"target"` // the function it hangs on
	// Member of the struct that Target names, which calls this struct_ops image.
	Member string `json:"member,omitempty"`
	// Progs are in the order they run: entry programs, fmod_ret, exit. An
	// fsession program stands there twice, for the entry and for the return.
	Progs []TrampolineProg `json:"progs"`
	// Original: it calls the function itself; Call is where it calls.
	Original bool     `json:"calls_original"`
	Call     mem.Addr `json:"call,omitzero"`
	Flags    []string `json:"flags"` // BPF_TRAMP_F_*, in lower case without the prefix
	// Replaced is the freplace program that stands in for the function.
	Replaced int `json:"extension_prog_id,omitempty"`
	// KeepsTailCalls: its code saves the tail-call count that the target may
	// need and hands it on; nil where that could not be told from its code.
	KeepsTailCalls *bool    `json:"keeps_tail_call_cnt,omitempty"`
	Evidence       []string `json:"evidence,omitempty"` // the instructions that say so
}

// A TrampolineProg is a program that a trampoline runs.
type TrampolineProg struct {
	ID     int    `json:"id"` // 0 for code of the kernel that runs the lsm programs of a cgroup
	Name   string `json:"name"`
	When   string `json:"when"` // fentry, fexit, fmod_ret, fsession, lsm, replace, ...
	Cookie uint64 `json:"bpf_cookie,omitempty"`
}
