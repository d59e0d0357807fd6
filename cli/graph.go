package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/graph"
	"github.com/ksleuth/ksleuth/render"
)

func (a *app) graphCommand() *cobra.Command {
	var from string
	var dot, svg bool
	c := &cobra.Command{
		Use:     "graph",
		Short:   "How the BPF objects hang together",
		GroupID: groupInspect,
		Long: `Graph draws what the BPF objects have to do with each other, from where events
enter (devices, cgroups, functions, tracepoints) by way of links and trampolines
to programs, their functions, what traces or replaces these, the slots of program
arrays that tail calls can go to (═►), and maps; then the programs that nothing
runs and the maps that nothing uses. What looks the same but for numbers and
places is drawn once.

--from draws the part that concerns one object: prog:7, prog:7/FUNCTION, map:3,
link:2, tramp:ADDR, pid:93, or the name of a function, device, cgroup, program or
map. --dot writes the graph for Graphviz, --svg a picture that browsers show, with
tooltips.`,
		Example: `  ksleuth graph
  ksleuth graph --from prog:7
  ksleuth graph --from eth0
  ksleuth -t vmcore graph --svg > bpf.svg
  ksleuth graph --dot | dot -Tpdf > bpf.pdf`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if dot && svg || (dot || svg) && a.output == "json" {
				return usage(errors.New("one of --dot, --svg and --output json at a time"))
			}
			src, err := a.bpfSource()
			if err != nil {
				return err
			}
			inv, err := src.Inventory(a.ctx)
			g := graph.Build(inv)
			if err != nil && len(g.Nodes) == 0 {
				return err
			}
			a.gap(err)
			if from != "" {
				n, err := g.Find(from)
				if err != nil {
					return usage(err)
				}
				g = g.From(n.ID)
			}
			switch {
			case dot:
				return g.DOT(a.out)
			case svg:
				return g.SVG(a.out)
			}
			return a.emit("graph", g, func(p *render.Printer) { p.Graph(g) })
		},
	}
	c.Flags().StringVar(&from, "from", "", "draw what concerns this `OBJECT`")
	c.Flags().BoolVar(&dot, "dot", false, "write the graph for Graphviz")
	c.Flags().BoolVar(&svg, "svg", false, "write a picture")
	return c
}
