package graph

import (
	"fmt"
	"slices"
	"strings"
)

// A picture has a box for each object that is worth one. What belongs to one
// box alone is a line in it: links and hooks in what they are attached to,
// functions and private maps in their program, slots in their array. Wires lead
// from lines to boxes.

// box is a rectangle with a title and lines.
type box struct {
	node  *Node
	class string
	title string
	sub   string
	tip   string
	rows  []row

	x, y, w, h float64
	layer      int
	pos        float64 // in its layer, while that is ordered
	dummy      bool    // a place where a wire crosses a layer
}

// row is a line of a box.
type row struct {
	text, class, tip string
}

// wire leads from a line of a box, -1 for its title, to a box.
type wire struct {
	from, to *box
	row      int
	class    string
	tip      string
}

// view is what a picture shows of a graph.
type view struct {
	g      *Graph
	f      *forest // knows links of many targets and dispatchers
	boxes  map[string]*box
	order  []*box
	wires  []*wire
	hubs   map[string]bool // maps that many programs use: named, not wired
	common string          // who holds all there is
	own    map[string]bool // maps that one program uses: lines of its box
}

const (
	hubUsers   = 8  // a map with more users is named in their boxes
	shownMaps  = 8  // private maps of a program with lines of their own
	shownSlots = 48 // lines for what is in a map
	shownNames = 6  // targets of a link
)

// newView makes the boxes and wires of a graph.
func newView(g *Graph) *view {
	v := &view{
		g: g, f: &forest{Graph: g, drawn: make(map[string]bool)},
		boxes: make(map[string]*box), hubs: make(map[string]bool), own: make(map[string]bool),
	}
	v.f.countTargets()
	v.common = g.CommonHolders()
	for _, n := range g.Nodes {
		if n.Kind == Map {
			v.rateMap(n)
		}
	}
	for _, n := range g.Nodes {
		if v.wantsBox(n) {
			b := &box{node: n, class: class(n.Kind), title: n.title(), sub: n.about()}
			b.tip = strings.Join(slices.DeleteFunc([]string{n.ID, visible(n.Name), b.sub}, func(s string) bool { return s == "" }), "\n")
			v.boxes[n.ID] = b
			v.order = append(v.order, b)
		}
	}
	for _, b := range v.order {
		v.fill(b)
	}
	v.inline()
	return v
}

// manyLeaves is from how many on the plain programs that one box runs are
// lines in it.
const manyLeaves = 10

// inline makes lines of the boxes that have but a name, where one box leads to
// many of them.
func (v *view) inline() {
	in, out := make(map[*box]int), make(map[*box]int)
	for _, w := range v.wires {
		in[w.to]++
		out[w.from]++
	}
	leaf := func(w *wire) bool {
		return w.row >= 0 && in[w.to] == 1 && out[w.to] == 0 && w.to.node.Kind == Program &&
			!slices.ContainsFunc(w.to.rows, func(r row) bool { return r.class != "hub" && r.class != "dim" })
	}
	leaves := make(map[*box]int)
	for _, w := range v.wires {
		if leaf(w) {
			leaves[w.from]++
		}
	}
	gone := make(map[*box]bool)
	v.wires = slices.DeleteFunc(v.wires, func(w *wire) bool {
		if leaves[w.from] < manyLeaves || !leaf(w) || gone[w.to] {
			return false
		}
		r := &w.from.rows[w.row]
		r.text += " → " + w.to.title
		r.tip += "\n" + w.to.tip
		for _, hub := range w.to.rows {
			r.tip += "\n" + hub.tip
		}
		r.class = w.class + "row"
		gone[w.to] = true
		return true
	})
	v.order = slices.DeleteFunc(v.order, func(b *box) bool { return gone[b] })
}

func class(k Kind) string {
	switch {
	case k.Source():
		return "source"
	case k == Trampoline, k == Map, k == Link:
		return string(k)
	}
	return "prog"
}

// rateMap tells how a map is drawn: in its only user, by name in its many
// users, or as a box between them.
func (v *view) rateMap(n *Node) {
	users := 0
	for _, e := range v.g.in[n.ID] {
		switch e.Kind {
		case Uses, TailCalls:
			users++
		case Holds:
		default:
			return
		}
	}
	switch leaf := !v.f.below(n); {
	case users > hubUsers:
		v.hubs[n.ID] = true
	case users == 1 && leaf:
		v.own[n.ID] = true
	}
}

// wantsBox says that a node has a box of its own.
func (v *view) wantsBox(n *Node) bool {
	switch n.Kind {
	case Program:
		return true
	case Map:
		return !v.own[n.ID]
	case Link:
		return v.f.many[n.ID] || len(v.g.in[n.ID]) == v.f.held(n.ID)
	case Trampoline: // else a part of the function it hangs on, or of a struct_ops map
		return len(v.g.in[n.ID]) == 0 || slices.ContainsFunc(v.g.in[n.ID], func(e *Edge) bool {
			k := v.g.nodes[e.From].Kind
			return e.Kind == Traced && (k == Program || k == Function || n.Type == "dispatcher")
		})
	case Function, Process:
		return false
	}
	return slices.ContainsFunc(v.g.out[n.ID], func(e *Edge) bool {
		return e.Via == "" && !v.f.many[e.To] && (e.Kind != Traced || v.g.nodes[e.To].Type != "dispatcher")
	})
}

// add puts a line into a box.
func (b *box) add(class, format string, args ...any) int {
	text := fmt.Sprintf(format, args...)
	b.rows = append(b.rows, row{text: text, class: class, tip: text})
	return len(b.rows) - 1
}

func (v *view) wire(from *box, row int, to, class, tip string) {
	if b := v.boxes[to]; b != nil {
		v.wires = append(v.wires, &wire{from: from, to: b, row: row, class: class, tip: tip})
	}
}

// fill adds the lines of a box and the wires that begin there.
func (v *view) fill(b *box) {
	n := b.node
	switch hs := v.g.Holders(n.ID); {
	case strings.Join(hs, " ") == v.common:
	case len(hs) > 1:
		r := b.add("dim", "held by %s and %d more", hs[0], len(hs)-1)
		b.rows[r].tip = "held by " + strings.Join(hs, " ")
	case len(hs) == 1:
		b.add("dim", "held by %s", hs[0])
	case n.Kind == Program:
		b.add("dim", "held by no process")
	}
	for _, pin := range n.Pins {
		b.add("dim", "%s", visible(pin))
	}
	switch n.Kind {
	case Program:
		v.program(b)
	case Map:
		v.mapRows(b)
	case Link:
		v.linkTargets(b)
	case Trampoline:
		v.runs(b, n)
	}
	for _, e := range v.g.out[n.ID] {
		switch {
		case e.Kind == Attached && e.Via == "" && !v.f.many[e.To]:
			v.attached(b, e)
		case e.Kind == Links:
			v.wire(b, -1, e.To, "attach", "")
		case e.Kind == Traced && n.Kind == Kernel && v.boxes[e.To] == nil:
			t := v.g.nodes[e.To]
			b.add("head", "%s, %d B", t.title(), t.Size)
			v.runs(b, t)
		}
	}
}

// attached adds a hook: the link there, or the program without one.
func (v *view) attached(b *box, e *Edge) {
	text := visible(e.Label)
	to := v.g.nodes[e.To]
	if to.Kind != Link {
		v.wire(b, b.add("hook", "%s", text), e.To, "attach", text)
		return
	}
	r := b.add("hook", "%s, link %d", text, to.Num)
	if hs := v.g.Holders(to.ID); len(hs) > 0 {
		b.rows[r].tip += ", held by " + strings.Join(hs, " ")
	}
	for _, l := range v.g.out[to.ID] {
		v.wire(b, r, l.To, "attach", text)
	}
}

// runs adds what a trampoline runs.
func (v *view) runs(b *box, t *Node) {
	if k := t.countKept(); k != "" {
		b.add(map[bool]string{true: "good", false: "bad"}[*t.KeepsTailCalls], "%s", k)
	}
	for _, e := range v.g.out[t.ID] {
		text := visible(e.Label)
		if e.Order > 0 {
			text = fmt.Sprintf("%d. %s", e.Order, text)
		}
		if l := v.f.linkOf(t.ID, e.To); l != nil {
			text += fmt.Sprintf(", link %d", l.Num)
		}
		if t.Type == "dispatcher" { // what it runs is attached elsewhere
			b.add("dim", "%s %s", text, v.g.nodes[e.To].title())
			continue
		}
		v.wire(b, b.add("hook", "%s", text), e.To, "trace", text)
	}
}

// program adds the functions and maps of a program.
func (v *view) program(b *box) {
	var funcs, own, hubs, tails []string
	for _, e := range v.g.out[b.node.ID] {
		to := v.g.nodes[e.To]
		switch e.Kind {
		case Consists:
			if !v.f.below(to) {
				funcs = append(funcs, visible(to.Name)+"()")
				continue
			}
			r := b.add("func", "%s", to.title())
			b.rows[r].tip += ", " + to.about()
			v.tracedAt(b, r, to)
		case Uses, TailCalls:
			class := map[Relation]string{Uses: "use", TailCalls: "tail"}[e.Kind]
			switch {
			case v.own[to.ID]:
				own = append(own, strings.TrimSpace(fmt.Sprintf("%s %s", to.title(), to.Type)))
			case v.hubs[to.ID] && e.Kind == TailCalls:
				tails = append(tails, "tail calls: "+to.title())
			case v.hubs[to.ID]:
				hubs = append(hubs, to.title())
			default:
				v.wire(b, -1, to.ID, class, class+": "+to.title())
			}
		}
	}
	v.tracedAt(b, -1, b.node)
	b.many("func", "functions", funcs, 1)
	b.many("hub", "arrays", tails, 4)
	b.many("map", "maps", own, shownMaps)
	b.many("hub", "shared", hubs, 1)
}

// many adds lines for some words: one each, or if they are too many one for all.
func (b *box) many(class, noun string, words []string, most int) {
	if len(words) == 0 {
		return
	}
	if len(words) <= most {
		for _, w := range words {
			b.add(class, "%s", w)
		}
		return
	}
	all := strings.Join(words, ", ")
	text := all
	if len(words) > 1 {
		text = fmt.Sprintf("%d %s: %s", len(words), noun, all)
	}
	r := b.add(class, "%s", text)
	b.rows[r].tip = strings.Join(words, "\n")
}

// tracedAt adds the wires from a function of a program to what hangs on it.
func (v *view) tracedAt(b *box, row int, fn *Node) {
	for _, e := range v.g.out[fn.ID] {
		switch {
		case e.Kind == Traced:
			v.wire(b, row, e.To, "trace", "trampoline")
		case e.Kind == ReplacedBy:
			v.wire(b, row, e.To, "replace", "replaced by freplace program")
		case e.Kind == Attached && e.Via == "" && fn.Kind == Function:
			for _, l := range v.g.out[e.To] {
				v.wire(b, row, l.To, "attach", e.Label)
			}
		}
	}
}

// mapRows adds what is in a map: a line for all the slots that hold the same.
func (v *view) mapRows(b *box) {
	type group struct {
		edge *Edge
		keys []string
	}
	var groups []*group
	for _, e := range v.g.out[b.node.ID] {
		switch e.Kind {
		case Implements:
			for _, run := range v.g.out[e.To] {
				v.wire(b, b.add("hook", "%s", visible(e.Label)), run.To, "attach", e.Label)
			}
		case Slot, Inner:
			i := slices.IndexFunc(groups, func(g *group) bool { return g.edge.To == e.To })
			if i < 0 {
				groups = append(groups, &group{edge: e})
				i = len(groups) - 1
			}
			groups[i].keys = append(groups[i].keys, visible(e.Label))
		}
	}
	if v.hubs[b.node.ID] {
		b.add("dim", "%s", v.users(b.node))
	}
	rest := -1
	for i, gr := range groups {
		class := map[Relation]string{Slot: "tail", Inner: "use"}[gr.edge.Kind]
		if gr.edge.Kind == Slot && b.node.Type != "prog_array" {
			class = "attach"
		}
		r := rest
		switch {
		case i < shownSlots:
			r = b.add("hook", "[%s]", keys(gr.keys))
		case rest < 0:
			rest = b.add("hook", "[…] %d more", len(groups)-i)
			r = rest
		}
		v.wire(b, r, gr.edge.To, class, "["+strings.Join(gr.keys, ", ")+"]")
	}
}

// users counts the programs that use a map.
func (v *view) users(n *Node) string {
	users := 0
	for _, e := range v.g.in[n.ID] {
		if e.Kind == Uses || e.Kind == TailCalls {
			users++
		}
	}
	return fmt.Sprintf("used by %d programs", users)
}

// keys writes the keys that hold the same.
func keys(ks []string) string {
	nums := make([]int, 0, len(ks))
	for _, k := range ks {
		var n int
		if _, err := fmt.Sscanf(k, "%d", &n); err != nil || fmt.Sprint(n) != k {
			return strings.Join(ks, ", ")
		}
		nums = append(nums, n)
	}
	return Ranges(nums)
}

// linkTargets names what a link with a box acts on.
func (v *view) linkTargets(b *box) {
	n := 0
	var rest []string
	for _, e := range v.g.in[b.node.ID] {
		if e.Kind != Attached {
			continue
		}
		name := v.g.nodes[e.From].title()
		if n++; n <= shownNames {
			b.add("dim", "%s", name)
			continue
		}
		rest = append(rest, name)
	}
	if len(rest) > 0 {
		r := b.add("dim", "and %d more", b.node.Targets-shownNames)
		b.rows[r].tip = strings.Join(rest[:min(len(rest), 40)], "\n")
	}
	if n == 0 {
		b.add("dim", "attached to nothing any more")
	}
}
