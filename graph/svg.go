package graph

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// svgStyle is for light and dark pages alike; viewers that know no media
// queries get the light one.
const svgStyle = `
svg { --bg:#ffffff; --ink:#1b1f24; --dim:#5b6570; --line:#aab3bd;
 --prog:#dbe9fb; --source:#eceff2; --map:#e1f2df; --tramp:#fdebd3; --link:#f1e6f7;
 --attach:#57606a; --tail:#c0271d; --trace:#b26a00; --replace:#7b3fa0; --use:#3f7d3a; --good:#2c7a2c; --bad:#c0271d }
@media (prefers-color-scheme: dark) { svg { --bg:#14181d; --ink:#e6eaee; --dim:#98a3ae; --line:#4a545e;
 --prog:#1d3450; --source:#2a3036; --map:#1f3a22; --tramp:#46331a; --link:#392a45;
 --attach:#98a3ae; --tail:#ff6b60; --trace:#e0a040; --replace:#c08be0; --use:#78c070; --good:#78c070; --bad:#ff6b60 } }
text { font-family: "DejaVu Sans Mono", ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; font-size:11px; fill:#1b1f24; fill:var(--ink); white-space:pre }
.bg { fill:#ffffff; fill:var(--bg) }
.t { font-size:12px; font-weight:bold }
.h1 { font-size:17px; font-weight:bold } .h2 { font-size:13px; font-weight:bold }
.dim, .note { fill:#5b6570; fill:var(--dim) } .head { font-weight:bold; fill:#b26a00; fill:var(--trace); font-size:10.5px }
.good { fill:#2c7a2c; fill:var(--good) } .bad { fill:#c0271d; fill:var(--bad); font-weight:bold }
.rmap { fill:#3f7d3a; fill:var(--use) } .hub { fill:#3f7d3a; fill:var(--use); font-style:italic }
rect { stroke:#aab3bd; stroke:var(--line); stroke-width:1 }
rect.bg { stroke:none }
.prog { fill:#dbe9fb; fill:var(--prog) } .source { fill:#eceff2; fill:var(--source) } .map { fill:#e1f2df; fill:var(--map) }
.tramp { fill:#fdebd3; fill:var(--tramp) } .link { fill:#f1e6f7; fill:var(--link) }
rect.missing { stroke-dasharray:4 3 }
.w { fill:none; stroke-width:1.3 }
.attach { stroke:#57606a; stroke:var(--attach) } .tail { stroke:#c0271d; stroke:var(--tail); stroke-width:2.4 }
.trace { stroke:#b26a00; stroke:var(--trace) } .replace { stroke:#7b3fa0; stroke:var(--replace); stroke-width:1.8 }
.use { stroke:#3f7d3a; stroke:var(--use); stroke-width:1 }
.aattach { fill:#57606a; fill:var(--attach) } .atail { fill:#c0271d; fill:var(--tail) } .atrace { fill:#b26a00; fill:var(--trace) }
.areplace { fill:#7b3fa0; fill:var(--replace) } .ause { fill:#3f7d3a; fill:var(--use) }
`

// wireKinds are the kinds of wires, as the legend words them.
var wireKinds = []struct{ class, text string }{
	{"attach", "runs"}, {"tail", "tail call"}, {"trace", "traced by"}, {"replace", "replaced by"}, {"use", "uses"},
}

var boxKinds = []struct{ class, text string }{
	{"source", "where events enter"}, {"prog", "program"}, {"tramp", "trampoline"}, {"map", "map"}, {"link", "link of many"},
}

// SVG writes the graph as a picture that needs nothing else: no script, no
// font, no style sheet. Boxes and wires have what does not fit in tooltips.
func (g *Graph) SVG(out io.Writer) error {
	p := draw(g)
	s := &svg{w: bufio.NewWriter(out)}
	s.printf(`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+
		`<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %[1]s %[2]s" role="img">`+"\n",
		num(p.w), num(p.h))
	s.printf("<title>BPF objects: %s</title>\n<style>%s</style>\n", escape(p.heading), svgStyle)
	s.printf(`<defs>` + "\n")
	for _, k := range wireKinds {
		s.printf(`<marker id="m-%s" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path class="a%[1]s" d="M0,0.5 L8,4 L0,7.5 z"/></marker>`+"\n", k.class)
	}
	s.printf("</defs>\n")
	s.printf(`<rect class="bg" x="0" y="0" width="%s" height="%s"/>`+"\n", num(p.w), num(p.h))
	s.legend(p)
	for _, sec := range p.sections {
		s.section(sec)
	}
	s.printf("</svg>\n")
	return s.w.Flush()
}

type svg struct{ w *bufio.Writer }

// printf writes; errors stick in the buffer and come out when it is flushed.
func (s *svg) printf(format string, args ...any) { fmt.Fprintf(s.w, format, args...) }

// num writes a length, with at most one decimal.
func num(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") }

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(visible(text))) // a builder does not fail
	return b.String()
}

// lines escapes a tooltip, which keeps its line breaks.
func lines(tip string) string {
	parts := strings.Split(tip, "\n")
	for i, p := range parts {
		parts[i] = escape(p)
	}
	return strings.Join(parts, "\n")
}

// text writes text from x on, with the width it is laid out for: a font that
// is wider is squeezed.
func (s *svg) text(x, y float64, class, text string) {
	s.printf(`<text x="%s" y="%s" class="%s">%s</text>`+"\n", num(x), num(y), class, escape(text))
}

func (s *svg) legend(p *picture) {
	s.text(margin, 32, "h1", "BPF objects")
	s.text(margin+130, 32, "dim", p.heading)
	x := float64(margin)
	for _, k := range boxKinds {
		s.printf(`<rect class="%s" x="%s" y="50" width="14" height="12" rx="3"/>`+"\n", k.class, num(x))
		s.text(x+20, 60, "", k.text)
		x += 20 + float64(columns(k.text))*charWidth + 18
	}
	for _, k := range wireKinds {
		s.printf(`<path class="w %s" marker-end="url(#m-%[1]s)" d="M%s,56 h26"/>`+"\n", k.class, num(x))
		s.text(x+32, 60, "", k.text)
		x += 32 + float64(columns(k.text))*charWidth + 18
	}
}

func (s *svg) section(sec *section) {
	if sec.title != "" {
		s.text(margin, sec.y+18, "h2", sec.title)
	}
	for _, c := range sec.parts {
		s.component(c)
	}
	for _, c := range sec.cells {
		s.printf("<g><title>%s</title>", lines(c.tip))
		if !c.label {
			s.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%d" rx="3"/>`, c.class, num(c.x), num(c.y), num(c.w), cellHeight)
		}
		class := ""
		if c.label {
			class = "t"
		}
		s.text(c.x+6, c.y+13, class, c.text)
		s.printf("</g>\n")
	}
}

func (s *svg) component(c *component) {
	s.printf(`<g transform="translate(%s,%s)">`+"\n", num(c.x), num(c.y))
	for _, w := range c.wires {
		s.wire(c, w)
	}
	for _, b := range c.boxes {
		s.box(b, len(c.alike) > 0)
	}
	for i, n := range c.note {
		s.text(0, c.h-float64(len(c.note)-i-1)*rowLine-3, "note", n)
	}
	s.printf("</g>\n")
}

// wire draws a wire through the gaps between columns, straight through the
// columns that it passes.
func (s *svg) wire(c *component, w *wire) {
	path := c.paths[w]
	rows := make([]int, len(path))
	for i := range rows {
		rows[i] = -1
	}
	end := "marker-end"
	if c.back[w] {
		rows[len(rows)-1] = w.row
		end = "marker-start"
	} else {
		rows[0] = w.row
	}
	var d strings.Builder
	for i := 1; i < len(path); i++ {
		a, b := path[i-1], path[i]
		x1, y1 := a.x+a.w, a.y+a.port(rows[i-1])
		x2, y2 := b.x, b.y+b.port(rows[i])
		if i == 1 {
			fmt.Fprintf(&d, "M%s,%s", num(x1), num(y1))
		} else { // through the dummy's column
			fmt.Fprintf(&d, " L%s,%s", num(x1), num(y1))
		}
		// The gap begins where the widest box of the column ends.
		edge := c.right(a.layer)
		if edge > x1 {
			fmt.Fprintf(&d, " L%s,%s", num(edge), num(y1))
		}
		mid := (edge + x2) / 2
		fmt.Fprintf(&d, " C%s,%s %s,%s %s,%s", num(mid), num(y1), num(mid), num(y2), num(x2), num(y2))
	}
	s.printf(`<path class="w %s" %s="url(#m-%[1]s)" d="%[3]s"><title>%[4]s</title></path>`+"\n",
		w.class, end, d.String(), lines(w.from.node.ID+" → "+w.to.node.ID+"\n"+w.tip))
}

// right returns where a column ends.
func (c *component) right(layer int) float64 {
	x := 0.0
	for _, b := range c.layers[layer] {
		x = max(x, b.x+b.w)
	}
	return x
}

func (s *svg) box(b *box, stacked bool) {
	class := b.class
	if b.node.Missing {
		class += " missing"
	}
	s.printf("<g><title>%s</title>\n", lines(b.tip))
	if stacked {
		s.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%s" rx="5"/>`+"\n", class, num(b.x+3), num(b.y+3), num(b.w), num(b.h))
	}
	s.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%s" rx="5"/>`+"\n", class, num(b.x), num(b.y), num(b.w), num(b.h))
	y := b.y + padding + 12
	s.text(b.x+padding+2, y, "t", b.title)
	if b.sub != "" {
		y += subLine
		s.text(b.x+padding+2, y, "dim", b.sub)
	}
	y = b.y + b.port(0) + 4
	for _, r := range b.rows {
		class := map[string]string{"map": "rmap", "func": "", "hook": "", "attachrow": "", "tracerow": "", "tailrow": "", "replacerow": "", "userow": ""}
		name, ok := class[r.class]
		if !ok {
			name = r.class
		}
		s.printf("<g><title>%s</title>", lines(r.tip))
		s.text(b.x+padding+8, y, name, r.text)
		s.printf("</g>\n")
		y += rowLine
	}
	s.printf("</g>\n")
}
