package emulate

import (
	"slices"

	"github.com/ksleuth/ksleuth/x86"
)

// SliceOptions say what a [Slice] is of.
type SliceOptions struct {
	Before uint64 // the step before which the places are looked at
	Want   Locs
	// Address also follows how the addresses of the memory accessed were made.
	Address bool
	// Control, if not nil, also follows why the instructions were executed.
	Control Control
	// AllBranches includes every instance of a branch, not only the last that
	// decided in its call of a function. Slices of loops are long then.
	AllBranches bool
	// StackPointer also follows how rsp came about: by every push and call.
	StackPointer bool
	// Limit bounds the steps included; 0 stands for a million.
	Limit int
}

// A Control tells on which branches an instruction's execution depends.
type Control interface {
	// Controls returns the addresses of the branches that the instruction at addr
	// is directly control-dependent on, in the function that was entered at
	// entry. After a tail call, addr is in another function.
	Controls(entry, addr uint64) []uint64
}

// A Role says what an instruction does in a slice.
type Role string

// The roles.
const (
	RoleCopy     Role = "copy"     // moves what is wanted, byte by byte
	RoleCompute  Role = "compute"  // makes it of others
	RoleConst    Role = "const"    // has it in itself
	RoleExternal Role = "external" // has it from the processor: the time, an MSR
	RoleStub     Role = "stub"     // stands for a function
	RoleBranch   Role = "branch"   // decides that others are executed
	RoleCall     Role = "call"     // the same
)

// A SliceStep is a step of a slice.
type SliceStep struct {
	Event
	Role Role
	Why  Why
	// From are the steps of the slice that made what this one used, by index into
	// Slice.Steps, newest first.
	From []int
	// Entry is the function it was executed in, by the address it was entered
	// at, where that is known; only with control dependence.
	Entry uint64
	// Instances counts how often a branch was executed in that call until then,
	// itself included; not with AllBranches.
	Instances int
}

// A Load is a read of memory that was not written in the run before.
type Load struct {
	Step  uint64
	Index int // into Slice.Steps
	Addr  uint64
	N     int
}

// A Slice is what made wanted places what they were.
type Slice struct {
	Steps []SliceStep // in order of execution
	// Result are the steps that made the wanted places themselves.
	Result []int
	// Initial are the wanted places that nothing remembered wrote: registers and flags as
	// they were set from outside, and wanted memory that was not written.
	Initial Locs
	Loads   []Load // in order of execution
	// Complete is false where more was executed than is remembered, or
	// included, and it could matter.
	Complete bool
	// Cut is the number of the first step looked at.
	Cut uint64
}

// Slice returns the instructions that made places what they were. Without
// options it follows values: with conditional moves their conditions, too, but
// neither addresses nor branches.
func (h *History) Slice(o SliceOptions) *Slice {
	if o.Limit <= 0 {
		o.Limit = 1e6
	}
	s := &slicer{h: h, o: o, w: newWants(), out: &Slice{}}
	s.ask(&o.Want)
	if o.Control != nil {
		s.control = newController(h, o)
	}
	s.walk()
	s.finish()
	return s.out
}

// question stands for who asks.
const question = -1

// A slicer walks the history backwards.
type slicer struct {
	h       *History
	o       SliceOptions
	w       *wants
	out     *Slice
	control *controller
	steps   []SliceStep // newest first
	edges   []edge      // from a step to who used it
	marks   int         // of the history, not yet passed
	hits    [7][]hit
	now     int32 // index in steps of the entry at hand, or -1
	limited bool
	through *passage // if not nil, copies are looked through
}

type edge struct{ from, to int32 }

// ask makes wants of the places asked for.
func (s *slicer) ask(l *Locs) {
	n := node{who: question, why: ForValue}
	for r := range 16 {
		if n.mask = uint32(l.GP[r]); n.mask != 0 {
			s.w.addGP(uint8(r), n)
		}
		if n.mask = uint32(l.X[r]); n.mask != 0 {
			s.w.addX(uint8(r), n)
		}
	}
	if n.mask = uint32(l.Flags); n.mask != 0 {
		s.w.addFlags(n)
	}
	for word, m := range l.Mem {
		if n.mask = uint32(m); m != 0 {
			s.w.addWord(word, n)
		}
	}
}

func (s *slicer) walk() {
	c := s.h.at(s.o.Before)
	s.out.Cut = c.step
	s.marks = len(s.h.marks)
	var e entry
	s.passMarks(c.step)
	for !s.done() && c.prev(&e) {
		s.out.Cut = e.step
		s.now = -1
		s.data(&e)
		if s.control != nil {
			s.controls(&e)
		}
		s.passMarks(e.step)
	}
}

func (s *slicer) done() bool {
	if len(s.steps) >= s.o.Limit {
		s.limited = true
		return true
	}
	return s.w.empty() && (s.control == nil || s.control.idle())
}

// passMarks ends the way of registers that were set from outside before a step.
func (s *slicer) passMarks(step uint64) {
	for ; s.marks > 0 && s.h.marks[s.marks-1].step >= step; s.marks-- {
		if k := &s.h.marks[s.marks-1]; k.step == step {
			s.w.takeRegs(&k.regs, s.hits[0], s.initial)
		}
	}
}

// initial notes registers that come from outside.
func (s *slicer) initial(kind x86.PlaceKind, r int, hits []hit) {
	if s.through != nil {
		s.through.initialOf(kind, r, hits)
		return
	}
	for _, h := range hits {
		switch kind {
		case x86.PlaceGP:
			s.out.Initial.GP[r] |= uint8(h.mask)
		case x86.PlaceX:
			s.out.Initial.X[r] |= uint16(h.mask)
		default:
			s.out.Initial.Flags |= uint64(h.mask)
		}
	}
}

// include adds the entry at hand to the slice, once.
func (s *slicer) include(e *entry, r Role, why Why) int32 {
	if s.now < 0 {
		s.now = int32(len(s.steps))
		s.steps = append(s.steps, SliceStep{Event: e.copied(), Role: r})
		if s.control != nil {
			s.control.included(s, e)
		}
	}
	s.steps[s.now].Why |= why
	return s.now
}

// used notes that who used what the entry at hand made.
func (s *slicer) used(who int32, why Why) {
	s.steps[s.now].Why |= why
	if n := len(s.edges); n == 0 || s.edges[n-1] != (edge{s.now, who}) {
		s.edges = append(s.edges, edge{s.now, who})
	}
}

// finish puts the steps into the order of execution and says what is left.
func (s *slicer) finish() {
	out, n := s.out, len(s.steps)
	left := !s.w.empty() || s.control != nil && !s.control.idle()
	s.leftRegs()
	out.Complete = !s.limited && !(left && s.h.Forgot())
	out.Steps = s.steps
	slices.Reverse(out.Steps)
	for _, e := range s.edges {
		from := n - 1 - int(e.from)
		if e.to < 0 {
			out.Result = append(out.Result, from)
			continue
		}
		to := &out.Steps[n-1-int(e.to)]
		if !slices.Contains(to.From, from) {
			to.From = append(to.From, from)
		}
	}
	s.loads(n)
}

// loads makes Loads of the memory that is still wanted.
func (s *slicer) loads(n int) {
	read := map[int32]Bytes{}
	for word, list := range s.w.mem {
		for i := list; i != 0; i = s.w.nodes[i].next {
			k := s.w.nodes[i]
			if k.who < 0 {
				if s.out.Initial.Mem == nil {
					s.out.Initial.Mem = Bytes{}
				}
				s.out.Initial.Mem[word] |= uint8(k.mask)
				continue
			}
			if read[k.who] == nil {
				read[k.who] = Bytes{}
			}
			read[k.who][word] |= uint8(k.mask)
		}
	}
	for who, b := range read {
		index := n - 1 - int(who)
		for _, r := range b.Runs() {
			s.out.Loads = append(s.out.Loads, Load{Step: s.out.Steps[index].Step, Index: index, Addr: r.Addr, N: r.N})
		}
	}
	sortLoads(s.out.Loads)
}
