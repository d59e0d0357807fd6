package graph

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// dotNode and dotEdge are the attributes of the kinds of nodes and edges.
var (
	dotNode = map[Kind]string{
		Program: `style=filled, fillcolor="#dbe9fb"`, Function: `style=filled, fillcolor="#eef4fd"`,
		Map: `style=filled, fillcolor="#e3f3e1", shape=cylinder`, Trampoline: `style=filled, fillcolor="#fdebd3"`,
		Link: `shape=ellipse`, Process: `shape=ellipse, style=dashed`,
	}
	dotEdge = map[Relation]string{
		TailCalls: `style=bold, color="#b3261e"`, Slot: `style=bold, color="#b3261e"`,
		ReplacedBy: `color="#7b3fa0"`, Traced: `color="#b26a00"`, Runs: `color="#b26a00"`,
		Uses: `color="#4a7d45"`, Inner: `color="#4a7d45"`, Consists: `arrowhead=none, color="#777777"`,
		Holds: `style=dashed, color="#999999"`,
	}
)

// DOT writes the graph in the language of Graphviz. Functions of a program are
// nodes beside it, not a cluster: clusters with edges that lead back are more
// than some versions of dot can lay out.
func (g *Graph) DOT(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, "digraph bpf {")
	fmt.Fprintln(w, "\trankdir=LR;")
	fmt.Fprintln(w, "\tnode [shape=box, fontname=\"monospace\", fontsize=10];")
	fmt.Fprintln(w, "\tedge [fontname=\"monospace\", fontsize=9];")
	for _, n := range g.Nodes {
		fmt.Fprintf(w, "\t%s\n", dotLine(n))
	}
	for _, e := range g.Edges {
		attrs := []string{}
		label := visible(e.Label)
		if e.Order > 0 {
			label = fmt.Sprintf("%d. %s", e.Order, label)
		}
		if e.Kind == Slot || e.Kind == Inner {
			label = "[" + label + "]"
		}
		if label != "" {
			attrs = append(attrs, "label="+dotLabel(label))
		}
		if a := dotEdge[e.Kind]; a != "" {
			attrs = append(attrs, a)
		}
		if e.Via != "" {
			attrs = append(attrs, "style=dotted", "constraint=false")
		}
		fmt.Fprintf(w, "\t%s -> %s", dotQuote(e.From), dotQuote(e.To))
		if len(attrs) > 0 {
			fmt.Fprintf(w, " [%s]", strings.Join(attrs, ", "))
		}
		fmt.Fprintln(w, ";")
	}
	fmt.Fprintln(w, "}")
	return w.Flush()
}

func dotLine(n *Node) string {
	lines := []string{n.title()}
	if a := n.about(); a != "" {
		lines = append(lines, a)
	}
	if k := n.countKept(); k != "" {
		lines = append(lines, k)
	}
	attrs := "label=" + dotLabel(lines...)
	if a := dotNode[n.Kind]; a != "" {
		attrs += ", " + a
	}
	return fmt.Sprintf("%s [%s];", dotQuote(n.ID), attrs)
}

// dotQuote writes an id: between double quotes only they are special, and a
// backslash before one.
func dotQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(visible(s)) + `"`
}

// dotLabel writes a label of some lines. In labels Graphviz replaces escapes
// and the entities of HTML.
func dotLabel(lines ...string) string {
	for i, l := range lines {
		lines[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `&`, `&amp;`).Replace(l)
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}
