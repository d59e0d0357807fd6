package culprit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/x86"
)

// A Crash is what a run has to come to again: the instruction that faulted, and
// the registers it did it with.
type Crash struct {
	Task  kobj.Task
	Stack stack.Stack
	RIP   uint64
	RSP   uint64
	Addr  uint64 // that could not be accessed
}

// A Culprit is the store that put a wrong value where a register had been saved.
type Culprit struct {
	Entry      *Entry      `json:"-"`
	Began      rerun.Place `json:"began"`          // the function that was run again, from its beginning
	Insns      uint64      `json:"insns"`          // executed from there to the fault
	Fault      rerun.Place `json:"fault"`          // where it came to the same fault
	Register   string      `json:"register"`       // that had the wrong value
	Cell       mem.Addr    `json:"cell"`           // where it had been saved
	Saved      rerun.Place `json:"saved"`          // the instruction that saved it there
	SavedReg   string      `json:"saved_register"` // what it was then: the caller's
	SavedValue mem.Addr    `json:"saved_value"`
	SavedFor   mem.Addr    `json:"saved_for"` // the call of the function that saved it: the register was its caller's
	Store      rerun.Hit   `json:"store"`     // the store into the cell after that
	First      int         `json:"first"`     // the first byte of the cell that it overwrote
	Len        int         `json:"len"`       // and how many
	Restored   rerun.Place `json:"restored"`  // the instruction that loaded the register again
	Value      mem.Addr    `json:"value"`     // with this
	Pointer    *Pointer    `json:"pointer,omitempty"`
	// Stack is that of the crash, where its frames had been lost and the run has
	// shown which they were; else it has none.
	Stack stack.Stack `json:"-"`
}

// A Pointer is the argument through which a store went.
type Pointer struct {
	Name   string       `json:"name"` // of the parameter; "" if it was none
	Value  mem.Addr     `json:"value"`
	Owner  string       `json:"owner,omitempty"` // function in whose frame it points
	Below  int64        `json:"below,omitempty"` // bytes by which it lies below that function's frame pointer
	Callee string       `json:"callee,omitempty"`
	Passed *rerun.Place `json:"passed,omitempty"` // the call that passed it
	Args   []rerun.Arg  `json:"args,omitempty"`   // of that call
	Size   *rerun.Arg   `json:"size,omitempty"`   // the argument that says how large the memory is, if there is one
}

// maxOuter is how many callers of a crashed function are tried to begin with.
const maxOuter = 4

// An Origin is where the address that a fault is about came from.
type Origin struct {
	Began rerun.Place    `json:"began"` // the function that was run again, from its beginning
	Insns uint64         `json:"insns"` // executed from there to the fault
	Why   []rerun.Reason `json:"why"`   // what led there, and what the address was made of, in the end
}

// Trace runs again what led to a crash, from the beginning of the function
// that crashed or of one of its callers, and where that comes to the same fault
// follows the registers it faulted with back to what made them. If one of these
// was saved in memory and overwritten there, it returns the store that did it;
// else where the address came from, as far out as a run comes to the fault. The
// error says why nothing came to the same fault.
func (s *Finder) Trace(ctx context.Context, c Crash) (*Culprit, *Origin, error) {
	var or *Origin
	cu, err := s.findCulprit(ctx, c, &or)
	if cu != nil || len(c.Stack.Frames) > 1 || c.Stack.End == nil {
		return cu, or, err
	}
	for st := range s.survivors(c) {
		d := c
		d.Stack = st
		if cu, again := s.findCulprit(ctx, d, &or); cu != nil {
			// Where the function stood whose frame was made up is not known.
			cu.Stack = st
			cu.Stack.Frames = append(st.Frames[:1:1], st.Frames[2:]...)
			return cu, nil, nil
		} else if ctx.Err() != nil {
			return nil, nil, again
		}
	}
	return nil, or, err
}

// findCulprit is Trace for one stack.
func (s *Finder) findCulprit(ctx context.Context, c Crash, or **Origin) (*Culprit, error) {
	var first error
	again := false
	for i := range min(maxOuter, len(c.Stack.Frames)-1) {
		e, err := s.Reenter(ctx, c.Stack, i)
		if err == nil {
			var cu *Culprit
			if cu, err = e.culprit(ctx, c); cu != nil {
				return cu, nil
			}
			if err == nil { // but what is wrong was so before: further out
				again = true
				if o := e.origin(ctx, c); o != nil {
					*or = o
				}
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		first = cmp.Or(first, err)
	}
	if again {
		return nil, nil
	}
	return nil, first
}

// A DivergedError says that a run did not come to the fault that was asked for.
type DivergedError struct {
	Function string
	Stop     *emulate.Stop
}

// Error says what it came to.
func (e *DivergedError) Error() string {
	what := "it returned"
	if e.Stop.Outcome != emulate.Returned {
		what = stopText(e.Stop)
	}
	return fmt.Sprintf("%s, run again, does not come to the same fault: %s", e.Function, what)
}

// culprit runs from an entry to the fault and looks for the store.
func (e *Entry) culprit(ctx context.Context, c Crash) (*Culprit, error) {
	s := e.finder
	m := e.machine()
	stop := m.Run(ctx)
	if !sameFault(stop, m, c) {
		return nil, &DivergedError{Function: s.Name(e.Function), Stop: stop}
	}
	o, ok := overwritten(m, c.RIP)
	if !ok {
		return nil, nil
	}
	cu := &Culprit{
		Entry: e, Began: s.Place(e.Function), Fault: s.Place(c.RIP), Insns: m.Step,
		Register: o.reg, Cell: mem.Addr(o.cell),
		Saved: s.Place(o.saved.Inst.Addr), Restored: s.Place(o.restored.Inst.Addr), First: o.first, Len: o.len,
	}
	if a := o.saved.Inst.Args[0]; o.saved.Inst.Op == x86.PUSH {
		cu.SavedReg = strings.ToLower(a.Reg.String())
	}
	return cu, e.describe(ctx, cu, o)
}

// origin says where the address of the fault came from, nil if that cannot be
// said.
func (e *Entry) origin(ctx context.Context, c Crash) *Origin {
	s := e.finder
	regs := coreRegs(e.Regs)
	r, err := s.Resume(ctx, regs, nil)
	if err != nil || r.Stop.RIP != c.RIP {
		return nil
	}
	why, _, err := s.Why(nil, r, func(obs emulate.Observer) error {
		_, err := s.Resume(ctx, regs, func(m *emulate.Machine) { m.Observer = obs })
		return err
	})
	if err != nil {
		return nil
	}
	if len(why) == 0 || why[len(why)-1].Kind != "value" {
		made, ok := s.madeBy(r)
		if !ok {
			return nil
		}
		why = append(why, made)
	}
	return &Origin{Began: s.Place(e.Function), Insns: r.Stop.Step, Why: why}
}

// madeBy names the instruction that made the address of a fault, where that
// comes from no memory.
func (s *Finder) madeBy(r *rerun.Result) (rerun.Reason, bool) {
	h := r.Machine.History()
	for _, n := range s.AddressRegs(r.Stop.RIP) {
		ev, ok := writerOf(h, r.Stop.Step, n)
		for ok && ev.Inst.Op == x86.MOV && len(ev.Reads) == 0 {
			from, isReg := emulate.RegNumber(ev.Inst.Args[1].Reg)
			if !isReg {
				break
			}
			ev, ok = writerOf(h, ev.Step, from)
		}
		if ok {
			return rerun.Reason{Place: s.Place(ev.Inst.Addr), Kind: "value", Text: emulate.RegNames[n] + " was made by this instruction"}, true
		}
	}
	return rerun.Reason{}, false
}

// watchReg runs from an entry to the end, and returns the store into the place
// that a register, as it is then, had been saved in.
func (e *Entry) watchReg(ctx context.Context, name string) (rerun.Hit, error) {
	m := e.machine()
	if e.Return != 0 {
		m.Break(e.Return)
	}
	m.Run(ctx)
	for n, reg := range emulate.RegNames {
		if reg != name {
			continue
		}
		o, ok := register(m, n)
		if !ok {
			return rerun.Hit{}, &rerun.WatchError{Text: name, Err: errors.New("nothing overwrote what it had been saved in")}
		}
		cu := &Culprit{}
		err := e.describe(ctx, cu, o)
		return cu.Store, err
	}
	return rerun.Hit{}, &rerun.WatchError{Text: name, Err: errors.New("there is no such register")}
}

// sameFault says whether a run came to the fault of a crash.
func sameFault(stop *emulate.Stop, m *emulate.Machine, c Crash) bool {
	if stop.RIP != c.RIP || m.GP[emulate.RSP] != c.RSP {
		return false
	}
	x, ok := stop.Err.(*emulate.Exception)
	return ok && (x.Vector == emulate.PageFault || x.Vector == emulate.GeneralProtect) && (c.Addr == 0 || x.Addr == c.Addr)
}
