// Package knownbug is the table of bugs of the kernel that ksleuth recognises:
// what they do, and what fixed them. Whether a kernel has one is for others to
// find out, from its machine code, its types or a harmless trial: distributions
// take fixes without saying so, and the releases named here are only a hint.
package knownbug

import (
	"fmt"
	"slices"
	"strings"
)

// A Bug is a bug of the kernel that has a name here.
type Bug struct {
	ID    string   `json:"id"`
	What  string   `json:"what"`
	Fix   string   `json:"fix"`   // commit
	Fixed []string `json:"fixed"` // releases known to have it; stable ones after the first of the main line
}

// String is one sentence about a kernel that has it.
func (b Bug) String() string {
	return fmt.Sprintf("known as %s: %s; this kernel has it; %s", b.ID, b.What, b.FixedBy())
}

// FixedBy says what fixed it.
func (b Bug) FixedBy() string {
	return fmt.Sprintf("fixed by %s (%s)", b.Fix, strings.Join(b.Fixed, ", "))
}

// The names of the bugs.
const (
	TailCallOffset     = "tailcall-offset"
	TailCallTrampoline = "tailcall-trampoline"
	TailCallAttachType = "tailcall-attach-type"
	TailCallHierarchy  = "tailcall-hierarchy"
	TailCallFreplace   = "tailcall-freplace"
	CtOptsOverflow     = "ct-opts-overflow"
	RingbufEmpty       = "ringbuf-empty"
)

// Bugs returns all of them.
func Bugs() []Bug {
	return []Bug{
		{TailCallOffset, "a tail call between programs with and without bpf2bpf calls enters the callee at the wrong place", "ff672c67ee76", []string{"5.19", "5.18.8", "5.10.127"}},
		{TailCallTrampoline, "trampolines do not hand on the tail-call count of the function they hang on", "2b5dcb31a19a", []string{"6.7", "6.5.12", "6.1.72"}},
		{TailCallAttachType, "programs of different attach types may be put into one program array", "fdad456cbcca", []string{"6.11", "6.10.7", "6.1.107"}},
		{TailCallHierarchy, "each subprogram call starts again with the caller's tail-call count", "116e04ba1459", []string{"6.12"}},
		{TailCallFreplace, "a freplace program can tail-call the program that it extends, without end", "d6083f040d5d", []string{"6.13", "6.12.5", "6.1.191"}},
		{CtOptsOverflow, "the conntrack kfuncs store opts->error without regard to opts__sz", "6f6183a39533", []string{"7.2", "7.1.5", "6.12.114", "6.1.191"}},
		{RingbufEmpty, "a tracing ring buffer whose last event was discarded is taken for not empty, and its reader spins", "67f0d6d9883c", []string{"5.14"}},
	}
}

// Get returns the bug of that name.
func Get(id string) (Bug, bool) {
	bugs := Bugs()
	i := slices.IndexFunc(bugs, func(b Bug) bool { return b.ID == id })
	if i < 0 {
		return Bug{}, false
	}
	return bugs[i], true
}
