package unwind_test

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/unwind"
)

// crashed returns the stack of the task that panicked.
func crashed(t *testing.T, k *kernel.Kernel) unwind.Stack {
	t.Helper()
	cpu, ok := k.Registers(1)
	qt.Assert(t, qt.IsTrue(ok))
	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	return unwind.From(k, task, cpu.Regs)
}

// faulting returns the index of the BPF frame that faulted.
func faulting(t *testing.T, s unwind.Stack) int {
	t.Helper()
	for i, f := range s.Frames {
		if f.Kind == kernel.KindBPF && f.Regs != nil {
			return i
		}
	}
	t.Fatal("no BPF frame was interrupted")
	return 0
}

func names(k *kernel.Kernel, frames []unwind.Frame) []string {
	var out []string
	for _, f := range frames {
		s, _, _ := k.Symbolize(f.Lookup())
		out = append(out, s.Name)
	}
	return out
}

var belowTheProgram = []string{
	"bpf_test_run", "bpf_prog_test_run_skb", "__sys_bpf", "__x64_sys_bpf", "do_syscall_64", "entry_SYSCALL_64_after_hwframe",
}

// TestDamagedFramePointer: the frame pointer is wrong, the stack is right.
func TestDamagedFramePointer(t *testing.T) {
	k := example.Kernel(t)
	s := crashed(t, k)
	qt.Assert(t, qt.IsNil(s.End))
	at := faulting(t, s)
	qt.Check(t, qt.DeepEquals(names(k, s.Frames[at+1:]), belowTheProgram))
	f := s.Frames[at]
	qt.Check(t, qt.DeepEquals(s.Damage, []unwind.Damage{{
		Frame: at, Cell: 0, Got: f.Regs.RBP, Want: f.SP + 8,
	}}))
	qt.Check(t, qt.Equals(f.CFA, f.SP+24))
	qt.Check(t, qt.IsTrue(f.Reliable))
	qt.Check(t, qt.IsFalse(s.Frames[at+1].Reliable))
	qt.Check(t, qt.Equals(s.Frames[at+1].Recovered, "past the damaged rbp"))
	qt.Check(t, qt.IsTrue(s.Frames[at+2].Reliable))
	qt.Assert(t, qt.IsNotNil(s.User))
	qt.Check(t, qt.Equals(s.User.CS, uint64(0x33)))
}

// TestSoundFramePointer: with the right frame pointer nothing is damaged.
func TestSoundFramePointer(t *testing.T) {
	s := crashed(t, example.Kernel(t))
	at := faulting(t, s)
	const rbp = 4 * 8 // in struct pt_regs
	k := example.Kernel(t, example.Words(s.Frames[at].RegsAddr+rbp, s.Damage[0].Want))
	s = crashed(t, k)
	qt.Check(t, qt.IsNil(s.End))
	qt.Check(t, qt.HasLen(s.Damage, 0))
	qt.Check(t, qt.DeepEquals(names(k, s.Frames[at+1:]), belowTheProgram))
	for i, f := range s.Frames {
		qt.Check(t, qt.IsTrue(f.Reliable), qt.Commentf("frame %d", i))
	}
}

// TestDamagedStack: a stack ends at the damage, with a reason.
func TestDamagedStack(t *testing.T) {
	k := example.Kernel(t)
	task, err := kobj.FindTask(k, 1)
	qt.Assert(t, qt.IsNil(err))
	sound := unwind.Task(k, uint64(task.Addr))
	qt.Assert(t, qt.IsNil(sound.End))
	qt.Assert(t, qt.DeepEquals(names(k, sound.Frames), []string{
		"__schedule", "schedule", "futex_wait_queue", "futex_wait", "do_futex", "__x64_sys_futex", "do_syscall_64", "entry_SYSCALL_64_after_hwframe",
	}))
	const at = 3
	cell := sound.Frames[at].CFA - 8 // of its return address
	stext, _ := k.Info().Symbol("_stext")
	for _, test := range []struct {
		name   string
		change example.Change
		frames int
		end    string
	}{
		{"return address to nowhere", example.Words(cell, 0x1234), at + 1, fmt.Sprintf(`the return address 0x1234 at %#x is no code of this kernel: the stack is damaged here`, cell)},
		{"NULL", example.Words(cell, 0), at + 1, `the return address 0x0 at .*`},
		{"user address", example.Words(cell, 0x400000), at + 1, `the return address 0x400000 at .*`},
		{"data", example.Words(cell, stext+0x1800000), at + 1, `the return address 0x[0-9a-f]+ at .* is no code.*`},
		{"page excluded", example.Absent(sound.Frames[0].SP), 0, `.*inactive_task_frame at 0x[0-9a-f]+.*: .*excluded from the dump.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := unwind.Task(example.Kernel(t, test.change), uint64(task.Addr))
			qt.Check(t, qt.Equals(len(s.Frames), test.frames))
			qt.Check(t, qt.ErrorMatches(s.End, test.end))
		})
	}
}

// TestCircle: a stack that leads back to itself ends.
func TestCircle(t *testing.T) {
	s := crashed(t, example.Kernel(t))
	at := faulting(t, s)
	// The interrupted code's stack pointer is put below the exception's frame,
	// where the same frames follow again.
	const rsp = 19 * 8
	regs := s.Frames[at].RegsAddr
	k := example.Kernel(t, example.Words(regs+rsp, s.Frames[0].SP), example.Words(regs+16*8, s.Frames[0].PC))
	s = crashed(t, k)
	qt.Check(t, qt.IsTrue(len(s.Frames) <= 1024))
	qt.Check(t, qt.IsNotNil(s.End))
}

// TestJumpNowhere: after a jump through a bad pointer, the caller is on top of
// the stack.
func TestJumpNowhere(t *testing.T) {
	k := example.Kernel(t)
	s := crashed(t, k)
	at := faulting(t, s)
	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	initTask, err := k.Addr("init_task")
	qt.Assert(t, qt.IsNil(err))
	for name, rip := range map[string]uint64{"NULL": 0, "user": 0x400000, "wild": 0xffffdeadc0de0000, "data": initTask} {
		t.Run(name, func(t *testing.T) {
			regs := *s.Frames[at].Regs
			regs.RIP, regs.RSP = rip, s.Frames[at].CFA-8
			got := unwind.From(k, task, regs)
			qt.Assert(t, qt.IsNil(got.End))
			qt.Check(t, qt.DeepEquals(names(k, got.Frames[1:]), belowTheProgram))
			qt.Check(t, qt.Equals(got.Frames[1].Recovered, fmt.Sprintf("past the jump to %#x", rip)))
		})
	}
}

// TestAllStacks: every task's stack is followed to its outermost frame.
func TestAllStacks(t *testing.T) {
	k := example.Kernel(t)
	tasks, err := kobj.Tasks(k, true)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(len(tasks), 76))
	for _, task := range tasks {
		if task.Running {
			continue
		}
		s := unwind.Task(k, uint64(task.Addr))
		qt.Check(t, qt.IsNil(s.End), qt.Commentf("pid %d", task.PID))
		qt.Check(t, qt.HasLen(s.Damage, 0))
		for i := 1; i < len(s.Frames); i++ {
			qt.Check(t, qt.IsTrue(s.Frames[i].SP > s.Frames[i-1].SP))
		}
	}
}
