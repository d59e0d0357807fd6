package rerun

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kobj"
)

// TestCPUAndTask runs as other tasks and on other CPUs than the first.
func TestCPUAndTask(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		n, err := s.k.CPUs()
		qt.Assert(t, qt.IsNil(err))
		for cpu := range n {
			s, err := New(s.k, Options{CPU: cpu})
			qt.Assert(t, qt.IsNil(err))
			e, _ := call1(t, s, "bpf_get_smp_processor_id()")
			qt.Check(t, qt.Equals(outcome(e), strconv.Itoa(cpu)))
		}
		_, err = New(s.k, Options{CPU: n})
		qt.Check(t, qt.ErrorMatches(err, fmt.Sprintf("CPU %d: this kernel has CPUs 0 to %d", n, n-1)))
		tasks, err := kobj.Tasks(s.k, false)
		qt.Assert(t, qt.IsNil(err))
		for _, task := range tasks[:10] {
			s, err := New(s.k, Options{CPU: -1, Task: uint64(task.Addr)})
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(s.CPU(), task.CPU))
			e, _ := call1(t, s, "bpf_get_current_pid_tgid()")
			qt.Check(t, qt.Equals(uint64(e.Return)&0xffffffff, uint64(task.PID)))
		}
		_, err = New(s.k, Options{Task: 0x1000})
		qt.Check(t, qt.ErrorMatches(err, "task at 0x1000: .*not mapped.*"))
	})
}

// TestMissingPages: what is not in a dump is no fault that the kernel would
// have handled.
func TestMissingPages(t *testing.T) {
	file := dumptest.Get(t, "idle-6.1.kdump")
	k := open(t, "idle-6.1")
	init, err := k.Addr("init_task")
	qt.Assert(t, qt.IsNil(err))
	changes := []example.Change{example.Absent(init)}
	const page = 4096
	for at := k.RunQueue(0).Addr &^ (page - 1); at < k.RunQueue(0).Addr+k.Sizeof("rq"); at += page {
		changes = append(changes, example.Absent(at))
	}
	s, err := New(example.KernelOf(t, file, changes...), Options{})
	qt.Assert(t, qt.IsNil(err))
	for _, c := range []string{"strlen((char *)&init_task)", "copy_from_kernel_nofault(buffer(8), &init_task, 8)"} {
		e, _ := call1(t, s, c)
		qt.Check(t, qt.Equals(outcome(e), fmt.Sprintf("fault: it reads 0x%x (init_task): excluded from the dump", init)), qt.Commentf("%s", c))
		qt.Check(t, qt.Equals(uint64(e.Stop.Fault), init))
		qt.Check(t, qt.Equals(e.Stop.Access, "read"))
	}
	_, err = s.Parse(t.Context(), "get_task_pid(current, 0)")
	qt.Check(t, qt.ErrorMatches(err, ".*current is not known: .*excluded from the dump.*"))
}

// TestLoop: a lock of sequences that is held is waited for without end.
func TestLoop(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		s.o.Limits = emulate.Options{Steps: 1e6}
		// jmp to itself, in place of a function.
		qt.Assert(t, qt.IsNil(s.Set("*(unsigned short *)&int_sqrt = 0xfeeb")))
		e, _ := call1(t, s, "int_sqrt(5)")
		qt.Check(t, qt.Equals(e.Outcome, "loop"), qt.Commentf("%s", outcome(e)))
		qt.Check(t, qt.Equals(e.Stop.Symbol, "int_sqrt"))
	})
}
