package trace

import (
	"slices"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// givenCounts are the tail-call counts that functions were given, as
// breakpoints behind their trampolines saw them, by thread. They also tell when
// functions were entered of which only the return is observed.
type givenCounts struct{ threads map[int][]given }

// A given is what one call was given.
type given struct {
	f       *tracee.Function
	at, rax uint64
	ended   bool
}

func newGivenCounts() *givenCounts { return &givenCounts{make(map[int][]given)} }

// Bounds: beyond them what is oldest is forgotten.
const (
	givenThreads = 4096
	givenEach    = 128
)

// note takes the event of a breakpoint.
func (g *givenCounts) note(e *probe.Event, f *tracee.Function) {
	if len(g.threads) > givenThreads {
		clear(g.threads)
	}
	l := append(g.threads[e.TID], given{f: f, at: e.End, rax: e.RAX})
	if len(l) > givenEach {
		l = slices.Clone(l[len(l)-givenEach/2:])
	}
	g.threads[e.TID] = l
}

// id stands for a call that was seen by breakpoint.
func (v given) id() probe.CallID { return probe.CallID{Frame: ^uint64(0), Start: v.at} }

// innermost returns the last call of a thread that has not returned.
func (g *givenCounts) innermost(tid int) probe.CallID {
	for _, v := range slices.Backward(g.threads[tid]) {
		if !v.ended {
			return v.id()
		}
	}
	return probe.CallID{}
}

// returned gives the return of a call its entry, if that was seen.
func (g *givenCounts) returned(e *probe.Event, f *tracee.Function) {
	l := g.threads[e.TID]
	for i := range slices.Backward(l) {
		if v := &l[i]; !v.ended && v.f == f && v.at <= e.End {
			e.Start, e.Call = v.at, v.id()
			for j := i; j < len(l); j++ { // what was called in it has returned, too
				l[j].ended = true
			}
			e.Parent = g.innermost(e.TID)
			return
		}
	}
}

// of returns what a call was given.
func (g *givenCounts) of(c *Call) (rax mem.Addr, seen bool) {
	for _, v := range g.threads[c.TID] {
		if v.f.Name == c.Function && v.at >= c.Start && (c.End == 0 || v.at <= c.End) {
			return mem.Addr(v.rax), true // the first: others are of calls in it
		}
	}
	return 0, false
}
