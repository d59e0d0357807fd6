package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/render"
)

func (a *app) trampolinesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "trampolines [ADDR|NAME...]",
		Short:   "BPF trampolines, and the programs they run",
		GroupID: groupInspect,
		Long: `Trampolines lists the code that BPF generated to run programs at the entry and
return of functions: where it is, the function of the kernel or of a BPF program
that it hangs on, its programs in the order they run, and whether it keeps the
tail-call count of a BPF function (one that does not breaks the function's tail
calls). Dispatchers and the images of struct_ops maps are listed, too. With
arguments it tells all about some of them, which are named by an address in
their code, by the function they hang on or by their symbol.

The list is in the kernel's memory alone: without access to that there is none.`,
		Example: `  ksleuth trampolines
  ksleuth trampolines vfs_read
  ksleuth trampolines tramp:0xffffffffc0201000
  ksleuth -t vmcore -o json trampolines | jq 'select(.data.keeps_tail_call_cnt == false)'`,
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := a.open(); err != nil { // nothing else has them
				return err
			}
			src, err := a.bpfSource()
			if err != nil {
				return err
			}
			all, err := src.Trampolines(a.ctx)
			if errors.Is(err, bpfview.ErrNoMemory) {
				return &statusError{StatusUnsupported, err} // there is memory, but nothing in it can be found
			}
			if all, err = partly(a, all, err); err != nil {
				return err
			}
			some := all
			if len(args) > 0 {
				if some, err = pickTrampolines(all, args); err != nil {
					return err
				}
			}
			switch {
			case a.output == "json":
				return emitAll(a, "trampoline", some)
			case len(args) == 0:
				a.printer().Trampolines(all)
				return nil
			}
			for i, t := range some {
				a.detail(i, func(p *render.Printer) { p.Trampoline(t) })
			}
			return nil
		},
	}
}

// pickTrampolines returns the images that the arguments name.
func pickTrampolines(all []*bpf.Trampoline, args []string) ([]*bpf.Trampoline, error) {
	var out []*bpf.Trampoline
	for _, arg := range args {
		addr, err := strconv.ParseUint(strings.TrimPrefix(arg, "tramp:"), 0, 64)
		found := slices.DeleteFunc(slices.Clone(all), func(t *bpf.Trampoline) bool {
			if err == nil {
				in := t.Image != 0 && addr-uint64(t.Image) < uint64(max(t.Size, 1))
				return !in && (addr == 0 || uint64(t.Addr) != addr)
			}
			return !bpf.Fits(arg, trampolineNames(t)...)
		})
		if len(found) == 0 {
			var names []string
			for _, t := range all {
				names = append(names, trampolineNames(t)...)
			}
			msg := fmt.Sprintf("there is no BPF trampoline %q among the %d there are", arg, len(all))
			if near := ctype.Suggest(arg, slices.Compact(slices.Sorted(slices.Values(names)))); len(near) > 0 {
				msg += "; did you mean " + strings.Join(near, ", ") + "?"
			}
			return nil, usage(errors.New(msg))
		}
		out = append(out, found...)
	}
	return out, nil
}

// trampolineNames are the words for a trampoline.
func trampolineNames(t *bpf.Trampoline) []string {
	names := []string{t.Target.Name}
	for _, n := range []string{t.Name, t.Member} {
		if n != "" {
			names = append(names, n)
		}
	}
	if t.Target.ProgID != 0 {
		names = append(names, fmt.Sprintf("prog:%d", t.Target.ProgID), fmt.Sprintf("prog:%d/%s", t.Target.ProgID, t.Target.Name))
	}
	return names
}
