package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/render"
)

type symbolData struct {
	Name   string      `json:"name"`
	Addr   mem.Addr    `json:"addr"`
	Size   uint64      `json:"size"`
	Kind   kernel.Kind `json:"kind"`
	Module string      `json:"module,omitempty"`
	Offset mem.Addr    `json:"offset"` // of the asked address into the symbol
}

func (a *app) symCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sym WHAT...",
		Short:   "Symbols by name, address or pattern",
		GroupID: groupInspect,
		Long: `Sym finds symbols of the kernel, its modules and BPF programs: by name, by an
address inside, or by a pattern with * ? and []. Where the running kernel's
memory cannot be read they are those of /proc/kallsyms.`,
		Example: `  ksleuth -t vmcore sym prog_idr
  ksleuth -t vmcore sym 0xffffffff81000123
  ksleuth -t vmcore sym 'bpf_prog_*'
  ksleuth -t vmcore sym nf_conntrack:nf_ct_delete`,
		Args: atLeast(1, "a name, an address or a pattern"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := a.openSymbols()
			if err != nil {
				return err
			}
			for _, arg := range args {
				syms, off, err := findSymbols(k, arg)
				if err != nil {
					return err
				}
				for _, s := range syms {
					d := symbolData{s.Name, mem.Addr(s.Addr), s.Size, s.Kind, s.Module, mem.Addr(off)}
					if err := a.emit("symbol", d, func(p *render.Printer) { p.Symbol(s, off) }); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func findSymbols(k symbols, arg string) (syms []kernel.Symbol, off uint64, err error) {
	if addr, err := strconv.ParseUint(arg, 0, 64); err == nil {
		s, off, ok := k.Symbolize(addr)
		if !ok {
			return nil, 0, usage(fmt.Errorf("no symbol covers the address %#x", addr))
		}
		return []kernel.Symbol{s}, off, nil
	}
	if strings.ContainsAny(arg, "*?[") {
		syms, err := k.Match(arg)
		if err != nil {
			return nil, 0, usage(err)
		}
		if len(syms) == 0 {
			return nil, 0, usage(fmt.Errorf("no symbol fits %q", arg))
		}
		return syms, 0, nil
	}
	s, err := k.Find(arg)
	return []kernel.Symbol{s}, 0, asked(err)
}
