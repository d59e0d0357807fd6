package cli

import (
	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

type moduleData struct {
	Name  string   `json:"name"`
	Addr  mem.Addr `json:"addr,omitzero"` // of the struct module
	Base  mem.Addr `json:"base,omitzero"`
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
			mods, err := a.modules()
			if err != nil {
				return err
			}
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

// modules returns the loaded modules. What could not be read is said.
func (a *app) modules() ([]*kernel.Module, error) {
	k, err := a.open()
	if a.withoutMemory("modules are told by /proc", err) {
		return a.procModules()
	}
	if err != nil {
		return nil, err
	}
	var mods []*kernel.Module
	a.gap(k.Retry(func() (err error) {
		mods, err = k.Modules()
		return err
	}))
	return mods, nil
}
