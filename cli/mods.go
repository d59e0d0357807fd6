package cli

import (
	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

type moduleData struct {
	Name  string   `json:"name"`
	Addr  mem.Addr `json:"addr"` // of the struct module
	Base  mem.Addr `json:"base"`
	Size  uint64   `json:"size"`
	Refs  int64    `json:"refs"`
	State string   `json:"state"`
	Taint mem.Addr `json:"taint"`
}

func (a *app) modsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "mods",
		Aliases: []string{"mod"},
		Short:   "Loaded modules",
		GroupID: groupInspect,
		Example: "  ksleuth -t vmcore mods",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			var mods []*kernel.Module
			a.gap(k.Retry(func() (err error) {
				mods, err = k.Modules()
				return err
			}))
			if a.output == "json" {
				for _, m := range mods {
					if err := a.emitJSON("module", moduleData{m.Name, mem.Addr(m.Addr), mem.Addr(m.Base()), m.Size(), m.Refs, m.State, mem.Addr(m.Taint)}); err != nil {
						return err
					}
				}
				return nil
			}
			a.printer().Modules(mods)
			return nil
		},
	}
}
