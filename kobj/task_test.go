package kobj

import (
	"errors"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/mem"
)

func TestStateLetter(t *testing.T) {
	for _, test := range []struct {
		state, exit uint64
		want        string
	}{
		{0x0000, 0, "R"},
		{0x0001, 0, "S"},
		{0x0002, 0, "D"},
		{0x0004, 0, "T"},
		{0x0008, 0, "t"},
		{0x0000, 0x10, "X"},
		{0x0000, 0x20, "Z"},
		{0x0080, 0x20, "Z"}, // TASK_DEAD, zombie
		{0x0040, 0, "P"},    // TASK_PARKED
		{0x0402, 0, "I"},    // TASK_IDLE
		{0x2402, 0, "I"},    // freezable
		{0x2001, 0, "S"},
		{0x0102, 0, "D"},     // TASK_KILLABLE
		{0x0104, 0, "T"},     // TASK_STOPPED
		{0x0200, 0, "R"},     // TASK_WAKING
		{0x0800, 0, "R"},     // TASK_NEW
		{0x1002, 0, "D"},     // TASK_RTLOCK_WAIT
		{0x8000, 0, "D"},     // TASK_FROZEN
		{^uint64(0), 0, "D"}, // damaged
		{0x7f, 0x7f, "P"},
	} {
		qt.Check(t, qt.Equals(stateLetter(test.state, test.exit), test.want), qt.Commentf("%#x %#x", test.state, test.exit))
	}
}

func TestTasks(t *testing.T) {
	k := example.Kernel(t)
	tasks, err := Tasks(k, false)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(len(tasks), 74))
	qt.Check(t, qt.Equals(tasks[0].Comm, "init"))
	for _, task := range tasks {
		if task.PID != task.TGID {
			continue
		}
		_, err := FindTask(k, task.PID)
		qt.Check(t, qt.IsNil(err))
	}
	_, err = FindTask(k, 4711)
	var no *NoTaskError
	qt.Check(t, qt.IsTrue(errors.As(err, &no)))

	crashed, err := FindTask(k, 93)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(crashed, Task{
		Addr: crashed.Addr, PID: 93, TGID: 89, PPID: 1, Comm: "guest", State: "R", CPU: 1,
		RunTime: crashed.RunTime, Running: true,
	}))
}

// TestTasksDamaged: lists that are damaged give what came before, and say so.
func TestTasksDamaged(t *testing.T) {
	k := example.Kernel(t)
	all, err := Tasks(k, false)
	qt.Assert(t, qt.IsNil(err))
	link := func(task Task, member string) uint64 { return k.Object("task_struct", uint64(task.Addr)).At(member) }
	one, err := FindTask(k, 1)
	qt.Assert(t, qt.IsNil(err))
	two, err := FindTask(k, 2)
	qt.Assert(t, qt.IsNil(err))
	nine, err := FindTask(k, 9)
	qt.Assert(t, qt.IsNil(err))
	for _, test := range []struct {
		name    string
		changes []example.Change
		tasks   int
		err     string
	}{
		{"list leads back", []example.Change{example.Words(link(nine, "tasks"), link(two, "tasks"))}, 12, `.*(twice|does not return to its head): damaged`},
		{"list leads to its own node", []example.Change{example.Words(link(two, "tasks"), link(two, "tasks"))}, 5, `.*(twice|does not return to its head): damaged`},
		{"list leads nowhere", []example.Change{example.Words(link(two, "tasks"), 0x1000)}, 5, `(?s).*not mapped.*`},
		{"list ends", []example.Change{example.Words(link(two, "tasks"), 0)}, 5, `list of tasks: .*next is NULL`},
		{"threads of another process", []example.Change{
			example.Words(link(two, "signal"), k.Object("task_struct", uint64(one.Addr)).Ptr("signal")),
		}, len(all), `task at 0x[0-9a-f]+ is on the lists twice: damaged`},
		{"task missing", []example.Change{example.Absent(uint64(nine.Addr))}, 11, `(?s).*excluded from the dump.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Tasks(example.Kernel(t, test.changes...), false)
			qt.Check(t, qt.Equals(len(got), test.tasks))
			qt.Check(t, qt.ErrorMatches(err, test.err))
		})
	}
}

func TestFiles(t *testing.T) {
	k := example.Kernel(t)
	task, err := FindTask(k, 89)
	qt.Assert(t, qt.IsNil(err))
	files, err := Files(k, task)
	qt.Assert(t, qt.IsNil(err))
	var got []string
	for _, f := range files[:5] {
		got = append(got, f.Type+" "+f.Path)
	}
	qt.Check(t, qt.DeepEquals(got, []string{
		"CHR /dev/null", "CHR /dev/ttyS0", "CHR /dev/ttyS0", "ANON anon_inode:bpf-prog", "ANON anon_inode:[eventpoll]",
	}))
}

// TestFilesDamaged: tables that are damaged give what can be read.
func TestFilesDamaged(t *testing.T) {
	k := example.Kernel(t)
	task, err := FindTask(k, 89)
	qt.Assert(t, qt.IsNil(err))
	sound, err := Files(k, task)
	qt.Assert(t, qt.IsNil(err))
	fdt := k.Object("task_struct", uint64(task.Addr)).Deref("files").Deref("fdt")
	dentry := k.Object("file", uint64(sound[0].Addr)).Field("f_path").Ptr("dentry")
	parent := k.Object("dentry", dentry).At("d_parent")
	other := k.Object("file", uint64(sound[1].Addr)).Field("f_path").Ptr("dentry")
	for _, test := range []struct {
		name    string
		changes []example.Change
		files   int
		err     string
	}{
		{"too many", []example.Change{example.Words(fdt.At("max_fds"), 1<<31)}, 0, `.*fdtable at 0x[0-9a-f]+ has \d+ entries: damaged`},
		{"no table", []example.Change{example.Words(fdt.At("fd"), 0)}, 0, `(?s).*not mapped.*`},
		{"all open", []example.Change{example.Words(fdt.Ptr("open_fds"), ^uint64(0))}, len(sound), ``},
		{"path in a circle", []example.Change{
			example.Words(parent, other), example.Words(k.Object("dentry", other).At("d_parent"), dentry),
		}, len(sound), `(?s).*path of more than \d+ components: damaged.*`},
		{"path nowhere", []example.Change{example.Words(parent, 0x1000)}, len(sound), `(?s).*not mapped.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			files, err := Files(example.Kernel(t, test.changes...), task)
			qt.Check(t, qt.Equals(len(files), test.files))
			if test.err != "" {
				qt.Check(t, qt.ErrorMatches(err, test.err))
			}
		})
	}
}

func TestTaint(t *testing.T) {
	k := example.Kernel(t)
	letters, why, err := Taint(k)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(letters, "D"))
	qt.Check(t, qt.DeepEquals(why, []string{"kernel died recently: there was an oops or BUG"}))
	addr, err := k.Addr("tainted_mask")
	qt.Assert(t, qt.IsNil(err))
	letters, why, err = Taint(example.Kernel(t, example.Words(addr, ^uint64(0))))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(letters, "PFSRMBUDAWCIOELKXTNJ"))
	qt.Check(t, qt.HasLen(why, 20))
	letters, why, err = Taint(example.Kernel(t, example.Words(addr, 0)))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(letters, ""))
	qt.Check(t, qt.HasLen(why, 0))
	_, _, err = Taint(example.Kernel(t, example.Absent(addr)))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Excluded))
}

func TestUnameUptime(t *testing.T) {
	k := example.Kernel(t)
	u, err := Uname(k)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(u, Utsname{
		"Linux", "(none)", "6.1.0-47-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)", "x86_64",
	}))
	up, err := Uptime(k)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(up.Seconds() > 3 && up.Seconds() < 3.2), qt.Commentf("%v", up))
	rq, err := k.Addr("runqueues")
	qt.Assert(t, qt.IsNil(err))
	at, err := k.PerCPU(rq, 1)
	qt.Assert(t, qt.IsNil(err))
	_, err = Uptime(example.Kernel(t, example.Absent(k.Object("rq", at).At("clock"))))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Excluded))
}
