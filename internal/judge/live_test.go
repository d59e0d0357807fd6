package judge

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/vm"
)

// ways are the ways to a running kernel's memory, with what -v says of them.
var ways = []struct{ name, memory string }{
	{"kcore", "/proc/kcore"},
	{"bpf", "a BPF program"},
}

// liveScene boots a guest with modules, sleeping processes and BPF objects.
func liveScene(t *testing.T, kernel string) *liveGuest {
	g := bootLive(t, kernel, func(c *vm.Config) {
		c.Modules = []string{"nf_conntrack"}
		if kernel == "7.2" {
			c.CPU = "max" // 5-level page tables
		}
	})
	g.start(guestProgram, "idle")
	return g
}

// TestLive holds what ksleuth says of the kernel it runs on against what that
// kernel says itself, and against what ksleuth says of a dump that QEMU takes
// of the guest afterwards.
func TestLive(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := liveScene(t, kernel)
			for _, way := range ways {
				t.Run(way.name, func(t *testing.T) {
					g := &liveGuest{g.VM, t}
					_, _, said := g.run(guestKsleuth, "--memory", way.name, "-v", "type", "list_head")
					qt.Assert(t, qt.StringContains(said, way.memory))
					l := live{g, []string{"--memory", way.name, "-o", "json"}}
					t.Run("ps", l.ps)
					t.Run("stacks", l.stacks)
					t.Run("mods", l.mods)
					t.Run("log", l.log)
					t.Run("sym", l.sym)
					t.Run("dump", l.dump)
				})
			}
			t.Run("without memory", func(t *testing.T) { withoutMemory(&liveGuest{g.VM, t}) })
			t.Run("refused", func(t *testing.T) { refused(&liveGuest{g.VM, t}) })
			t.Run("running", func(t *testing.T) { runningTasks(&liveGuest{g.VM, t}) })
			t.Run("nothing left", func(t *testing.T) { nothingLeft(&liveGuest{g.VM, t}) })
			t.Run("changing", func(t *testing.T) { changing(&liveGuest{g.VM, t}) })
		})
	}
}

// live is a guest with the options for one way to its memory.
type live struct {
	g    *liveGuest
	opts []string
}

func (l live) of(t *testing.T) *liveGuest { return &liveGuest{l.g.VM, t} }

// answer runs ksleuth with -o json in the guest.
func (l live) answer(t *testing.T, command ...string) string {
	t.Helper()
	return l.of(t).ksleuth(cli.StatusOK, slices.Concat(l.opts, command)...)
}

// ps holds the processes against /proc.
func (l live) ps(t *testing.T) {
	g := l.of(t)
	_, said, _ := g.run(guestProgram, "ps")
	compareProcesses(t, said, decode[task](t, "task", l.answer(t, "ps")), "ksleuth", "guest")
}

// compareProcesses holds tasks against what the guest's ps said; but are the
// names of the programs that did the looking.
func compareProcesses(t *testing.T, said string, tasks []task, but ...string) {
	got := map[int]*process{}
	for _, k := range tasks {
		if p := got[k.TGID]; k.PID != k.TGID {
			p.threads++
		} else if k.PID != 0 && !slices.Contains(but, k.Comm) {
			got[k.PID] = &process{k.PPID, 1, k.State, k.Comm}
		} else {
			got[k.TGID] = &process{} // counted, and left out below
		}
	}
	want := parsePS(said)
	changed := 0
	for pid := range union(want, got) {
		w, g := want[pid], got[pid]
		if w != nil && slices.Contains(but, w.comm) || g != nil && g.comm == "" || w != nil && g != nil && *w == *g {
			continue
		}
		changed++
		if psChange(w, g) == "" {
			t.Errorf("pid %d: guest %v, ksleuth %v", pid, w, g)
		}
	}
	qt.Assert(t, qt.IsTrue(len(want) > 40))
	qt.Check(t, qt.IsTrue(changed < 20), qt.Commentf("%d of %d processes changed", changed, len(want)))
}

// stacks holds the stacks of sleeping tasks against /proc/PID/stack.
func (l live) stacks(t *testing.T) {
	g := l.of(t)
	_, said, _ := g.run(guestProgram, "stacks")
	own := parseStacks(t, said)
	sched := l.schedText(t)
	same, tasks := 0, decode[task](t, "task", l.answer(t, "bt", "all"))
	for _, k := range tasks {
		want, ok := own[k.PID]
		if !ok || k.PID == 0 || k.Running || k.End != "" {
			continue
		}
		var got []string
		for _, f := range k.Frames {
			if pc := hex(t, f.PC); pc < sched[0] || pc >= sched[1] {
				got = append(got, f.Symbol+"+"+f.Offset)
			}
		}
		if slices.Equal(got, want) {
			same++
		} else if !restless(k) {
			t.Errorf("%v\n ksleuth: %s\n kernel:  %s", k, strings.Join(got, " "), strings.Join(want, " "))
		}
	}
	qt.Check(t, qt.IsTrue(same >= 40), qt.Commentf("only %d stacks of %d are alike", same, len(tasks)))
	t.Logf("%d stacks of %d tasks compared", same, len(tasks))
}

func (l live) schedText(t *testing.T) (r [2]uint64) {
	s := decode[struct{ Addr string }](t, "symbol", l.answer(t, "sym", "__sched_text_start", "__sched_text_end"))
	qt.Assert(t, qt.HasLen(s, 2))
	return [2]uint64{hex(t, s[0].Addr), hex(t, s[1].Addr)}
}

// mods holds the modules against /proc/modules.
func (l live) mods(t *testing.T) {
	want := parseModules(l.of(t).file("/proc/modules"))
	qt.Assert(t, qt.IsTrue(len(want) > 1))
	qt.Check(t, qt.DeepEquals(moduleLines(decode[module](t, "module", l.answer(t, "mods"))), want))
}

// log holds the log against syslog(2), byte by byte.
func (l live) log(t *testing.T) {
	g := l.of(t)
	_, want, _ := g.run(guestProgram, "dmesg")
	got := g.ksleuth(cli.StatusOK, l.opts[0], l.opts[1], "log", "--raw")
	qt.Assert(t, qt.IsTrue(strings.Count(want, "\n") > 100))
	if !strings.HasPrefix(got, want) {
		t.Errorf("the log differs (-guest +ksleuth):\n%s", cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
	}
}

// sym holds all symbols of some names against /proc/kallsyms.
func (l live) sym(t *testing.T) {
	kallsyms := l.of(t).file("/proc/kallsyms")
	for _, pattern := range []string{"bpf_*", "nf_conntrack_[a-f]*", "tcp_v[46]_*"} {
		var want, got []string
		for line := range strings.Lines(kallsyms) {
			f := strings.Fields(line)
			if ok, _ := filepath.Match(pattern, f[2]); ok && strings.HasPrefix(f[0], "ffff") { // per-CPU symbols of old kernels are offsets
				mod := strings.TrimSuffix(strings.Trim(strings.Join(f[3:], ""), "[]"), bpfModule)
				want = append(want, fmt.Sprintf("0x%s %s %s", f[0], f[2], mod))
			}
		}
		for _, s := range decode[struct{ Addr, Name, Module string }](t, "symbol", l.answer(t, "sym", pattern)) {
			// The program that reads the memory is in the kernel meanwhile.
			if strings.HasPrefix(s.Addr, "0xffff") && !strings.HasSuffix(s.Name, "_ksleuth_read") {
				got = append(got, fmt.Sprintf("%s %s %s", s.Addr, s.Name, s.Module))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		qt.Check(t, qt.DeepEquals(got, want), qt.Commentf("%s", pattern))
		t.Logf("%s: %d symbols", pattern, len(want))
	}
}

// dump holds answers of the running kernel against those of its dump.
func (l live) dump(t *testing.T) {
	g := l.of(t)
	pid := itoa(sleeper(t, decode[task](t, "task", l.answer(t, "ps"))))
	commands := [][]string{
		{"mods"},
		{"bt", pid},
		{"files", pid},
		{"type", "task_struct"},
		{"type", "struct nf_conn"},
		{"print", "init_task.comm"},
		{"print", "*(struct list_head *)&modules"},
		{"print", "&per_cpu(runqueues, 1)"},
		{"read", "linux_banner", "128"},
		{"read", "&init_task.comm", "16"},
		{"sym", "prog_idr", "nf_conntrack_in", "nf_conntrack:nf_ct_delete"},
		{"disasm", "do_syscall_64"},
		{"disasm", "nf_conntrack_in"},
	}
	var said []string
	for _, c := range commands {
		said = append(said, l.answer(t, c...))
	}
	// Code of the running kernel, run on its memory: what it says, but that
	// pages were read one after another.
	calls := []string{
		"find_vpid(" + pid + ")",
		"pid_task(find_vpid(" + pid + "), PIDTYPE_PID)",
		"task_prio(task(" + pid + "))",
		`dev_get_by_name_rcu(&init_net, "lo")`,
		`simple_strtoul("0x1234", 0, 0)`,
	}
	var answered []rerun.Emulation
	for _, c := range calls {
		e := decode[rerun.Emulation](t, "emulation", l.answer(t, "emulate", c))[0]
		qt.Check(t, qt.Equals(e.Outcome, "returned"), qt.Commentf("%s: %+v", c, e.Stop))
		qt.Assert(t, qt.IsTrue(len(e.Stubs) > 0))
		qt.Check(t, qt.Equals(e.Stubs[0].Name, "live memory"))
		answered = append(answered, e)
	}
	small := l.capture(t, "bt "+pid, "mods", "log")
	ps := l.answer(t, "ps")
	file := filepath.Join(t.TempDir(), "dump.elf")
	qt.Assert(t, qt.IsNil(g.DumpMemory(file, vm.DumpELF)))
	for i, c := range commands {
		dumped := ksleuth(t, cli.StatusOK, slices.Concat([]string{"-t", file, "-o", "json"}, c)...)
		qt.Check(t, qt.Equals(timeless(dumped), timeless(said[i])), qt.Commentf("%q", c))
	}
	for i, c := range calls {
		e, live := answers[rerun.Emulation](t, cli.StatusOK, "emulation", file, "emulate", c)[0], answered[i]
		e.Stubs = append(live.Stubs[:1:1], e.Stubs...)
		qt.Check(t, qt.DeepEquals(e, live), qt.Commentf("%s", c))
	}
	var lines strings.Builder
	for _, k := range decode[task](t, "task", ps) {
		if k.PID == k.TGID && k.PID != 0 {
			threads := 0
			for _, o := range decode[task](t, "task", ps) {
				if o.TGID == k.PID {
					threads++
				}
			}
			fmt.Fprintln(&lines, k.PID, k.PPID, k.State, threads, k.Comm)
		}
	}
	compareProcesses(t, lines.String(), answers[task](t, cli.StatusOK, "task", file, "ps"), "ksleuth")
	// What was captured of the running kernel is a dump that says the same.
	for _, c := range [][]string{{"mods"}, {"bt", pid}} {
		qt.Check(t, qt.Equals(timeless(ksleuth(t, cli.StatusOK, slices.Concat([]string{"-t", small, "-o", "json"}, c)...)),
			timeless(ksleuth(t, cli.StatusOK, slices.Concat([]string{"-t", file, "-o", "json"}, c)...))), qt.Commentf("captured, %q", c))
	}
}

// capture has a dump for commands written in the guest, and copies it here.
func (l live) capture(t *testing.T, commands ...string) string {
	args := []string{"capture", "/tmp/small.kdump"}
	for _, c := range commands {
		args = append(args, "--for", c)
	}
	l.answer(t, args...)
	return copyOut(t, l.of(t), "/tmp/small.kdump")
}

// sleeper returns the pid of a process that sleeps for good.
func sleeper(t *testing.T, tasks []task) int {
	i := slices.IndexFunc(tasks, func(k task) bool { return k.Comm == "sleeper-a" && k.PID == k.TGID })
	qt.Assert(t, qt.IsTrue(i >= 0))
	return tasks[i].PID
}

// timeless leaves out of an answer how long tasks ran.
func timeless(answer string) string {
	var out strings.Builder
	for line := range strings.Lines(answer) {
		var r record[map[string]any]
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return answer
		}
		delete(r.Data, "run_time_ns")
		b, _ := json.Marshal(r)
		out.Write(append(b, '\n'))
	}
	return out.String()
}

// withoutMemory holds what /proc and the kernel's log tell against what its
// memory tells: the same, but for what it takes memory to know.
func withoutMemory(g *liveGuest) {
	t := g.t
	both := func(command ...string) (with, without []map[string]any) {
		for i, memory := range []string{"kcore", "none"} {
			answer := g.ksleuth(cli.StatusOK, slices.Concat([]string{"--memory", memory, "-o", "json"}, command)...)
			if memory == "none" {
				note, rest, _ := strings.Cut(answer, "\n")
				qt.Check(t, qt.StringContains(note, "memory cannot be read"))
				answer = rest
			}
			typ := map[string]string{"ps": "task", "bt": "task", "files": "file", "mods": "module", "log": "log"}[command[0]]
			*[]*[]map[string]any{&with, &without}[i] = decode[map[string]any](t, typ, answer)
		}
		return with, without
	}
	// lacks returns r without some fields.
	lacks := func(r map[string]any, fields ...string) map[string]any {
		r = maps.Clone(r)
		for _, f := range fields {
			delete(r, f)
		}
		return r
	}
	with, without := both("ps")
	want := map[any]map[string]any{}
	for _, k := range with {
		want[k["pid"]] = k
	}
	same, pid, holder := 0, "", ""
	for _, got := range without {
		w := want[got["pid"]]
		if w == nil {
			continue // of ksleuth itself, or a worker
		}
		// The names of kernel threads are in full.
		if name := fmt.Sprint(w["comm"]); got["kernel_thread"] == true && strings.HasPrefix(fmt.Sprint(got["comm"]), name) {
			got["comm"] = name
		}
		changes := []string{"addr", "running", "run_time_ns", "cpu", "state"}
		qt.Check(t, qt.DeepEquals(lacks(got, changes...), lacks(w, changes...)))
		same++
		if w["comm"] == "guest" && w["pid"] == w["tgid"] {
			holder = fmt.Sprint(w["pid"]) // of BPF objects
		}
		if w["comm"] == "sleeper-a" && w["pid"] == w["tgid"] {
			pid = fmt.Sprint(w["pid"])
			qt.Check(t, qt.DeepEquals(lacks(got, "addr", "running"), lacks(w, "addr", "running"))) // it does nothing
		}
	}
	qt.Check(t, qt.IsTrue(same > 40), qt.Commentf("%d tasks are alike", same))
	for _, c := range []struct {
		command []string
		lacks   []string
	}{
		{[]string{"mods"}, []string{"addr"}},
		{[]string{"files", pid}, []string{"addr", "ops", "private"}},
		{[]string{"files", holder}, []string{"addr", "ops", "private"}},
	} {
		with, without := both(c.command...)
		qt.Check(t, qt.Equals(len(without), len(with)), qt.Commentf("%q", c.command))
		for i := range min(len(with), len(without)) {
			qt.Check(t, qt.DeepEquals(without[i], lacks(with[i], c.lacks...)), qt.Commentf("%q", c.command))
		}
	}
	with, without = both("log")
	qt.Assert(t, qt.IsTrue(len(with) > 100 && len(without) >= len(with)))
	for i, r := range with {
		ns, err := r["time_ns"].(json.Number).Int64()
		qt.Assert(t, qt.IsNil(err))
		r["time_ns"] = json.Number(fmt.Sprint(ns / 1000 * 1000))
		if without[i]["caller"] == nil {
			r = lacks(r, "caller", "caller_is_cpu")
		}
		qt.Check(t, qt.DeepEquals(without[i], r))
	}
	with, without = both("bt", pid)
	for _, ks := range [][]map[string]any{with, without} {
		qt.Assert(t, qt.HasLen(ks, 1))
		var frames []any
		for _, f := range ks[0]["frames"].([]any) {
			f := f.(map[string]any)
			if !strings.Contains(f["symbol"].(string), "schedule") { // the kernel leaves out how the task slept
				frames = append(frames, lacks(f, "pc", "sp", "running"))
			}
		}
		ks[0]["frames"] = frames
	}
	qt.Check(t, qt.DeepEquals(without[0]["frames"], with[0]["frames"]))
}

// refused checks what is said where reading memory is not permitted.
func refused(g *liveGuest) {
	const rawIO, admin, perfmon, bpf = "17", "21", "38", "39"
	for _, c := range []struct {
		what   string
		status cli.Status
		said   []string
		as     []string
	}{
		{"on request", cli.StatusDenied, []string{"left out on request"}, []string{guestTester, "without", "0", guestKsleuth, "--memory", "none"}},
		{"nobody", cli.StatusDenied, []string{"CAP_SYS_RAWIO", "lacks CAP_BPF and CAP_PERFMON"}, []string{guestTester, "nobody", guestKsleuth}},
		{"without CAP_SYS_RAWIO", cli.StatusDenied, []string{"/proc/kcore: ", "lacks CAP_SYS_RAWIO"}, []string{guestTester, "without", rawIO, guestKsleuth, "--memory", "kcore"}},
		{"without CAP_PERFMON", cli.StatusDenied, []string{"lacks CAP_PERFMON"}, []string{guestTester, "without", perfmon + "," + admin, guestKsleuth, "--memory", "bpf"}},
		{"without any", cli.StatusDenied, []string{"lacks CAP_SYS_RAWIO", "lacks CAP_BPF and CAP_PERFMON"}, []string{guestTester, "without", rawIO + "," + admin + "," + perfmon + "," + bpf, guestKsleuth}},
		{"kcore hidden", cli.StatusDenied, []string{"hidden behind another file"}, []string{guestTester, "hide", "/proc/kcore", guestKsleuth, "--memory", "kcore"}},
		{"kcore hidden, the other way left", cli.StatusOK, nil, []string{guestTester, "hide", "/proc/kcore", guestKsleuth}},
		{"no VMCOREINFO", cli.StatusOK, nil, []string{guestTester, "hide", "/sys/kernel/vmcoreinfo", guestKsleuth, "--memory", "bpf"}},
		{"one way left", cli.StatusOK, nil, []string{guestTester, "without", rawIO, guestKsleuth}},
	} {
		status, out, errs := g.run(c.as[0], append(c.as[1:], "print", "init_task.pid")...)
		qt.Check(g.t, qt.Equals(status, c.status), qt.Commentf("%s: %s", c.what, errs))
		for _, s := range c.said {
			qt.Check(g.t, qt.StringContains(errs, s), qt.Commentf("%s", c.what))
		}
		qt.Check(g.t, qt.Equals(out == "", c.status != cli.StatusOK), qt.Commentf("%s", c.what))
	}
}

// runningTasks checks that tasks that run are sampled.
func runningTasks(g *liveGuest) {
	for _, c := range []struct {
		command, what string
		ok            func(taskOnCPU) bool
	}{
		{"spin", "in user space", func(k taskOnCPU) bool { return k.User && len(k.Frames) == 0 }},
		{"syscalls", "reading /dev/zero", func(k taskOnCPU) bool {
			names := strings.Join(symbols(k.Frames), " ")
			return (strings.Contains(names, " read_zero ") || strings.Contains(names, " read_iter_zero ")) &&
				strings.HasSuffix(names, " entry_SYSCALL_64_after_hwframe")
		}},
	} {
		p := g.start(guestTester, c.command, "runner")
		seen := []taskOnCPU{}
		for range 10 {
			seen = append(seen, decode[taskOnCPU](g.t, "task", g.ksleuth(cli.StatusOK, "-o", "json", "bt", strconv.Itoa(p.Pid())))...)
			if k := seen[len(seen)-1]; k.Sampled && k.Comm == "runner" && c.ok(k) {
				break
			}
		}
		if k := seen[len(seen)-1]; !k.Sampled || !c.ok(k) {
			g.t.Errorf("the task %s was never met so: %v", c.what, seen)
		}
		g.ksleuth(cli.StatusOK, "bt") // whichever tasks run now
		const perfmon, admin = "38", "21"
		status, _, errs := g.run(guestTester, "without", perfmon+","+admin, guestKsleuth, "bt", strconv.Itoa(p.Pid()))
		if status != cli.StatusOK { // it can have been runnable, not running
			qt.Check(g.t, qt.Equals(status, cli.StatusDenied))
			qt.Check(g.t, qt.StringContains(errs, "CAP_PERFMON"))
		}
		qt.Check(g.t, qt.IsNil(p.Signal(g.t.Context(), syscall.SIGKILL)))
		_ = p.Wait(g.t.Context()) // it was killed
	}
}

// taskOnCPU is a task of a running kernel.
type taskOnCPU struct {
	task
	Sampled bool `json:"sampled"`
	User    bool `json:"in_user_space"`
}

// nothingLeft checks that the BPF way leaves nothing in the kernel, also if
// ksleuth is killed.
func nothingLeft(g *liveGuest) {
	_, before, _ := g.run(guestProgram, "bpf")
	qt.Assert(g.t, qt.IsFalse(strings.Contains(before, "ksleuth")))
	p, err := g.StartProcess(g.t.Context(), vm.Cmd{Path: guestTester, Args: []string{"again", guestKsleuth, "--memory", "bpf", "bt", "all"}})
	qt.Assert(g.t, qt.IsNil(err))
	for {
		if _, now, _ := g.run(guestProgram, "bpf"); strings.Contains(now, "ksleuth_read") {
			break
		}
	}
	qt.Assert(g.t, qt.IsNil(p.Signal(g.t.Context(), syscall.SIGKILL)))
	_ = p.Wait(g.t.Context()) // it was killed
	_, after, _ := g.run(guestProgram, "bpf")
	qt.Check(g.t, qt.Equals(after, before))
}

// changing lists tasks while processes begin and end.
func changing(g *liveGuest) {
	p := g.start(guestTester, "churn")
	for range 10 {
		g.ksleuth(cli.StatusOK, "-o", "json", "ps")
	}
	g.ksleuth(cli.StatusOK, "-o", "json", "bt", "all")
	qt.Check(g.t, qt.IsNil(p.Signal(g.t.Context(), syscall.SIGKILL)))
}

// TestLiveLockdown checks what is said where the kernel keeps its memory to
// itself.
func TestLiveLockdown(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := bootLive(t, kernel, func(c *vm.Config) { c.Cmdline = "lockdown=confidentiality" })
			// First by the command line, then as securityfs says it.
			for _, command := range [][]string{{guestKsleuth}, {guestTester, "secured", guestKsleuth}} {
				command = append(command, "print", "init_task.pid")
				status, out, errs := g.run(command[0], command[1:]...)
				qt.Check(t, qt.Equals(status, cli.StatusDenied), qt.Commentf("%s", errs))
				qt.Check(t, qt.Equals(out, ""))
				qt.Check(t, qt.Equals(strings.Count(errs, "lockdown is in the mode confidentiality"), 2), qt.Commentf("%s", errs))
			}
		})
	}
}
