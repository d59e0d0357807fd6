package cli

import (
	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/render"
)

// entryData is the JSON form of an element of a map.
type entryData struct {
	MapID int `json:"map_id"`
	bpf.Entry
}

func (a *app) mapsCommand() *cobra.Command {
	var entries bool
	c := &cobra.Command{
		Use:     "maps [ID|NAME...]",
		Short:   "BPF maps, and what is in them",
		GroupID: groupInspect,
		Long: `Maps lists the BPF maps: type, sizes, the programs that use each and who holds
it. With arguments it tells all about some of them, which are named by id, name,
type or pinned path; * ? and [] stand for parts of a name.

With --entries it prints the keys and values as C, by the map's BTF, the value of
each CPU of per-CPU maps, and the programs or maps in the slots of arrays of
those. It does so for every type of map from a dump as well.`,
		Example: `  ksleuth maps
  ksleuth maps 5 --entries
  ksleuth -t vmcore maps 'jump_*' --entries
  ksleuth -o json maps visits --entries | jq -r 'select(.type == "map_entry") | .data.value_text'`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && !entries && a.output == "text" && a.quickly(a.listMaps) {
				return nil
			}
			src, err := a.bpfSource()
			if err != nil {
				return err
			}
			maps, err := src.Maps(a.ctx)
			if maps, err = partly(a, maps, err); err != nil {
				return err
			}
			if len(args) == 0 && !entries {
				if a.output == "json" {
					return emitAll(a, "map", maps)
				}
				a.printer().Maps(maps)
				return nil
			}
			if len(args) > 0 {
				if maps, err = pickAll(bpf.PickMaps, maps, args); err != nil {
					return err
				}
			}
			return a.describeMaps(src, maps, entries)
		},
	}
	c.Flags().BoolVar(&entries, "entries", false, "print the elements, too")
	return c
}

// listMaps lists maps if bpf(2) tells all that the list shows.
func (a *app) listMaps(src bpfview.Source) bool {
	maps, err := src.Maps(a.ctx)
	if err != nil {
		return false
	}
	a.printer().Maps(maps)
	return true
}

// describeMaps tells all about some maps, with their entries on request.
func (a *app) describeMaps(src bpfview.Source, maps []*bpf.Map, entries bool) error {
	src.Users = false
	var progs []*bpf.Program
	if a.output != "json" {
		var err error
		progs, err = src.Programs(a.ctx)
		a.gap(err)
	}
	for i, m := range maps {
		if a.output == "json" {
			if err := a.emitJSON("map", m); err != nil {
				return err
			}
		} else {
			a.detail(i, func(p *render.Printer) {
				p.Map(m, progs)
				if !entries {
					p.MapNext(m)
				}
			})
		}
		if !entries {
			continue
		}
		if err := a.entries(src, m); err != nil {
			return err
		}
	}
	return nil
}

// entries writes the elements of a map.
func (a *app) entries(src bpfview.Source, m *bpf.Map) error {
	es, err := src.Entries(a.ctx, m)
	a.gap(err)
	if a.output == "json" {
		for _, e := range es {
			if err := a.emitJSON("map_entry", entryData{m.ID, e}); err != nil {
				return err
			}
		}
		return nil
	}
	p := a.printer()
	p.EntryCount(len(es))
	for _, e := range es {
		p.Entry(m, e)
	}
	return nil
}
