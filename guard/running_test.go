package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/guard"
)

// losing are the kernels whose trampolines lose the tail-call count.
var losing = []string{"5.10"}

// TestRunningKernelTailCalls: functions that are handed the count are refused
// where trampolines lose it, and no others; whatever programs they run.
func TestRunningKernelTailCalls(t *testing.T) {
	affected := slices.Contains(losing, guest(t))
	src := running(t)
	array := progArray(t)
	p := load(t, xdp(), function{"main_prog", true, calls("stub")}, function{"stub", false, tailCalls(array, 33)})
	plain := load(t, xdp(), function{"plain", true, calls("leaf")}, function{"leaf", false, returns(2)})
	funcs := functionsOf(t, src, p, plain)
	qt.Assert(t, qt.HasLen(funcs, 4))
	for _, c := range []struct {
		o    guard.Options
		loss string // the function that leaves something else in rax
	}{
		{guard.Options{Exit: true}, "call __bpf_tramp_enter"},
		{guard.Options{Entry: true}, "call __bpf_prog_exit"},
		{guard.Options{Entry: true, Exit: true}, "call __bpf_prog_exit"},
	} {
		ws := check(t, src, funcs, c.o)
		if !affected {
			qt.Check(t, qt.HasLen(ws, 0), qt.Commentf("%+v: %v", c.o, summary(ws)))
			continue
		}
		qt.Assert(t, qt.DeepEquals(summary(ws), []string{"stub: refuse tailcall-trampoline"}), qt.Commentf("%+v", c.o))
		said := evidence(ws[0])
		t.Logf("%s\n%s", ws[0].Title, said)
		qt.Check(t, qt.StringContains(said, c.loss))
		qt.Check(t, qt.StringContains(said, "rax not restored"))
		qt.Check(t, qt.StringContains(said, "fixed by 2b5dcb31a19a"))
		qt.Check(t, qt.IsFalse(ws[0].Undecided))
	}
	left, err := src.Trampolines(t.Context())
	qt.Assert(t, qt.IsNil(err))
	for _, tr := range left {
		qt.Check(t, qt.IsFalse(strings.Contains(tr.Target.Name, "ksleuth")), qt.Commentf("%s is left", tr.Name))
	}
}

// TestRunningKernelUndecided: without memory it is not known, and said to be.
func TestRunningKernelUndecided(t *testing.T) {
	guest(t)
	src := running(t)
	p := load(t, xdp(), function{"main_prog", true, calls("stub")}, function{"stub", false, tailCalls(progArray(t), 33)})
	funcs := functionsOf(t, src, p)
	for _, f := range funcs {
		f.Prog.TailCall = nil // memory alone tells
	}
	ws, err := guard.Check(t.Context(), bpfview.Source{Running: true}, funcs, guard.Options{Sample: -1})
	qt.Check(t, qt.ErrorIs(err, bpfview.ErrNoMemory))
	qt.Assert(t, qt.DeepEquals(summary(ws), []string{"stub: refuse tailcall-trampoline"}))
	qt.Check(t, qt.IsTrue(ws[0].Undecided))
	qt.Check(t, qt.StringContains(ws[0].Title, "cannot be told here, because "+bpfview.ErrNoMemory.Error()))
}

// TestRunningKernelLossIsReal has the kernel itself show what the guard says:
// a chain of tail calls ends after 33 where trampolines keep the count, and
// never where programs at the entry reset it.
func TestRunningKernelLossIsReal(t *testing.T) {
	affected := slices.Contains(losing, guest(t))
	const stop = 100 // no chain gets longer than this, whatever the kernel does
	array := progArray(t)
	rounds := newMap(t, ebpf.MapSpec{Name: "rounds", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	body := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, rounds.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.JGT.Imm(asm.R1, stop, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Call.Label("stub"),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("out"),
		asm.Return(),
	}
	p := load(t, xdp(), function{"main_prog", true, body}, function{"stub", false, tailCalls(array, 33)})
	qt.Assert(t, qt.IsNil(array.Put(uint32(0), p)))
	defer array.Delete(uint32(0)) // the two keep each other
	count := func() (n uint64) {
		qt.Assert(t, qt.IsNil(rounds.Put(uint32(0), uint64(0))))
		run(t, p, 1)
		qt.Assert(t, qt.IsNil(rounds.Lookup(uint32(0), &n)))
		return n
	}
	untraced := count()
	qt.Assert(t, qt.IsTrue(untraced < 40), qt.Commentf("%d", untraced))
	_, err := attach(t, p, "stub", ebpf.AttachTraceFEntry)
	qt.Assert(t, qt.IsNil(err))
	want := untraced
	if affected {
		want = stop + 1
	}
	qt.Check(t, qt.Equals(count(), want))
}

// TestRunningKernelLimit: what the guard calls full, the kernel does.
func TestRunningKernelLimit(t *testing.T) {
	guest(t)
	src := running(t)
	p := load(t, xdp(), function{"crowded", true, returns(2)})
	const most = 100
	n := 0
	var last func()
	for ; n < most; n++ {
		detach, err := attach(t, p, "crowded", ebpf.AttachTraceFEntry)
		if err != nil {
			qt.Assert(t, qt.ErrorIs(err, unix.E2BIG))
			break
		}
		last = detach
		if n == 29 { // far from any limit
			ws := check(t, src, functionsOf(t, src, p), guard.Options{Entry: true})
			qt.Check(t, qt.HasLen(ws, 0))
		}
	}
	t.Logf("%d programs", n)
	funcs := functionsOf(t, src, p)
	ws := check(t, src, funcs, guard.Options{Entry: true})
	qt.Assert(t, qt.DeepEquals(summary(ws), []string{"crowded: unable trampoline-limit"}))
	qt.Check(t, qt.StringContains(ws[0].Title, fmt.Sprintf("%d programs are on its trampoline, of the %d", n, n)))

	last()
	qt.Check(t, qt.HasLen(check(t, src, functionsOf(t, src, p), guard.Options{Entry: true}), 0))
	ws = check(t, src, functionsOf(t, src, p), guard.Options{Entry: true, Exit: true})
	qt.Check(t, qt.DeepEquals(summary(ws), []string{"crowded: unable trampoline-limit"}))
}

// TestRunningKernelTracingProgram: what the kernel says of tracing tracers, the
// guard says before.
func TestRunningKernelTracingProgram(t *testing.T) {
	guest(t)
	src := running(t)
	subject := load(t, xdp(), function{"subject", true, returns(2)})
	tracer := load(t, ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTarget: subject, AttachTo: "subject"}, function{"tracer", true, returns(0)})
	nested, nestedErr := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "nested", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTarget: tracer, AttachTo: "tracer",
		License: "GPL", Instructions: returns(0),
	})
	if nestedErr == nil {
		nested.Close()
	}
	ws := check(t, src, functionsOf(t, src, tracer, subject), guard.Options{})
	want := []string{}
	if nestedErr != nil {
		want = []string{"tracer: unable tracing-prog"}
		t.Log(evidence(ws[0]))
	}
	qt.Check(t, qt.DeepEquals(summary(ws), want), qt.Commentf("the kernel: %v", nestedErr))
}

// TestRunningKernelReplaced: a function that is replaced cannot be traced.
func TestRunningKernelReplaced(t *testing.T) {
	guest(t)
	src := running(t)
	p := load(t, xdp(), function{"main_prog", true, calls("module1")}, function{"module1", true, returns(1)})
	ext := load(t, ebpf.ProgramSpec{Type: ebpf.Extension, AttachTarget: p, AttachTo: "module1"}, function{"fw_mod", true, returns(2)})
	l, err := link.AttachFreplace(p, "module1", ext)
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	qt.Assert(t, qt.Equals(run(t, p, 1), 2))
	ws := check(t, src, functionsOf(t, src, p, ext), guard.Options{})
	qt.Assert(t, qt.DeepEquals(summary(ws), []string{"module1: unable replaced"}))
	qt.Check(t, qt.StringContains(ws[0].Remedy, fmt.Sprintf("prog:%d", idOf(t, ext))))
	_, err = attach(t, p, "module1", ebpf.AttachTraceFExit)
	qt.Check(t, qt.ErrorIs(err, unix.EBUSY))
	_, err = attach(t, ext, "fw_mod", ebpf.AttachTraceFExit)
	qt.Check(t, qt.IsNil(err))
}

// TestRunningKernelRate: how often a program runs is counted, and only then.
func TestRunningKernelRate(t *testing.T) {
	guest(t)
	src := running(t)
	busy := load(t, xdp(), function{"busy", true, returns(2)})
	idle := load(t, xdp(), function{"idle", true, returns(2)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = busy.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: 500})
		}
	}()
	funcs := functionsOf(t, src, busy, idle)
	o := guard.Options{Sample: 300 * time.Millisecond, CallCost: time.Microsecond}
	ws, err := guard.Check(t.Context(), src, funcs, o)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(summary(ws), []string{"busy: costly rate"}))
	t.Log(ws[0].Title)
	qt.Check(t, qt.IsTrue(ws[0].CallsPerSecond > 1000))
	o.MaxRate = 1e12
	ws, err = guard.Check(t.Context(), src, funcs, o)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(ws, 0))
	stop()
	<-done
	before, err := busy.Stats()
	qt.Assert(t, qt.IsNil(err))
	run(t, busy, 100)
	after, err := busy.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(after.RunCount, before.RunCount), qt.Commentf("statistics are still on"))
}

// TestRunningKernelFunctions: what the guard says of functions of the kernel,
// the kernel says when a program is attached, and of the others it does not.
func TestRunningKernelFunctions(t *testing.T) {
	guest(t)
	src := running(t)
	names := []string{
		"migrate_disable", "migrate_enable", "rcu_read_unlock_strict", "preempt_count_add", "preempt_count_sub", "__rcu_read_lock",
		"do_exit", "do_group_exit", "__x64_sys_exit", "__x64_sys_exit_group", "make_task_dead", "panic",
		"bpf_fentry_test1", "__x64_sys_getpgid", "vfs_read", "ip_rcv", "memcpy", "exc_page_fault",
	}
	types, err := src.Kernel.Types()
	qt.Assert(t, qt.IsNil(err))
	n := 0
	for typ := range types.Match(ctype.Func, func([]byte) bool { n++; return n%2000 == 0 }) {
		names = append(names, typ.Name())
	}
	slices.Sort(names)
	funcs := kernelFuncs(t, src, slices.Compact(names)...)
	said := make(map[string]guard.Warning)
	for part := range slices.Chunk(funcs, 30) { // so that each is tried
		for _, w := range check(t, src, part, guard.Options{Exit: true}) {
			said[w.Function] = w
		}
	}
	agree := 0
	for _, f := range funcs {
		if f.Refused != nil {
			continue
		}
		w, warned := said[f.Name]
		if warned && w.ID == guard.Noreturn && strings.Contains(evidence(w), "blocks of its code") {
			t.Logf("%s: %s: %s", f.Name, w.ID, evidence(w))
			continue // this kernel would let it be attached
		}
		if warned && strings.Contains(w.Title, "hang the machine") {
			t.Logf("%s: %s: %s", f.Name, w.ID, evidence(w))
			continue // and it would
		}
		if strings.Contains(f.Name, "rcu_read_") && !warned {
			t.Fatal("not to be tried")
		}
		err := attachKernel(f.Name)
		switch {
		case warned != (err != nil):
			t.Errorf("%s: the guard says %+v, the kernel %v", f.Name, w, err)
		case warned:
			t.Logf("%s: %s: %s and %v", f.Name, w.ID, evidence(w), err)
		}
		agree++
	}
	t.Logf("%d functions, %d of them attached to", len(funcs), agree)
	if w, ok := said["__x64_sys_exit"]; qt.Check(t, qt.IsTrue(ok)) {
		qt.Check(t, qt.Equals(w.ID, guard.Noreturn))
	}
}

func attachKernel(name string) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tracer", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: name, License: "GPL", Instructions: returns(0),
	})
	if err != nil {
		return err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err == nil {
		err = l.Close()
	}
	return errors.Join(err, p.Close())
}
