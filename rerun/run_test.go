package rerun

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

// TestFunctions runs functions whose answers C's rules or the kernel's
// documentation give, and such as must not be run to their end.
func TestFunctions(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		current := s.k.Object("task_struct", s.task)
		ppid := strconv.FormatInt(current.Deref("real_parent").Int("tgid"), 10)
		qt.Assert(t, qt.IsNil(current.Err()))
		for _, c := range []struct{ call, want string }{
			{`strlen("hello")`, "5"},
			{`strcmp("abc", "abc")`, "0"},
			{`strnlen("hello", 3)`, "3"},
			{`strstr("hello world", "wor")`, `"world"`},
			{`memcmp("abc", "abc", 3)`, "0"},
			{`simple_strtoul("0x1234", NULL, 0)`, "4660"},
			{`kstrtoint("77", 10, buffer(4))`, "0"},
			{`kstrtoint("x77", 10, buffer(4))`, "-22 (-EINVAL)"},
			{`int_sqrt(1000)`, "31"},
			{`gcd(12, 18)`, "6"},
			{`__sw_hweight64(0xff00ff)`, "16"},
			{`snprintf(buffer(64), 64, "%d %s", -5, "abc")`, "6"},
			{`kstrdup("abc", 0xcc0)`, `"abc"`},
			{`ns_capable(&init_user_ns, 21)`, "true"},
			{`__x64_sys_getppid((struct pt_regs *)NULL)`, ppid},
			{`bpf_get_current_comm((u64)buffer(16), 16)`, "0"},
			{`find_vpid(-1)`, "NULL"},
			{`bpf_prog_by_id(1000000)`, "ERR_PTR(-2) (-ENOENT)"},
			{`filp_open("/no/such/file", 0, 0)`, "ERR_PTR(-2) (-ENOENT)"},
			{`kern_path("/", 0, buffer(16))`, "0"},
			{`d_path(&init_task.fs->root, buffer(64), 64)`, `"/"`},
			// What is not mapped fails as the kernel's exception table has it.
			{`copy_from_kernel_nofault(buffer(8), (void *)0xffff800000000000, 8)`, "-14 (-EFAULT)"},
			{`copy_from_kernel_nofault(buffer(8), (void *)0x1000, 8)`, "-34 (-ERANGE)"},
			{`copy_from_kernel_nofault(buffer(8), &init_task, 8)`, "0"},
			{`strncpy_from_kernel_nofault(buffer(8), (void *)0xffff800000000000, 8)`, "-14 (-EFAULT)"},
			{`_copy_from_user(buffer(8), (void *)0x1000, 8)`, "8"},
			{`_copy_to_user((void *)0x1000, buffer(8), 8)`, "8"},
			{`strnlen_user((char *)0x1000, 8)`, "0"},
			{`copy_to_kernel_nofault(&strlen, buffer(8), 8)`, "-14 (-EFAULT)"},
			{`memset(&strlen, 0, 8)`, "fault: it writes 0x"},
			// What ends a run.
			{`schedule()`, "stopped: schedule: the task would sleep here, and another would run"},
			{`schedule_timeout(100)`, "stopped: schedule_timeout: the task would sleep here, and another would run"},
			{`panic("lost %d", 1)`, `stopped: panic: the kernel would panic: "lost %d"`},
			{`do_exit(0)`, "stopped: do_exit: the task would end"},
			{`vfs_read(NULL, NULL, 0, NULL)`, "fault: it reads 0x"},
			{`((int (*)(void))0)()`, "fault: there is no code to execute at 0x0, through a NULL pointer: not mapped"},
			{`((int (*)(void))0x1234567812345678)()`, "fault: there is no code to execute at 0x1234567812345678: "},
		} {
			e, _ := call1(t, s, c.call)
			got := outcome(e)
			if strings.HasPrefix(c.want, "fault: it") || strings.HasSuffix(c.want, ": ") {
				got = got[:min(len(got), len(c.want))]
			}
			qt.Check(t, qt.Equals(got, c.want), qt.Commentf("%s", c.call))
		}
	})
}

// TestStubs looks at what is said of functions that do not run.
func TestStubs(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		e, _ := call1(t, s, `printk("hello %d\n", 1)`) // it is called _printk on newer kernels
		qt.Check(t, qt.Equals(e.Stubs[0].Why, `not printed: "hello %d"`))

		e, _ = call1(t, s, "refcount_warn_saturate((refcount_t *)buffer(4), REFCOUNT_ADD_OVF)")
		qt.Check(t, qt.Equals(e.Outcome, "returned"))
		found := false
		for _, u := range e.Stubs {
			found = found || u.Name == "WARN" && strings.HasPrefix(u.Why, "the kernel would warn: WARNING at lib/refcount.c:")
		}
		qt.Check(t, qt.IsTrue(found), qt.Commentf("%v", e.Stubs))

		e, r := call1(t, s, `kstrdup("abc", 0xcc0)`)
		qt.Check(t, qt.Equals(len(e.Writes), 0)) // the run's own memory is none of the target's
		text, err := mem.CString(r.Machine.Mem, uint64(e.Return), 10)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(text, "abc"))
		qt.Check(t, qt.Matches(e.Stubs[0].From, `kstrdup\+0x.*`))

		// jiffies advance by no tick in a run.
		e, _ = call1(t, s, "msleep(1000)")
		qt.Check(t, qt.IsTrue(has(e, "msleep", "the time to sleep passes at once")))
	})
}

// TestBug runs into the BUG that crashed a kernel.
func TestBug(t *testing.T) {
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := session(t, "idle-"+version)
			// BUG in the code of the kernel: a bit that is none of the flags of
			// the caller.
			e, _ := call1(t, s, "usercopy_abort(NULL, NULL, true, 0, 0)")
			qt.Check(t, qt.Equals(outcome(e), "stopped: usercopy_abort: hardened usercopy found a bad copy: the kernel would stop with BUG"))
			bugs := 0
			l, ok := s.bugLayout()
			qt.Assert(t, qt.IsTrue(ok))
			table := s.bugs()[0]
			for at := 0; at+l.size <= len(table.raw); at += 97 * l.size {
				b := s.readBug(table.raw[at:at+l.size], table.start+uint64(at), l)
				qt.Check(t, qt.IsTrue(b.file != "" && b.line > 0), qt.Commentf("%+v", b))
				code := make([]byte, 2)
				if s.view.ReadMem(code, b.addr) != nil || b.warning || code[0] != 0x0f || code[1] != 0x0b {
					continue // the code of the boot is gone
				}
				bugs++
				e, _ := call1(t, s, fmt.Sprintf("((void (*)(void))0x%x)()", b.addr))
				qt.Check(t, qt.Equals(outcome(e), fmt.Sprintf("trap: BUG at %s:%d (%s)", b.file, b.line, b.name)))
			}
			qt.Check(t, qt.IsTrue(bugs > 3))
		})
	}
}

// TestLocks runs into locks that somebody else holds, and into ones of its own.
func TestLocks(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		init, err := kobj.FindTask(s.k, 1)
		qt.Assert(t, qt.IsNil(err))
		for _, set := range []string{
			fmt.Sprintf("((struct mutex *)&rtnl_mutex)->owner.counter = (long)task(%d)", init.PID),
			"*(unsigned int *)&tasklist_lock = 0xff",
			"*(unsigned int *)&mount_lock = 1", // a spinlock, whatever it locks
			"((struct rw_semaphore *)&uts_sem)->count.counter = 1",
			fmt.Sprintf("((struct rw_semaphore *)&uts_sem)->owner.counter = (long)task(%d)", init.PID),
		} {
			qt.Assert(t, qt.IsNil(s.Set(set)))
		}
		for _, c := range []struct{ call, name, why string }{
			{"mutex_lock((struct mutex *)&rtnl_mutex)", "__mutex_lock_slowpath", fmt.Sprintf("mutex rtnl_mutex is held by %s (pid 1): taken over", init.Comm)},
			{"_raw_read_lock((rwlock_t *)&tasklist_lock)", "queued_read_lock_slowpath", "rwlock tasklist_lock is held by another CPU: taken over"},
			{"_raw_write_lock((rwlock_t *)&tasklist_lock)", "queued_write_lock_slowpath", "rwlock tasklist_lock is held by another CPU: taken over"},
			{"_raw_spin_lock((raw_spinlock_t *)&mount_lock)", "", "spinlock mount_lock is held by another CPU: taken over"},
			{"down_read((struct rw_semaphore *)&uts_sem)", "rwsem_down_read_slowpath", fmt.Sprintf("rw_semaphore uts_sem is held by %s (pid 1): taken over", init.Comm)},
			{"down_write((struct rw_semaphore *)&uts_sem)", "rwsem_down_write_slowpath", fmt.Sprintf("rw_semaphore uts_sem is held by %s (pid 1): taken over", init.Comm)},
		} {
			e, _ := call1(t, s, c.call)
			qt.Check(t, qt.Equals(e.Outcome, "returned"), qt.Commentf("%s: %s", c.call, outcome(e)))
			found := false
			for _, u := range e.Stubs {
				found = found || (c.name == "" || u.Name == c.name) && u.Why == c.why
			}
			qt.Check(t, qt.IsTrue(found), qt.Commentf("%s: %v", c.call, e.Stubs))
		}
		// A second time within a run nobody else can have it.
		target, err := s.Parse(t.Context(), "_raw_spin_lock((raw_spinlock_t *)buffer(4))")
		qt.Assert(t, qt.IsNil(err))
		r := s.newRun()
		qt.Assert(t, qt.Equals(r.m.Call(t.Context(), target.Addr, target.Values...).Outcome, emulate.Returned))
		stop := r.m.Call(t.Context(), target.Addr, target.Values...)
		qt.Check(t, qt.Equals(stop.Outcome, emulate.Stopped))
		qt.Check(t, qt.ErrorMatches(stop.Err, ".*deadlock: the run waits for the spinlock at 0x.*, which it has taken itself"))
	})
}

// TestKprobe runs a function with a probe in it: a breakpoint, as the kernel
// writes it where ftrace cannot be used.
func TestKprobe(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		fun := must(s.k.Addr("int_sqrt"))
		table := must(s.k.Addr("kprobe_table"))
		probe, err := s.reserve(s.k.Sizeof("kprobe"))
		qt.Assert(t, qt.IsNil(err))
		at := fun
		var in x86.Inst
		for at == fun || in.Op == x86.NOP || in.Op == x86.ENDBR64 {
			code := must(mem.Bytes(s.view, at, x86.MaxLen))
			qt.Assert(t, qt.IsNil(in.Decode(code, at)))
			at += uint64(in.Len)
		}
		at -= uint64(in.Len)
		write := func(addr, v uint64, size int) {
			t.Helper()
			qt.Assert(t, qt.IsNil(s.force(func() error { return s.view.WriteMem(little(v, size), addr) })))
		}
		write(probe+must(s.k.Offset("kprobe", "addr")), at, 8)
		write(probe+must(s.k.Offset("kprobe", "opcode")), uint64(in.Bytes()[0]), 1)
		write(table+8*(at*0x61c8864680b583eb>>58), probe, 8)
		write(at, 0xcc, 1)
		e, _ := call1(t, s, "int_sqrt(1000)")
		qt.Check(t, qt.Equals(outcome(e), "31"))
		qt.Assert(t, qt.Equals(len(e.Stubs), 1))
		qt.Check(t, qt.Equals(e.Stubs[0].Name, "kprobe"))
		qt.Check(t, qt.Equals(len(e.Writes), 0))
	})
}

// TestSet changes what a run finds.
func TestSet(t *testing.T) {
	s := session(t, "idle-6.1")
	qt.Assert(t, qt.IsNil(s.Set(`init_task.comm = "someone"`)))
	qt.Assert(t, qt.IsNil(s.Set(`init_task.pid = init_task.pid + 7`)))
	qt.Check(t, qt.Equals(text(t, s, `"%s %d", init_task.comm, init_task.pid`), "someone 7"))
	e, _ := call1(t, s, "strlen(init_task.comm)")
	n := len(e.Set)
	qt.Assert(t, qt.IsTrue(n >= 2))
	qt.Check(t, qt.Equals(e.Set[n-1].Name, "init_task.pid"))
	qt.Check(t, qt.Equals(e.Set[n-1].Old+" "+e.Set[n-1].New, "00000000 07000000"))
	qt.Check(t, qt.Equals(len(e.Writes), 0))
	for _, c := range []struct{ set, want string }{
		{"init_task.pid", `.*a change is wanted: LVALUE = VALUE`},
		{"init_task.pid == 3", `.*a change is wanted.*`},
		{"5 = 3", `.*not an object in memory.*`},
		{"init_task.nosuch = 3", `.*nosuch.*`},
		{"init_task = 3", `.*set its members`},
		{"*(int *)0 = 3", `.*not mapped.*`},
		{"%rzx = 3", `.*there is no register %rzx.*`},
	} {
		err := s.Set(c.set)
		var se *SetError
		qt.Check(t, qt.IsTrue(errors.As(err, &se)), qt.Commentf("%s", c.set))
		qt.Check(t, qt.ErrorMatches(err, c.want), qt.Commentf("%s", c.set))
	}
}

// TestChanges names what a run has changed.
func TestChanges(t *testing.T) {
	k := open(t, "idle-6.1")
	s, err := New(k, Options{CPU: 1, Limits: emulate.Options{History: 1 << 16}})
	qt.Assert(t, qt.IsNil(err))
	e, _ := call1(t, s, "memset(&init_task.comm, 'x', 4)")
	qt.Assert(t, qt.Equals(len(e.Writes), 1))
	w := e.Writes[0]
	qt.Check(t, qt.Equals(w.Name, "init_task+0xbd8"[:9]+w.Name[9:]))
	qt.Check(t, qt.Equals(w.Old+" "+w.New, "73776170 78787878")) // "swap": swapper/0
	qt.Assert(t, qt.IsNotNil(w.By))
	qt.Check(t, qt.Matches(w.By.Symbol, `memset.*|__memset.*`))

	target, err := s.Parse(t.Context(), "get_task_pid(&init_task, PIDTYPE_PID)")
	qt.Assert(t, qt.IsNil(err))
	r, err := s.Run(t.Context(), target, nil)
	qt.Assert(t, qt.IsNil(err))
	changes := s.Changes(target, r)
	qt.Assert(t, qt.Equals(len(changes), 1))
	qt.Check(t, qt.Equals(changes[0].Name, "init_struct_pid"))
	// The dump itself is as it was.
	qt.Check(t, qt.Equals(must(mem.U32(k.Mem(), uint64(changes[0].Addr))), uint32(word(unhex(t, changes[0].Old)))))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func unhex(t *testing.T, s string) []byte {
	var b []byte
	for i := 0; i+1 < len(s); i += 2 {
		var c byte
		_, err := fmt.Sscanf(s[i:i+2], "%02x", &c)
		qt.Assert(t, qt.IsNil(err))
		b = append(b, c)
	}
	return b
}

// TestRepeat: two runs of a target are the same.
func TestRepeat(t *testing.T) {
	s := session(t, "idle-6.12")
	for _, text := range []string{`filp_open("/etc/passwd", 0, 0)`, `__kmalloc_noprof(100, 0)`, "ktime_get()", "get_random_u32()"} {
		target, err := s.Parse(t.Context(), text)
		qt.Assert(t, qt.IsNil(err))
		var got [2]*Emulation
		for i := range got {
			r, err := s.Run(t.Context(), target, nil)
			qt.Assert(t, qt.IsNil(err))
			got[i] = s.Emulation(target, r)
		}
		qt.Check(t, qt.DeepEquals(got[0], got[1]), qt.Commentf("%s", text))
	}
}

// TestParseErrors: what is wrong with a call is said.
func TestParseErrors(t *testing.T) {
	s := session(t, "bpf-6.1")
	for _, c := range []struct{ call, want string }{
		{"", ".*a call is wanted.*"},
		{"strlen", ".*a call is wanted.*"},
		{"strlen(", ".*a call is wanted.*"},
		{"strlen))", ".*more parentheses.*"},
		{"(1", ".*a call is wanted.*"},
		{"()", ".*no function is named"},
		{"strlen(,)", ".*argument 1 is empty"},
		{`strlen("a",)`, ".*argument 2 is empty"},
		{"strlen()", `.*strlen takes 1 argument, not 0: size_t strlen\(const char \*s\)`},
		{`strlen("a", 2)`, `.*strlen takes 1 argument, not 2.*`},
		{"snprintf(NULL)", `.*takes 3 arguments or more, not 1.*`},
		{`strlne("a")`, ".*did you mean strlen.*"},
		{"strlen(init_task)", ".*write &init_task"},
		{"strlen(nosuchvar)", ".*argument 1, nosuchvar: .*nosuchvar.*"},
		{"strlen(list_for_each(&init_task.tasks, struct task_struct, tasks))", ".*a sequence of .* cannot be an argument"},
		{"init_task()", ".*is no function: its memory is not executable"},
		{"nosuchmod:strlen(0)", ".*no symbol nosuchmod:strlen.*"},
		{"prog:x(0)", `.*there is no BPF program called "x"`},
		{"prog:999999(0)", ".*there is no BPF program with id 999999; the nearest are .*"},
		{"prog:zoo_tc/nosuch(0)", ".*prog:[0-9]+ has no function nosuch; it has zoo_tc, count"},
		{"strlen(buffer(0x10000000000))", ".*no room left.*"},
		{"strlen(buffer(-1))", ".*no room left.*"},
	} {
		_, err := s.Parse(t.Context(), c.call)
		qt.Check(t, qt.ErrorMatches(err, c.want), qt.Commentf("%s", c.call))
	}
	for _, c := range []struct{ call, want string }{
		{`strlen("a\")(b")`, "5"},
		{`strlen("a, b")`, "4"},
		{`strlen((const char *)"ab");`, "2"},
		{`((unsigned long (*)(char *))&strlen)("abc")`, "3"},
		{"prog:zoo_tc/count(0)", ""},
		{"prog:zoo_tc/1(0)", ""},
	} {
		e, _ := call1(t, s, c.call)
		qt.Check(t, qt.Equals(e.Outcome, "returned"), qt.Commentf("%s: %s", c.call, outcome(e)))
		if c.want != "" {
			qt.Check(t, qt.Equals(e.Text, c.want))
		}
	}
}

// TestGarbage calls functions of all sorts with arguments that are none: a run
// ends, and says why.
func TestGarbage(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		s.o.Limits.Steps = 20000
		syms, err := s.k.Match("*e*")
		qt.Assert(t, qt.IsNil(err))
		rng := rand.New(rand.NewPCG(7, 7))
		task, _ := s.k.Addr("init_task")
		outcomes := map[string]int{}
		for range 400 {
			sym := syms[rng.IntN(len(syms))]
			if m, err := s.k.Walk(sym.Addr); err != nil || !m.Exec || sym.Kind != kernel.KindKernel {
				continue
			}
			target := &Target{Call: sym.Name, Name: sym.Name, Addr: sym.Addr}
			for range 6 {
				v := [...]uint64{0, 1, rng.Uint64(), task, ^uint64(0), task + rng.Uint64N(1<<20), 0xffffffa100000000, 0x7fff00001000}[rng.IntN(8)]
				target.Values = append(target.Values, v)
			}
			r, err := s.Run(t.Context(), target, nil)
			qt.Assert(t, qt.IsNil(err))
			e := s.Emulation(target, r)
			outcomes[e.Outcome]++
			if e.Outcome != "returned" {
				qt.Check(t, qt.IsTrue(e.Stop.Text != ""), qt.Commentf("%s: %s", sym.Name, e.Outcome))
			}
		}
		t.Log(outcomes)
		qt.Check(t, qt.IsTrue(outcomes["returned"] > 20))
	})
}

// running is a dump that passes for a running kernel.
type running struct{ *vmcore.Core }

func (running) Live() bool { return true }

// TestLive says that a running kernel's memory is not of one moment.
func TestLive(t *testing.T) {
	k := open(t, "idle-6.1")
	src, ok := k.Phys().(*vmcore.Core)
	qt.Assert(t, qt.IsTrue(ok))
	live, err := kernel.FromSource(context.Background(), running{src})
	qt.Assert(t, qt.IsNil(err))
	e, _ := call1(t, sessionOf(t, live), `strlen("abc")`)
	qt.Check(t, qt.Equals(e.Text, "3"))
	qt.Assert(t, qt.Equals(len(e.Stubs), 1))
	qt.Check(t, qt.Equals(e.Stubs[0].Name, "live memory"))
}

// TestResume runs on from the registers of a crash, into the same crash.
func TestResume(t *testing.T) {
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := session(t, "crash-null-read-"+version)
			tasks, err := kobj.Tasks(s.k, true)
			qt.Assert(t, qt.IsNil(err))
			var frame *stack.Frame
			for _, task := range tasks {
				if !task.Running {
					continue
				}
				for _, f := range stack.Of(s.k, task).Frames {
					if strings.HasSuffix(f.Symbol, "sys_getpgid") && f.Raw.Regs != nil {
						frame = &f
					}
				}
			}
			qt.Assert(t, qt.IsNotNil(frame))
			r, err := s.Resume(t.Context(), *frame.Raw.Regs, nil)
			qt.Assert(t, qt.IsNil(err))
			e := s.Emulation(nil, r)
			qt.Check(t, qt.Equals(outcome(e), "fault: it reads 0x10, through a NULL pointer: not mapped"))
			qt.Check(t, qt.Equals(e.Stop.Addr, frame.PC))
			qt.Check(t, qt.Equals(e.Function, "__x64_sys_getpgid"))

			// With a pointer in its place it goes on: to the BUG, or to the end.
			qt.Assert(t, qt.IsNil(s.Set("%rax = (long)&init_task")))
			r, err = s.Resume(t.Context(), *frame.Raw.Regs, nil)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Not(qt.Equals(outcome(s.Emulation(nil, r)), outcome(e))))
		})
	}
}
