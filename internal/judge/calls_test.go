package judge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/rerun"
)

// leastPure is how many functions of each kernel must agree that change no
// memory, not even what they were given.
const leastPure = 100

// otherwise are the functions that do not agree, and why. One that agrees must
// not be here.
var otherwise = map[string]string{
	"ksize": "a stand-in answers, which knows only what the run itself allocated",
}

// TestCalls runs functions of the kernel again that the guest called just
// before the dump, with the same arguments, and compares what they return and
// what they leave in the memory that was made for them.
func TestCalls(t *testing.T) {
	for _, kernel := range []string{"5.10", "6.1", "6.12", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			calls := dumptest.Calls(t, kernel)
			k := example.KernelOf(t, dumptest.Get(t, "calls-"+kernel+".kdump"))
			task, err := kobj.FindTask(k, calls[0].PID)
			qt.Assert(t, qt.IsNil(err))
			s, err := rerun.New(k, rerun.Options{CPU: calls[0].CPU, Task: uint64(task.Addr)})
			qt.Assert(t, qt.IsNil(err))
			addrs, impure, differ := map[string]uint64{}, map[string]bool{}, map[string]bool{}
			for _, c := range calls {
				if addrs[c.Func] == 0 {
					fn, err := k.Find(c.Func)
					qt.Assert(t, qt.IsNil(err))
					addrs[c.Func] = fn.Addr
				}
				changed, err := again(t.Context(), s, addrs[c.Func], c)
				impure[c.Func] = impure[c.Func] || changed
				if err == nil {
					continue
				}
				differ[c.Func], impure[c.Func] = true, true
				if otherwise[c.Func] == "" {
					t.Errorf("%s: %v", c.Text, err)
				}
			}
			pure := 0
			for name := range addrs {
				if !impure[name] {
					pure++
				}
			}
			t.Logf("%d calls of %d functions: %d agree, of which %d change nothing", len(calls), len(addrs), len(addrs)-len(differ), pure)
			qt.Check(t, qt.IsTrue(pure >= leastPure))
			for name := range otherwise {
				qt.Check(t, qt.IsTrue(differ[name]), qt.Commentf("%s agrees", name))
			}
		})
	}
}

// again makes one call, of the function at addr, on the dump. The error says what
// is not as it was in the guest; changed is whether the function changed memory
// at all, or is not what ran: a stand-in did.
func again(ctx context.Context, s *rerun.Session, addr uint64, c callgate.Record) (changed bool, err error) {
	target := &rerun.Target{Call: c.Text, Name: c.Func, Addr: addr}
	for _, a := range c.Args {
		target.Values = append(target.Values, number(a))
	}
	var given error
	r, err := s.Run(ctx, target, func(m *emulate.Machine) {
		for _, b := range c.Buffers {
			given = errors.Join(given, m.Mem.WriteMem(unhex(b.Before), number(b.Addr)))
		}
	})
	if err := errors.Join(err, given); err != nil {
		return false, err
	}
	if r.Stop.Outcome != emulate.Returned {
		return false, errors.New(r.StopText())
	}
	unused := 64 - 8*c.RetSize
	if got, want := r.Machine.GP[emulate.RAX]<<unused>>unused, number(c.Ret)<<unused>>unused; got != want {
		return false, fmt.Errorf("returns %#x, in the guest %#x", got, want)
	}
	for _, b := range c.Buffers {
		want := unhex(b.After)
		got := make([]byte, len(want))
		if err := r.Machine.Mem.ReadMem(got, number(b.Addr)); err != nil {
			return false, err
		}
		if !bytes.Equal(got, want) {
			return false, fmt.Errorf("leaves %x in the memory of argument %d, in the guest %x", got, b.Arg+1, want)
		}
		changed = changed || b.After != b.Before
	}
	// The dump's buffers are as the guest's call left them.
	changed = changed || len(s.Changes(target, r)) > 0
	return changed || slices.ContainsFunc(r.Uses, func(u rerun.Use) bool { return u.Name == c.Func }), nil
}

// number parses a number of a record. One that is none gives 0, and a call that
// does not agree.
func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 0, 64)
	return n
}

func unhex(s string) (b []byte) {
	_, _ = fmt.Sscanf(s, "%x", &b)
	return b
}

// TestProcValues runs functions on dumps of idle guests, whose answers the guest
// told in /proc just before.
func TestProcValues(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			s, err := rerun.New(example.KernelOf(t, dumptest.Get(t, scene+".kdump")), rerun.Options{})
			qt.Assert(t, qt.IsNil(err))
			for call, want := range procValues(t, scene) {
				target, err := s.Parse(t.Context(), call)
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", call))
				r, err := s.Run(t.Context(), target, nil)
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", call))
				qt.Check(t, qt.Equals(r.Stop.Outcome, emulate.Returned), qt.Commentf("%s: %s", call, r.StopText()))
				qt.Check(t, qt.Equals(uint64(s.Emulation(target, r).Return), want), qt.Commentf("%s", call))
			}
		})
	}
}

// procValues are calls with what /proc says they return.
func procValues(t *testing.T, scene string) map[string]uint64 {
	t.Helper()
	read := func(ext string) string {
		b, err := os.ReadFile(dumptest.Get(t, scene+ext))
		qt.Assert(t, qt.IsNil(err))
		return string(b)
	}
	calls := map[string]uint64{}
	known := map[string]bool{"_stext": true, "init_task": true, "tcp_v4_rcv": true}
	for _, symbol := range dumptest.Kallsyms(t, scene) {
		if known[symbol.Name] {
			calls[fmt.Sprintf("kallsyms_lookup_name(%q)", symbol.Name)] = symbol.Addr
		}
	}
	for line := range strings.Lines(read(".ps")) {
		pid, err := strconv.ParseUint(strings.Fields(line)[0], 10, 64)
		qt.Assert(t, qt.IsNil(err))
		calls[fmt.Sprintf("__task_pid_nr_ns(task(%d), 0, &init_pid_ns)", pid)] = pid
	}
	_, limit, _ := strings.Cut(read(".meminfo"), "CommitLimit:")
	kib, err := strconv.ParseUint(strings.Fields(limit)[0], 10, 64)
	qt.Assert(t, qt.IsNil(err))
	calls["vm_commit_limit()"] = kib / 4
	qt.Assert(t, qt.IsTrue(len(calls) > len(known)+20))
	return calls
}
