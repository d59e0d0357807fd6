package rerun

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/typeflow"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Question is what is to be run and what of it is to be told.
type Question struct {
	Call string // FUNC(ARG, ...); see [Session.Parse]
	// Stack and Frame name, where Call is empty, a frame of a stack: its function is run
	// from its beginning, or, with FromRegs, from where the frame stands.
	Stack    stack.Stack
	Frame    int
	FromRegs bool

	Set   []string // changes made before: see [Session.Set]
	Watch []string // "ADDR" or "ADDR,LEN", C expressions; of a frame also the name of a register
	Why   bool
	Trace string // "", calls, loads or insns
	// TraceLimit bounds the lines of the trace.
	TraceLimit int
}

// Ask runs what a question asks for.
func Ask(ctx context.Context, k *kernel.Kernel, o Options, q Question) (*Emulation, error) {
	if q.Why && o.Limits.History == 0 {
		o.Limits.History = askHistory
	}
	s, err := New(k, o)
	if err != nil {
		return nil, err
	}
	s.settled = len(s.sets)
	for _, set := range q.Set {
		if err := s.Set(set); err != nil {
			return nil, err
		}
	}
	if q.Call == "" {
		return s.askFrame(ctx, q)
	}
	t, err := s.Parse(ctx, q.Call)
	if err != nil {
		return nil, err
	}
	return s.answerTo(ctx, q, t, func(prepare func(*emulate.Machine)) (*Result, error) {
		return s.Run(ctx, t, prepare)
	})
}

// askHistory is how many instructions are remembered to say why: 64 MiB of them.
const askHistory = 4 << 20

// answerTo runs, and tells what is asked for.
func (s *Session) answerTo(ctx context.Context, q Question, t *Target, run func(func(*emulate.Machine)) (*Result, error)) (*Emulation, error) {
	var watches [][2]uint64
	for _, w := range q.Watch {
		if q.Call == "" && isReg(w) {
			continue
		}
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
	flow, err := s.newFlow(t)
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

// isReg says whether a watch names a register.
func isReg(s string) bool {
	for _, n := range regNames {
		if strings.EqualFold(s, n) {
			return true
		}
	}
	return false
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

// askFrame runs the function of a frame.
func (s *Session) askFrame(ctx context.Context, q Question) (*Emulation, error) {
	if q.Frame < 0 || q.Frame >= len(q.Stack.Frames) {
		return nil, &FrameError{q.Frame, len(q.Stack.Frames)}
	}
	f := q.Stack.Frames[q.Frame]
	var entry *Entry
	var regs vmcore.Regs
	if q.FromRegs {
		if f.Raw.Regs == nil {
			return nil, &UnknownError{f.Symbol, "the registers of this frame are not known: only of what an exception interrupted they are"}
		}
		regs = *f.Raw.Regs
	} else {
		e, err := s.Reenter(ctx, q.Stack, q.Frame)
		if err != nil {
			return nil, err
		}
		entry, regs = e, coreRegs(e.Regs)
	}
	e, err := s.answerTo(ctx, q, nil, func(prepare func(*emulate.Machine)) (*Result, error) {
		return s.Resume(ctx, regs, prepare)
	})
	if err != nil {
		return nil, err
	}
	e.Call = fmt.Sprintf("frame %d", q.Frame)
	for _, w := range q.Watch {
		if !isReg(w) {
			continue
		}
		if entry == nil {
			return nil, &WatchError{w, errors.New("where a register was saved is seen only from the beginning of the function: leave out the frame's registers")}
		}
		h, err := entry.watchReg(ctx, strings.ToLower(w))
		if err != nil {
			return nil, err
		}
		e.Watch = append(e.Watch, h)
	}
	return e, nil
}

// A FrameError says that a stack has no frame of a number.
type FrameError struct{ Frame, Frames int }

// Error says how many there are.
func (e *FrameError) Error() string {
	return fmt.Sprintf("there is no frame %d: the stack has %d, from 0", e.Frame, e.Frames)
}

// coreRegs is the form of registers that dumps have.
func coreRegs(r emulate.Regs) vmcore.Regs {
	g := r.GP
	return vmcore.Regs{
		RAX: g[emulate.RAX], RCX: g[emulate.RCX], RDX: g[emulate.RDX], RBX: g[emulate.RBX],
		RSP: g[emulate.RSP], RBP: g[emulate.RBP], RSI: g[emulate.RSI], RDI: g[emulate.RDI],
		R8: g[emulate.R8], R9: g[emulate.R9], R10: g[emulate.R10], R11: g[emulate.R11],
		R12: g[emulate.R12], R13: g[emulate.R13], R14: g[emulate.R14], R15: g[emulate.R15],
		RIP: r.RIP, RFLAGS: r.Flags,
	}
}
