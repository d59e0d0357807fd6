package rerun

import (
	"cmp"
	"slices"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/x86"
)

// A value can be decided by a branch that made nothing happen: of
//
//	p = a; if (x) p = b; return p;
//
// p is a because x was 0, and the slice of what made p does not have the branch. A
// relevant slice does (Gyimóthy, Beszédes, Forgács; ESEC/FSE 1999): a branch counts,
// too, if on its other side the value would have been written.

// bounds on the search for such branches.
const (
	maxChoices = 12
	maxChoose  = 1 << 20 // steps looked at
)

// choices adds to a slice the branches that left its values as they were, and
// the slices of those.
func (s *Session) choices(h *emulate.History, steps map[uint64]*emulate.SliceStep, first *emulate.Slice, end uint64, c *controlGraphs) {
	budget := maxChoose
	seen := map[uint64]bool{}
	type part struct {
		slice *emulate.Slice
		end   uint64
	}
	work := []part{{first, end}}
	add := func(b emulate.Event) {
		if seen[b.Inst.Addr] || len(seen) == maxChoices {
			return
		}
		seen[b.Inst.Addr] = true
		if steps[b.Step] != nil {
			return
		}
		steps[b.Step] = &emulate.SliceStep{Event: b, Role: emulate.RoleBranch, Instances: 1}
		more := h.Slice(emulate.SliceOptions{
			Before: b.Step, Want: emulate.Locs{Flags: ^uint64(0)}, Control: c, Limit: 1 << 16,
		})
		for i := range more.Steps {
			if st := &more.Steps[i]; steps[st.Step] == nil {
				steps[st.Step] = st
			}
		}
		work = append(work, part{more, b.Step})
	}
	for _, b := range c.beforeJumps(h, steps) {
		add(b)
	}
	for len(work) > 0 {
		p := work[0]
		work = work[1:]
		for _, b := range c.unwritten(h, p.slice, p.end, &budget) {
			add(b)
		}
	}
}

// A level is a function being executed, with those that it ended with a jump to.
type level struct {
	branches map[uint64]emulate.Event // the last of each
	jumps    []emulate.Event          // out of functions, to others
}

// beforeJumps returns the branches that decided that a function ended with a jump
// to another one (a tail call), where steps of the slice are in the latter:
// control dependence ends at a function's border.
func (c *controlGraphs) beforeJumps(h *emulate.History, steps map[uint64]*emulate.SliceStep) (out []emulate.Event) {
	levels := []level{{branches: map[uint64]emulate.Event{}}}
	start, _ := h.Span()
	n := 0
	var jump emulate.Event // out of a function, if it was taken
	for e := range h.Forward(start) {
		if n++; n > maxChoose {
			break
		}
		at := &levels[len(levels)-1]
		if jump.Inst != nil {
			if to, _ := jump.Inst.Target(); e.Inst != nil && e.Inst.Addr == to {
				at.jumps = append(at.jumps, jump)
			}
			jump.Inst = nil
		}
		if steps[e.Step] != nil && len(at.jumps) > 0 {
			for _, j := range at.jumps {
				if j.Inst.Flow() == x86.FlowCondJump {
					out = append(out, j)
				}
				for _, b := range c.Controls(0, j.Inst.Addr) {
					if was, ok := at.branches[b]; ok && was.Step < j.Step {
						out = append(out, was)
					}
				}
			}
			at.jumps = nil
		}
		flow := x86.FlowRet
		if e.Stub == nil {
			flow = e.Inst.Flow()
		}
		switch flow {
		case x86.FlowCall, x86.FlowIndirectCall:
			levels = append(levels, level{branches: map[uint64]emulate.Event{}})
		case x86.FlowRet:
			if len(levels) > 1 {
				levels = levels[:len(levels)-1]
			}
		case x86.FlowCondJump:
			at.branches[e.Inst.Addr] = emulate.Event{Step: e.Step, Inst: e.Inst}
			fallthrough
		case x86.FlowJump:
			if to, ok := e.Inst.Target(); ok && c.leaves(e.Inst.Addr, to) {
				jump = emulate.Event{Step: e.Step, Inst: e.Inst}
			}
		}
	}
	sortEvents(out)
	return out
}

// leaves says whether a jump leads out of its function.
func (c *controlGraphs) leaves(from, to uint64) bool {
	out, ok := c.jumps[from]
	if !ok {
		g := c.graph(from)
		out = g != nil
		if out {
			_, inside := g.BlockAt(to)
			out = !inside
		}
		c.jumps[from] = out
	}
	return out
}

// unwritten returns the branches, each at its last time, that decided that what a
// step of the slice had written to a register was not written again before its use.
func (c *controlGraphs) unwritten(h *emulate.History, slice *emulate.Slice, end uint64, budget *int) []emulate.Event {
	uses := map[int]uint64{} // of a step: its last use
	for i := range slice.Steps {
		for _, from := range slice.Steps[i].From {
			uses[from] = max(uses[from], slice.Steps[i].Step)
		}
	}
	for _, from := range slice.Result {
		uses[from] = end
	}
	last := map[uint64]emulate.Event{}
	for i := len(slice.Steps) - 1; i >= 0; i-- {
		st := &slice.Steps[i]
		use, ok := uses[i]
		if !ok || st.Inst == nil || st.Stub != nil || st.Role == emulate.RoleBranch || st.Role == emulate.RoleCall || use <= st.Step+1 {
			continue
		}
		regs := written(st.Inst)
		if regs == 0 {
			continue
		}
		depth := 0
		for e := range h.Forward(st.Step + 1) {
			if *budget--; e.Step >= use || *budget <= 0 {
				break
			}
			switch {
			case e.Stub != nil:
				depth = max(depth-1, 0)
			case e.Inst.Flow() == x86.FlowCall, e.Inst.Flow() == x86.FlowIndirectCall:
				depth++
			case e.Inst.Flow() == x86.FlowRet:
				depth = max(depth-1, 0)
			case depth == 0 && e.Inst.Flow() == x86.FlowCondJump:
				if was, ok := last[e.Inst.Addr]; c.writes(e.Inst.Addr)&regs != 0 && (!ok || was.Step < e.Step) {
					last[e.Inst.Addr] = emulate.Event{Step: e.Step, Inst: e.Inst}
				}
			}
		}
	}
	out := make([]emulate.Event, 0, len(last))
	for _, e := range last {
		out = append(out, e)
	}
	sortEvents(out)
	return out
}

// written returns the general registers that an instruction writes, a bit each, but
// for the stack pointer.
func written(in *x86.Inst) (regs uint16) {
	e := in.Effects()
	w := e.Writes()
	for r, m := range w.GP {
		if m != 0 && r != emulate.RSP {
			regs |= 1 << r
		}
	}
	return regs
}

// writes returns the registers that are written in blocks whose execution depends on
// a branch, directly or by other branches that do.
func (c *controlGraphs) writes(branch uint64) uint16 {
	if regs, ok := c.written[branch]; ok {
		return regs
	}
	c.written[branch] = 0
	g := c.graph(branch)
	if g == nil {
		return 0
	}
	dependents := c.dependents(g)
	var regs uint16
	seen := map[uint64]bool{branch: true}
	for work := []uint64{branch}; len(work) > 0; {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for _, b := range dependents[at] {
			regs |= c.blockWrites(g, b)
			if end := g.Blocks[b].Last; !seen[end] {
				seen[end] = true
				work = append(work, end)
			}
		}
	}
	c.written[branch] = regs
	return regs
}

// dependents returns, by branch, the blocks whose execution it decides.
func (c *controlGraphs) dependents(g *cfg.Graph) map[uint64][]int {
	if d := c.deps[g]; d != nil {
		return d
	}
	d := map[uint64][]int{}
	const most = 2000 // blocks; the search takes the square of them
	for i := range g.Blocks[:min(len(g.Blocks), most)] {
		for _, b := range g.Controls(g.Blocks[i].Start) {
			d[b] = append(d[b], i)
		}
	}
	c.deps[g] = d
	return d
}

func (c *controlGraphs) blockWrites(g *cfg.Graph, i int) (regs uint16) {
	var in x86.Inst
	code, at := g.Code(i), g.Blocks[i].Start
	for len(code) > 0 {
		if in.Decode(code, at) != nil {
			return regs
		}
		if f := in.Flow(); f == x86.FlowNext {
			regs |= written(&in)
		}
		code, at = code[in.Len:], at+uint64(in.Len)
	}
	return regs
}

func sortEvents(events []emulate.Event) {
	slices.SortFunc(events, func(a, b emulate.Event) int { return cmp.Compare(a.Step, b.Step) })
}
