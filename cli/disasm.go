package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/render"
)

func (a *app) disasmCommand() *cobra.Command {
	var opts disasm.Options
	c := &cobra.Command{
		Use:     "disasm WHAT [LEN]",
		Aliases: []string{"dis"},
		Short:   "Machine code of a function, BPF program or address",
		GroupID: groupInspect,
		Long: `Disasm decodes the code as it stands in memory, with symbols. WHAT is a symbol,
an address (from there LEN bytes, 64 by default; a function if it begins one),
prog:ID for a BPF program or prog:ID/SUBPROG for one of its functions, by name
or number, or tramp:ADDR. BPF code is interleaved with its source lines.`,
		Example: `  ksleuth -t vmcore disasm do_syscall_64
  ksleuth -t vmcore disasm prog:7
  ksleuth -t vmcore disasm prog:7/lookup
  ksleuth -t vmcore disasm --intel 0xffffffff81000123 32`,
		Args: between(1, 2, "a symbol, an address or prog:ID"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			if len(args) > 1 {
				n, err := strconv.ParseUint(args[1], 0, 32)
				if err != nil || n == 0 || n > maxRead {
					return usage(fmt.Errorf("%q is no length between 1 and %d", args[1], maxRead))
				}
				opts.Len = int(n)
			}
			code, err := disasm.Find(k, args[0], opts)
			if err != nil {
				return asked(err)
			}
			for i, c := range code {
				listing, err := disasm.Disassemble(k, c, opts)
				if err != nil {
					return err
				}
				if err := a.emit("code", listing, func(p *render.Printer) {
					if i > 0 {
						p.Line("")
					}
					p.Listing(listing)
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&opts.Intel, "intel", false, "Intel syntax (default AT&T)")
	return c
}
