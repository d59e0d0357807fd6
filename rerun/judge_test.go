package rerun

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"strconv"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
)

// TestAgainstReadings asks the kernel's own code what the packages below read
// out of its memory themselves.
func TestAgainstReadings(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		t.Run("tasks", func(t *testing.T) {
			tasks, err := kobj.Tasks(s.k, false)
			qt.Assert(t, qt.IsNil(err))
			for i, task := range tasks {
				if i%8 != 0 {
					continue
				}
				e, _ := call1(t, s, fmt.Sprintf("find_task_by_pid_ns(%d, &init_pid_ns)", task.PID))
				qt.Check(t, qt.Equals(e.Return, task.Addr))
				e, _ = call1(t, s, fmt.Sprintf("__task_pid_nr_ns(task(%d), PIDTYPE_PID, &init_pid_ns)", task.PID))
				qt.Check(t, qt.Equals(outcome(e), strconv.Itoa(task.PID)))
			}
		})
		t.Run("symbols", func(t *testing.T) {
			for _, name := range []string{"schedule", "init_task", "jiffies", "ip_rcv"} {
				if s.k.Release()[:4] == "5.10" {
					break // it expands all names on its way: some 30 million instructions
				}
				addr, err := s.k.Addr(name)
				qt.Assert(t, qt.IsNil(err))
				e, _ := call1(t, s, fmt.Sprintf("kallsyms_lookup_name(%q)", name))
				qt.Check(t, qt.Equals(e.Return, mem.Addr(addr)))
			}
			for _, name := range []string{"schedule", "strlen", "ip_rcv", "do_sys_open"} {
				sym, err := s.k.Find(name)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(text(t, s, fmt.Sprintf(`"%%pS", (char *)&%s + 5`, name)), fmt.Sprintf("%s+0x5/0x%x", name, sym.Size)))
			}
		})
		t.Run("time", func(t *testing.T) {
			up, err := kobj.Uptime(s.k)
			qt.Assert(t, qt.IsNil(err))
			for _, f := range []string{"ktime_get()", "ktime_get_mono_fast_ns()", "ktime_get_boottime_ns()", "sched_clock()"} {
				target, err := s.Parse(t.Context(), f)
				if err != nil {
					continue // inline on this kernel
				}
				r, err := s.Run(t.Context(), target, nil)
				qt.Assert(t, qt.IsNil(err))
				got := time.Duration(r.Machine.GP[emulate.RAX])
				qt.Check(t, qt.IsTrue((got-up).Abs() < 2*time.Second), qt.Commentf("%s: %s, up %s", f, got, up))
			}
		})
		t.Run("per-CPU", func(t *testing.T) {
			want := uint64(0)
			n, err := s.k.CPUs()
			qt.Assert(t, qt.IsNil(err))
			for cpu := range n {
				rq := s.k.RunQueue(cpu)
				want += rq.Uint("nr_switches")
				qt.Assert(t, qt.IsNil(rq.Err()))
			}
			e, _ := call1(t, s, "nr_context_switches()")
			qt.Check(t, qt.Equals(uint64(e.Return), want))
			e, _ = call1(t, s, "get_nohz_timer_target()")
			qt.Check(t, qt.Not(qt.Equals(e.Outcome, "fault")))
		})
	})
}

// text has the kernel print: "format", arguments.
func text(t *testing.T, s *Session, args string) string {
	t.Helper()
	target, err := s.Parse(t.Context(), "snprintf((char *)buffer(256), 256, "+args+")")
	qt.Assert(t, qt.IsNil(err))
	r, err := s.Run(t.Context(), target, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(r.Stop.Outcome, emulate.Returned), qt.Commentf("%s", r.StopText()))
	out, err := mem.CString(r.Machine.Mem, target.Values[0], 256)
	qt.Assert(t, qt.IsNil(err))
	return out
}

// TestBPFObjects looks objects up by the kernel's own code.
func TestBPFObjects(t *testing.T) {
	perKernel(t, "bpf", func(t *testing.T, s *Session) {
		progs, err := bpf.Programs(s.k)
		qt.Assert(t, qt.IsNil(err))
		for i, p := range progs {
			if i%16 == 0 {
				e, _ := call1(t, s, fmt.Sprintf("idr_find(&prog_idr, %d)", p.ID))
				qt.Check(t, qt.Equals(e.Return, p.Addr))
			}
			if i%4 != 0 {
				continue
			}
			e, _ := call1(t, s, fmt.Sprintf("prog:%d(buffer(4096))", p.ID))
			// A context of zeroes makes some of them fail in a helper.
			qt.Check(t, qt.IsTrue(e.Outcome == "returned" || e.Outcome == "fault" || e.Outcome == "limit"), qt.Commentf("%d %s: %s", p.ID, p.Name, outcome(e)))
		}
	})
}

// TestTracers runs functions that programs trace. Their own tests
// (net/bpf/test_run.c) say what they answer.
func TestTracers(t *testing.T) {
	perKernel(t, "bpf", func(t *testing.T, s *Session) {
		for _, c := range []struct{ call, want string }{
			{"bpf_fentry_test1(1)", "2"},
			{"bpf_fentry_test2(2, 3)", "5"},
			{"bpf_fentry_test3(4, 5, 6)", "15"},
			{"bpf_fentry_test4((void *)7, 8, 9, 10)", "34"},
			{"bpf_fentry_test5(11, (void *)12, 13, 14, 15)", "65"},
			{"bpf_fentry_test6(16, (void *)17, 18, 19, (void *)20, 21)", "111"},
		} {
			e, _ := call1(t, s, c.call)
			qt.Check(t, qt.Equals(outcome(e), c.want), qt.Commentf("%s", c.call))
		}
		e, _ := call1(t, s, "bpf_fentry_test1(1)")
		qt.Check(t, qt.Equals(len(e.Stubs), 1))
		// An lsm program runs: it is asked whether the thing is allowed.
		e, r := call1(t, s, "bpf_lsm_task_setioprio(current, 5)")
		qt.Check(t, qt.Equals(outcome(e), "0"))
		qt.Check(t, qt.IsTrue(r.Stop.Step > 20))
		// The program that fexit and fentry programs look at runs all the same.
		progs, err := bpf.Programs(s.k)
		qt.Assert(t, qt.IsNil(err))
		for _, p := range progs {
			if p.Name == "xdp_main" {
				e, _ := call1(t, s, fmt.Sprintf("prog:%d(buffer(4096))", p.ID))
				qt.Check(t, qt.Equals(outcome(e), "2")) // XDP_PASS
				qt.Check(t, qt.Equals(len(e.Stubs), 2))
			}
		}
	})
}

// TestSums has the kernel calculate what Go's library can as well.
func TestSums(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		const data = "the quick brown fox jumps over the lazy dog, and over it again, and on"
		e, r := call1(t, s, fmt.Sprintf("sha256((u8 *)%q, %d, (u8 *)buffer(32))", data, len(data)))
		qt.Assert(t, qt.Equals(e.Outcome, "returned"), qt.Commentf("%s", outcome(e)))
		got, err := mem.Bytes(r.Machine.Mem, uint64(e.Args[2].Value), 32)
		qt.Assert(t, qt.IsNil(err))
		want := sha256.Sum256([]byte(data))
		qt.Check(t, qt.DeepEquals(got, want[:]))

		e, _ = call1(t, s, fmt.Sprintf("crc32_le(-1, (u8 *)%q, %d)", data, len(data)))
		qt.Check(t, qt.Equals(^uint32(e.Return), crc32.ChecksumIEEE([]byte(data))), qt.Commentf("%s", outcome(e)))
	})
}
