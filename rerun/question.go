package rerun

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/typeflow"
)

// A Question is what is to be run and what of it is to be told.
type Question struct {
	Call string // FUNC(ARG, ...); see [Session.Parse]

	Set   []string // changes made before: see [Session.Set]
	Watch []string // "ADDR" or "ADDR,LEN", C expressions
	Why   bool
	Trace string // "", calls, loads or insns
	// TraceLimit bounds the lines of the trace.
	TraceLimit int
}

// Ask runs the call that a question asks for.
func Ask(ctx context.Context, k *kernel.Kernel, o Options, q Question) (*Emulation, error) {
	s, err := Prepare(k, o, q)
	if err != nil {
		return nil, err
	}
	t, err := s.Parse(ctx, q.Call)
	if err != nil {
		return nil, err
	}
	return s.Tell(ctx, q, t, func(prepare func(*emulate.Machine)) (*Result, error) {
		return s.Run(ctx, t, prepare)
	})
}

// Prepare makes a session for a question: one that remembers enough to say why,
// with what is to be changed before.
func Prepare(k *kernel.Kernel, o Options, q Question) (*Session, error) {
	if q.Why && o.Limits.History == 0 {
		o.Limits.History = askHistory
	}
	s, err := New(k, o)
	if err != nil {
		return nil, err
	}
	for _, set := range q.Set {
		if err := s.Set(set); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// askHistory is how many instructions are remembered to say why: 64 MiB of them.
const askHistory = 4 << 20

// Tell runs, by run, and tells what is asked for. t is nil for a run from
// registers.
func (s *Session) Tell(ctx context.Context, q Question, t *Target, run func(func(*emulate.Machine)) (*Result, error)) (*Emulation, error) {
	var watches [][2]uint64
	for _, w := range q.Watch {
		at, n, err := s.watch(ctx, w)
		if err != nil {
			return nil, err
		}
		watches = append(watches, [2]uint64{at, n})
	}
	var tracer *Tracer
	if q.Trace != "" {
		var err error
		if tracer, err = s.NewTracer(t, q.Trace, q.TraceLimit); err != nil {
			return nil, err
		}
	}
	watched := func(m *emulate.Machine) {
		for _, w := range watches {
			m.Watch(w[0], w[1])
		}
	}
	r, err := run(func(m *emulate.Machine) {
		watched(m)
		if tracer != nil {
			m.Observer = tracer
		}
	})
	if err != nil {
		return nil, err
	}
	e := s.Emulation(t, r)
	e.Set = e.Set[s.settled:]
	if tracer != nil {
		e.Trace, e.TraceGap = tracer.Lines()
	}
	again := func(obs emulate.Observer) error {
		_, err := run(func(m *emulate.Machine) {
			watched(m)
			m.Observer = obs
		})
		return err
	}
	if len(e.Watch) > 0 {
		if err := s.nameHit(t, &e.Watch[len(e.Watch)-1], again); err != nil {
			return nil, err
		}
	}
	if q.Why {
		if e.Why, e.WhyGap, err = s.Why(t, r, again); err != nil {
			return nil, err
		}
		if e.Why == nil {
			e.Why = []Reason{}
		}
	}
	return e, ctx.Err()
}

// nameHit finds out what a write to watched memory wrote to, as C.
func (s *Session) nameHit(t *Target, h *Hit, again replay) error {
	flow, err := s.Flow(t)
	if err != nil {
		return err
	}
	flow.On = func(e *typeflow.Event) {
		if e.Kind == typeflow.Store && e.Step == h.Step && e.Place != nil {
			h.Name = flow.Write(e.Place, e.Frame)
		}
	}
	return again(flow)
}

// A WatchError says what is wrong with what is to be watched.
type WatchError struct {
	Text string
	Err  error
}

// Error says what and why.
func (e *WatchError) Error() string { return fmt.Sprintf("watch %q: %v", e.Text, e.Err) }

// Unwrap returns the reason.
func (e *WatchError) Unwrap() error { return e.Err }

const maxWatch = 1 << 16

// watch parses "ADDR,LEN".
func (s *Session) watch(ctx context.Context, text string) (addr, n uint64, err error) {
	expr, length, ok := text, "", false
	if i := strings.LastIndexByte(text, ','); i >= 0 {
		expr, length, ok = text[:i], text[i+1:], true
	}
	n = 8
	if ok {
		if n, err = strconv.ParseUint(strings.TrimSpace(length), 0, 64); err != nil || n == 0 || n > maxWatch {
			return 0, 0, &WatchError{text, fmt.Errorf("%q is no length between 1 and %d", length, maxWatch)}
		}
	}
	v, err := s.eval(ctx, expr)
	if err != nil {
		return 0, 0, &WatchError{text, err}
	}
	if addr, err = v.Uint(); err != nil {
		return 0, 0, &WatchError{text, err}
	}
	return addr, n, nil
}
