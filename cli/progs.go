package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/render"
)

func (a *app) progsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "progs [ID|NAME...]",
		Short:   "BPF programs",
		GroupID: groupInspect,
		Long: `Progs lists the loaded BPF programs: what each was loaded for, the size of its
machine code and of its functions, the maps it uses, and who holds it. With
arguments it tells all about some of them, which are named by id, name, tag, type
or pinned path; * ? and [] stand for parts of a name.`,
		Example: `  ksleuth progs
  ksleuth progs 7
  ksleuth -t vmcore progs 'xdp_*'
  ksleuth -o json progs | jq -r 'select(.data.tail_call_reachable) | .data.name'`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && a.output == "text" && a.quickly(a.listPrograms) {
				return nil
			}
			src, err := a.bpfSource()
			if err != nil {
				return err
			}
			progs, err := src.Programs(a.ctx)
			if progs, err = partly(a, progs, err); err != nil {
				return err
			}
			if len(args) > 0 {
				if progs, err = pickAll(bpf.PickPrograms, progs, args); err != nil {
					return err
				}
			}
			switch {
			case a.output == "json":
				return emitAll(a, "prog", progs)
			case len(args) == 0:
				a.printer().Programs(progs)
				return nil
			}
			src.Users = false
			maps, err := src.Maps(a.ctx)
			a.gap(err)
			links, err := src.Links(a.ctx)
			a.gap(err)
			for i, g := range progs {
				a.detail(i, func(p *render.Printer) {
					p.Program(g, maps, slices.DeleteFunc(slices.Clone(links), func(l *bpf.Link) bool { return l.ProgID != g.ID }))
				})
			}
			return nil
		},
	}
}

// listPrograms lists programs if bpf(2) tells all that the list shows.
func (a *app) listPrograms(src bpfview.Source) bool {
	progs, err := src.Programs(a.ctx)
	if err != nil || slices.ContainsFunc(progs, bpfview.Lacking) {
		return false
	}
	a.printer().Programs(progs)
	return true
}

// emitAll writes a JSON line for each object.
func emitAll[T any](a *app, typ string, all []T) error {
	for _, o := range all {
		if err := a.emitJSON(typ, o); err != nil {
			return err
		}
	}
	return nil
}

// detail writes the i-th of several answers, with an empty line between two.
func (a *app) detail(i int, text func(*render.Printer)) {
	p := a.printer()
	if i > 0 {
		p.Line("")
	}
	text(p)
}
