package render_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/guard"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/trace"
	"github.com/ksleuth/ksleuth/tracee"
)

// A tracing is a session that is made up: functions by name, and their events.
type tracing struct {
	t      *testing.T
	types  *ctype.Types
	d      *trace.Decoder
	points map[string]int
	o      trace.Options
	events []probe.Event
	packet *probe.Packet
	open   []string
	now    uint64
}

// noon is when the sessions take place.
const noon = 1763726467_000000000

func newTracing(t *testing.T) *tracing {
	types, err := example.Kernel(t).Types()
	qt.Assert(t, qt.IsNil(err))
	tr := &tracing{t: t, types: types, points: map[string]int{}, o: trace.Options{Tree: true}, now: 114_000_000}
	tr.d = &trace.Decoder{Wall: noon, Iface: func(uint32, int) string { return "eth0" },
		Symbol: func(a uint64) (string, uint64, bool) { return "netif_receive_skb", a & 0xfff, a>>24 == 0xffffffff81 }}
	tcp := []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00\x00\x54\x00\x00\x00\x00\x40\x06\x00\x00\x0a\x00\x00\x02\x0a\x00\x00\x01" +
		"\xad\x16\x01\xbb\x00\x00\x00\x00\x00\x00\x00\x00\x50\x18\x00\x00\x00\x00\x00\x00")
	tr.packet = &probe.Packet{Len: 98, Data: tcp, Ifindex: 2, Netns: 4026531840}
	return tr
}

func (tr *tracing) proto(c string) *ctype.Type {
	result, rest, _ := strings.Cut(c, "(")
	typ := func(s string) *ctype.Type {
		x, err := tr.types.ParseType(s)
		qt.Assert(tr.t, qt.IsNil(err))
		return x
	}
	var params []ctype.Param
	for p := range strings.SplitSeq(strings.TrimSuffix(rest, ")"), ",") {
		i := strings.LastIndexAny(p, " *")
		params = append(params, ctype.Param{Name: p[i+1:], Type: typ(strings.TrimSpace(p[:i+1]))})
	}
	return ctype.FuncOf(typ(result), params)
}

// add adds a function: kind, name, prototype and the program it is of.
func (tr *tracing) add(kind tracee.Kind, name, proto string, prog *bpf.Program) *trace.Point {
	f := &tracee.Function{Kind: kind, Name: name, Types: tr.types, Proto: tr.proto(proto), Prog: prog}
	p := trace.Point{Func: f}
	if prog != nil && strings.Contains(proto, "struct xdp_md *ctx") {
		p.Packet, p.Type = probe.XDPBuff, "xdp"
	}
	tr.points[name] = len(tr.d.Points)
	tr.d.Points = append(tr.d.Points, p)
	return &tr.d.Points[len(tr.d.Points)-1]
}

const xdpProto = "int(struct xdp_md *ctx)"

// xdp adds functions of XDP programs, of which the first is a main function.
func (tr *tracing) xdp(main string, subs ...string) {
	prog := &bpf.Program{ID: 10 + len(tr.d.Points), Name: main, Type: "xdp", Tag: "a04f5eef06a7f555"}
	tr.add(tracee.Program, main, xdpProto, prog)
	for _, s := range subs {
		tr.add(tracee.Subprogram, s, xdpProto, prog)
	}
}

func (tr *tracing) point(name string) *trace.Point { return &tr.d.Points[tr.points[name]] }

func (tr *tracing) jump(index int, prog string) trace.Jump {
	p := tr.point(prog).Func.Prog
	return trace.Jump{Map: "prog_array", MapID: 5, Index: index, Prog: &trace.Program{ID: p.ID, Name: p.Name}, Watched: true}
}

// call makes up a call of ns nanoseconds, and in it what body does.
func (tr *tracing) call(name string, ns, ret uint64, body func()) {
	tr.callArgs(name, ns, ret, []uint64{0xffffc90000003d20}, body)
}

func (tr *tracing) callArgs(name string, ns, ret uint64, args []uint64, body func()) {
	start := tr.now
	e := probe.Event{Kind: probe.Returned, Point: tr.points[name], Start: start, Args: args, Ret: ret, CPU: 0, PID: 812, TID: 812, Comm: "curl", Packet: tr.packet}
	if tr.point(name).Packet == probe.NoPacket {
		e.Packet = nil
	}
	e.Call = probe.CallID{Frame: 1<<40 - start, Start: start}
	if n := len(tr.open); n > 0 {
		fmt.Sscan(tr.open[n-1], &e.Parent.Frame, &e.Parent.Start)
	}
	tr.open = append(tr.open, fmt.Sprint(e.Call.Frame, e.Call.Start))
	tr.now += 100
	if body != nil {
		body()
	}
	tr.open = tr.open[:len(tr.open)-1]
	tr.now = max(tr.now, start+ns)
	e.End = tr.now
	if ns > 0 {
		e.End = start + ns
	}
	tr.events = append(tr.events, e)
	tr.now += 10
}

// enter makes up a program that is entered by a tail call.
func (tr *tracing) enter(name string, rax uint64) {
	e := probe.Event{Kind: probe.Entered, Point: tr.points[name], Start: tr.now, End: tr.now, RAX: rax, PID: 812, TID: 812, Comm: "curl"}
	if n := len(tr.open); n > 0 {
		fmt.Sscan(tr.open[n-1], &e.Parent.Frame, &e.Parent.Start)
	}
	tr.events = append(tr.events, e)
	tr.now += 10
}

// text is what a session prints.
func (tr *tracing) text(o render.TraceOptions) string {
	o.Zone = time.UTC
	a := trace.NewAssembler(tr.d, tr.o)
	var calls []*trace.Call
	for i := range tr.events {
		calls = append(calls, a.Add(&tr.events[i])...)
	}
	var out string
	for _, c := range calls {
		s := printed(render.Options{}, func(p *render.Printer) { p.TraceCall(c, o) })
		colour := printed(render.Options{Color: true}, func(p *render.Printer) { p.TraceCall(c, o) })
		qt.Check(tr.t, qt.Equals(plain(colour), s)) // in colour it is the same text
		out += s
		_, err := json.Marshal(c)
		qt.Check(tr.t, qt.IsNil(err))
	}
	for _, l := range strings.Split(out, "\n") {
		qt.Check(tr.t, qt.IsTrue(lipgloss.Width(l) <= render.Width), qt.Commentf("%s", l))
	}
	return out
}

// plain takes the colours away.
func plain(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return b.String() + s
		}
		b.WriteString(s[:i])
		_, s, _ = strings.Cut(s[i:], "m")
	}
}

// modules is case A: a program whose module3 is answered by xdp_mod.
func modules(t *testing.T) *tracing {
	tr := newTracing(t)
	tr.xdp("xdp_main", "module2", "module3")
	ext := tr.add(tracee.Extension, "fw_mod", xdpProto, &bpf.Program{ID: 31, Name: "fw_mod", Type: "ext"})
	ext.Func.Stub = &tracee.Stub{ProgID: 10, ProgName: "xdp_main", Func: "module1"}
	tr.xdp("xdp_mod")
	tr.point("module3").Jumps = &trace.Jumps{To: []trace.Jump{tr.jump(3, "xdp_mod")}, Always: true}
	return tr
}

// TestTraceTree: what sessions look like.
func TestTraceTree(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(t *testing.T) *tracing
	}{
		{"modules", func(t *testing.T) *tracing {
			tr := modules(t)
			tr.call("xdp_main", 4200, 2, func() {
				tr.call("fw_mod", 1900, 2, nil)
				tr.call("module2", 350, 255, nil)
				tr.call("module3", 2100, 2, func() { tr.enter("xdp_mod", 1) })
			})
			return tr
		}},
		{"forced", func(t *testing.T) *tracing { // with only an fexit on 5.10
			tr := modules(t)
			tr.o.Why = func(*trace.Call, *trace.Point) *trace.Refusal {
				return &trace.Refusal{Evidence: []string{
					"this kernel's trampoline does not restore rax: bpf_trampoline_6442536467+0x20 call module3+0x5",
					"rax held a percpu pointer, whose upper half is above 32",
				}}
			}
			tr.call("xdp_main", 14200, 33, func() {
				tr.call("fw_mod", 1900, 2, nil)
				tr.call("module3", 12100, 33, nil)
			})
			return tr
		}},
		{"untraced_stub", func(t *testing.T) *tracing { // module3 itself is not traced
			tr := modules(t)
			tr.point("xdp_main").Jumps = &trace.Jumps{Inner: []trace.Inner{{Function: "module3", To: []trace.Jump{tr.jump(3, "xdp_mod")}}}}
			tr.call("xdp_main", 4200, 2, func() {
				tr.call("fw_mod", 1900, 2, nil)
				tr.enter("xdp_mod", 1)
			})
			return tr
		}},
		{"unwatched", func(t *testing.T) *tracing {
			tr := modules(t)
			tr.point("module3").Jumps.To[0].Watched = false
			tr.call("xdp_main", 4200, 2, func() { tr.call("module3", 2100, 2, nil) })
			return tr
		}},
		{"dispatcher", func(t *testing.T) *tracing { // stubs, extensions and tail calls, two deep
			tr := modules(t)
			tr.xdp("xdp_route", "lookup")
			tr.xdp("xdp_nat")
			tr.point("fw_mod").Jumps = &trace.Jumps{To: []trace.Jump{tr.jump(7, "xdp_route")}}
			tr.point("lookup").Jumps = &trace.Jumps{To: []trace.Jump{tr.jump(8, "xdp_nat"), tr.jump(9, "xdp_mod")}}
			tr.point("xdp_nat").Jumps = &trace.Jumps{To: []trace.Jump{tr.jump(3, "xdp_mod")}, Always: true}
			tr.call("xdp_main", 9800, 2, func() {
				tr.call("fw_mod", 7000, 2, func() {
					tr.enter("xdp_route", 1)
					tr.call("lookup", 3100, 2, func() {
						tr.enter("xdp_nat", 2)
						tr.enter("xdp_mod", 3)
					})
					tr.call("lookup", 410, 1, nil)
				})
				tr.call("module3", 2100, 2, func() { tr.enter("xdp_mod", 1) })
			})
			return tr
		}},
		{"hierarchy", func(t *testing.T) *tracing { // case D, by value
			tr := newTracing(t)
			tr.xdp("entry", "subprog_a", "subprog_b")
			tr.xdp("classifier_0")
			tr.xdp("classifier_1")
			for i, s := range []string{"subprog_a", "subprog_b"} {
				tr.point(s).Jumps = &trace.Jumps{To: []trace.Jump{tr.jump(i, fmt.Sprint("classifier_", i))}, Always: true}
			}
			var chain func(i, n int)
			chain = func(i, n int) {
				tr.call([]string{"subprog_a", "subprog_b"}[i], 0, 0, func() {
					if n <= 33 {
						tr.enter(fmt.Sprint("classifier_", i), uint64(n))
						chain(i, n+1)
					}
				})
			}
			tr.call("entry", 0, 1, func() { chain(0, 1); chain(1, 1) })
			return tr
		}},
		{"functions", func(t *testing.T) *tracing {
			tr := newTracing(t)
			tr.add(tracee.Kernel, "vfs_read", "long(struct file *file, char *buf, size_t count, s64 *pos)", nil)
			tr.add(tracee.Kernel, "security_file_permission", "int(struct file *file, int mask)", nil)
			tr.add(tracee.Kernel, "fget", "struct file *(unsigned int fd)", nil)
			tr.add(tracee.Kernel, "kfree", "void(void *p)", nil)
			tr.add(tracee.Tracepoint, "kmem/kfree", "void(unsigned long site, void *ptr)", nil)
			tr.add(tracee.Kernel, "nf_conntrack_in", "unsigned int(struct sk_buff *skb)", nil).Func.Module = "nf_conntrack"
			tr.point("vfs_read").Values = func([]byte) []trace.Value {
				return []trace.Value{{Expr: "file->f_mode", Text: "29"}, {Expr: "file->f_path.dentry->d_name.name", Text: `"passwd"`},
					{Expr: "*pos", Error: "bad address"}, {Expr: "*file->f_op", Text: "(struct file_operations){\n\t.owner = 0x0,\n}"}}
			}
			tr.callArgs("vfs_read", 1_234_567, ^uint64(0)-10, []uint64{0xffff888003a01000, 0x7ffd00001000, 4096, 0xffffc90000003ef0}, func() {
				tr.callArgs("security_file_permission", 700, 0, []uint64{0xffff888003a01000, 4}, nil)
			})
			tr.callArgs("fget", 65, ^uint64(0)-8, []uint64{7}, nil)
			tr.callArgs("kfree", 80, 0, []uint64{0xffff888003a01000}, func() {
				tr.events = append(tr.events, probe.Event{Kind: probe.Fired, Point: tr.points["kmem/kfree"], Start: tr.now, End: tr.now,
					Parent: probe.CallID{Frame: 1<<40 - tr.now + 100, Start: tr.now - 100}, Args: []uint64{0xffffffff81000000, 0xffff888003a01000}})
			})
			tr.callArgs("nf_conntrack_in", 2_500_000_000, 1, []uint64{0xffff888003a01000}, nil)
			for i := range tr.events {
				tr.events[i].Stack = nil
			}
			tr.events[len(tr.events)-1].Stack = []uint64{0xffffffff81000123, 0x1000}
			return tr
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := tc.make(t)
			golden(t, "trace_"+tc.name+".txt", tr.text(render.TraceOptions{}))
		})
	}
}

// TestTraceFlat: one line for each call.
func TestTraceFlat(t *testing.T) {
	tr := modules(t)
	tr.o.Tree = false
	tr.call("xdp_main", 4200, 33, func() {
		tr.call("fw_mod", 1900, 2, nil)
		tr.call("module3", 2100, 33, func() { tr.enter("xdp_mod", 1) })
	})
	tr.add(tracee.Kernel, "security_file_permission", "int(struct file *file, int mask)", nil)
	tr.callArgs("security_file_permission", 700, ^uint64(0), []uint64{0xffff888003a01000, 4}, nil)
	tr.point("security_file_permission").Values = func([]byte) []trace.Value {
		return []trace.Value{{Expr: "mask", Text: "4"}}
	}
	golden(t, "trace_flat.txt", tr.text(render.TraceOptions{Flat: true}))
}

// TestTraceUnfinished: what had not returned when observation ended.
func TestTraceUnfinished(t *testing.T) {
	tr := modules(t)
	tr.call("xdp_main", 4200, 2, func() {
		tr.call("fw_mod", 1900, 2, nil)
		tr.call("module3", 0, 2, func() { tr.enter("xdp_mod", 1) })
	})
	a := trace.NewAssembler(tr.d, tr.o)
	var open []probe.Event
	for i := range tr.events {
		switch e := &tr.events[i]; {
		case e.Kind == probe.Returned && e.Point != tr.points["fw_mod"]:
			open = append(open, *e)
		default:
			qt.Check(t, qt.HasLen(a.Add(e), 0))
		}
	}
	calls := a.Flush(open, tr.events[0].Start+1_200_000_000)
	golden(t, "trace_unfinished.txt", printed(render.Options{}, func(p *render.Printer) {
		for _, c := range calls {
			p.TraceCall(c, render.TraceOptions{Zone: time.UTC})
		}
		p.TraceLost(map[int]uint64{0: 12, 3: 1400, 2: 0})
		p.TraceEnd(render.TraceSummary{Calls: 12345, Elapsed: 12 * time.Second, Cost: 310.4, Odd: 2, Refused: 1})
		p.TraceEnd(render.TraceSummary{Calls: 1, Elapsed: 90 * time.Second})
		p.TraceLost(map[int]uint64{0: 0})
	}))
}

// TestTraceTables: counts, histograms and what would be observed.
func TestTraceTables(t *testing.T) {
	tr := modules(t)
	tr.add(tracee.Kernel, "vfs_read", "long(struct file *file)", nil)
	golden(t, "trace_tables.txt", printed(render.Options{}, func(p *render.Printer) {
		p.TraceCounts([]trace.CountRow{
			tr.d.CountRow(tr.points["module3"], true, 33, 7),
			tr.d.CountRow(tr.points["xdp_main"], true, 2, 1_234_567),
			tr.d.CountRow(tr.points["xdp_main"], true, 33, 7),
			tr.d.CountRow(tr.points["vfs_read"], true, ^uint64(0)-10, 12),
		})
		p.Line("")
		p.TraceCounts([]trace.CountRow{tr.d.CountRow(tr.points["vfs_read"], false, 0, 12)})
		p.Line("")
		p.TraceHistogram(tr.d.Histogram(tr.points["vfs_read"], "duration", true, 0, []uint64{0, 0, 0, 0, 0, 0, 0, 12, 1420, 310, 0, 1}, nil))
		p.Line("")
		p.TraceHistogram(tr.d.Histogram(tr.points["vfs_read"], "ret", false, 0, []uint64{5, 3}, []uint64{0, 2, 8}))
		p.Line("")
		p.TracePlan([]render.TracePlanRow{
			{"xdp_main", "program", "fentry/fexit", ""},
			{"xdp_mod", "program", "breakpoint", "entered by tail calls: its return is that of its caller"},
			{"static_one", "subprogram", "", "the program was loaded without BTF, so the kernel does not know where its functions are; compile it with -g"},
			{"nf_conntrack:nf_conntrack_in", "function", "kprobe-multi", ""},
		})
	}))
}

// TestGuardWarnings: what is said before functions are observed.
func TestGuardWarnings(t *testing.T) {
	refuse := guard.Warning{
		ID: "tailcall-trampoline", Severity: guard.Refuse, Function: "module3",
		Title: "on this kernel tracing it would change its result",
		Evidence: []finding.Evidence{
			{Text: "it makes tail calls (tail_call_reachable), and this kernel's trampolines lose the tail-call count:"},
			{Symbol: "bpf_trampoline_6442536467+0x17", Insn: "call __bpf_tramp_enter", Text: "leaves a percpu pointer in rax"},
			{Symbol: "bpf_trampoline_6442536467+0x20", Insn: "call module3+0x5", Text: "rax not restored"},
			{Text: "with 0x607f80001234 in rax the stub sees a count above 32, skips its tail call and returns its default, 33"},
		},
		Remedy: "known as tailcall-trampoline, fixed by 2b5dcb31a19a (6.7, 6.1.72). --force attaches all the same.",
	}
	other := refuse
	other.Function = "module4"
	ws := []guard.Warning{refuse, other,
		{ID: "rate", Severity: guard.Costly, Function: "xdp_main", Title: "it runs 120,000 times a second, and observing it would cost 4% of a CPU"},
		{ID: "noreturn", Severity: guard.Unable, Function: "do_exit", Title: "it never returns", Remedy: "trace its entry alone"},
	}
	golden(t, "trace_guard.txt", printed(render.Options{}, func(p *render.Printer) {
		p.GuardWarnings(ws, false)
		p.TracedInstead([]string{"xdp_main", "module1 (freplace fw_mod)", "module2"})
		p.GuardWarnings(ws[:1], true)
		p.TracedInstead(nil)
	}))
}

// TestTraceDuration: the unit that fits.
func TestTraceDuration(t *testing.T) {
	for ns, want := range map[uint64]string{
		0: "0 ns", 999: "999 ns", 1000: "1.0 µs", 999_949: "999.9 µs", 999_950: "1.0 ms", 999_949_999: "999.9 ms", 1_200_000_000: "1.2 s",
		61_000_000_000: "1 min 1 s", 1<<64 - 1: "53375 days 23 h",
	} {
		qt.Check(t, qt.Equals(render.TraceDuration(ns), want))
	}
}

// TestTraceForeignText: names of the target do not reach the terminal raw, and
// long ones are cut.
func TestTraceForeignText(t *testing.T) {
	long := strings.Repeat("x", 300)
	bad := "a\x1b[2Jb"
	c := &trace.Call{Function: bad, Kind: "function", Comm: bad, Return: &trace.Return{Text: bad, Odd: true, Meaning: bad},
		Args: []trace.Arg{{Name: bad, Text: long}}, Shown: []trace.Value{{Expr: bad, Text: bad}, {Expr: "x", Error: bad}},
		Stack: []trace.Frame{{Symbol: bad}}, TailNote: bad, Refused: &trace.Refusal{Text: bad, Evidence: []string{bad}},
		Tail:  []trace.TailCall{{Prog: trace.Program{Name: bad}, Map: bad, From: []string{bad}}, {Prog: trace.Program{Name: bad}}},
		Calls: []*trace.Call{{Function: bad, Module: bad, Stub: &trace.Function{Name: bad}, Args: []trace.Arg{{Name: bad, Text: cmp.Or(long, bad)}}}},
	}
	for _, flat := range []bool{false, true} {
		out := printed(render.Options{}, func(p *render.Printer) { p.TraceCall(c, render.TraceOptions{Flat: flat, Zone: time.UTC}) })
		qt.Check(t, qt.IsFalse(strings.Contains(out, "\x1b")))
		qt.Check(t, qt.StringContains(out, `a\x1b[2Jb`))
	}
}
