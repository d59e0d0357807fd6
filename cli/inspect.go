package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/disasm"
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
address inside, or by a pattern with * ? and [].`,
		Example: `  ksleuth -t vmcore sym prog_idr
  ksleuth -t vmcore sym 0xffffffff81000123
  ksleuth -t vmcore sym 'bpf_prog_*'
  ksleuth -t vmcore sym nf_conntrack:nf_ct_delete`,
		Args: atLeast(1, "a name, an address or a pattern"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := a.open()
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

func findSymbols(k *kernel.Kernel, arg string) (syms []kernel.Symbol, off uint64, err error) {
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

func (a *app) typeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "type NAME",
		Aliases: []string{"whatis", "struct"},
		Short:   "A C type with offsets, sizes and holes",
		GroupID: groupInspect,
		Example: `  ksleuth -t vmcore type 'struct bpf_prog'
  ksleuth -t vmcore type bpf_prog_aux
  ksleuth -t vmcore type nf_conn              # types of modules, too`,
		Args: atLeast(1, "the name of a type"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			types, err := k.Types()
			if err != nil {
				return err
			}
			name := strings.Join(args, " ")
			t, err := types.Lookup(name)
			if err != nil {
				parsed, perr := types.ParseType(name) // "struct foo *" and the like
				if perr != nil {
					return asked(errors.Join(err, k.ModuleTypesError()))
				}
				t = parsed
			}
			return a.emit("type", typeInfo(t), func(p *render.Printer) { p.Printf("%s", ctype.FormatType(t)) })
		},
	}
}

// typeData is the JSON form of a type.
type typeData struct {
	Name    string       `json:"name"`
	Kind    string       `json:"kind"`
	Size    int          `json:"size"`
	Members []memberData `json:"members,omitempty"`
	Values  []valueData  `json:"values,omitempty"`
	Text    string       `json:"text"` // as C
}

type memberData struct {
	Name    string `json:"name"` // "" for an anonymous struct or union
	Type    string `json:"type"`
	Offset  uint32 `json:"offset"` // bytes
	Bit     uint32 `json:"bit,omitempty"`
	BitSize uint32 `json:"bit_size,omitempty"`
}

type valueData struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

func typeInfo(t *ctype.Type) typeData {
	d := typeData{Name: t.String(), Kind: t.Kind().String(), Text: ctype.FormatType(t)}
	d.Size, _ = t.Size() // 0 for what has none
	for _, m := range t.Members() {
		md := memberData{Name: m.Name, Type: m.Type.String(), Offset: m.Offset / 8, BitSize: m.BitSize}
		if m.BitSize != 0 {
			md.Bit = m.Offset % 8
		}
		d.Members = append(d.Members, md)
	}
	for _, e := range t.Enumerators() {
		d.Values = append(d.Values, valueData{e.Name, int64(e.Value)})
	}
	return d
}

func (a *app) printCommand() *cobra.Command {
	var opts ctype.FormatOptions
	c := &cobra.Command{
		Use:     "print EXPR",
		Aliases: []string{"p"},
		Short:   "A C expression over the kernel's types and memory",
		GroupID: groupInspect,
		Long: `Print evaluates a C expression: casts, -> . [] & * sizeof, arithmetic, comparisons.
Besides C there are container_of(PTR, TYPE, MEMBER), offsetof(TYPE, MEMBER),
per_cpu(VAR, CPU), per_cpu_ptr(PTR, CPU) and list_for_each(HEAD, TYPE, MEMBER),
which gives a sequence to which everything after it applies. Write -- before an
expression that begins with a minus.`,
		Example: `  ksleuth -t vmcore print 'init_task.comm'
  ksleuth -t vmcore print '((struct bpf_prog *)0xffffc90000185000)->aux->name'
  ksleuth -t vmcore print 'per_cpu(runqueues, 0).curr->pid'
  ksleuth -t vmcore print 'list_for_each(&init_task.tasks, struct task_struct, tasks)->comm'`,
		Args: atLeast(1, "an expression"),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			res, err := k.Eval(strings.Join(args, " "))
			if err != nil {
				return asked(err)
			}
			opts.Symbolize = func(addr uint64) string {
				if _, _, ok := k.Symbolize(addr); !ok {
					return ""
				}
				return k.FormatAddr(addr)
			}
			for _, v := range res.Values {
				if err := a.printValue(v, opts); err != nil {
					return err
				}
			}
			a.gap(res.Err)
			return nil
		},
	}
	c.Flags().IntVar(&opts.Depth, "depth", 0, "structs inside structs that are opened (default 8)")
	c.Flags().IntVar(&opts.Elements, "elements", 0, "elements of an array that are printed (default 64)")
	c.Flags().BoolVarP(&opts.Hex, "hex", "x", false, "print integers in hexadecimal")
	return c
}

// printedData is the JSON form of a value.
type printedData struct {
	Type  string    `json:"type"`
	Addr  *mem.Addr `json:"addr,omitempty"` // of an object in memory
	Value any       `json:"value"`
}

func (a *app) printValue(v ctype.Value, opts ctype.FormatOptions) error {
	if v.IsLvalue() && v.Type().Strip().Kind() == ctype.Void {
		return usage(fmt.Errorf("the variable has no type in this kernel's BTF: give it one, as in *(int *)&NAME"))
	}
	text, err := ctype.FormatValue(v, opts)
	if err != nil {
		return err
	}
	d := printedData{Type: v.Type().String(), Value: v.Plain(opts)}
	if addr, err := v.Addr(); err == nil && v.IsLvalue() {
		d.Addr = (*mem.Addr)(&addr)
	}
	return a.emit("value", d, func(p *render.Printer) { p.Line(render.Clean(text)) })
}

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
