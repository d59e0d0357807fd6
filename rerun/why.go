package rerun

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/typeflow"
	"github.com/ksleuth/ksleuth/x86"
)

// maxReasons are as many as a reader takes in.
const maxReasons = 8

// maxReplay bounds the runs that are run again: each instruction takes most of a
// microsecond.
const maxReplay = 20e6

// A replay runs what was run before once more, with an observer. The runs are the
// same: see [emulate.Memory.Fork].
type replay func(emulate.Observer) error

// Why says what decided what a run returned, or that it came to fault: the
// conditions that led there and where the value itself came from, in the order in
// which they were decided; of an endless loop, what keeps it going. gap says
// what is missing. The run must have a history.
func (s *Session) Why(t *Target, r *Result, again replay) (reasons []Reason, gap string, err error) {
	if r.Stop.Outcome == emulate.Looped {
		return s.whyLoop(t, r, again)
	}
	h := r.Machine.History()
	if h == nil {
		return nil, "", errors.New("to say why the run must be remembered")
	}
	if r.Stop.Step > maxReplay {
		return nil, fmt.Sprintf("the run was too long to say why: %d instructions, more than %d", r.Stop.Step, uint64(maxReplay)), nil
	}
	want, gap := s.wanted(t, r)
	if want.Empty() {
		return nil, gap, nil
	}
	control := s.branches()
	slice := s.slice(h, emulate.SliceOptions{Before: r.Stop.Step, Want: want, Control: control})
	w := &whyer{s: s, returns: map[uint64]fact{}, steps: make(map[uint64]*emulate.SliceStep, len(slice.Steps))}
	for i := range slice.Steps {
		w.steps[slice.Steps[i].Step] = &slice.Steps[i]
	}
	s.choices(h, w.steps, slice, r.Stop.Step, control)
	if w.flow, err = s.Flow(t); err != nil {
		return nil, "", err
	}
	w.flow.On = w.event
	if regs := s.AddressRegs(r.Stop.RIP); r.Stop.Outcome == emulate.Faulted && len(regs) > 0 {
		w.flow.Each = func(_ *emulate.Machine, in *x86.Inst) {
			if in.Addr == r.Stop.RIP { // the last time counts
				w.pointer, w.at = w.flow.Reg(regs[0], 8), w.flow.Frame()
			}
		}
	}
	if err := again(w.flow); err != nil {
		return nil, "", fmt.Errorf("the run could not be repeated: %w", err)
	}
	w.outcome(t, r)
	reasons, gap = w.pick()
	if !slice.Complete {
		gap = join(gap, "more was executed than is remembered: what came before is not known")
	}
	return reasons, gap, nil
}

// slice slices with every time that a branch decided, if that is not too much: of
// a loop that asks one after the other all answers count.
func (s *Session) slice(h *emulate.History, o emulate.SliceOptions) *emulate.Slice {
	const few, most = 400, 1 << 14
	last := h.Slice(o)
	if len(last.Steps) > most {
		return last
	}
	all := o
	all.AllBranches, all.Limit = true, most
	slice := h.Slice(all)
	n := 0
	for i := range slice.Steps {
		if slice.Steps[i].Role == emulate.RoleBranch {
			n++
		}
	}
	if n > few || !slice.Complete && last.Complete {
		return last
	}
	for i := range slice.Steps {
		slice.Steps[i].Instances = 1
	}
	return slice
}

// wanted returns what the question is about: the returned value, or, after a
// fault, the address that was accessed.
func (s *Session) wanted(t *Target, r *Result) (emulate.Locs, string) {
	switch r.Stop.Outcome {
	case emulate.Returned:
		size := 8
		if t != nil && t.Proto != nil {
			n, err := t.Proto.Elem().Size()
			if err != nil {
				return emulate.Locs{}, "the function returns nothing"
			}
			size = min(n, 8)
		}
		return emulate.LocsReg(emulate.RAX, size), ""
	case emulate.Faulted:
		var l emulate.Locs
		for _, reg := range s.AddressRegs(r.Stop.RIP) {
			l.AddReg(reg, 8)
		}
		if l.Empty() {
			return l, "the address is one of the code's own"
		}
		return l, ""
	}
	return emulate.Locs{}, "it did not return"
}

// AddressRegs are the registers that make the address of an instruction's operand.
func (s *Session) AddressRegs(rip uint64) (out []int) {
	in, err := x86.DecodeAt(s.view, rip)
	if err != nil {
		return nil
	}
	m, _, _, ok := in.MemOperand()
	if !ok {
		return nil
	}
	for _, reg := range m.Regs() {
		if n, ok := emulate.RegNumber(reg); ok {
			out = append(out, n)
		}
	}
	return out
}

// A fact is a reason in the making.
type fact struct {
	Reason
	step  uint64
	frame *typeflow.Frame
	cond  typeflow.Cond
	known bool
	guard bool // that a pointer is good
}

// A whyer collects what decided.
type whyer struct {
	s     *Session
	flow  *typeflow.Flow
	steps map[uint64]*emulate.SliceStep
	facts []fact
	last  *fact // where the answer came from
	// returns are computed values that functions returned, by the step after.
	returns map[uint64]fact
	// Of a fault: the pointer that the access went through, and where.
	pointer typeflow.Value
	at      *typeflow.Frame
}

// event is called with everything that happens in the second run.
func (w *whyer) event(e *typeflow.Event) {
	switch e.Kind {
	case typeflow.Return:
		w.returned(e)
		return
	case typeflow.Branch:
	default:
		return
	}
	st := w.steps[e.Step]
	if st == nil || e.Inst == nil || st.Inst == nil || st.Inst.Addr != e.Inst.Addr {
		return
	}
	f := fact{step: e.Step, frame: e.Frame, cond: e.Cond.Truth(), known: e.Cond.Known()}
	if noise(e.Frame, f.cond, w.flow) || e.Inst.Flow() == x86.FlowCondJump && w.s.sanity(e.Inst, e.Taken) {
		return
	}
	f.Reason = Reason{Kind: "condition", Count: uint64(max(st.Instances, 1))}
	f.Place.Addr = mem.Addr(e.Inst.Addr)
	if !f.known && f.cond.Right.IsConst() && f.cond.Right.Val == emulate.IF {
		return // whether interrupts were on
	}
	if !f.known && (f.cond.Left.IsConst() || f.cond.Right.IsConst()) && f.cond.Left.Known() && f.cond.Right.Known() {
		return // of two constants: decided by the way here
	}
	w.word(&f)
	if f.Left != nil && f.Left.Name != "" && f.Left.Name == f.Right.Name {
		return
	}
	if ret, ok := w.returns[f.cond.Left.Step]; ok && f.known && f.cond.Left.IsCall() {
		w.facts = append(w.facts, ret)
		delete(w.returns, f.cond.Left.Step)
	}
	w.facts = append(w.facts, f)
}

// returned remembers what a function returned, if it had computed it: that its
// caller then asks whether it is 0 says less.
func (w *whyer) returned(e *typeflow.Event) {
	v := e.Value
	if _, relation := v.Cond(); relation || v.IsCall() || !v.Computed() {
		return
	}
	f := fact{step: e.Step, frame: e.Frame, known: true, Reason: Reason{Kind: "value", Count: 1}}
	f.Left = w.operand(v, v, e.Frame)
	f.Text = fmt.Sprintf("%s = %s", f.Left.Name, f.Left.Text)
	f.Right = &Operand{}
	f.Place.Addr = mem.Addr(e.Frame.Entry)
	w.returns[e.Step] = f
}

// word fills in the words of a condition.
func (w *whyer) word(f *fact) {
	c := f.cond
	if !f.known {
		return
	}
	f.Text = w.flow.Text(c, f.frame)
	f.Op = c.Op
	f.Left, f.Right = w.operand(c.Left, c.Right, f.frame), w.operand(c.Right, c.Left, f.frame)
	if c.Op == "!&" { // no bit of the mask is set
		f.Op = "=="
		f.Left.Name = "(" + f.Left.Name + " & " + f.Right.Text + ")"
		f.Left.Value = 0
		f.Left.Text, f.Right = "0x0", &Operand{Text: "0"}
	}
	zero := c.Right.IsConst() && c.Right.Val == 0
	isErr := c.Right.IsConst() && c.Right.Val == ^uint64(4095) && c.Unsigned && c.Op == "<="
	f.guard = c.Op == "!=" && zero && pointer(c.Left) || isErr
}

func pointer(v typeflow.Value) bool {
	return v.Type != nil && v.Type.Strip().Kind() == ctype.Pointer
}

func (w *whyer) operand(v, other typeflow.Value, fr *typeflow.Frame) *Operand {
	o := &Operand{Name: w.flow.Name(v, fr), Value: mem.Addr(v.Val), Addr: mem.Addr(v.Addr)}
	t := v.Type
	if t == nil && v.IsConst() {
		t = other.Type
	}
	typed := v
	typed.Type = t
	o.Text = w.flow.Format(typed)
	if t != nil {
		o.Type = t.String()
	}
	return o
}

// quiet are functions whose conditions say nothing of an answer: locks and the
// like, and searches in bitmaps, by the beginning of the name.
var quiet = []string{
	"_raw_", "__raw_", "native_queued_", "queued_", "mutex_", "__mutex_", "down_", "up_", "rcu_", "__rcu_", "lock_", "preempt_",
	"__x86_", "__stack_chk", "srso_", "retbleed_", "__local_bh", "percpu_", "__cond_resched", "dynamic_preempt",
	"_find_", "find_next_", "find_first_", "cpumask_", "__bitmap_", "memcpy", "memset", "__memcpy", "__memset",
}

func isQuiet(function string) bool {
	return slices.ContainsFunc(quiet, func(q string) bool { return strings.HasPrefix(function, q) })
}

// noise says whether a condition is the compiler's or a lock's own.
func noise(fr *typeflow.Frame, c typeflow.Cond, f *typeflow.Flow) bool {
	if fr.Parent() != nil && isQuiet(fr.Func.Name) { // without a parent it is what was asked
		return true
	}
	for _, v := range []typeflow.Value{c.Left, c.Right} {
		name := f.Name(v, fr)
		for _, n := range []string{"__preempt_count", "pcpu_hot, ", "stack_canary", "__stack_chk_guard"} {
			if strings.Contains(name, n) && !strings.Contains(name, "->") {
				return true
			}
		}
		if strings.Contains(name, "seqcount") || strings.Contains(name, "d_seq") {
			return true // whether a reader has to try again
		}
	}
	return typeflow.Equal(c.Left, c.Right) // read again, and still the same
}

// sanity says whether the way that a branch did not take leads into a BUG or WARN
// at once: that all was well there says nothing of an answer.
func (s *Session) sanity(in *x86.Inst, taken bool) bool {
	at := in.Addr + uint64(in.Len)
	if target, ok := in.Target(); ok && !taken {
		at = target
	}
	const far = 12 // instructions
	var next x86.Inst
	code := make([]byte, x86.MaxLen)
	for range far {
		if s.view.ReadMem(code, at) != nil || next.Decode(code, at) != nil {
			return false
		}
		at += uint64(next.Len)
		switch next.Flow() {
		case x86.FlowNext, x86.FlowCall:
		case x86.FlowJump:
			at, _ = next.Target()
		case x86.FlowTrap:
			return next.Op == x86.UD2 || next.Op == x86.UD1
		default:
			return false
		}
	}
	return false
}

// outcome makes the last reason: the answer itself, where it is more than a
// constant that the conditions led to.
func (w *whyer) outcome(t *Target, r *Result) {
	v, fr := w.flow.Finish(), w.flow.Frame()
	if r.Stop.Outcome == emulate.Faulted {
		v, fr = w.pointer, w.at
	}
	name := w.flow.Name(v, fr)
	if name == "" {
		return
	}
	if c, ok := v.Cond(); ok {
		// The relation is the answer; it is among the facts, and comes last.
		for i := range w.facts {
			if w.facts[i].cond.Op != "" && typeflow.Equal(w.facts[i].cond.Left, c.Left) && typeflow.Equal(w.facts[i].cond.Right, c.Right) {
				f := w.facts[i]
				w.facts = append(slices.Delete(w.facts, i, i+1), f)
				break
			}
		}
		return
	}
	text := w.flow.Format(v)
	f := fact{Reason: Reason{Kind: "value", Text: name + " = " + text}, known: true, step: v.Step}
	if v.IsCall() {
		f.Kind = "call"
		w.facts = slices.DeleteFunc(w.facts, func(g fact) bool { // what the caller then asked of it
			return g.known && g.Left.Name == name && g.Right.Name == "" && g.frame.Parent() == nil
		})
	}
	f.Left = w.operand(v, v, fr)
	f.Place.Addr = mem.Addr(w.placeOf(v, r))
	w.last = &f
}

// placeOf returns the instruction that a value comes from.
func (w *whyer) placeOf(v typeflow.Value, r *Result) uint64 {
	if st := w.steps[v.Step]; st != nil && st.Inst != nil {
		return st.Inst.Addr
	}
	var best *emulate.SliceStep
	for _, st := range w.steps {
		if st.Inst != nil && st.Role != emulate.RoleBranch && st.Role != emulate.RoleCall && (best == nil || st.Step > best.Step) {
			best = st
		}
	}
	if best == nil {
		return r.Stop.RIP
	}
	return best.Inst.Addr
}
