package graph

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// picture is all that is drawn, with its places.
type picture struct {
	w, h     float64
	heading  string
	sections []*section
}

// section is a part of the picture under a title: components and boxes, then
// cells in a grid.
type section struct {
	title string
	y     float64
	parts []*component
	cells []cell
}

// cell is an object that is but named.
type cell struct {
	x, y, w   float64
	text, tip string
	class     string
	label     bool // the type of those behind it
}

const (
	margin     = 24
	headHeight = 92 // title and legend
	partSpace  = 34 // between components
	cellHeight = 19
	cellChars  = 30
	fullBoxes  = 40 // programs that nothing runs, with what belongs to them; more are cells
	minWidth   = 1180
	maxWidth   = 3600
)

// draw lays out the whole picture of a graph.
func draw(g *Graph) *picture {
	v := newView(g)
	p := &picture{heading: heading(g)}
	main := &section{}
	idle := &section{title: "Programs that nothing runs"}
	hubs := &section{title: "Maps that many programs use: named in their boxes, not wired"}
	maps := &section{title: "Maps that no program uses"}
	images := &section{title: "Other images"}
	var idleCells, hubCells, mapCells []*box
	for _, c := range v.components() {
		b := c.boxes[0]
		switch single := len(c.boxes) == 1 && len(c.wires) == 0; {
		case single && v.hubs[b.node.ID]:
			hubCells = append(hubCells, b)
		case single && b.node.Kind == Map && len(b.rows) == 0:
			mapCells = append(mapCells, b)
		case single && b.node.Kind == Map:
			maps.parts = append(maps.parts, c)
		case single && b.node.Kind == Trampoline:
			images.parts = append(images.parts, c)
		case single && b.node.Kind == Program && (len(b.rows) == 0 || len(idle.parts) >= fullBoxes):
			idleCells = append(idleCells, b)
		case c.idle(v.hubs):
			idle.parts = append(idle.parts, c)
		default:
			main.parts = append(main.parts, c)
		}
	}
	area := 0.0
	for _, s := range []*section{main, idle, maps, images} {
		s.parts = fold(s.parts)
		for _, c := range s.parts {
			c.layout()
			c.widen()
			area += (c.w + partSpace) * (c.h + partSpace)
			p.w = max(p.w, c.w)
		}
	}
	p.w = max(p.w, min(max(math.Sqrt(area*1.9), minWidth), maxWidth))
	p.h = headHeight
	for _, s := range []*section{main, idle, hubs, maps, images} {
		switch s {
		case idle:
			p.add(s, idleCells, "prog")
		case hubs:
			p.add(s, hubCells, "map")
		case maps:
			p.add(s, mapCells, "map")
		default:
			p.add(s, nil, "")
		}
	}
	p.w += 2 * margin
	p.h += margin
	return p
}

// idle says that nothing leads events to any box of a component, also not by
// way of a map that is shared with others.
func (c *component) idle(shared map[string]bool) bool {
	return !slices.ContainsFunc(c.boxes, func(b *box) bool {
		return b.node.Kind.Source() || b.node.Kind == Link || shared[b.node.ID] ||
			b.node.Kind == Map && slices.ContainsFunc(c.wires, func(w *wire) bool { return w.from == b && w.class == "attach" })
	})
}

// widen makes room for the note below a component.
func (c *component) widen() {
	for _, n := range c.note {
		c.w = max(c.w, float64(columns(n))*charWidth)
	}
	c.h += float64(len(c.note)) * rowLine
	if len(c.note) > 0 {
		c.h += 4
	}
}

// add places a section below what is there.
func (p *picture) add(s *section, cells []*box, class string) {
	if len(s.parts)+len(cells) == 0 {
		return
	}
	p.sections = append(p.sections, s)
	s.y = p.h
	if s.title != "" {
		p.h += 34
	}
	if len(s.parts) > 0 {
		top := p.h
		p.h += pack(s.parts, p.w, partSpace) + 24
		for _, c := range s.parts {
			c.x += margin
			c.y += top
		}
	}
	if len(cells) > 0 {
		p.grid(s, cells, class)
	}
}

// grid names objects in columns, by type; those of one name share a cell.
func (p *picture) grid(s *section, boxes []*box, class string) {
	slices.SortStableFunc(boxes, func(a, b *box) int { return cmp.Compare(a.node.Type, b.node.Type) })
	for i := 0; i < len(boxes); {
		j := i
		for j < len(boxes) && boxes[j].node.Type == boxes[i].node.Type {
			j++
		}
		same := boxes[i:j]
		label := fmt.Sprintf("%s: %d", cmp.Or(same[0].node.Type, "type unknown"), len(same))
		s.cells = append(s.cells, cell{text: shorten(label, cellChars), class: "label", label: true, tip: label})
		names := make(map[string][]*box)
		var order []string
		for _, b := range same {
			if names[b.node.Name] == nil {
				order = append(order, b.node.Name)
			}
			names[b.node.Name] = append(names[b.node.Name], b)
		}
		for _, n := range order {
			s.cells = append(s.cells, newCell(names[n], class))
		}
		i = j
	}
	cw := 0.0
	for _, c := range s.cells {
		if c.label {
			cw = max(cw, float64(columns(c.text))*titleWidth)
		}
		cw = max(cw, float64(columns(c.text))*charWidth)
	}
	cw += 14
	perLine := max(int((p.w+8)/(cw+8)), 1)
	col, y := 0, p.h
	for i := range s.cells {
		c := &s.cells[i]
		if col == perLine || c.label && i > 0 && col+s.sameType(i) > perLine {
			col, y = 0, y+cellHeight+2
		}
		c.x, c.y, c.w = margin+float64(col)*(cw+8), y, cw
		col++
	}
	p.h = y + cellHeight + 24
}

// sameType counts the cells of the type whose label is cell i.
func (s *section) sameType(i int) int {
	n := 1
	for i+n < len(s.cells) && !s.cells[i+n].label {
		n++
	}
	return n
}

func newCell(same []*box, class string) cell {
	b := same[0]
	c := cell{class: class, tip: b.tip}
	for _, r := range b.rows {
		c.tip += "\n" + r.tip
	}
	c.text = fmt.Sprintf("%d %s", b.node.Num, visible(b.node.Name))
	if len(same) > 1 {
		var nums []int
		for _, o := range same {
			nums = append(nums, o.node.Num)
		}
		c.text = fmt.Sprintf("%d× %s %s", len(same), cmp.Or(visible(b.node.Name), "without a name"), Ranges(nums))
		c.tip = c.text
	}
	c.text = shorten(c.text, cellChars)
	return c
}

// heading counts what there is.
func heading(g *Graph) string {
	out := ""
	for _, k := range []struct {
		kind      Kind
		one, many string
	}{
		{Program, "program", "programs"}, {Map, "map", "maps"}, {Link, "link", "links"}, {Trampoline, "image", "images"},
		{Process, "process", "processes"},
	} {
		n := g.Count(k.kind)
		if n == 0 {
			continue
		}
		if out != "" {
			out += ", "
		}
		if out += fmt.Sprint(n, " "); n == 1 {
			out += k.one
		} else {
			out += k.many
		}
	}
	if h := g.CommonHolders(); h != "" {
		out += ", held by " + h + " unless said"
	}
	return out
}
