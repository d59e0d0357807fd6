// Package guard says, before anything is attached, when observing a function
// would change what it does, cannot be done, or would cost much.
package guard

import (
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/tracee"
)

// A Severity says what follows from a warning.
type Severity string

// The severities.
const (
	Refuse Severity = "refuse" // attaching would change what the function does; only by force
	Unable Severity = "unable" // the kernel will not have it
	Costly Severity = "costly" // it works, and costs this much
)

// A Warning is what is to be known before a function is observed.
type Warning struct {
	ID       string             `json:"id"` // tailcall-trampoline, trampoline-limit, denylist, noreturn, rate, ...
	Severity Severity           `json:"severity"`
	Func     *tracee.Function   `json:"-"`
	Function string             `json:"function"` // its name
	Title    string             `json:"title"`    // one sentence: what would happen
	Evidence []finding.Evidence `json:"evidence,omitempty"`
	Remedy   string             `json:"remedy,omitempty"`
}
