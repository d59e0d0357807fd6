package judge

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/vmcore"
)

// kexecScenes are the dumps that the kernel made of itself: /proc/vmcore, as a
// crash kernel saw it.
var kexecScenes = []string{"kexec-5.10", "kexec-6.1", "kexec-6.12", "kexec-7.2"}

// kexecForms is the one form checked of some scenes. Debian's makedumpfile,
// 1.7.2, must not filter kernels since 6.10: those mark the pages of slabs
// otherwise (PAGE_SLAB_MAPCOUNT_VALUE of VMCOREINFO), and it leaves out tasks.
var kexecForms = map[string]string{"kexec-5.10": "filtered", "kexec-6.12": "zlib", "kexec-7.2": "zlib"}

// TestKexecForms asks the same of the kernel's own dump and of what
// makedumpfile makes of it.
func TestKexecForms(t *testing.T) {
	program := need(t, "makedumpfile", "makedumpfile")
	for _, scene := range kexecScenes {
		for _, form := range makedumpfileForms {
			if only := kexecForms[scene]; only != "" && form.name != only {
				continue
			}
			t.Run(scene+"/"+form.name, func(t *testing.T) {
				elf := dumptest.Get(t, scene+".elf")
				sameAnswers(t, elf, form.make(t, program, elf)...)
			})
		}
	}
}

// TestKexecRegisters checks of which CPU each note of registers is, of which
// the dump says only the task's pid: that must be the task that ran there. A
// CPU that was offline has no note.
func TestKexecRegisters(t *testing.T) {
	for scene, online := range map[string][]int{
		"kexec-5.10": {0, 1}, "kexec-6.1": {0, 1}, "kexec-6.12": {0, 2}, "kexec-7.2": {0, 2},
	} {
		t.Run(scene, func(t *testing.T) {
			core, err := vmcore.Open(dumptest.Get(t, scene+".elf"))
			qt.Assert(t, qt.IsNil(err))
			defer core.Close()
			k, err := kernel.FromSource(t.Context(), core)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(core.CPUs(), len(online)))
			possible, err := k.CPUs()
			qt.Assert(t, qt.IsNil(err))
			var got []int
			for cpu := range possible {
				regs, ok := k.Registers(cpu)
				if !ok {
					on, err := k.Online(cpu)
					qt.Check(t, qt.IsNil(err))
					qt.Check(t, qt.IsFalse(on), qt.Commentf("CPU %d", cpu))
					continue
				}
				got = append(got, cpu)
				addr, err := k.Current(cpu)
				qt.Assert(t, qt.IsNil(err))
				task, err := kobj.TaskAt(k, addr)
				qt.Assert(t, qt.IsNil(err))
				// The scheduler says who runs before it switches to him.
				if sym, _, ok := k.Symbolize(regs.Regs.RIP); ok && (sym.Name == "__schedule" || sym.Name == "__switch_to_asm") {
					continue
				}
				qt.Check(t, qt.Equals(int(regs.PID), task.PID), qt.Commentf("CPU %d in %s", cpu, k.FormatAddr(regs.Regs.RIP)))
			}
			qt.Check(t, qt.DeepEquals(got, online))
		})
	}
}

// TestKexecPanic checks the report of a crash by sysrq: its stack begins in
// __crash_kexec, which noted its own registers and has no ORC.
func TestKexecPanic(t *testing.T) {
	for _, scene := range []string{"kexec-5.10", "kexec-7.2"} {
		t.Run(scene, func(t *testing.T) {
			dump := dumptest.Get(t, scene+".elf")
			r := report(t, dump)
			qt.Check(t, qt.Equals(r.Panic, "sysrq triggered crash"))
			qt.Check(t, qt.Equals(r.Task.Comm, "guest"))
			qt.Check(t, qt.Equals(symbols(r.Frames)[0], "sysrq_handle_crash"))
			qt.Check(t, qt.HasLen(r.Unread, 0))

			stack := answers[task](t, cli.StatusOK, "task", dump, "bt", itoa(r.Task.PID))
			names := symbols(stack[0].Frames)
			qt.Check(t, qt.Equals(names[0], "__crash_kexec"))
			qt.Check(t, qt.SliceContains(names, "panic"))
			qt.Check(t, qt.Equals(names[len(names)-1], "entry_SYSCALL_64_after_hwframe"))
		})
	}
}

// TestDrgnTasksOfKexec holds every task and its stack against drgn, which knows
// of the kernel's own dumps which registers are whose.
func TestDrgnTasksOfKexec(t *testing.T) {
	dump := dumptest.Get(t, "kexec-"+drgnKernel+".elf")
	crashed := report(t, dump).Task.PID
	compareTasks(t, askDrgn(t, dump, nil, nil).Tasks, answers[task](t, cli.StatusOK, "task", dump, "bt", "all"), map[int]string{
		crashed: "drgn has no rule for BPF code: from there it follows the damaged frame pointer",
	})
}
