package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/render"
)

// maxRead bounds what one read prints.
const maxRead = 16 << 20

func (a *app) readCommand() *cobra.Command {
	var phys bool
	c := &cobra.Command{
		Use:     "read ADDR [LEN]",
		Aliases: []string{"rd"},
		Short:   "Memory in hexadecimal",
		GroupID: groupInspect,
		Long: `Read prints LEN bytes (64 by default) at an address, which may be any expression
that print takes, such as &init_task or a symbol's name.`,
		Example: `  ksleuth -t vmcore read 0xffffffff82000000 128
  ksleuth -t vmcore read linux_banner
  ksleuth -t vmcore read --phys 0x1000`,
		Args: between(1, 2, "an address"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			addr, err := address(k, args[0])
			if err != nil {
				return err
			}
			n := uint64(64)
			if len(args) > 1 {
				if n, err = strconv.ParseUint(args[1], 0, 64); err != nil || n == 0 || n > maxRead {
					return usage(fmt.Errorf("%q is no length between 1 and %d", args[1], maxRead))
				}
			}
			m := k.Mem()
			if phys {
				m = k.Phys()
			}
			return a.readMemory(k, m, addr, int(n))
		},
	}
	c.Flags().BoolVar(&phys, "phys", false, "ADDR is physical")
	return c
}

type memoryData struct {
	Addr  mem.Addr `json:"addr"`
	Bytes string   `json:"bytes"` // base64
}

// readMemory prints what can be read up to the first fault, and then the fault.
func (a *app) readMemory(k *kernel.Kernel, m mem.Reader, addr uint64, n int) error {
	buf := make([]byte, n)
	err := m.ReadMem(buf, addr)
	var f *mem.Fault
	if errors.As(err, &f) {
		buf = buf[:min(f.Addr-addr, uint64(n))]
	} else if err != nil {
		return err
	}
	if len(buf) > 0 {
		d := memoryData{mem.Addr(addr), base64.StdEncoding.EncodeToString(buf)}
		if err := a.emit("memory", d, func(p *render.Printer) { p.HexDump(buf, addr, k.FormatAddr) }); err != nil {
			return err
		}
	}
	return err
}

// address evaluates an argument that names an address: a number, a symbol, or
// an expression, of which an object stands for where it is.
func address(k *kernel.Kernel, arg string) (uint64, error) {
	if v, err := strconv.ParseUint(arg, 0, 64); err == nil {
		return v, nil
	}
	if s, ok := k.Lookup(arg); ok {
		return s.Addr, nil
	}
	res, err := k.Eval(arg)
	if err != nil {
		return 0, asked(err)
	}
	v, err := res.Value()
	if err != nil {
		return 0, err
	}
	if s := v.Type().Strip().Kind(); v.IsLvalue() && s != ctype.Pointer && s != ctype.Int {
		return v.Addr()
	}
	return v.Uint()
}
