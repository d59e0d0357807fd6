// Package guard says, before anything is attached, when observing a function
// would change what it does, cannot be done, or would cost much.
//
// What it says rests on the kernel's machine code and types, and on harmless
// trials of what this kernel permits: never on its version.
package guard

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/tracee"
)

// A Severity says what follows from a warning.
type Severity string

// The severities.
const (
	Refuse Severity = "refuse" // attaching would change what the function does; only by force
	Unable Severity = "unable" // the kernel will not have it
	Unseen Severity = "unseen" // it does no harm, and does not see every call
	Costly Severity = "costly" // it works, and costs this much
)

// The things that are warned of.
const (
	TailCallTrampoline = "tailcall-trampoline" // the trampoline loses the tail-call count; see package knownbug
	TailCalled         = "tail-called"         // tail calls enter behind the trampoline's place
	TrampolineLimit    = "trampoline-limit"    // too many programs are on the function already
	Replaced           = "replaced"            // a freplace program runs in its place
	Denylist           = "denylist"            // the kernel has it on a list of what must not be traced
	Noreturn           = "noreturn"            // it never returns
	TracingProg        = "tracing-prog"        // a program that itself traces
	Rejected           = "rejected"            // the kernel's verifier wants no program for it
	Rate               = "rate"                // how often it runs
)

// A Warning is what is to be known before a function is observed.
type Warning struct {
	ID       string             `json:"id"`
	Severity Severity           `json:"severity"`
	Func     *tracee.Function   `json:"-"`
	Function string             `json:"function"` // its name
	Title    string             `json:"title"`    // one sentence: what would happen
	Evidence []finding.Evidence `json:"evidence,omitempty"`
	Remedy   string             `json:"remedy,omitempty"`
	// Undecided: a danger that could be neither shown nor ruled out.
	Undecided bool `json:"undecided,omitempty"`
	// CallsPerSecond is of [Rate].
	CallsPerSecond float64 `json:"calls_per_second,omitempty"`
}

// Options say how the functions will be observed.
type Options struct {
	// Entry and Exit say where programs will be attached; if neither is set,
	// at both.
	Entry, Exit bool
	// Sample is how long runs of BPF programs are counted, 0 for a second;
	// less than 0 counts none.
	Sample time.Duration
	// MaxRate is how many calls a second are no cause for a warning; with 0
	// every rate is told.
	MaxRate float64
	// CallCost is what observing a call adds to it, where that is known.
	CallCost time.Duration
}

const defaultSample = time.Second

// Check says what is to be known before functions are observed by trampolines
// (fentry, fexit, fsession), in the order of the functions. Those that
// something else refuses are left out ([tracee.Function.Refused]), as are
// tracepoints.
//
// It attaches nothing to anything but a program of its own, which never runs.
// With an error, which says what could not be found out, comes what was.
func Check(ctx context.Context, src bpfview.Source, funcs []*tracee.Function, o Options) ([]Warning, error) {
	if !o.Entry && !o.Exit {
		o.Entry, o.Exit = true, true
	}
	o.Sample = cmp.Or(o.Sample, defaultSample)
	c := &checker{ctx: ctx, src: src, opts: o}
	for _, f := range funcs {
		if f.Refused == nil && f.Kind != tracee.Tracepoint {
			c.funcs = append(c.funcs, f)
		}
	}
	if len(c.funcs) == 0 {
		return nil, ctx.Err()
	}
	for _, check := range []func(){
		c.trampolines, c.tailCalls, c.tailCalled, c.limit, c.denied, c.noReturn, c.tried, c.rates,
	} {
		if err := ctx.Err(); err != nil {
			c.errs = append(c.errs, err)
			break
		}
		check()
	}
	order := make(map[*tracee.Function]int)
	for i, f := range c.funcs {
		order[f] = i
	}
	slices.SortStableFunc(c.warnings, func(a, b Warning) int { return order[a.Func] - order[b.Func] })
	return c.warnings, errors.Join(c.errs...)
}

// A checker is one check of functions.
type checker struct {
	ctx   context.Context
	src   bpfview.Source
	opts  Options
	funcs []*tracee.Function

	tramps   trampolines
	warnings []Warning
	errs     []error
}

// warn adds a warning about a function.
func (c *checker) warn(f *tracee.Function, w Warning) {
	w.Func, w.Function = f, f.String()
	c.warnings = append(c.warnings, w)
}

func (c *checker) fail(err error) {
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// unable says that a function was already found to be none to attach to.
func (c *checker) unable(f *tracee.Function) bool {
	return slices.ContainsFunc(c.warnings, func(w Warning) bool { return w.Func == f && w.Severity == Unable })
}
