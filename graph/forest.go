package graph

import (
	"fmt"
	"slices"
	"strings"
)

// A Section is a part of the text tree.
type Section struct {
	Title string // "" of the first, which has what is at work
	Roots []*Branch
	// Lists are objects with nothing below them, by type.
	Lists []List
}

// A List is objects of one type that are named, not drawn.
type List struct {
	Kind  Kind
	Type  string
	Nodes []*Node
	More  []int // numbers of those that are not even named
}

// A Branch is a node where the tree draws it.
type Branch struct {
	Node *Node
	Edge *Edge // that leads here from the branch above; nil of roots
	// Link is the link that Edge stands for, where that is drawn on the same line.
	Link *Node
	// Through is the program array whose slots these are, or the struct_ops
	// image between, drawn on the same line.
	Through *Node
	Slots   []string // keys in Through, or of a map of maps
	Seen    bool     // its own branches are drawn elsewhere
	Below   bool     // they come below, as a root: the tree got too deep
	// Leaves are functions and maps that have no branches of their own, and
	// program arrays whose slots are drawn elsewhere or empty.
	Leaves   []*Node
	Children []*Branch
	Like     []*Branch // siblings of the same shape that are not drawn
}

const (
	maxDepth    = 9  // levels of the tree: the rest is drawn below
	fewTargets  = 3  // a link with more is a root, not its targets
	fewLike     = 3  // so many siblings of one shape are drawn as one
	shownOfType = 12 // of the programs of one type that nothing runs, with their maps
	namedOfType = 24 // of the objects of one type in a list
)

// Forest returns the graph as a tree: what makes programs run at the roots,
// below it the programs with what they run and use; then the programs that
// nothing runs, then the maps that nothing uses. Each node has its branches
// drawn once.
func (g *Graph) Forest() []Section {
	f := &forest{Graph: g, drawn: make(map[string]bool)}
	f.countTargets()
	main := Section{Roots: f.roots()}
	main.Roots = append(main.Roots, f.continued()...)
	main.Roots = group(main.Roots)
	idle := f.programs()
	maps := f.maps()
	images := f.images()
	var out []Section
	for _, s := range []Section{main, idle, maps, images} {
		if len(s.Roots)+len(s.Lists) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// forest is a tree being drawn.
type forest struct {
	*Graph
	drawn map[string]bool
	many  map[string]bool // links with many targets
	later []*Node         // to be drawn as roots
}

func (f *forest) countTargets() {
	f.many = make(map[string]bool)
	for _, n := range f.Nodes {
		if n.Kind == Link {
			targets := 0
			for _, e := range f.in[n.ID] {
				if e.Kind == Attached {
					targets++
				}
			}
			f.many[n.ID] = targets > fewTargets
		}
	}
}

// roots draws from what is not run by anything else.
func (f *forest) roots() []*Branch {
	var out []*Branch
	for _, n := range f.Nodes {
		switch {
		case n.Kind.Source() && !f.dispatcher(n), n.Kind == Map && f.runs(n):
			if b := f.draw(n, nil, 0); len(b.Children) > 0 {
				out = append(out, b)
			}
		case n.Kind == Link && f.many[n.ID], n.Kind == Link && len(f.in[n.ID]) == f.held(n.ID):
			if !f.drawn[n.ID] {
				out = append(out, f.draw(n, nil, 0))
			}
		}
	}
	return out
}

// runs says that programs are attached to a map, as to sockmaps.
func (f *forest) runs(n *Node) bool {
	return !f.drawn[n.ID] && slices.ContainsFunc(f.out[n.ID], func(e *Edge) bool { return e.Kind == Attached })
}

// held counts the processes that hold a node.
func (f *forest) held(id string) int {
	n := 0
	for _, e := range f.in[id] {
		if e.Kind == Holds {
			n++
		}
	}
	return n
}

// dispatcher says that a function is there for a dispatcher alone: what it
// calls is attached elsewhere.
func (f *forest) dispatcher(n *Node) bool {
	out := f.out[n.ID]
	return len(out) > 0 && !slices.ContainsFunc(out, func(e *Edge) bool { return f.nodes[e.To].Type != "dispatcher" })
}

// continued draws what was too deep where it was met.
func (f *forest) continued() []*Branch {
	var out []*Branch
	for len(f.later) > 0 {
		n := f.later[0]
		f.later = f.later[1:]
		if !f.drawn[n.ID] {
			out = append(out, f.draw(n, nil, 0))
		}
	}
	return out
}

// draw returns the branch of a node, with its own branches unless those are
// drawn elsewhere.
func (f *forest) draw(n *Node, via *Edge, depth int) *Branch {
	b := &Branch{Node: n, Edge: via}
	switch {
	case f.drawn[n.ID]:
		b.Seen = f.below(n)
		return b
	case depth >= maxDepth && f.below(n):
		b.Below = true
		f.later = append(f.later, n)
		return b
	}
	f.drawn[n.ID] = true
	for _, e := range f.out[n.ID] {
		f.follow(b, e, depth+1)
	}
	b.Children = group(b.Children)
	return b
}

// below says whether a node has anything to be drawn below it.
func (f *forest) below(n *Node) bool {
	return slices.ContainsFunc(f.out[n.ID], func(e *Edge) bool { return e.Kind != Holds && (e.Kind != Attached || e.Via == "") })
}

// follow draws what an edge leads to, below b.
func (f *forest) follow(b *Branch, e *Edge, depth int) {
	to := f.nodes[e.To]
	switch e.Kind {
	case Attached:
		f.attached(b, e, to, depth)
	case Runs:
		c := f.draw(to, e, depth)
		c.Link = f.linkOf(b.Node.ID, e.To)
		b.Children = append(b.Children, c)
	case TailCalls:
		f.tailCalls(b, e, to, depth)
	case Slot, Inner:
		f.slot(b, e, to, nil, depth)
	case Implements:
		for _, run := range f.out[to.ID] {
			c := f.draw(f.nodes[run.To], e, depth)
			c.Through = to
			b.Children = append(b.Children, c)
		}
		f.drawn[to.ID] = true
	case Consists, Uses:
		if f.below(to) {
			b.Children = append(b.Children, f.draw(to, e, depth))
			return
		}
		f.drawn[to.ID] = true
		b.Leaves = append(b.Leaves, to)
	case ReplacedBy:
		c := f.draw(to, e, depth)
		for _, l := range f.in[to.ID] {
			if l.Kind == Links && f.has(b.Node.ID, l.From, Attached) {
				c.Link = f.nodes[l.From]
				f.drawn[l.From] = true
			}
		}
		b.Children = append(b.Children, c)
	case Links, Traced:
		b.Children = append(b.Children, f.draw(to, e, depth))
	}
}

// attached draws a link, or a program at work without one. A link of few
// targets stands on the line of its program.
func (f *forest) attached(b *Branch, e *Edge, to *Node, depth int) {
	switch {
	case e.Via != "", f.many[to.ID]: // drawn there
		return
	case to.Kind != Link:
		b.Children = append(b.Children, f.draw(to, e, depth))
		return
	}
	f.drawn[to.ID] = true
	out := f.out[to.ID]
	if len(out) == 0 {
		b.Children = append(b.Children, &Branch{Node: to, Edge: e})
	}
	for _, l := range out {
		c := f.draw(f.nodes[l.To], e, depth)
		c.Link = to
		b.Children = append(b.Children, c)
	}
}

// linkOf returns the link by which a trampoline runs a program, or nil.
func (f *forest) linkOf(tramp, prog string) *Node {
	for _, l := range f.in[prog] {
		if l.Kind != Links {
			continue
		}
		for _, e := range f.in[l.From] {
			if e.Via == tramp {
				f.drawn[l.From] = true
				return f.nodes[l.From]
			}
		}
	}
	return nil
}

// tailCalls draws the programs in an array's slots below a program that jumps
// through it.
func (f *forest) tailCalls(b *Branch, e *Edge, array *Node, depth int) {
	if f.drawn[array.ID] || !f.below(array) {
		f.drawn[array.ID] = true
		b.Leaves = append(b.Leaves, array)
		return
	}
	f.drawn[array.ID] = true
	for _, slot := range f.out[array.ID] {
		f.slot(b, slot, f.nodes[slot.To], array, depth)
	}
}

// slot draws what an entry of a map refers to; entries that refer to the same
// are one.
func (f *forest) slot(b *Branch, e *Edge, to, array *Node, depth int) {
	for _, c := range b.Children {
		if c.Edge.From == e.From && c.Node == to {
			c.Slots = append(c.Slots, e.Label)
			return
		}
	}
	c := f.draw(to, e, depth)
	c.Through, c.Slots = array, []string{e.Label}
	b.Children = append(b.Children, c)
}

// programs draws the programs that nothing runs: first those that not even
// another of them runs, of each type the first few.
func (f *forest) programs() Section {
	s := Section{Title: "PROGRAMS THAT NOTHING RUNS"}
	drawn := make(map[string]int)
	for _, top := range []bool{true, false} {
		for _, n := range f.Nodes {
			if n.Kind != Program || f.drawn[n.ID] || top && len(f.in[n.ID]) > f.held(n.ID) {
				continue
			}
			plain, bare := true, true
			for _, e := range f.out[n.ID] {
				plain = plain && (e.Kind == Uses || e.Kind == Consists) && !f.below(f.nodes[e.To])
				bare = false
			}
			if !bare {
				drawn[n.Type]++
			}
			if bare || plain && drawn[n.Type] > shownOfType {
				s.list(n)
				f.drawn[n.ID] = true
				for _, e := range f.out[n.ID] {
					f.drawn[e.To] = true
				}
				continue
			}
			s.Roots = append(s.Roots, f.draw(n, nil, 0))
		}
	}
	s.Roots = group(append(s.Roots, f.continued()...))
	return s
}

// list puts a node into the list of its type.
func (s *Section) list(n *Node) {
	i := slices.IndexFunc(s.Lists, func(l List) bool { return l.Type == n.Type })
	if i < 0 {
		i = len(s.Lists)
		s.Lists = append(s.Lists, List{Kind: n.Kind, Type: n.Type})
	}
	if l := &s.Lists[i]; len(l.Nodes) < namedOfType {
		l.Nodes = append(l.Nodes, n)
	} else {
		l.More = append(l.More, n.Num)
	}
}

// maps draws the maps that nothing else led to.
func (f *forest) maps() Section {
	s := Section{Title: "MAPS THAT NO PROGRAM USES"}
	for _, top := range []bool{true, false} {
		for _, n := range f.Nodes {
			switch {
			case n.Kind != Map || f.drawn[n.ID]:
			case !f.below(n) && !top:
				s.list(n)
			case f.below(n) && (!top || len(f.in[n.ID]) == f.held(n.ID)):
				s.Roots = append(s.Roots, f.draw(n, nil, 0))
			}
		}
	}
	return s
}

// images draws dispatchers, and images that hang on nothing that is known.
func (f *forest) images() Section {
	s := Section{Title: "OTHER IMAGES"}
	for _, n := range f.Nodes {
		if n.Kind == Trampoline && !f.drawn[n.ID] {
			s.Roots = append(s.Roots, f.draw(n, nil, 0))
		}
	}
	return s
}

// group draws siblings of the same shape as one. They keep the place of the
// first.
func group(bs []*Branch) []*Branch {
	count := make(map[string]int)
	shapes := make([]string, len(bs))
	for i, b := range bs {
		shapes[i] = b.shape(true)
		count[shapes[i]]++
	}
	first := make(map[string]*Branch)
	var out []*Branch
	for i, b := range bs {
		s := shapes[i]
		switch {
		case count[s] < fewLike:
			out = append(out, b)
		case first[s] == nil:
			first[s] = b
			out = append(out, b)
		default:
			first[s].Like = append(first[s].Like, b)
		}
	}
	return out
}

// shape is the same for branches that differ in numbers and places alone: the
// names of what programs act on do not count, those of programs and maps do.
func (b *Branch) shape(top bool) string {
	var s strings.Builder
	n := b.Node
	fmt.Fprintf(&s, "%s %s", n.Kind, n.Type)
	if !n.Kind.Source() && n.Kind != Link && n.Kind != Trampoline {
		s.WriteString(" " + n.Name)
	}
	if b.Edge != nil && b.Edge.Kind != Slot && b.Edge.Kind != Inner {
		fmt.Fprintf(&s, " %s %s", b.Edge.Kind, b.Edge.Label)
	}
	if b.Seen && !top || b.Below {
		s.WriteString(n.ID)
	}
	for _, m := range b.Leaves {
		fmt.Fprintf(&s, " %s/%s/%s", m.Kind, m.Type, withoutDigits(m.Name))
	}
	fmt.Fprintf(&s, " %v %d {", b.Seen, len(b.Like))
	for _, c := range b.Children {
		s.WriteString(c.shape(false) + ";")
	}
	return s.String() + "}"
}
