package judge

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/ksleuth/ksleuth/cli"
)

// TestGuestStacks holds the stack of every task against /proc/PID/stack: what
// the kernel's own unwinder found, which leaves out the scheduler's functions.
func TestGuestStacks(t *testing.T) {
	eachScene(t, func(t *testing.T, dump string, said func(string) string) {
		guest, scheduler := guestStacks(said(".stacks")), schedText(t, said(".kallsyms"))
		compared, frames, moved := 0, 0, 0
		for _, k := range answers[task](t, cli.StatusOK, "task", dump, "bt", "all") {
			want, ok := guest[k.PID]
			if !ok || k.Running {
				continue
			}
			var got []string
			for _, f := range k.Frames {
				if len(got) == 0 && scheduler(f.PC) {
					continue
				}
				got = append(got, f.Symbol+"+"+f.Offset)
			}
			if slices.Equal(got, want) {
				compared++
				frames += len(got)
				continue
			}
			moved++
			t.Errorf("%v, state %s (-guest +ksleuth):\n%s", k, k.State, cmp.Diff(want, got))
		}
		t.Logf("%d stacks, %d frames compared; %d tasks moved", compared, frames, moved)
	})
}

// guestStacks returns the recorded stacks by thread, each frame as
// "function+offset".
func guestStacks(text string) map[int][]string {
	out := map[int][]string{}
	pid := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if f[0] != "[<0>]" {
			pid, _ = strconv.Atoi(f[0])
			out[pid] = nil
			continue
		}
		frame, _, _ := strings.Cut(f[1], "/")
		out[pid] = append(out[pid], frame)
	}
	return out
}

// schedText returns what says whether a program counter is in the section of
// the scheduler's functions.
func schedText(t *testing.T, kallsyms string) func(pc string) bool {
	bounds := map[string]string{}
	for line := range strings.Lines(kallsyms) {
		if f := strings.Fields(line); strings.HasPrefix(f[2], "__sched_text_") {
			bounds[f[2]] = "0x" + f[0]
		}
	}
	from, to := bounds["__sched_text_start"], bounds["__sched_text_end"]
	qt.Assert(t, qt.Equals(len(from), len(to)))
	qt.Assert(t, qt.IsTrue(from < to))
	return func(pc string) bool { return len(pc) == len(from) && pc >= from && pc < to }
}

// TestStacksEnd checks that every stack of every task is followed to its end:
// the entry from user mode, or the first function of a kernel thread.
func TestStacksEnd(t *testing.T) {
	last := map[string]string{
		"entry_SYSCALL_64_after_hwframe":  "a system call",
		"ret_from_fork":                   "a kernel thread",
		"ret_from_fork_asm":               "a kernel thread since 6.6",
		"secondary_startup_64_no_verify":  "an idle task",
		"common_startup_64":               "an idle task since 6.10",
		"asm_exc_page_fault":              "a page fault of a user program",
		"asm_sysvec_reboot":               "an interrupted user program, stopped by the panic",
		"asm_sysvec_apic_timer_interrupt": "an interrupted user program",
	}
	eachScene(t, func(t *testing.T, dump string, _ func(string) string) {
		frames := 0
		for _, k := range answers[task](t, cli.StatusOK, "task", dump, "bt", "all") {
			frames += len(k.Frames)
			if !qt.Check(t, qt.Equals(k.End, ""), qt.Commentf("%v", k)) || len(k.Frames) == 0 {
				continue
			}
			f := k.Frames[len(k.Frames)-1]
			qt.Check(t, qt.Not(qt.Equals(last[f.Symbol], "")), qt.Commentf("%v ends in %s", k, f.Symbol))
			for _, f := range k.Frames {
				qt.Check(t, qt.Not(qt.Equals(f.Symbol, "")), qt.Commentf("%v: %s", k, f.PC))
				qt.Check(t, qt.IsTrue(f.Reliable || k.Comm == "guest"), qt.Commentf("%v: %s", k, f.Symbol))
			}
		}
		t.Logf("%d frames", frames)
	})
}
