package guard_test

import (
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/guard"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/tracee"
)

// TestDump: of a dump the trampolines that are there tell, and nothing is tried.
func TestDump(t *testing.T) {
	for _, c := range []struct {
		kernel string
		want   []string // of the functions of the dispatcher
	}{
		{"5.10", []string{"module1: unable replaced", "module3: refuse tailcall-trampoline"}},
		{"6.1", []string{"module1: unable replaced"}},
		{"6.12", []string{"module1: unable replaced"}},
		{"7.2", []string{"module1: unable replaced"}},
	} {
		t.Run(c.kernel, func(t *testing.T) {
			src := bpfview.Source{Kernel: example.KernelOf(t, dumptest.Get(t, "bpf-"+c.kernel+".kdump"))}
			progs, err := src.Programs(t.Context())
			qt.Assert(t, qt.IsNil(err))
			var funcs []*tracee.Function
			for _, p := range progs {
				if p.Name != "xdp_main" {
					continue
				}
				for i, s := range p.Subprogs {
					funcs = append(funcs, &tracee.Function{Kind: tracee.Subprogram, Name: s.Name, Addr: s.Addr, Len: s.Len, Prog: p, Subprog: i})
				}
			}
			ws, err := guard.Check(t.Context(), src, funcs, guard.Options{})
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(summary(ws), c.want))
			for _, w := range ws {
				if w.ID == guard.TailCallTrampoline {
					qt.Check(t, qt.StringContains(evidence(w), "rax not restored"))
					qt.Check(t, qt.StringContains(evidence(w), "it has this effect already, by fentry"))
				}
			}

			funcs[0].Slots = []tracee.Slot{{Map: "verdicts", Index: 3}}
			ws, err = guard.Check(t.Context(), src, funcs[:1], guard.Options{})
			qt.Assert(t, qt.IsNil(err))
			i := slices.IndexFunc(ws, func(w guard.Warning) bool { return w.ID == guard.TailCalled })
			qt.Assert(t, qt.IsTrue(i >= 0))
			qt.Check(t, qt.Equals(ws[i].Severity, guard.Unseen))
			qt.Check(t, qt.Equals(ws[i].Title, "entered by tail calls through verdicts[3]: its trampoline is not called then; a breakpoint sees it"))
			qt.Check(t, qt.StringContains(evidence(ws[i]), "tail calls enter at xdp_main+0x"))
		})
	}
}
