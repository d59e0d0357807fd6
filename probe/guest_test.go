package probe_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/probe"
)

// TestRunningKernelCalls: each call is told once, with what it was called with
// and what came back.
func TestRunningKernelCalls(t *testing.T) {
	types := needTracing(t)
	const calls = 1000
	for _, m := range []probe.Mechanism{probe.Trampoline, probe.KprobeMulti, probe.FSession} {
		for _, look := range []struct {
			name        string
			entry, exit bool
		}{{"both", true, true}, {"exit", false, true}, {"entry", true, false}} {
			t.Run(string(m)+"/"+look.name, func(t *testing.T) {
				if err := probe.Supports(m); err != nil {
					t.Skip(err)
				}
				c := start(t, "call")
				s := attach(t, probe.Config{Points: []probe.Point{
					{Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: m, Entry: look.entry, Exit: look.exit},
				}, PID: c.Process.Pid})
				c.call(t, calls)
				events := rest(t, s)
				qt.Assert(t, qt.Equals(len(events), calls))
				qt.Assert(t, qt.HasLen(s.Lost(), 0))
				last := uint64(0)
				for i, e := range events {
					qt.Assert(t, qt.Equals(e.PID, c.Process.Pid))
					qt.Assert(t, qt.Equals(e.Point, 0))
					qt.Assert(t, qt.IsTrue(e.End > last), qt.Commentf("event %d", i))
					qt.Assert(t, qt.Not(qt.Equals(e.Comm, "")))
					last = e.End
					if m == probe.KprobeMulti && !look.entry {
						qt.Assert(t, qt.HasLen(e.Args, 0))
					} else {
						qt.Assert(t, qt.HasLen(e.Args, 1))
						qt.Assert(t, qt.IsTrue(int64(e.Args[0]) < 0), qt.Commentf("%x is no address of the kernel", e.Args[0]))
					}
					qt.Assert(t, qt.Equals(e.Start != 0, look.entry && look.exit), qt.Commentf("event %d", i))
					if e.Start != 0 {
						qt.Assert(t, qt.IsTrue(e.Start <= e.End))
					}
					if !look.exit {
						qt.Assert(t, qt.Equals(e.Kind, probe.Entered))
						continue
					}
					qt.Assert(t, qt.Equals(e.Kind, probe.Returned))
					switch want, err := getpgid(i); { // other processes come and go
					case i == 1, i == os.Getpid(), i == c.Process.Pid:
						qt.Assert(t, qt.IsNil(err))
						qt.Assert(t, qt.Equals(int(e.Ret), want))
					case i > 0:
						qt.Assert(t, qt.IsTrue(int64(e.Ret) >= -3), qt.Commentf("%d", int64(e.Ret))) // -ESRCH
					}
				}
			})
		}
	}
}

// Offsets in struct pt_regs, and the slots of these tests.
const (
	regDI    = 112
	slotPID  = 0
	slotBack = 16
	allSlots = 32
)

// loadPID loads the argument of getpgid, a member of struct pt_regs, into R6.
func loadPID() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R7, asm.R1),
		asm.Mov.Reg(asm.R8, asm.R2),
		asm.LoadMem(asm.R3, asm.R1, probe.CallArgs, asm.DWord),
		asm.Add.Imm(asm.R3, regDI),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 8),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(asm.R6, asm.RFP, -8, asm.DWord),
	}
}

// oddPID wants calls with odd arguments; showPID shows the argument.
func oddPID() asm.Instructions {
	return append(loadPID(), asm.Mov.Reg(asm.R0, asm.R6), asm.And.Imm(asm.R0, 1), asm.Return())
}

func showPID() asm.Instructions {
	return append(loadPID(),
		asm.Mov.Imm(asm.R0, 0),
		asm.StoreMem(asm.R8, slotPID, asm.R0, asm.DWord),
		asm.StoreMem(asm.R8, slotPID+8, asm.R6, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, probe.CallFaults, asm.Word), // one more
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, probe.CallFaults, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// smallPID wants what showPID left to be below 100; with showRet.
func smallPID() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R2, slotPID+8, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.JGE.Imm(asm.R1, 100, "no"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return().WithSymbol("no"),
	}
}

func showRet() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R0, 0),
		asm.StoreMem(asm.R2, slotBack, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, probe.CallRet, asm.DWord),
		asm.StoreMem(asm.R2, slotBack+8, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}
}

func word(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

// TestRunningKernelFilters: generated code decides and shows.
func TestRunningKernelFilters(t *testing.T) {
	types := needTracing(t)
	for _, m := range []probe.Mechanism{probe.Trampoline, probe.FSession, probe.KprobeMulti} {
		t.Run(string(m), func(t *testing.T) {
			if err := probe.Supports(m); err != nil {
				t.Skip(err)
			}
			c := start(t, "call")
			s := attach(t, probe.Config{Points: []probe.Point{{
				Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: m, Entry: true, Exit: true,
				Filter: oddPID(), Show: showPID(), ExitFilter: smallPID(), ExitShow: showRet(), SlotBytes: allSlots,
			}}, PID: c.Process.Pid})
			c.call(t, 300)
			events := rest(t, s)
			qt.Assert(t, qt.HasLen(events, 50))
			for i, e := range events {
				qt.Assert(t, qt.Equals(word(e.Slots, slotPID), 0))
				qt.Assert(t, qt.Equals(word(e.Slots, slotPID+8), uint64(2*i+1)))
				qt.Assert(t, qt.Equals(word(e.Slots, slotBack+8), e.Ret))
				qt.Assert(t, qt.Equals(e.Faults, 1))
			}
		})
	}
	t.Run("exit only", func(t *testing.T) {
		c := start(t, "call")
		s := attach(t, probe.Config{Points: []probe.Point{{
			Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: probe.Trampoline, Exit: true,
			ExitFilter: oddPID(), ExitShow: showPID(), SlotBytes: allSlots,
		}}, PID: c.Process.Pid})
		c.call(t, 300)
		events := rest(t, s)
		qt.Assert(t, qt.HasLen(events, 150))
		for i, e := range events {
			qt.Assert(t, qt.Equals(word(e.Slots, slotPID+8), uint64(2*i+1)))
		}
	})
}

// TestRunningKernelConditions: of tasks.
func TestRunningKernelConditions(t *testing.T) {
	types := needTracing(t)
	f := mustFunction(t, types, "__x64_sys_getpgid")
	c := start(t, "call")
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c.Process.Pid))
	qt.Assert(t, qt.IsNil(err))
	comm := strings.TrimSpace(string(name))
	var net unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid), &net)))
	for name, tt := range map[string]struct {
		cfg  probe.Config
		want int
	}{
		"comm":          {probe.Config{Comm: comm}, 20},
		"other comm":    {probe.Config{Comm: comm + "x"}, 0},
		"netns":         {probe.Config{Netns: uint32(net.Ino)}, 20},
		"other netns":   {probe.Config{Netns: uint32(net.Ino) + 1}, 0},
		"other process": {probe.Config{PID: 1 << 21}, 0},
		"other cgroup":  {probe.Config{Cgroup: 1 << 40}, 0},
		"long ones":     {probe.Config{MinDuration: time.Minute}, 0},
		"all":           {probe.Config{MinDuration: 1}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.cfg.PID == 0 && tt.cfg.Comm == "" {
				tt.cfg.PID = c.Process.Pid
			}
			tt.cfg.Points = []probe.Point{{Func: f, Mechanism: probe.Trampoline, Entry: true, Exit: true}}
			s := attach(t, tt.cfg)
			c.call(t, 20)
			qt.Assert(t, qt.HasLen(rest(t, s), tt.want))
		})
	}
}

// TestRunningKernelSelf: the tracer's own calls are left out unless asked for.
func TestRunningKernelSelf(t *testing.T) {
	types := needTracing(t)
	f := mustFunction(t, types, "__x64_sys_getpgid")
	for pid, want := range map[int]int{0: 0, os.Getpid(): 10} {
		s := attach(t, probe.Config{Points: []probe.Point{{Func: f, Mechanism: probe.Trampoline, Exit: true}}, PID: pid})
		for range 10 {
			getpgid(0)
		}
		qt.Assert(t, qt.HasLen(rest(t, s), want))
	}
}

// TestRunningKernelTree: calls know those they were made in.
func TestRunningKernelTree(t *testing.T) {
	types := needTracing(t)
	for _, m := range []probe.Mechanism{probe.Trampoline, probe.FSession, probe.KprobeMulti} {
		t.Run(string(m), func(t *testing.T) {
			if err := probe.Supports(m); err != nil {
				t.Skip(err)
			}
			c := start(t, "call")
			s := attach(t, probe.Config{Points: []probe.Point{
				{Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: m, Entry: true, Exit: true},
				{Func: mustFunction(t, types, "find_task_by_vpid"), Mechanism: m, Entry: true, Exit: true},
			}, PID: c.Process.Pid, Tree: true, Stack: 20})
			c.call(t, 100)
			events := rest(t, s)
			var inner []probe.Event
			outer, nested := 0, 0
			for _, e := range events {
				if e.Point == 1 {
					inner = append(inner, e)
					continue
				}
				outer++
				qt.Assert(t, qt.Equals(e.Parent, probe.CallID{}))
				qt.Assert(t, qt.IsTrue(len(e.Stack) > 2))
				for _, i := range inner {
					if i.TID == e.TID && i.Start > e.Start { // else Go's runtime looked for a thread
						qt.Assert(t, qt.Equals(i.Parent, e.Call))
						nested++
					}
				}
				inner = nil
			}
			qt.Assert(t, qt.Equals(outer, 100))
			cost, err := s.Costs()
			qt.Assert(t, qt.IsNil(err))
			missed := uint64(0) // where the kernel preempts programs
			for _, c := range cost {
				missed += c.Missed
			}
			qt.Assert(t, qt.IsTrue(nested <= 99 && nested+int(missed) >= 99), qt.Commentf("%d nested, %d missed", nested, missed)) // getpgid(0) looks for nothing
			open, err := s.Open()
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(len(open) < 2), qt.Commentf("%v", open))
		})
	}
}

// TestRunningKernelCounts: what is counted in the kernel.
func TestRunningKernelCounts(t *testing.T) {
	types := needTracing(t)
	f := mustFunction(t, types, "__x64_sys_getpgid")
	points := []probe.Point{{Func: f, Mechanism: probe.Trampoline, Exit: true}}
	c := start(t, "call")
	pid := c.Process.Pid

	s := attach(t, probe.Config{Points: points, PID: pid, Mode: probe.Count, Stats: true})
	c.call(t, 1000)
	qt.Assert(t, qt.HasLen(rest(t, s), 0))
	n, err := s.Counts()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(n, []probe.Tally{{Point: 0, N: 1000}}))
	cost, err := s.Costs()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(cost, 1))
	qt.Assert(t, qt.IsTrue(cost[0].Runs >= 1000 && cost[0].Time > 0), qt.Commentf("%+v", cost))

	s = attach(t, probe.Config{Points: points, PID: pid, Mode: probe.Count, ByReturn: true})
	c.call(t, 1000)
	rest(t, s)
	n, err = s.Counts()
	qt.Assert(t, qt.IsNil(err))
	total, none := uint64(0), uint64(0)
	for _, row := range n {
		total += row.N
		if int64(row.Ret) == -3 { // -ESRCH
			none += row.N
		}
	}
	qt.Assert(t, qt.IsTrue(none > 500 && len(n) > 1), qt.Commentf("%v", n))
	qt.Assert(t, qt.Equals(total, 1000))

	points[0].ExitShow, points[0].SlotBytes = showPID(), 16
	s = attach(t, probe.Config{Points: points, PID: pid, Mode: probe.Hist})
	c.call(t, 1000)
	rest(t, s)
	h, err := s.Hists()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(h, 1))
	buckets := [65]uint64{1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 488}
	qt.Assert(t, qt.DeepEquals(h[0].Buckets, buckets))

	s = attach(t, probe.Config{Points: []probe.Point{{Func: f, Mechanism: probe.Trampoline, Entry: true, Exit: true}}, PID: pid, Mode: probe.Hist})
	c.call(t, 1000)
	rest(t, s)
	h, err = s.Hists()
	qt.Assert(t, qt.IsNil(err))
	total = 0
	for _, n := range h[0].Buckets {
		total += n
	}
	qt.Assert(t, qt.Equals(total, 1000))
}

// TestRunningKernelUnfinished: calls that do not return are told, up to as many
// as there is room for.
func TestRunningKernelUnfinished(t *testing.T) {
	types := needTracing(t)
	f := mustFunction(t, types, "do_sys_poll")
	const sleepers, room = 4, 2
	var children []*child
	pids := make(map[int]bool)
	for range sleepers {
		c := start(t, "sleep")
		children = append(children, c)
		pids[c.Process.Pid] = true
	}
	s := attach(t, probe.Config{Points: []probe.Point{{Func: f, Mechanism: probe.Trampoline, Entry: true, Exit: true}}, Comm: "guest.test", MaxOpen: room / 2, Tree: true})
	for _, c := range children {
		fmt.Fprintln(c.in)
		c.says(t, "sleeping")
	}
	var open []probe.Event
	eventually(t, func() bool {
		var err error
		open, err = s.Open()
		qt.Assert(t, qt.IsNil(err))
		lost := uint64(0)
		for _, l := range s.Lost() {
			lost += l.Open
		}
		return len(open) == room && lost >= sleepers-room
	})
	for _, e := range open {
		qt.Assert(t, qt.Equals(e.Kind, probe.Unfinished))
		qt.Assert(t, qt.IsTrue(pids[e.PID]))
		qt.Assert(t, qt.Not(qt.Equals(e.Start, 0)))
		qt.Assert(t, qt.Equals(e.Comm, "guest.test"))
	}
	qt.Assert(t, qt.IsNil(s.Detach()))
	left, err := s.Open()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(left, open))
}

// eventually waits for a condition.
func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	for range 1000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not come to be")
}

// TestRunningKernelOverflow: what did not fit into the buffer is counted.
func TestRunningKernelOverflow(t *testing.T) {
	types := needTracing(t)
	for _, entry := range []bool{false, true} {
		c := start(t, "call")
		s := attach(t, probe.Config{Points: []probe.Point{
			{Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: probe.Trampoline, Entry: entry, Exit: true},
		}, PID: c.Process.Pid, BufferBytes: os.Getpagesize()})
		const calls = 5000
		c.call(t, calls)
		events := rest(t, s)
		lost := uint64(0)
		for _, l := range s.Lost() {
			lost += l.Buffer
			qt.Assert(t, qt.Equals(l.Open, 0))
		}
		qt.Assert(t, qt.IsTrue(len(events) > 10 && lost > 1000))
		qt.Assert(t, qt.Equals(len(events)+int(lost), calls))
	}
}

// TestRunningKernelPrompt: an event is told at once, a reader that waits is
// woken, and a context ends the waiting.
func TestRunningKernelPrompt(t *testing.T) {
	types := needTracing(t)
	c := start(t, "call")
	s := attach(t, probe.Config{Points: []probe.Point{
		{Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: probe.Trampoline, Entry: true, Exit: true},
	}, PID: c.Process.Pid})
	for range 200 {
		got := make(chan error)
		go func() {
			_, err := s.Read(t.Context())
			got <- err
		}()
		c.call(t, 1)
		qt.Assert(t, qt.IsNil(<-got))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.Read(ctx)
	qt.Assert(t, qt.ErrorIs(err, context.DeadlineExceeded))
	// A burst is read while it comes.
	const burst = 100_000
	done := make(chan int)
	go func() {
		n := 0
		for {
			if _, err := s.Read(t.Context()); err != nil {
				break
			}
			n++
		}
		done <- n
	}()
	c.call(t, burst)
	qt.Assert(t, qt.IsNil(s.Detach()))
	n := <-done
	lost := 0
	for _, l := range s.Lost() {
		lost += int(l.Buffer)
	}
	qt.Assert(t, qt.Equals(n+lost, burst))
}

// none wants no call.
func none() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
}
