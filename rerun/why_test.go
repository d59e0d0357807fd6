package rerun

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// why runs a call and words what decided it.
func why(t *testing.T, k *kernel.Kernel, call string) string {
	t.Helper()
	s, err := New(k, Options{CPU: 0, Limits: emulate.Options{History: 1 << 20}})
	qt.Assert(t, qt.IsNil(err))
	ctx := context.Background()
	target, err := s.Parse(ctx, call)
	qt.Assert(t, qt.IsNil(err))
	r, err := s.Run(ctx, target, nil)
	qt.Assert(t, qt.IsNil(err))
	reasons, gap, err := s.Why(target, r, func(o emulate.Observer) error {
		_, err := s.Run(ctx, target, func(m *emulate.Machine) { m.Observer = o })
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	var out strings.Builder
	for _, r := range reasons {
		fmt.Fprintf(&out, "%s at %s: %s", r.Kind, r.Symbol, r.Text)
		if r.Count > 0 {
			fmt.Fprintf(&out, "  (%d times)", r.Count)
		}
		out.WriteByte('\n')
	}
	if gap != "" {
		fmt.Fprintf(&out, "left: %s\n", gap)
	}
	e := s.Emulation(target, r)
	fmt.Fprintf(&out, "%s %s\n", e.Outcome, e.Text)
	return out.String()
}

var updateWhy = flag.Bool("update-why", false, "write the golden files of why and of traces anew")

// The ring buffer of the instance that the reader of a case C dump spins on.
const ringBuffer = "((struct trace_array *)((struct list_head *)&ftrace_trace_arrays)->next)->array_buffer.buffer"

// The end of rb_per_cpu_empty: as case C has it put back, and as it was fixed
// (67f0d6d9883c, 5.14).
const (
	oldEmpty   = "8b4818488b403039" + "48080f94c289d0c3"
	fixedEmpty = "488b4030488b4008" + "85c00f94c289d0c3"
)

// first is the first process, which waits.
const first = "task(1)"

// caseC opens the kernel of case C, with the fix if asked for.
func caseC(t *testing.T, fixed bool) *kernel.Kernel {
	t.Helper()
	file := dumptest.Get(t, "casec-6.1.kdump")
	k := example.KernelOf(t, file)
	if !fixed {
		return k
	}
	at, err := k.Addr("rb_per_cpu_empty")
	qt.Assert(t, qt.IsNil(err))
	code := make([]byte, 128)
	qt.Assert(t, qt.IsNil(k.Mem().ReadMem(code, at)))
	i := strings.Index(hex.EncodeToString(code), oldEmpty)
	qt.Assert(t, qt.IsTrue(i > 0), qt.Commentf("rb_per_cpu_empty is not that of case C"))
	b, err := hex.DecodeString(fixedEmpty)
	qt.Assert(t, qt.IsNil(err))
	return example.KernelOf(t, file, example.Write(at+uint64(i/2), b))
}

var (
	addresses = regexp.MustCompile(`0x[0-9a-f]{9,}( <[^>]*>)?`)
	pids      = regexp.MustCompile(`(nr =|\nreturned) [0-9]{2,}`)
	cpus      = regexp.MustCompile(`(runqueues,) [0-9]+\)|(thread_info.cpu) \(0x[0-9a-f]+\)`)
	counts    = regexp.MustCompile(`(cpu_buffer->read) \(0x[0-9a-f]+\)`)
)

// steady replaces what differs from dump to dump of one scene.
func steady(s string) string {
	s = addresses.ReplaceAllString(s, "ADDR")
	s = counts.ReplaceAllString(s, "$1 (N)")
	s = pids.ReplaceAllString(s, "$1 PID")
	return cpus.ReplaceAllString(s, "$1$2 CPU)")
}

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *updateWhy {
		qt.Assert(t, qt.IsNil(os.MkdirAll("testdata", 0o755)))
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(got), 0o644)))
	}
	want, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (go test ./rerun -run %s -update-why writes it):\n%s", file, t.Name(), diff)
	}
}

// TestWhyCaseC: the contradiction of case C, in field names: the buffer is both
// not empty and has nothing to read. The fixed function agrees with the latter.
func TestWhyCaseC(t *testing.T) {
	var out strings.Builder
	old, fixed := caseC(t, false), caseC(t, true)
	for _, c := range []struct {
		k          *kernel.Kernel
		name, call string
	}{
		{old, "old", "rb_per_cpu_empty(" + ringBuffer + "->buffers[0])"},
		{fixed, "fixed", "rb_per_cpu_empty(" + ringBuffer + "->buffers[0])"},
		{old, "old", "ring_buffer_empty_cpu(" + ringBuffer + ", 0)"},
		{old, "old", "rb_get_reader_page(" + ringBuffer + "->buffers[0])"},
		{old, "old", "ring_buffer_peek(" + ringBuffer + ", 0, 0, 0)"},
	} {
		fmt.Fprintf(&out, "# %s: %s\n%s\n", c.name, strings.ReplaceAll(c.call, ringBuffer, "BUFFER"), why(t, c.k, c.call))
	}
	golden(t, "why-casec.txt", steady(out.String()))
}

// TestTraceCaseC: the three kinds of traces of one call.
func TestTraceCaseC(t *testing.T) {
	k := caseC(t, false)
	var out strings.Builder
	for _, kind := range []string{TraceCalls, TraceLoads, TraceInsns} {
		fmt.Fprintf(&out, "# %s\n%s\n", kind, traced(t, k, "rb_per_cpu_empty("+ringBuffer+"->buffers[0])", kind, 40))
	}
	golden(t, "trace-casec.txt", steady(out.String()))
}

// TestWhyIdle: what decided simple questions, on every kernel.
func TestWhyIdle(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			k := example.KernelOf(t, dumptest.Get(t, scene+".kdump"))
			var out strings.Builder
			for _, call := range []string{
				"is_subdir(" + first + "->mm->exe_file->f_path.dentry, init_task.fs->root.dentry)",
				"d_ancestor(init_task.fs->root.dentry, " + first + "->mm->exe_file->f_path.dentry)",
				"get_task_mm(" + first + ")",
				"task_curr(" + first + ")",
				"__task_pid_nr_ns(" + first + ", 0, 0)",
				"find_vpid(1)",
				"can_nice(" + first + ", -3)",
				"ns_capable(" + first + "->cred->user_ns, 12)",
			} {
				fmt.Fprintf(&out, "# %s\n%s\n", call, why(t, k, call))
			}
			golden(t, "why-"+scene+".txt", steady(out.String()))
		})
	}
}

// TestWhyFault: after a fault the question is where the address came from.
func TestWhyFault(t *testing.T) {
	k := caseC(t, false)
	qt.Check(t, qt.Equals(why(t, k, "d_ancestor(init_task.fs->root.dentry, 0)"), "value at d_ancestor+0xf: p2 = NULL\nfault \n"))
	// A dentry whose d_parent is NULL: the start of a page of zeroes.
	got := why(t, k, "d_ancestor(init_task.fs->root.dentry, (struct dentry *)&empty_zero_page)")
	qt.Check(t, qt.StringContains(got, "value at d_ancestor+0xf: p2->d_parent = NULL\n"))
}

// TestTraceBPF: variables, maps and the functions of BPF programs have their names.
func TestTraceBPF(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "bpf-6.1.kdump"))
	progs, err := bpf.Programs(k)
	qt.Assert(t, qt.IsNil(err))
	id := map[string]int{}
	for _, p := range progs {
		id[p.Name] = p.ID
	}
	for _, test := range []struct {
		prog string
		want []string
	}{
		{"zoo_xdp", []string{
			"call   zoo_xdp(ctx = ", "load   ctx->data = NULL\n", "load   packets_total = ", "store  last.id = 0x0  ctx->data_end - ctx->data\n",
			"call   size_class(len = ctx->data_end - ctx->data (0x0))\n", "load   counters.index_mask = 0x3\n",
		}},
		{"zoo_tc", []string{"load   ctx->mark = 0x0\n", "load   jumps.ptrs[ctx->mark & 7] = ", "call   count(slot = 0x0)\n"}},
	} {
		got := traced(t, k, fmt.Sprintf("prog:%d(buffer(4096))", id[test.prog]), TraceLoads, 0)
		for _, want := range test.want {
			qt.Check(t, qt.StringContains(got, want))
		}
	}
}

// TestTraceKind: an unknown kind is refused, and lines beyond the limit are counted.
func TestTraceKind(t *testing.T) {
	k := caseC(t, false)
	s, err := New(k, Options{})
	qt.Assert(t, qt.IsNil(err))
	_, err = s.NewTracer(nil, "everything", 0)
	qt.Check(t, qt.ErrorMatches(err, `no trace of "everything": .*`))
	whole := strings.Count(traced(t, k, "find_vpid(1)", TraceInsns, 0), "\n")
	part := traced(t, k, "find_vpid(1)", TraceInsns, 5)
	qt.Check(t, qt.StringContains(part, fmt.Sprintf("and %d more\n", whole-5)))
}

// traced runs a call and returns its trace, a line each.
func traced(t *testing.T, k *kernel.Kernel, call, kind string, limit int) string {
	t.Helper()
	s, err := New(k, Options{CPU: 0})
	qt.Assert(t, qt.IsNil(err))
	ctx := context.Background()
	target, err := s.Parse(ctx, call)
	qt.Assert(t, qt.IsNil(err))
	tr, err := s.NewTracer(target, kind, limit)
	qt.Assert(t, qt.IsNil(err))
	_, err = s.Run(ctx, target, func(m *emulate.Machine) { m.Observer = tr })
	qt.Assert(t, qt.IsNil(err))
	lines, gap := tr.Lines()
	var out strings.Builder
	for _, l := range lines {
		if kind == TraceInsns && l.Kind == "insn" {
			fmt.Fprintf(&out, "%-30s %-40s %s\n", l.Symbol, l.Insn, l.Text)
			continue
		}
		fmt.Fprintf(&out, "%*s%-6s %s\n", 2*l.Depth, "", l.Kind, l.Text)
	}
	if gap > 0 {
		fmt.Fprintf(&out, "and %d more\n", gap)
	}
	return out.String()
}
