package graph

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// A NotFoundError says that no node has a name, or that several have it.
type NotFoundError struct {
	Name        string
	Several     bool     // Suggestions are the ids that Name could mean
	Suggestions []string // ids that come near
}

// Error says what was asked for and what comes near.
func (e *NotFoundError) Error() string {
	if e.Several {
		return fmt.Sprintf("%s could be %s", e.Name, strings.Join(e.Suggestions, ", "))
	}
	s := fmt.Sprintf("nothing of BPF here is called %s", e.Name)
	if len(e.Suggestions) > 0 {
		s += " (did you mean " + strings.Join(e.Suggestions, ", ") + "?)"
	}
	return s
}

const maxSuggestions = 8

// Find returns the node that a person names: by its id (prog:7, map:3,
// tramp:0xffffffffc0201000, pid:93), a trampoline by any address in it, a
// function, device, program or map by its bare name, anything by the path it is
// pinned at. The error is a [*NotFoundError].
func (g *Graph) Find(name string) (*Node, error) {
	if n := g.nodes[name]; n != nil {
		return n, nil
	}
	if n := g.byAddress(name); n != nil {
		return n, nil
	}
	var found []*Node
	for _, n := range g.Nodes {
		if name != "" && n.Name == name || slices.Contains(n.Pins, name) || name != "" && n.Kind.Source() && strings.HasSuffix(n.ID, ":"+name) {
			found = append(found, n)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	err := &NotFoundError{Name: name, Several: len(found) > 1}
	for _, n := range found {
		err.Suggestions = append(err.Suggestions, n.ID)
	}
	if len(found) == 0 {
		err.Suggestions = g.near(name)
	}
	err.Suggestions = err.Suggestions[:min(len(err.Suggestions), maxSuggestions)]
	return nil, err
}

// byAddress finds a trampoline, or the function of a program, by an address in
// its code: tramp:ADDR or ADDR.
func (g *Graph) byAddress(name string) *Node {
	addr, err := strconv.ParseUint(strings.TrimPrefix(name, "tramp:"), 0, 64)
	if err != nil {
		return nil
	}
	for _, n := range g.Nodes {
		if n.Kind != Map && n.Addr != 0 && addr-uint64(n.Addr) < uint64(max(n.Size, 1)) {
			return n
		}
	}
	return nil
}

// near returns the ids of the nodes whose id or name is nearest to name.
func (g *Graph) near(name string) []string {
	ids := make(map[string]string)
	var names []string
	for _, n := range g.Nodes {
		for _, s := range []string{n.ID, n.Name} {
			if _, ok := ids[s]; !ok && s != "" {
				ids[s] = n.ID
				names = append(names, s)
			}
		}
	}
	var out []string
	for _, s := range ctype.Suggest(name, names) {
		if !slices.Contains(out, ids[s]) {
			out = append(out, ids[s])
		}
	}
	return out
}

// maxSharers is how many other programs that use a map are shown with a program
// that uses it.
const maxSharers = 16

// From returns the part of the graph that concerns a node: what makes it run,
// all the way up; what it runs and uses, all the way down; who holds it. Paths
// do not turn round: of another program on the same device, or traced by the
// same tracer, nothing is shown. The maps of the node itself show their other
// users, but not those users' own objects.
func (g *Graph) From(id string) *Graph {
	w := walk{g: g, keep: make(map[string]bool), up: make(map[string]bool), down: make(map[string]bool)}
	w.climb(id)
	w.descend(id)
	for _, e := range g.out[id] {
		switch e.Kind {
		case Holds: // of a process: each object as if it were asked for
			w.climb(e.To)
			w.descend(e.To)
		case Uses, TailCalls:
			w.sharers(e.To)
		}
	}
	if n := g.nodes[id]; n != nil && n.Kind == Function { // shown with its program
		for _, e := range g.in[id] {
			if e.Kind == Consists {
				w.climb(e.From)
			}
		}
	}
	w.holders()
	return g.induced(w.keep)
}

// walk collects nodes.
type walk struct {
	g        *Graph
	keep     map[string]bool
	up, down map[string]bool // where it has been, in which direction
}

// descend keeps what can be reached along edges.
func (w *walk) descend(id string) {
	if w.down[id] {
		return
	}
	w.down[id], w.keep[id] = true, true
	for _, e := range w.g.out[id] {
		if e.Kind != Holds {
			w.descend(e.To)
		}
		if e.Kind == Attached { // the link's program, and all its targets are its own
			w.keep[e.To] = true
		}
	}
}

// climb keeps what can be reached against the direction of edges. Of a map that
// is only passed by, the users are not followed, but for those that make tail
// calls through it.
func (w *walk) climb(id string) {
	if w.up[id] {
		return
	}
	w.up[id], w.keep[id] = true, true
	for _, e := range w.g.in[id] {
		if e.Kind != Holds {
			w.climb(e.From)
		}
	}
}

// sharers keeps the other users of a map, if they are few.
func (w *walk) sharers(id string) {
	if in := w.g.in[id]; len(in) <= maxSharers {
		for _, e := range in {
			if e.Kind == Uses || e.Kind == TailCalls {
				w.keep[e.From] = true
			}
		}
	}
}

// holders keeps the processes that hold what is kept.
func (w *walk) holders() {
	for _, n := range w.g.Nodes {
		if n.Kind != Process && w.keep[n.ID] && (w.up[n.ID] || w.down[n.ID]) {
			for _, e := range w.g.in[n.ID] {
				if e.Kind == Holds {
					w.keep[e.From] = true
				}
			}
		}
	}
}

// induced returns the graph of some nodes and the edges among them.
func (g *Graph) induced(keep map[string]bool) *Graph {
	out := newGraph()
	for _, n := range g.Nodes {
		if keep[n.ID] {
			out.add(*n)
		}
	}
	for _, e := range g.Edges {
		if keep[e.From] && keep[e.To] {
			out.edge(*e)
		}
	}
	return out
}
