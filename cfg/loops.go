package cfg

import (
	"cmp"
	"slices"
)

// A Loop is a natural loop: the blocks from which control can come back to a
// head that is the only way in; back edges to one head make one loop. Or it is
// an irreducible region, a circle with several ways in.
type Loop struct {
	// Head is the block by which the loop is entered: of an irreducible
	// region the first of Entries.
	Head   int
	Blocks []int // ascending; those of the loops inside of it, too
	// Latches are the addresses of the last instructions of the blocks that
	// go back to Head, ascending.
	Latches []uint64
	Parent  int // index of the loop around it, -1 for none
	Depth   int // how many loops are around it
	// Exits are the edges that leave the loop, by From and To.
	Exits []Edge
	// Irreducible says that it has more ways in than Head.
	Irreducible bool
	Entries     []int // the blocks with ways in from outside, ascending
}

// An Edge is a way from a block to another, or out of the function if To is -1.
type Edge struct{ From, To int }

// maxNest is how deep loops are told that lie in loops. It bounds the work that
// hostile code can make; compilers come nowhere near it.
const maxNest = 32

// A nest collects the loops of a graph from the outside inwards.
type nest struct {
	g     *Graph
	loops []Loop
	work  []region
	in    []int // by block: 1 + the last loop it was found to be in
}

// A region is code in which loops are looked for, inside of a loop (or of none: -1).
type region struct {
	blocks        []int
	parent, depth int
}

// Loops returns the loops, innermost first, those of one depth by their heads.
//
// They are found as strongly connected components: what remains of one without
// its head has the loops inside of it.
func (g *Graph) Loops() []Loop {
	all := make([]int, len(g.Blocks))
	for i := range all {
		all[i] = i
	}
	n := &nest{g: g, work: []region{{all, -1, 0}}, in: make([]int, len(g.Blocks))}
	f := newComponents(g.succs())
	for len(n.work) > 0 {
		r := n.work[len(n.work)-1]
		n.work = n.work[:len(n.work)-1]
		if r.depth >= maxNest {
			continue
		}
		for _, c := range f.find(r.blocks) {
			if len(c) > 1 || slices.Contains(g.Blocks[c[0]].Succs, c[0]) {
				n.split(c, r)
			}
		}
	}
	return innermostFirst(n.loops)
}

// split notes the loop of a component, and what of it has loops inside. The
// head of an irreducible region can be that of a natural loop within it.
func (n *nest) split(c []int, r region) {
	l := n.add(c, r)
	at, head, rest := len(n.loops)-1, l.Head, l.Blocks
	var body []int
	if l.Irreducible {
		body = n.g.naturalLoop(head)
	}
	if body != nil {
		n.add(body, region{parent: at, depth: r.depth + 1})
		n.inside(body, head, region{parent: len(n.loops) - 1, depth: r.depth + 2})
		rest = slices.DeleteFunc(slices.Clone(rest), func(b int) bool { return n.in[b] == len(n.loops) })
	}
	n.inside(rest, head, region{parent: at, depth: r.depth + 1})
}

// inside sets loops to be looked for among blocks, the head excluded.
func (n *nest) inside(blocks []int, head int, r region) {
	r.blocks = slices.DeleteFunc(slices.Clone(blocks), func(b int) bool { return b == head })
	n.work = append(n.work, r)
}

// naturalLoop returns the blocks of the natural loop of a head, nil if it has none.
func (g *Graph) naturalLoop(head int) []int {
	var body []int
	seen := map[int]bool{head: true}
	add := func(b int) {
		if !seen[b] {
			seen[b] = true
			body = append(body, b)
		}
	}
	found := false
	for _, p := range g.Blocks[head].Preds {
		if g.Dominates(head, p) {
			found = true
			add(p)
		}
	}
	if !found {
		return nil
	}
	for i := 0; i < len(body); i++ {
		for _, p := range g.Blocks[body[i]].Preds {
			add(p)
		}
	}
	return append(body, head)
}

// add describes a loop of the given blocks.
func (n *nest) add(blocks []int, r region) Loop {
	g := n.g
	slices.Sort(blocks)
	l := Loop{Blocks: blocks, Parent: r.parent, Depth: r.depth}
	for _, v := range blocks {
		n.in[v] = len(n.loops) + 1
	}
	inside := func(b int) bool { return n.in[b] == len(n.loops)+1 }
	for _, v := range blocks {
		outside := slices.ContainsFunc(g.Blocks[v].Preds, func(p int) bool { return !inside(p) })
		if outside || v == g.entry {
			l.Entries = append(l.Entries, v)
		}
		for _, s := range g.Blocks[v].Succs {
			if !inside(s) {
				l.Exits = append(l.Exits, Edge{v, s})
			}
		}
		if g.Blocks[v].Exit || g.Blocks[v].Unknown {
			l.Exits = append(l.Exits, Edge{v, -1})
		}
	}
	l.Head, l.Irreducible = l.Entries[0], len(l.Entries) > 1
	for _, p := range g.Blocks[l.Head].Preds {
		if inside(p) {
			l.Latches = append(l.Latches, g.Blocks[p].Last)
		}
	}
	slices.Sort(l.Latches)
	slices.SortFunc(l.Exits, func(a, b Edge) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	n.loops = append(n.loops, l)
	return l
}

// innermostFirst sorts loops.
func innermostFirst(loops []Loop) []Loop {
	order := make([]int, len(loops))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(loops[b].Depth, loops[a].Depth), cmp.Compare(loops[a].Head, loops[b].Head))
	})
	place := make([]int, len(loops))
	for i, l := range order {
		place[l] = i
	}
	out := make([]Loop, len(loops))
	for i, l := range loops {
		if l.Parent >= 0 {
			l.Parent = place[l.Parent]
		}
		out[place[i]] = l
	}
	return out
}

// components finds strongly connected components: Tarjan's algorithm (SIAM J.
// Computing 1972), without recursion, within subsets of the nodes.
type components struct {
	succs [][]int
	// of is the component of each node in the last subset it was in. No two
	// have ever the same number.
	of                []int32
	set               []int32 // the last subset it was in
	index, low        []int32
	nextSet, nextComp int32
	stack             []int
	calls             []call
}

type call struct{ v, next int }

func newComponents(succs [][]int) *components {
	n := len(succs)
	f := &components{succs: succs, of: make([]int32, n), set: make([]int32, n), index: make([]int32, n), low: make([]int32, n)}
	for i := range f.of {
		f.of[i] = -1
	}
	return f
}

// find returns the components of the graph that has these nodes alone.
func (f *components) find(nodes []int) [][]int {
	f.nextSet++
	for _, v := range nodes {
		f.set[v], f.index[v], f.of[v] = f.nextSet, 0, -1
	}
	var out [][]int
	n := int32(0)
	for _, root := range nodes {
		if f.index[root] != 0 {
			continue
		}
		f.enter(root, &n)
		for len(f.calls) > 0 {
			c := &f.calls[len(f.calls)-1]
			if c.next < len(f.succs[c.v]) {
				s := f.succs[c.v][c.next]
				c.next++
				switch {
				case f.set[s] != f.nextSet:
				case f.index[s] == 0:
					f.enter(s, &n)
				case f.of[s] < 0:
					f.low[c.v] = min(f.low[c.v], f.index[s])
				}
				continue
			}
			v := c.v
			f.calls = f.calls[:len(f.calls)-1]
			if len(f.calls) > 0 {
				up := f.calls[len(f.calls)-1].v
				f.low[up] = min(f.low[up], f.low[v])
			}
			if f.low[v] == f.index[v] {
				out = append(out, f.pop(v))
			}
		}
	}
	return out
}

func (f *components) enter(v int, n *int32) {
	*n++
	f.index[v], f.low[v] = *n, *n
	f.stack = append(f.stack, v)
	f.calls = append(f.calls, call{v, 0})
}

// pop takes the component whose first node is v off the stack.
func (f *components) pop(v int) []int {
	i := len(f.stack) - 1
	for f.stack[i] != v {
		i--
	}
	c := slices.Clone(f.stack[i:])
	f.stack = f.stack[:i]
	for _, u := range c {
		f.of[u] = f.nextComp
	}
	f.nextComp++
	return c
}
