package judge

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/trace"
	"github.com/ksleuth/ksleuth/vm"
)

// A traced is what ksleuth said of a run.
type traced struct {
	t        *testing.T
	calls    []*trace.Call
	summary  trace.Summary
	warnings []string // ids
	errs     string
}

// trace has ksleuth trace something while do is done.
func (g *sceneGuest) trace(t *testing.T, do func(), args ...string) *traced {
	t.Helper()
	var out, errs lockedBuffer
	p, err := g.StartProcess(t.Context(), vm.Cmd{Path: guestKsleuth, Args: append([]string{"-o", "json", "trace"}, args...), Stdout: &out, Stderr: &errs})
	qt.Assert(t, qt.IsNil(err))
	ended := make(chan error, 1)
	go func() { ended <- p.Wait(t.Context()) }()
	for !strings.Contains(out.String(), `"type":"begin"`) {
		select {
		case err := <-ended:
			t.Fatalf("trace ended: %v\n%s%s", err, out.String(), errs.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	do()
	qt.Assert(t, qt.IsNil(p.Signal(t.Context(), syscall.SIGINT)))
	err = <-ended
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", errs.String()))
	return parseTraced(t, out.String(), errs.String())
}

func parseTraced(t *testing.T, out, errs string) *traced {
	t.Helper()
	got := &traced{t: t, errs: errs}
	for line := range strings.Lines(out) {
		var l struct {
			Type string
			Data json.RawMessage
		}
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(line), &l)))
		switch l.Type {
		case "call":
			var c trace.Call
			qt.Assert(t, qt.IsNil(json.Unmarshal(l.Data, &c)), qt.Commentf("%s", line))
			got.calls = append(got.calls, &c)
		case "summary":
			qt.Assert(t, qt.IsNil(json.Unmarshal(l.Data, &got.summary)))
		case "warning":
			var w struct{ ID string }
			qt.Assert(t, qt.IsNil(json.Unmarshal(l.Data, &w)))
			got.warnings = append(got.warnings, w.ID)
		}
	}
	return got
}

// path is the call in short, without times: name[tail callees](calls) = value.
func path(c *trace.Call) string {
	s := c.Function
	for _, t := range c.Tail {
		s += ">" + t.Prog.Name
	}
	if c.Refused != nil {
		s += "!"
	}
	if len(c.Calls) > 0 {
		var in []string
		for _, k := range c.Calls {
			in = append(in, path(k))
		}
		s += "(" + strings.Join(in, " ") + ")"
	}
	if c.Return != nil {
		s += "=" + strconv.FormatInt(c.Return.Value, 10)
	}
	return s
}

// TestTraceCaseA: the tree of case A on the four kernels; on 5.10 module3 is
// refused, and with --force 33 is said to be the refused tail call's default.
func TestTraceCaseA(t *testing.T) {
	const n = 3
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, nil)
			g.set("casea", "--percpu")
			run := func() { tell[any](g, "casea", "run", strconv.Itoa(n)) }
			want, warned := "xdp_main(fw_mod=2 module2=2 module3>xdp_mod=2)=2", []string(nil)
			if kernel == "5.10" {
				want, warned = "xdp_main>xdp_mod(fw_mod=2 module2=2)=2", []string{"tailcall-trampoline"}
			}
			got := g.trace(t, run, "prog:xdp_main", "--subprogs")
			qt.Check(t, qt.DeepEquals(got.warnings, warned))
			qt.Assert(t, qt.HasLen(got.calls, n))
			for _, c := range got.calls {
				qt.Check(t, qt.Equals(path(c), want))
			}
			qt.Check(t, qt.HasLen(got.summary.Lost, 0))
			if kernel != "5.10" {
				return
			}
			status, _, errs := g.run(guestKsleuth, "trace", "prog:xdp_main/module3")
			qt.Check(t, qt.Equals(status, cli.StatusFault))
			for _, part := range []string{"refusing to attach to module3", "call __bpf_prog_exit", "rax not restored", "2b5dcb31a19a", "--force"} {
				qt.Check(t, qt.StringContains(errs, part))
			}
			got = g.trace(t, run, "prog:xdp_main", "--subprogs", "--exit-only", "--force")
			qt.Assert(t, qt.HasLen(got.calls, 4*n)) // fw_mod, module2, module3, xdp_main
			for i := range n {
				stub, main := got.calls[4*i+2], got.calls[4*i+3]
				qt.Check(t, qt.Equals(path(stub), "module3!=33"))
				qt.Check(t, qt.Equals(path(main), "xdp_main=33"))
				qt.Check(t, qt.IsTrue(main.Return.Odd))
				qt.Check(t, qt.IsTrue(stub.Refused.Proven))
				qt.Check(t, qt.Matches(stub.Refused.Evidence[0], "the trampoline entered module3 with 0x[0-9a-f]+ in rax, .*"))
			}
		})
	}
}

// TestTraceCaseD: the hierarchy, attributed call by call.
func TestTraceCaseD(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, nil)
			g.set("cased")
			// On 5.10 the subprograms are left out, with --force, too: their
			// tail calls go round, and nothing would end them.
			got := g.trace(t, func() { tell[any](g, "cased", "run", "1") }, "prog:entry", "--subprogs", "--force")
			counted := tell[map[string]int](g, "cased", "counters")
			qt.Assert(t, qt.HasLen(got.calls, 1))
			seen := map[string]int{}
			entered(got.calls[0], seen)
			qt.Check(t, qt.Equals(seen["classifier_0"], counted["count0"]))
			qt.Check(t, qt.Equals(seen["classifier_1"], counted["count1"]))
			qt.Check(t, qt.HasLen(got.summary.Lost, 0))
		})
	}
}

// entered counts the programs that tail calls entered in a call.
func entered(c *trace.Call, n map[string]int) {
	for _, t := range c.Tail {
		n[t.Prog.Name]++
	}
	for _, k := range c.Calls {
		entered(k, n)
	}
}

// returns counts what functions returned in a call.
func returns(c *trace.Call, n map[string]map[string]uint64) {
	if c.Return != nil {
		if n[c.Function] == nil {
			n[c.Function] = map[string]uint64{}
		}
		n[c.Function][strconv.FormatInt(c.Return.Value, 10)]++
	}
	for _, k := range c.Calls {
		returns(k, n)
	}
}

// TestTraceDispatcher traces a dispatcher of ten modules under traffic: every
// verdict is attributed and none is lost, by the counters that the programs
// keep. KSLEUTH_LONG=1 makes it 10,000 packets.
func TestTraceDispatcher(t *testing.T) {
	n := dispatcherPackets()
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, nil)
			g.set("dispatcher")
			made := tell[sceneObjects](g, "dispatcher", "objects")
			got := g.trace(t, func() { tell[arrived](g, "dispatcher", "send", strconv.Itoa(n)) },
				"prog:dispatcher", "--subprogs", "--buffer", "64M", "--show", "*(unsigned int *)(xdp->data + 46)")
			qt.Check(t, qt.HasLen(got.summary.Lost, 0))
			qt.Assert(t, qt.HasLen(got.calls, n))
			seen := map[string]map[string]uint64{}
			tails := map[string]int{}
			for i, c := range got.calls {
				want := dispatched(i, made.Progs)
				qt.Assert(t, qt.Equals(int(c.Return.Value), want.verdict), qt.Commentf("packet %d: %s", i, path(c)))
				returns(c, seen)
				entered(c, tails)
				verdict := c.Calls[len(c.Calls)-1] // the last module decides
				if i%10 != 7 && kernel != "5.10" { // there, stubs that make tail calls are left out
					qt.Assert(t, qt.Equals(int(verdict.Return.Value), want.verdict), qt.Commentf("packet %d: %s", i, path(c)))
					qt.Assert(t, qt.Equals(fmt.Sprint(i%10), strings.TrimLeft(stubOf(verdict), "stub")), qt.Commentf("packet %d: %s", i, path(c)))
				}
			}
			counted := tell[map[string]tally](g, "dispatcher", "counters")
			for name, c := range counted {
				if tails[name] == 0 && seen[name] != nil && len(c.Returned) > 0 { // else another program returned in its place
					qt.Check(t, qt.DeepEquals(seen[name], c.Returned), qt.Commentf(name))
				}
			}
			for name, times := range tails { // tail6_ext of 5.10 counts as what it stands in for
				name = strings.TrimSuffix(name, "_ext")
				qt.Check(t, qt.Equals(uint64(times), counted[name].Entered), qt.Commentf(name))
			}
			qt.Check(t, qt.IsTrue(len(tails) >= 4), qt.Commentf("%v", tails))
			t.Logf("%s: %v", kernel, tails)
		})
	}
}

// stubOf is the module that a call stands for.
func stubOf(c *trace.Call) string {
	if c.Stub != nil {
		return c.Stub.Name
	}
	return c.Function
}
