package emulate

import (
	"slices"

	"github.com/ksleuth/ksleuth/x86"
)

// An activation is a function being executed, from its call to its return.
type activation struct {
	entry  uint64 // 0 where it was entered before what is remembered
	parent int32
	call   uint64 // step of the call; noCall of a function that was called from outside
	start  uint64 // of the latter: its first step
	slot   uint64 // where its return address lies
	ret    uint64 // that address
	who    []int32
	taken  bool // has included steps
}

const noCall = ^uint64(0)

// A turn says that from a step on another activation is executed.
type turn struct {
	step uint64
	act  int32
}

// A pending is a step of the slice whose deciding branch is looked for.
type pending struct {
	who      int32
	branches []uint64
}

type place2 struct {
	act  int32
	addr uint64
}

// A controller follows control dependence while a slicer walks backwards.
type controller struct {
	o       SliceOptions
	acts    []activation
	turns   []turn
	turn    int
	pending map[int32][]pending
	waiting int // activations with included steps whose call is still to come
	seen    map[place2]int32
	cached  map[[2]uint64][]uint64
	jumps   map[uint64]bool // steps of ret that went elsewhere than behind the call: retpolines
}

// newController finds the activations of the steps that will be walked.
func newController(h *History, o SliceOptions) *controller {
	c := &controller{
		o: o, pending: map[int32][]pending{}, seen: map[place2]int32{}, cached: map[[2]uint64][]uint64{}, jumps: map[uint64]bool{},
	}
	first, _ := h.Span()
	b := activations{c: c, h: h}
	b.begin(first)
	cur := h.at(first)
	var e entry
	for e.step = first; e.step < o.Before && cur.next(&e) && e.step < o.Before; {
		b.step(&e)
	}
	c.turn = len(c.turns) - 1
	return c
}

// idle says whether no branch or call is looked for.
func (c *controller) idle() bool { return len(c.pending) == 0 && c.waiting == 0 }

// activations pairs calls and returns going forward.
type activations struct {
	c       *controller
	h       *History
	starts  int
	cur     int32
	entered bool   // the next step is the first of its activation
	back    uint64 // where the last ret should have gone, 0 if that does not matter
}

// begin makes the activations that are there at the first step remembered.
func (b *activations) begin(first uint64) {
	b.cur = -1
	b.starts = slices.IndexFunc(b.h.starts, func(s uint64) bool { return s >= first })
	if b.starts < 0 {
		b.starts = len(b.h.starts)
	}
	for _, f := range b.h.m.Frames {
		if f.Step < first {
			b.push(activation{entry: f.Entry, call: f.Step, slot: f.SP})
		}
	}
	b.push(activation{slot: 0, call: noCall})
	b.turn(first)
}

func (b *activations) push(a activation) {
	a.parent = b.cur
	b.c.acts = append(b.c.acts, a)
	b.cur = int32(len(b.c.acts) - 1)
}

func (b *activations) turn(step uint64) { b.c.turns = append(b.c.turns, turn{step, b.cur}) }

func (b *activations) step(e *entry) {
	if b.starts < len(b.h.starts) && b.h.starts[b.starts] == e.step {
		b.starts++
		b.cur = -1
		b.push(activation{entry: e.info.inst.Addr, call: noCall, start: e.step, slot: ^uint64(0)})
		b.turn(e.step)
		b.entered = false
	}
	if b.back != 0 && b.back != e.info.inst.Addr && b.cur >= 0 { // a jump, by way of the stack
		b.c.jumps[e.step-1] = true
		b.entered = true
	}
	b.back = 0
	if b.entered {
		b.c.acts[b.cur].entry, b.entered = e.info.inst.Addr, false
	}
	switch e.info.flow {
	case x86.FlowCall, x86.FlowIndirectCall:
		b.push(activation{call: e.step, slot: e.rec.addr, ret: e.info.inst.Addr + uint64(e.info.inst.Len)})
		b.entered = true
		b.turn(e.step + 1)
	case x86.FlowRet:
		b.ret(e.rec.addr, e.step)
	}
}

// ret leaves the activations whose return address lies at or below slot.
func (b *activations) ret(slot, step uint64) {
	to := b.cur
	for a := to; a >= 0; a = b.c.acts[a].parent {
		s := b.c.acts[a].slot
		if s > slot {
			break
		}
		if s != 0 || b.c.acts[a].parent >= 0 && b.c.acts[b.c.acts[a].parent].slot <= slot {
			to = b.c.acts[a].parent
		}
	}
	if to == b.cur {
		return
	}
	if b.c.acts[b.cur].slot == slot {
		b.back = b.c.acts[b.cur].ret
	}
	if b.cur = to; to < 0 {
		b.push(activation{call: noCall})
	}
	b.turn(step + 1)
}

// current returns the activation of the step at hand, going backwards.
func (c *controller) current(step uint64) int32 {
	for c.turn > 0 && c.turns[c.turn].step > step {
		c.turn--
	}
	return c.turns[c.turn].act
}

// included is called for each step that comes into the slice.
func (c *controller) included(s *slicer, e *entry) {
	act := c.current(e.step)
	a := &c.acts[act]
	st := &s.steps[s.now]
	st.Entry = a.entry
	if !a.taken {
		a.taken = true
		if a.call != noCall {
			c.waiting++
		}
	}
	if len(a.who) == 0 || a.who[len(a.who)-1] != s.now {
		a.who = append(a.who[:0], s.now)
	}
	if a.entry == 0 {
		return
	}
	key := [2]uint64{a.entry, e.info.inst.Addr}
	b, ok := c.cached[key]
	if !ok {
		b = c.o.Control.Controls(key[0], key[1])
		c.cached[key] = b
	}
	if len(b) > 0 {
		c.pending[act] = append(c.pending[act], pending{s.now, b})
	}
}

// controls follows control dependence through the entry.
func (s *slicer) controls(e *entry) {
	c := s.control
	switch e.info.flow {
	case x86.FlowCondJump:
		s.branch(e, c.current(e.step))
	case x86.FlowIndirectJump:
		if act := c.current(e.step); !s.branch(e, act) && e.info.stub == nil {
			s.jump(e, act)
		}
	case x86.FlowRet:
		if c.jumps[e.step] {
			s.jump(e, c.acts[c.current(e.step)].parent)
		}
	case x86.FlowCall, x86.FlowIndirectCall:
		s.call(e)
	}
	if len(c.pending) == 0 {
		return
	}
	if i := c.current(e.step); c.acts[i].call == noCall && c.acts[i].start == e.step {
		delete(c.pending, i)
	}
}

// jump includes a jump that brought an activation to steps of the slice: a tail
// call, the thunk of an indirect call, a jump table.
func (s *slicer) jump(e *entry, act int32) {
	c := s.control
	at := place2{act, e.info.inst.Addr}
	if _, seen := c.seen[at]; seen || act < 0 || !c.acts[act].taken {
		return
	}
	s.decided(e, RoleBranch, c.acts[act].who)
	c.seen[at] = s.now
}

// branch includes a branch that decided that steps of the slice were executed,
// and says whether it decided any.
func (s *slicer) branch(e *entry, act int32) bool {
	c := s.control
	addr := e.info.inst.Addr
	was, seen := c.seen[place2{act, addr}]
	if seen {
		s.steps[was].Instances++
	}
	list := c.pending[act]
	if len(list) == 0 {
		return false
	}
	var users []int32
	list = slices.DeleteFunc(list, func(p pending) bool {
		if !slices.Contains(p.branches, addr) {
			return false
		}
		users = append(users, p.who)
		return true
	})
	if len(list) == 0 {
		delete(c.pending, act)
	} else {
		c.pending[act] = list
	}
	if len(users) == 0 || seen {
		return len(users) > 0
	}
	s.decided(e, RoleBranch, users)
	if !s.o.AllBranches {
		c.seen[place2{act, addr}] = s.now
		s.steps[s.now].Instances = 1
	}
	return true
}

// call includes the call of a function that has steps in the slice.
func (s *slicer) call(e *entry) {
	c := s.control
	i := c.callee(e.step)
	if i < 0 || !c.acts[i].taken {
		return
	}
	c.waiting--
	delete(c.pending, i) // branches not met: the code was entered elsewhere
	s.decided(e, RoleCall, c.acts[i].who)
}

// callee returns the activation that the call at step made.
func (c *controller) callee(step uint64) int32 {
	i := c.turn // of the call itself, or still behind it
	for i+1 < len(c.turns) && c.turns[i].step <= step {
		i++
	}
	for i > 0 && c.turns[i].step > step+1 {
		i--
	}
	if a := c.turns[i].act; c.acts[a].call == step {
		return a
	}
	return -1
}

// decided includes what control depends on, with what it tested.
func (s *slicer) decided(e *entry, r Role, users []int32) {
	s.include(e, r, ForControl)
	for _, who := range users {
		s.used(who, ForControl)
	}
	for i := range e.info.Out[:e.info.NOut] {
		if o := &e.info.Out[i]; o.Kind == x86.PlaceIP {
			for in := range e.info.In[:e.info.NIn] {
				s.input(e, o, in, 1)
				if s.o.Address && e.info.In[in].Kind == x86.PlaceMem && o.From>>in&1 != 0 {
					s.wantAddress(e)
				}
			}
		}
	}
}
