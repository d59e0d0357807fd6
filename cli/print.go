package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/render"
)

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
