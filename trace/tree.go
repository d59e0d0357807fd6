package trace

import (
	"cmp"
	"container/list"
	"slices"

	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// Options say how an [Assembler] works.
type Options struct {
	// Tree puts calls into the calls that they were made in; else each is told
	// by itself.
	Tree bool
	// Why gives the reason for a tail call that was not made, as far as it
	// follows from more than the events: how many were made before, what is
	// known of the machine code. It may return nil. nil gives none.
	Why func(c *Call, p *Point) *Refusal
	// Lost returns how many events were lost so far, and CLOCK_MONOTONIC now.
	// What was not seen around that time may have happened all the same. nil
	// stands for none.
	Lost func() (n, now uint64)
	// MaxPending is how many calls are kept waiting for the end of the call
	// that they were made in; 0 is 65536. Beyond it those are told apart that
	// have waited longest.
	MaxPending int
}

// An Assembler puts events together to calls. Events of one thread come in the
// order in which calls end: those made in a call before it. It is not safe for
// concurrent use.
type Assembler struct {
	d *Decoder
	o Options

	waiting map[probe.CallID]*group
	order   *list.List // of *group: the one that was last added to stands last
	pending int        // calls in all groups

	lost, lostAt uint64
}

// A node is a call with what was observed in it.
type node struct {
	call  *Call
	point *Point
	id    probe.CallID
	in    probe.CallID // the call it was made in
	size  int          // calls in it, with itself
	kids  []*node
}

// A group are calls made in one that has not ended.
type group struct {
	id      probe.CallID
	kids    []*node
	size    int
	told    int  // calls that were told apart
	suspect bool // see Sweep
	place   *list.Element
}

// NewAssembler returns an assembler of calls that d decodes.
func NewAssembler(d *Decoder, o Options) *Assembler {
	if o.MaxPending <= 0 {
		o.MaxPending = 1 << 16
	}
	return &Assembler{d: d, o: o, waiting: make(map[probe.CallID]*group), order: list.New()}
}

// Add takes an event and returns the calls that are complete with it: most
// often none or one.
func (a *Assembler) Add(e *probe.Event) []*Call {
	n := a.node(e)
	if n == nil {
		return nil
	}
	if !a.o.Tree {
		a.finish(n)
		return []*Call{n.call}
	}
	if e.Kind == probe.Returned {
		a.adopt(n)
	}
	if n.in == (probe.CallID{}) || n.in == n.id {
		a.finish(n)
		return []*Call{n.call}
	}
	g := a.group(n.in)
	g.kids = append(g.kids, n)
	g.size += n.size
	a.pending += n.size
	return a.relieve()
}

func (a *Assembler) node(e *probe.Event) *node {
	c := a.d.Call(e)
	if c == nil {
		return nil
	}
	n := &node{call: c, point: &a.d.Points[e.Point], in: e.Parent, size: 1}
	if e.Kind == probe.Returned || e.Kind == probe.Unfinished {
		n.id = e.Call
	}
	return n
}

// adopt gives a call that has ended those that were made in it.
func (a *Assembler) adopt(n *node) {
	g := a.waiting[n.id]
	if g == nil {
		return
	}
	n.kids, n.call.Missing = g.kids, g.told
	n.size += g.size
	a.remove(g)
}

// group returns the calls made in a call, and notes that there is another one.
func (a *Assembler) group(id probe.CallID) *group {
	g := a.waiting[id]
	if g == nil {
		g = &group{id: id}
		g.place = a.order.PushBack(g)
		a.waiting[id] = g
	}
	g.suspect = false
	a.order.MoveToBack(g.place)
	return g
}

func (a *Assembler) remove(g *group) {
	a.pending -= g.size
	delete(a.waiting, g.id)
	a.order.Remove(g.place)
}

// relieve tells the calls apart that have waited longest, where there are too
// many. Of a call in which they were made is kept that some are missing.
func (a *Assembler) relieve() (out []*Call) {
	for a.pending > a.o.MaxPending {
		g := a.oldest()
		out = append(out, a.orphans(g)...)
		g.told += g.size
		a.pending -= g.size
		g.kids, g.size = nil, 0
	}
	for len(a.waiting) > a.o.MaxPending {
		g := a.order.Front().Value.(*group)
		out = append(out, a.orphans(g)...)
		a.remove(g)
	}
	return out
}

// oldest returns the first group that has calls.
func (a *Assembler) oldest() *group {
	for e := a.order.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*group); g.size > 0 {
			// Groups without stand behind it from now on: each is passed once.
			for a.order.Front() != e {
				a.order.MoveToBack(a.order.Front())
			}
			return g
		}
	}
	return a.order.Front().Value.(*group) // not reached: pending is the sum of the sizes
}

func (a *Assembler) orphans(g *group) (out []*Call) {
	for _, n := range g.kids {
		n.call.Orphan = true
		a.finish(n)
		out = append(out, n.call)
	}
	return out
}

// Sweep tells apart the calls whose caller will not be told, as its record was
// lost: neither now nor when Sweep was last called was it under way. All
// records that were there before open was made must have been added.
func (a *Assembler) Sweep(open []probe.Event) (out []*Call) {
	under := make(map[probe.CallID]bool)
	for i := range open {
		under[open[i].Call] = true
	}
	for e := a.order.Front(); e != nil; {
		g := e.Value.(*group)
		e = e.Next()
		switch {
		case under[g.id]:
			g.suspect = false
		case !g.suspect:
			g.suspect = true
		default:
			out = append(out, a.orphans(g)...)
			a.remove(g)
		}
	}
	return out
}

// Flush returns what is left when observation has ended at a time of
// CLOCK_MONOTONIC: calls that have not returned, with what was made in them,
// and calls whose caller is not among those.
func (a *Assembler) Flush(open []probe.Event, now uint64) (out []*Call) {
	var nodes []*node
	for i := range open {
		e := open[i]
		e.Kind = probe.Unfinished
		n := a.node(&e)
		if n == nil {
			continue
		}
		if e.Start != 0 && now >= e.Start {
			d := now - e.Start
			n.call.Duration = &d
		}
		nodes = append(nodes, n)
	}
	// Callers come first: they are older, or further up the stack.
	slices.SortStableFunc(nodes, func(x, y *node) int {
		return cmp.Or(cmp.Compare(x.id.Start, y.id.Start), -cmp.Compare(x.id.Frame, y.id.Frame))
	})
	known := make(map[probe.CallID]*node)
	var roots []*node
	for _, n := range nodes {
		if a.o.Tree {
			a.adopt(n)
		}
		switch parent := known[n.in]; {
		case a.o.Tree && parent != nil:
			parent.kids = append(parent.kids, n)
		default:
			n.call.Orphan = a.o.Tree && n.in != probe.CallID{}
			roots = append(roots, n)
		}
		known[n.id] = n
	}
	for a.order.Len() > 0 {
		g := a.order.Front().Value.(*group)
		out = append(out, a.orphans(g)...)
		a.remove(g)
	}
	for _, n := range roots {
		a.finish(n)
		out = append(out, n.call)
	}
	slices.SortStableFunc(out, func(x, y *Call) int { return cmp.Compare(x.Time, y.Time) })
	return out
}

// doubtful says whether events may be missing that belong to a call.
func (a *Assembler) doubtful(c *Call) bool {
	if a.o.Lost != nil {
		if n, now := a.o.Lost(); n != a.lost {
			a.lost, a.lostAt = n, now
		}
	}
	return c.Start == 0 || c.Missing > 0 || a.lost > 0 && c.Start <= a.lostAt
}

// finish puts the calls in order, and says of each which programs answered
// its tail calls.
func (a *Assembler) finish(n *node) {
	total := 0
	a.resolve(n, run{total: &total, few: few(n)})
}

// ofBPF says whether a call is one of a function of a BPF program.
func (n *node) ofBPF() bool {
	return n.point.Func.Kind != tracee.Kernel && n.point.Func.Kind != tracee.Tracepoint
}
