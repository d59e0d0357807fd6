package judge

import (
	"testing"

	"github.com/go-quicktest/qt"
)

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
		"asm_sysvec_reschedule_ipi":       "an interrupted user program, as another CPU asked",
		"asm_common_interrupt":            "an interrupted user program, by a device",
	}
	eachScene(t, func(t *testing.T, dump string, _ func(string) string) {
		frames := 0
		for _, k := range stacks(t, dump) {
			frames += len(k.Frames)
			if k.End != "" || len(k.Frames) == 0 { // stacks has said so; in user mode
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
