//go:build linux

package procfs

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/stack"
)

// statRest is a line of stat behind the state: flags, times and CPU are told
// apart by their values.
const statRest = " 7 3 3 0 -1 2097216 0 0 0 0 12 34 0 0 20 0 1 0 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 6 0 0 0 0 0\n"

func TestParseStat(t *testing.T) {
	for _, c := range []struct{ comm, state string }{
		{"bash", "S"}, {"a b", "R"}, {"a) R 1 (b", "D"}, {")", "Z"}, {"", "I"}, {"x\ny", "t"},
	} {
		got, err := parseStat([]byte("42 (" + c.comm + ") " + c.state + statRest))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(got, kobj.Task{
			PID: 42, PPID: 7, Comm: c.comm, State: c.state, CPU: 6, RunTime: 460 * time.Millisecond, Kernel: true,
		}))
	}
	for _, bad := range []string{"", "42", "42 (x", ")42(", "42 (x) S 1 2", "42 (x) SS" + statRest, "x (x) S" + statRest} {
		_, err := parseStat([]byte(bad))
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%q", bad))
	}
}

func TestParseKmsg(t *testing.T) {
	for _, c := range []struct {
		record string
		want   kobj.LogRecord
		caller bool
	}{
		{"6,339,5140900,-;NET: Registered\n", kobj.LogRecord{Seq: 339, Time: 5140900 * time.Microsecond, Level: 6, Text: "NET: Registered"}, false},
		{"30,340,7,-,caller=T12;systemd; hi\n", kobj.LogRecord{Seq: 340, Time: 7 * time.Microsecond, Level: 6, Facility: 3, Caller: 12, Text: "systemd; hi"}, true},
		{"3,1,2,c,more=1,caller=C3;x\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n",
			kobj.LogRecord{Seq: 1, Time: 2 * time.Microsecond, Level: 3, Caller: 3, CallerIsCPU: true, Text: "x", Device: "acpi/+acpi:PNP0A03:00"}, true},
		{"4,1,0,-;a\\x0ab\\x5cx\\xzz\\x\n", kobj.LogRecord{Seq: 1, Level: 4, Text: "a\nb\\x\\xzz\\x"}, false},
		{"4,1,0,-;", kobj.LogRecord{Seq: 1, Level: 4}, false},
	} {
		got, caller, err := parseKmsg([]byte(c.record))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(got, c.want))
		qt.Check(t, qt.Equals(caller, c.caller))
	}
	for _, bad := range []string{"", "6,1,2,-", "6,1,2;x", "a,1,2,-;x", "6,-1,2,-;x"} {
		_, _, err := parseKmsg([]byte(bad))
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%q", bad))
	}
}

func TestParseSyslog(t *testing.T) {
	const us = time.Microsecond
	got, callers := parseSyslog([]byte("<6>[    1.000002] one\n<30>[   12.500000][    T7] two [x]\n<4>no time\nraw\n<5>[drm] text\n"))
	qt.Check(t, qt.IsTrue(callers))
	qt.Check(t, qt.DeepEquals(got, []kobj.LogRecord{
		{Seq: 0, Level: 6, Time: 1000002 * us, Text: "one"},
		{Seq: 1, Level: 6, Facility: 3, Time: 12500000 * us, Caller: 7, Text: "two [x]"},
		{Seq: 2, Level: 4, Text: "no time"},
		{Seq: 3, Text: "raw"},
		{Seq: 4, Level: 5, Text: "[drm] text"},
	}))
}

func TestParseStack(t *testing.T) {
	got, err := parseStack([]byte("[<0>] nf_x.part.0+0x1f/0x2c0 [nf_conntrack]\n[<0>] bpf_prog_6deef7357e7b4530_f+0x1b/0x3c\n" +
		"[<0>] bpf_trampoline_6442_0+0x2/0x9\n[<0>] 0xffffffffc0000010\n[<0>] do_syscall_64+0x33/0x80\n[<0>] entry_SYSCALL_64_after_hwframe+0x61/0xc6\n"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(got, []stack.Frame{
		{Symbol: "nf_x.part.0", Offset: 0x1f, Module: "nf_conntrack", Kind: kernel.KindModule, Reliable: true},
		{Symbol: "bpf_prog_6deef7357e7b4530_f", Offset: 0x1b, Kind: kernel.KindBPF, Reliable: true},
		{Symbol: "bpf_trampoline_6442_0", Offset: 2, Kind: kernel.KindTrampoline, Reliable: true},
		{PC: 0xffffffffc0000010, Reliable: true},
		{Symbol: "do_syscall_64", Offset: 0x33, Kind: kernel.KindKernel, Reliable: true},
		{Symbol: "entry_SYSCALL_64_after_hwframe", Offset: 0x61, Kind: kernel.KindEntry, Reliable: true},
	}))
	_, err = parseStack([]byte("do_syscall_64\n"))
	qt.Check(t, qt.IsNotNil(err))
}

func TestParseModules(t *testing.T) {
	got, err := parseModules([]byte("nf_conntrack 172032 2 xt_a,nf_nat, Live 0xffffffffc0a00000 (OE)\nb 4096 - - Loading 0x0000000000000000\n"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(got, 2))
	a, b := got[0], got[1]
	qt.Check(t, qt.Equals(a.Name, "nf_conntrack"))
	qt.Check(t, qt.Equals(a.Base(), 0xffffffffc0a00000))
	qt.Check(t, qt.Equals(a.Size(), 172032))
	qt.Check(t, qt.Equals(a.Refs, 2))
	qt.Check(t, qt.Equals(a.State, "live"))
	qt.Check(t, qt.Equals(a.Taint, 1<<12|1<<13)) // TAINT_OOT_MODULE, TAINT_UNSIGNED_MODULE
	qt.Check(t, qt.Equals(b.Base(), 0))
	qt.Check(t, qt.Equals(b.Size(), 4096))
	qt.Check(t, qt.Equals(b.State, "coming"))
	for _, bad := range []string{"x\n", "x 1 2 - Live y\n", "x -1 2 - Live 0x0\n"} {
		_, err := parseModules([]byte(bad))
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%q", bad))
	}
}

// TestRunningKernel finds this process where the kernel tells of processes.
func TestRunningKernel(t *testing.T) {
	self, err := Task(t.Context(), os.Getpid())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(self.TGID, os.Getpid()))
	qt.Check(t, qt.Equals(self.PPID, os.Getppid()))
	qt.Check(t, qt.IsFalse(self.Kernel))
	_, err = Task(t.Context(), 1<<22+1)
	qt.Check(t, qt.ErrorMatches(err, "no task has pid 4194305 .*"))
	f, err := os.CreateTemp(t.TempDir(), "x")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	files, err := Files(os.Getpid())
	qt.Assert(t, qt.IsNil(err))
	found := false
	for _, o := range files {
		found = found || o == kobj.File{FD: int(f.Fd()), Type: "REG", Path: f.Name()}
	}
	qt.Check(t, qt.IsTrue(found), qt.Commentf("%v", files))
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"42 (a b) S" + statRest, "6,339,5140900,-,caller=T1;a\\x0ab\n DEVICE=+x\n", "<6>[    1.000002][ T1] one\n",
		"[<0>] f+0x1/0x2 [m]\n", "m 4096 1 - Live 0xffffffffc0000000 (O)\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseStat(b)
		_, _, _ = parseKmsg(b)
		_, _ = parseStack(b)
		_, _ = parseModules(b)
		if log, _ := parseSyslog(b); len(log) > strings.Count(string(b), "\n")+1 {
			t.Errorf("%d records of %q", len(log), b)
		}
	})
}
