package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/graph"
)

// A treePrinter writes a graph as a tree.
type treePrinter struct {
	*Printer
	g      *graph.Graph
	common string // who holds nearly all there is: said above
}

// Graph writes how BPF objects hang together, as a tree.
func (p *Printer) Graph(g *graph.Graph) {
	if len(g.Nodes) == 0 {
		p.Line("no BPF objects")
		return
	}
	common := Clean(g.CommonHolders())
	head := graphCounts(g)
	if common != "" {
		head += ", held by " + common + " unless said"
	}
	for _, line := range Wrap(head, Width) {
		p.Line(p.Label(line))
	}
	t := treePrinter{p, g, g.CommonHolders()}
	for _, s := range g.Forest() {
		if s.Title == "" {
			p.Line("")
		} else {
			p.Heading(s.Title)
		}
		for _, b := range s.Roots {
			t.branch(b, "", "", s.Title == "")
		}
		for _, l := range s.Lists {
			t.list(l)
		}
	}
}

// graphCounts says what there is of each sort.
func graphCounts(g *graph.Graph) string {
	var parts []string
	for _, k := range []struct {
		kind graph.Kind
		name string
	}{{graph.Program, "program"}, {graph.Map, "map"}, {graph.Link, "link"}, {graph.Trampoline, "image"}, {graph.Process, "process"}} {
		if n := g.Count(k.kind); n > 0 {
			word := count(n, k.name)
			if k.kind == graph.Process {
				word = strings.Replace(word, "processs", "processes", 1)
			}
			parts = append(parts, word)
		}
	}
	return strings.Join(parts, ", ")
}

// list names objects of one type.
func (t treePrinter) list(l graph.List) {
	words := []span{plain(join(" ", l.Type, string(l.Kind)))}
	for i, n := range l.Nodes {
		item := []span{plain(fmt.Sprint(n.Num)), t.named(Clean(n.Name))}
		if n.Missing {
			item = append(item, t.dim("(gone, or not readable)"))
		}
		if i < len(l.Nodes)-1 {
			last := &item[len(item)-1]
			if last.text == "" {
				last = &item[0]
			}
			last.text += ","
		}
		words = append(words, item...)
	}
	t.words("", "", words, nil)
	if n := len(l.More); n > 0 {
		what := map[graph.Kind]string{graph.Program: " program", graph.Map: " map"}[l.Kind]
		t.words("  ", "  ", nil, []span{t.dim("… and " + count(n, "more "+l.Type+what) + ": " + graph.Ranges(l.More))})
	}
}

// branch writes a branch and what is below it. first stands before its line,
// rest before all lines below.
func (t treePrinter) branch(b *graph.Branch, first, rest string, root bool) {
	head, details := t.line(b)
	leaves := t.leaves(b.Leaves)
	below := len(b.Children)
	if len(leaves) > 0 && (below > 0 || !fits(first, head, details, leaves)) {
		below++
	} else if len(leaves) > 0 {
		details = append(append(details, t.dim("·")), leaves...)
		leaves = nil
	}
	guide := rest
	if below > 0 {
		guide += "│"
	}
	t.words(first, guide, head, details)
	last := func(i int) (string, string) {
		if i == below-1 {
			return rest + "└─ ", rest + "   "
		}
		return rest + "├─ ", rest + "│  "
	}
	for i, c := range b.Children {
		f, r := last(i)
		t.branch(c, f, r, false)
	}
	if len(leaves) > 0 {
		f, r := last(below - 1)
		t.words(f, r, leaves, nil)
	}
	t.like(b, rest, root)
}

// like says which siblings look the same.
func (t treePrinter) like(b *graph.Branch, rest string, root bool) {
	if len(b.Like) == 0 {
		return
	}
	const named = 8
	var names []string
	for _, l := range b.Like[:min(len(b.Like), named)] {
		if b.Node.Kind.Source() {
			names = append(names, Clean(l.Node.Name))
			continue
		}
		names = append(names, fmt.Sprintf("%s %d", l.Node.Kind, l.Node.Num))
	}
	more := ""
	if n := len(b.Like) - named; n > 0 {
		more = ", …"
	}
	first := strings.TrimSuffix(strings.TrimSuffix(rest, "   "), "│  ")
	if !root {
		// It stands as a sibling after the last line of b.
		first = strings.TrimSuffix(rest, " ")
	}
	t.words(first, first+"  ", nil, []span{t.dim(fmt.Sprintf("… and %d more like it: %s%s", len(b.Like), strings.Join(names, ", "), more))})
}

// line words a branch: what must be read, and details.
func (t treePrinter) line(b *graph.Branch) (head, details []span) {
	if how := t.how(b); how != "" {
		arrow := "─►"
		if b.Edge != nil && (b.Edge.Kind == graph.Slot || b.Edge.Kind == graph.TailCalls) && (b.Through != nil || b.Edge.Kind == graph.TailCalls) {
			arrow = "═►"
		}
		head = append(head, plain(how), t.dim(arrow))
	}
	head = append(head, t.name(b.Node)...)
	switch {
	case b.Seen:
		return head, []span{t.dim("(see above)")}
	case b.Below:
		return head, []span{t.dim("(continued below)")}
	}
	return head, t.details(b.Node)
}

// how says by what a branch is reached: the words before its arrow.
func (t treePrinter) how(b *graph.Branch) string {
	link := ""
	if b.Link != nil {
		link = fmt.Sprintf("link %d", b.Link.Num)
	}
	if b.Edge == nil {
		return link
	}
	label := Clean(b.Edge.Label)
	switch b.Edge.Kind {
	case graph.Slot, graph.Inner:
		name := ""
		if b.Through != nil {
			name = Clean(mapName(b.Through))
		}
		return name + "[" + slots(b.Slots) + "]"
	case graph.TailCalls:
		return "tail calls"
	case graph.Runs:
		how := label
		if b.Edge.Order > 0 {
			how = fmt.Sprintf("%d. %s", b.Edge.Order, label)
		}
		return join(", ", how, link)
	case graph.ReplacedBy:
		return join(", ", "freplace", link)
	case graph.Consists, graph.Uses, graph.Traced, graph.Links:
		return ""
	}
	return join(", ", label, link)
}

// slots writes the keys of the slots that hold one program: [0-31, 40].
func slots(keys []string) string {
	var nums []int
	for _, k := range keys {
		var n int
		if _, err := fmt.Sscanf(k, "%d", &n); err != nil || fmt.Sprint(n) != k {
			return strings.Join(keys[:min(len(keys), 4)], ", ") + map[bool]string{true: ", …"}[len(keys) > 4]
		}
		nums = append(nums, n)
	}
	slices.Sort(nums)
	return graph.Ranges(nums)
}

func join(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), sep)
}

func mapName(n *graph.Node) string {
	if n.Name == "" {
		return fmt.Sprintf("map %d", n.Num)
	}
	return n.Name
}

// name says what a node is.
func (t treePrinter) name(n *graph.Node) []span {
	name := t.named(Clean(n.Name))
	switch n.Kind {
	case graph.Program, graph.Map:
		return []span{plain(fmt.Sprintf("%s %d", n.Kind, n.Num)), name}
	case graph.Link:
		return []span{plain(join(" ", fmt.Sprintf("link %d", n.Num), n.Type, Clean(n.Name)))}
	case graph.Function:
		return []span{t.named(Clean(n.Name) + "()")}
	case graph.Trampoline:
		kind := n.Type
		if kind == "retired" {
			kind = "retired trampoline"
		}
		return []span{plain(kind), t.named("tramp:" + n.Addr.String())}
	case graph.Kernel:
		return []span{name}
	}
	return []span{plain(string(n.Kind)), name}
}

// details words what else is known of a node.
func (t treePrinter) details(n *graph.Node) []span {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if n.Missing {
		add("gone, or not readable")
	}
	switch n.Kind {
	case graph.Program, graph.Map:
		if n.Type != "" {
			add("%s", n.Type)
		}
	case graph.Netdev:
		add("index %d", n.Num)
		if n.Netns != 0 {
			add("netns %d", n.Netns)
		}
	case graph.Kernel:
		add("kernel function")
	case graph.Link:
		if n.Targets > 1 {
			add("%d targets%s", n.Targets, t.some(n))
		}
		if n.Targets == 0 {
			add("attached to nothing any more")
		}
	case graph.Trampoline:
		if n.Name != "" {
			add("%s", n.Name)
		}
	}
	switch {
	case n.Kind == graph.Map && n.Size > 0:
		add("%s", entries(n.Size))
	case n.Size > 0:
		add("%d\u00a0B", n.Size)
	}
	if n.Kind == graph.Map && n.Used != nil {
		add("%d in use", *n.Used)
	}
	if n.TailCalls {
		add("tail-call reachable")
	}
	for _, pin := range n.Pins {
		add("%s", pin)
	}
	if h := t.holders(n); h != "" {
		add("held by %s", h)
	}
	var words []span
	if k := n.KeepsTailCalls; k != nil && *k {
		words = append(words, span{"keeps the tail-call count,", t.Good})
	} else if k != nil {
		words = append(words, span{"loses the tail-call count,", t.Bad})
	}
	if len(out) > 0 {
		words = append(words, t.dim(Clean(strings.Join(out, ", "))))
	}
	return words
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// some names the first targets of a link with many.
func (t treePrinter) some(n *graph.Node) string {
	const named = 4
	var names []string
	for _, e := range t.g.In(n.ID) {
		if e.Kind == graph.Attached {
			names = append(names, t.g.Node(e.From).Name)
		}
	}
	if len(names) > named {
		names = append(names[:named], "…")
	}
	return ": " + strings.Join(names, ", ")
}

// holders names the processes that hold a node, unless nearly everything is
// held by them.
func (t treePrinter) holders(n *graph.Node) string {
	const named = 2
	names := t.g.Holders(n.ID)
	switch {
	case strings.Join(names, " ") == t.common:
		return ""
	case len(names) == 0 && n.Kind == graph.Program:
		return "no process"
	}
	if len(names) > named {
		names = append(names[:named], fmt.Sprintf("and %d more", len(names)-named))
	}
	return strings.Join(names, " ")
}

// leaves words the functions and maps of a program that have nothing below them.
func (t treePrinter) leaves(nodes []*graph.Node) []span {
	var lists [2][][]span
	for _, n := range nodes {
		if n.Kind == graph.Function {
			lists[0] = append(lists[0], []span{t.named(Clean(n.Name) + "()")})
			continue
		}
		item := []span{plain(fmt.Sprintf("map\u00a0%d", n.Num)), t.named(Clean(n.Name))}
		if n.Type != "" {
			item = append(item, t.dim(n.Type))
		}
		if n.Type == "prog_array" {
			item = append([]span{t.dim("═►")}, item...)
			where := "(see above)"
			switch {
			case n.Used == nil:
				where = "(its slots were not read)"
			case *n.Used == 0:
				where = "(empty)"
			}
			item = append(item, t.dim(where))
		}
		lists[1] = append(lists[1], item)
	}
	var words []span
	for _, list := range lists {
		if len(words) > 0 && len(list) > 0 {
			words = append(words, t.dim("·"))
		}
		for i, item := range list {
			if i < len(list)-1 {
				item[len(item)-1].text += ","
			}
			words = append(words, item...)
		}
	}
	return words
}

// fits says whether a branch has room for its leaves on its own line.
func fits(first string, parts ...[]span) bool {
	n := displayWidth(first) + 5
	for _, part := range parts {
		for _, s := range part {
			n += displayWidth(s.text) + 1
		}
	}
	return n <= Width
}
