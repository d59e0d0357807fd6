package culprit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Frame names a frame of a stack, whose function is to run: from its
// beginning, or, with FromRegs, on from where the stack stands until it returns.
type Frame struct {
	Stack    stack.Stack
	N        int
	FromRegs bool
}

// String is how a question names the frame.
func (f Frame) String() string { return fmt.Sprintf("frame %d", f.N) }

// target is the call of the function that an entry is of, nil if it is not
// known.
func (e *Entry) target(f Frame) *rerun.Target {
	if e == nil {
		return nil
	}
	t, ok := e.finder.FunctionAt(e.Function)
	if !ok {
		return nil
	}
	t.Call, t.Args = f.String(), e.finder.argsOf(e.Function, e.Regs.GP)
	for i, a := range t.Args {
		t.Values = append(t.Values, uint64(a.Value))
		t.Typed = append(t.Typed, t.Proto.Params()[i].Type)
	}
	return t
}

// A FrameError says that a stack has no frame of a number.
type FrameError struct{ N, Frames int }

// Error says how many there are.
func (e *FrameError) Error() string {
	return fmt.Sprintf("there is no frame %d: the stack has %d, from 0", e.N, e.Frames)
}

// Ask runs the function of a frame. In a question about one, what is to be
// watched can also be a register: who wrote where it had been saved.
func Ask(ctx context.Context, k *kernel.Kernel, o rerun.Options, q rerun.Question, f Frame) (*rerun.Emulation, error) {
	if f.N < 0 || f.N >= len(f.Stack.Frames) {
		return nil, &FrameError{f.N, len(f.Stack.Frames)}
	}
	s, err := rerun.Prepare(k, o, q)
	if err != nil {
		return nil, err
	}
	run, entry, err := start(ctx, s, f)
	if err != nil {
		return nil, err
	}
	t := entry.target(f)
	watched := q.Watch
	q.Watch = slices.DeleteFunc(slices.Clone(q.Watch), isReg)
	e, err := s.Tell(ctx, q, t, run)
	if err != nil {
		return nil, err
	}
	e.Call = f.String()
	if entry == nil {
		of := f.Stack.Frames[f.N]
		e.Function, e.Addr = of.Symbol, of.PC-of.Offset
	}
	if entry != nil {
		for _, a := range e.Args {
			if a.Text == "unknown" {
				why := fmt.Sprintf("its value is not known from the stack: the run has %s in its place", a.Value)
				e.Stubs = append(e.Stubs, rerun.Use{Name: "argument " + a.Name, Why: why, Count: 1})
			}
		}
	}
	for _, w := range watched {
		if !isReg(w) {
			continue
		}
		if entry == nil {
			return nil, &rerun.WatchError{Text: w, Err: errors.New("where a register was saved is seen only from the beginning of the function: leave out the frame's registers")}
		}
		h, err := entry.watchReg(ctx, strings.ToLower(w))
		if err != nil {
			return nil, err
		}
		e.Watch = append(e.Watch, h)
	}
	return e, nil
}

// A runner runs something, after machines were prepared for it.
type runner = func(prepare func(*emulate.Machine)) (*rerun.Result, error)

// start returns what runs the function of a frame: from an entry, or, where there is none,
// from where the stack stands until the function returns.
func start(ctx context.Context, s *rerun.Session, f Frame) (runner, *Entry, error) {
	if !f.FromRegs {
		e, err := New(s).Reenter(ctx, f.Stack, f.N)
		if err != nil {
			return nil, nil, err
		}
		return func(prepare func(*emulate.Machine)) (*rerun.Result, error) {
			return s.Resume(ctx, coreRegs(e.Regs), prepare)
		}, e, nil
	}
	frames := f.Stack.Frames
	inner := f.N // what the exception interrupted, or the CPU ran
	for inner > 0 && frames[inner].Raw.Regs == nil {
		inner--
	}
	regs := frames[inner].Raw.Regs
	if regs == nil {
		return nil, nil, &UnknownError{frames[f.N].Symbol, "its registers are not known: only of what an exception interrupted, or a CPU ran, they are"}
	}
	var at, ret uint64
	if f.N+1 < len(frames) && frames[f.N].Raw.CFA != 0 {
		at, ret = frames[f.N].Raw.CFA-8, frames[f.N+1].Raw.PC
	}
	return func(prepare func(*emulate.Machine)) (*rerun.Result, error) {
		return s.ResumeTo(ctx, *regs, at, ret, prepare)
	}, nil, nil
}

// isReg says whether a watch names a register.
func isReg(s string) bool {
	return slices.ContainsFunc(emulate.RegNames[:], func(n string) bool { return strings.EqualFold(s, n) })
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
