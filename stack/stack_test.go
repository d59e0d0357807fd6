package stack_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/stack"
)

func crashed(t *testing.T, k *kernel.Kernel) stack.Stack {
	t.Helper()
	task, err := kobj.FindTask(k, 93)
	qt.Assert(t, qt.IsNil(err))
	return stack.Of(k, task)
}

func TestCrashed(t *testing.T) {
	s := crashed(t, example.Kernel(t))
	qt.Assert(t, qt.IsNil(s.End))
	var got []string
	for _, f := range s.Frames {
		line := fmt.Sprintf("%s %s", f.Kind, f.Symbol)
		if f.BPF != nil {
			line += fmt.Sprintf(" of %s id %d %s, insn %d", f.BPF.Name, f.BPF.ID, f.BPF.Location(), f.BPF.Insn)
		}
		got = append(got, line)
	}
	qt.Check(t, qt.DeepEquals(got[len(got)-8:], []string{
		"entry asm_exc_page_fault",
		"bpf call_kfunc of call_kfunc id 9 casee.bpf.c:47, insn 3",
		"kernel bpf_test_run",
		"kernel bpf_prog_test_run_skb",
		"kernel __sys_bpf",
		"kernel __x64_sys_bpf",
		"kernel do_syscall_64",
		"entry entry_SYSCALL_64_after_hwframe",
	}))
	b, err := json.Marshal(s.Frames[len(got)-7])
	qt.Assert(t, qt.IsNil(err))
	var frame map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &frame)))
	for _, key := range []string{"pc", "symbol", "offset", "kind", "reliable", "bpf"} {
		qt.Check(t, qt.IsNotNil(frame[key]), qt.Commentf("%s", key))
	}
	program := frame["bpf"].(map[string]any)
	for _, key := range []string{"name", "tag", "id", "subprog", "file", "line"} {
		qt.Check(t, qt.IsNotNil(program[key]), qt.Commentf("%s", key))
	}
}

// TestNoRegisters: a task that ran needs the registers of its CPU.
func TestNoRegisters(t *testing.T) {
	s := stack.Of(example.Kernel(t), kobj.Task{PID: 7, CPU: 5, Running: true})
	qt.Check(t, qt.HasLen(s.Frames, 0))
	qt.Check(t, qt.ErrorMatches(s.End, `pid 7 was running on CPU 5, whose registers are not in the dump`))
}

// TestProgramNotListed: a program that is no longer in the kernel's table is
// found through its symbol; where that fails, the symbol is its name.
func TestProgramNotListed(t *testing.T) {
	k := example.Kernel(t)
	text, err := k.Find("bpf_prog_2be77e55c77ca1bf_call_kfunc")
	qt.Assert(t, qt.IsNil(err))
	idr, err := k.Addr("prog_idr")
	qt.Assert(t, qt.IsNil(err))
	head, err := k.Offset("xarray", "xa_head")
	qt.Assert(t, qt.IsNil(err))
	unlisted := example.Words(idr+head, 0)
	f := stack.At(example.Kernel(t, unlisted), text.Addr+4)
	qt.Assert(t, qt.IsNotNil(f.BPF))
	qt.Check(t, qt.Equals(f.BPF.Name, "call_kfunc"))

	bpfText, ok := k.BPFTextAt(text.Addr)
	qt.Assert(t, qt.IsTrue(ok))
	ksym, err := k.Offset("bpf_prog_aux", "ksym")
	qt.Assert(t, qt.IsNil(err))
	prog := k.Object("bpf_prog_aux", bpfText.Ksym-ksym).At("prog")
	f = stack.At(example.Kernel(t, unlisted, example.Words(prog, 0x1000)), text.Addr+4)
	qt.Check(t, qt.Equals(f.Kind, kernel.KindBPF))
	qt.Check(t, qt.Equals(f.Offset, 4))
	qt.Check(t, qt.IsNil(f.BPF))
	qt.Check(t, qt.Equals(f.Symbol, "bpf_prog_2be77e55c77ca1bf_call_kfunc"))
}

func TestAt(t *testing.T) {
	k := example.Kernel(t)
	sym, err := k.Find("nf_ct_delete")
	qt.Assert(t, qt.IsNil(err))
	f := stack.At(k, sym.Addr)
	qt.Check(t, qt.Equals(f.Symbol, "nf_ct_delete"))
	qt.Check(t, qt.Equals(f.Module, "nf_conntrack"))
	qt.Check(t, qt.Equals(f.Kind, kernel.KindModule))
	f = stack.At(k, 0x1000)
	qt.Check(t, qt.Equals(f.Symbol, ""))
	qt.Check(t, qt.Equals(f.BPF.Location(), ""))
}
