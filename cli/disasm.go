package cli

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/render"
)

// disasmFlags are what the command line says of a listing.
type disasmFlags struct {
	disasm.Options
	len      string
	noArrows bool
	bytes    bool
	bytesSet bool
}

func (a *app) disasmCommand() *cobra.Command {
	var f disasmFlags
	c := &cobra.Command{
		Use:     "disasm WHAT [LEN]",
		Aliases: []string{"dis"},
		Short:   "Machine code of a function, BPF program or address",
		GroupID: groupInspect,
		Long: `Disasm decodes the code as it stands in memory, with symbols. WHAT is one of

  FUNCTION[+OFFSET]     a function of the kernel or a module, or any other symbol
  ADDR                  the function that begins there, else LEN bytes (64 by default)
  prog:WHICH[/SUBPROG]  a BPF program by its id, name or tag, or one of its functions
  tramp:WHICH           a BPF trampoline, dispatcher or struct_ops image, by its address,
                        the end of its name, or the function it hangs on

BPF code is interleaved with its source lines, and with --xlated with the BPF
instructions that it was made from, as the verifier left them. Arrows at the
left are the jumps inside the listing. Instructions that the kernel exchanges
while it runs are shown as they are now, with what they depend on: static calls,
static keys, tracepoints, ftrace's call at the beginning of a function, and
indirect calls that go through thunks. --explain says what generated code does.

Where the running kernel's memory cannot be read, bpf(2) hands out the code of
BPF programs, without what it refers to.`,
		Example: `  ksleuth -t vmcore disasm do_syscall_64
  ksleuth -t vmcore disasm prog:7
  ksleuth -t vmcore disasm --explain prog:7/lookup
  ksleuth -t vmcore disasm --xlated prog:count_packets
  ksleuth -t vmcore disasm --explain tramp:tcp_connect
  ksleuth -t vmcore disasm --intel 0xffffffff81000123 32`,
		Args: between(1, 2, "a symbol, an address, prog:WHICH or tramp:WHICH"),
		RunE: func(c *cobra.Command, args []string) error {
			f.bytesSet = c.Flags().Changed("bytes")
			if len(args) > 1 {
				if f.len != "" {
					return usage(fmt.Errorf("two lengths: %s and --len %s", args[1], f.len))
				}
				f.len = args[1]
			}
			if f.len != "" {
				n, err := strconv.ParseUint(f.len, 0, 32)
				if err != nil || n == 0 || n > maxRead {
					return usage(fmt.Errorf("%q is no length between 1 and %d", f.len, maxRead))
				}
				f.Len = int(n)
			}
			d, done, err := a.openDisassembler(args[0], f.Options)
			if err != nil {
				return err
			}
			defer done()
			return a.disassemble(d, args[0], f)
		},
	}
	c.Flags().BoolVar(&f.Intel, "intel", false, "Intel syntax (default AT&T)")
	c.Flags().BoolVar(&f.Explain, "explain", false, "say beside generated code what it does")
	c.Flags().BoolVar(&f.Xlated, "xlated", false, "show the BPF instructions that the code was made from")
	c.Flags().BoolVar(&f.noArrows, "no-arrows", false, "draw no arrows")
	c.Flags().BoolVar(&f.bytes, "bytes", false, "show addresses and machine code (default but with --explain and --xlated)")
	c.Flags().StringVar(&f.len, "len", "", "list this `number` of bytes")
	return c
}

// disassemble prints the code of what the command line names.
func (a *app) disassemble(d *disasm.Disassembler, what string, f disasmFlags) error {
	code, err := d.Find(what, f.Options)
	if err != nil {
		return asked(err)
	}
	show := render.ListingOptions{Arrows: !f.noArrows, Bytes: f.bytes}
	if !f.bytesSet {
		show.Bytes = !f.Explain && !f.Xlated
	}
	var missing error
	for i, c := range code {
		listing, err := d.Disassemble(c, f.Options)
		if err != nil {
			return err
		}
		if err := a.emit("code", listing, func(p *render.Printer) {
			if i > 0 {
				p.Line("")
			}
			p.Listing(listing, show)
		}); err != nil {
			return err
		}
		missing = cmp.Or(missing, listing.Missing)
	}
	return missing
}
