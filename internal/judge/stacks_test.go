package judge

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// TestKernelsOwnStacks compares bt with what the guest's kernel said of the
// same threads in /proc/PID/stack. Tracers that change return addresses are
// active, and one task runs a BPF program again and again.
func TestKernelsOwnStacks(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			dump := dumptest.Get(t, "traced-"+kernel+".kdump")
			own := readStacks(t, dumptest.Get(t, "traced-"+kernel+".stacks"))
			sched := schedText(t, dump)
			same := 0
			for _, task := range stacks(t, dump) {
				want, ok := own[task.PID]
				if !ok || task.PID == 0 || task.Running {
					continue
				}
				var got []string
				for _, f := range task.Frames {
					if pc := hex(t, f.PC); pc < sched[0] || pc >= sched[1] {
						got = append(got, f.Symbol+"+"+f.Offset)
					}
				}
				if slices.Equal(got, want) {
					same++
				} else if kernel == "5.10" && blind(got, want) {
					t.Logf("%v: this kernel's own unwinder ends at the kretprobe", task)
				} else if !restless(task) {
					t.Errorf("%v\n ksleuth: %s\n kernel:  %s", task, strings.Join(got, " "), strings.Join(want, " "))
				}
			}
			// Nearly all threads of an idle system stay where they are.
			qt.Check(t, qt.IsTrue(same >= 60), qt.Commentf("only %d stacks are alike", same))
		})
	}
}

// blind says whether the kernel's stack is ours up to a return address that a
// kretprobe has changed, which unwinders see through only since 5.15.
// The trampoline's name is not the one that kallsyms has first for its address.
func blind(got, want []string) bool {
	last := len(want) - 1
	return last > 0 && len(got) > last && slices.Equal(got[:last], want[:last])
}

// restless says whether a thread may have moved between the kernel's answer
// and the dump: init and the workload run Go, whose threads wait in turns, and
// so do kernel threads that get work.
func restless(t task) bool { return t.Kernel || t.Comm == "init" || t.Comm == "guest" }

// TestTracedStacks holds the stacks that tracers changed to the functions that
// must be on them.
func TestTracedStacks(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			dump := dumptest.Get(t, "traced-"+kernel+".elf")
			found := make(map[string][]frame)
			spinning := false
			for _, task := range stacks(t, dump) {
				found[task.Comm] = task.Frames
				spinning = spinning || slices.Contains(symbols(task.Frames), "bpf_test_run")
			}
			qt.Check(t, qt.IsTrue(spinning), qt.Commentf("no task runs the BPF program"))
			for _, comm := range []string{"in-kretprobe", "in-fexit", "in-graph"} {
				names := symbols(found[comm])
				qt.Check(t, qt.SliceContains(names, "do_nanosleep"), qt.Commentf("%s", comm))
				qt.Check(t, qt.SliceContains(names, "__x64_sys_nanosleep"), qt.Commentf("%s", comm))
			}
			trampoline := func(f frame) bool { return f.Kind == "trampoline" && f.Reliable }
			qt.Check(t, qt.IsTrue(slices.ContainsFunc(found["in-fexit"], trampoline)))
			qt.Check(t, qt.IsFalse(slices.ContainsFunc(found["in-kretprobe"], trampoline)))
		})
	}
}

// readStacks reads "tid comm" lines, each followed by /proc/PID/stack.
func readStacks(t *testing.T, path string) map[int][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	return parseStacks(t, string(text))
}

func parseStacks(t *testing.T, text string) map[int][]string {
	t.Helper()
	out := make(map[int][]string)
	tid := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		entry, ok := strings.CutPrefix(line, "[<0>] ")
		if !ok {
			var err error
			tid, err = strconv.Atoi(strings.Fields(line)[0])
			qt.Assert(t, qt.IsNil(err))
			out[tid] = nil
			continue
		}
		place, _, _ := strings.Cut(entry, "/") // symbol+offset/size [module]
		out[tid] = append(out[tid], place)
	}
	return out
}

// schedText returns the range of the scheduler's functions, which the kernel
// leaves out of /proc/PID/stack.
func schedText(t *testing.T, dump string) (r [2]uint64) {
	t.Helper()
	for i, name := range []string{"__sched_text_start", "__sched_text_end"} {
		s := answers[struct {
			Addr string `json:"addr"`
		}](t, 0, "symbol", dump, "sym", name)
		r[i] = hex(t, s[0].Addr)
	}
	return r
}

func hex(t *testing.T, s string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(s, 0, 64)
	qt.Assert(t, qt.IsNil(err))
	return v
}
