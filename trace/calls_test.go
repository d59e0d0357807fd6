package trace_test

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/trace"
	"github.com/ksleuth/ksleuth/tracee"
)

func kernelTypes(t testing.TB) *ctype.Types {
	t.Helper()
	types, err := example.Kernel(t).Types()
	qt.Assert(t, qt.IsNil(err))
	return types
}

// proto is a prototype by the C names of its types.
func proto(t testing.TB, types *ctype.Types, result string, params ...string) *ctype.Type {
	t.Helper()
	typ := func(name string) *ctype.Type {
		x, err := types.ParseType(name)
		qt.Assert(t, qt.IsNil(err))
		return x
	}
	var ps []ctype.Param
	for i, p := range params {
		ps = append(ps, ctype.Param{Name: string(rune('a' + i)), Type: typ(p)})
	}
	return ctype.FuncOf(typ(result), ps)
}

// TestResult: what functions return, by their kind and type.
func TestResult(t *testing.T) {
	types := kernelTypes(t)
	const xdp = "struct xdp_md *"
	neg := func(n int64) uint64 { return uint64(n) }
	low := func(n int32) uint64 { return uint64(uint32(n)) }
	for _, tc := range []struct {
		name         string
		kind         tracee.Kind
		typ, attach  string
		result       string // "": no prototype
		first        string
		ret          uint64
		text         string
		value        int64
		odd          bool
		meaningMatch string
	}{
		{name: "xdp pass", kind: tracee.Program, typ: "xdp", result: "int", first: xdp, ret: 2, text: "XDP_PASS", value: 2},
		{name: "xdp takes 32 bits", kind: tracee.Program, typ: "xdp", result: "int", first: xdp, ret: 1<<32 | 1, text: "XDP_DROP", value: 1},
		{name: "xdp 33", kind: tracee.Program, typ: "xdp", result: "int", first: xdp, ret: 33, text: "33", value: 33, odd: true, meaningMatch: "no action of xdp programs: .*drops the packet"},
		{name: "xdp -1", kind: tracee.Program, typ: "xdp", ret: low(-1), text: "4294967295", value: 1<<32 - 1, odd: true, meaningMatch: ".*"},
		{name: "extension", kind: tracee.Extension, typ: "xdp", result: "int", first: xdp, ret: 1, text: "XDP_DROP", value: 1},
		{name: "extension 255", kind: tracee.Extension, typ: "xdp", result: "int", first: xdp, ret: 255, text: "255", value: 255, odd: true, meaningMatch: "no action.*"},
		{name: "extension of no action", kind: tracee.Extension, typ: "xdp", result: "int", first: "unsigned int", ret: 255, text: "255", value: 255},
		{name: "extension bool", kind: tracee.Extension, typ: "xdp", result: "bool", first: xdp, ret: 1, text: "true", value: 1},
		{name: "subprogram action", kind: tracee.Subprogram, typ: "xdp", result: "int", first: xdp, ret: 2, text: "2 (XDP_PASS)", value: 2},
		{name: "subprogram number", kind: tracee.Subprogram, typ: "xdp", result: "int", first: xdp, ret: 33, text: "33", value: 33},
		{name: "subprogram error", kind: tracee.Subprogram, typ: "xdp", result: "int", first: xdp, ret: low(-22), text: "-22 (-EINVAL)", value: -22},
		{name: "subprogram of numbers", kind: tracee.Subprogram, typ: "xdp", result: "int", first: "int", ret: 2, text: "2", value: 2},
		{name: "subprogram void", kind: tracee.Subprogram, typ: "xdp", result: "void", first: xdp, ret: 2},
		{name: "subprogram without types", kind: tracee.Subprogram, typ: "xdp", ret: 2, text: "2 (XDP_PASS)", value: 2},
		{name: "subprogram enum", kind: tracee.Subprogram, typ: "xdp", result: "enum xdp_action", first: xdp, ret: 2, text: "XDP_PASS (2)", value: 2},
		{name: "tc", kind: tracee.Program, typ: "sched_cls", ret: low(-1), text: "TC_ACT_UNSPEC", value: -1},
		{name: "tc shot", kind: tracee.Program, typ: "sched_cls", ret: 2, text: "TC_ACT_SHOT", value: 2},
		{name: "tc pipe", kind: tracee.Program, typ: "sched_cls", ret: 3, text: "TC_ACT_PIPE", value: 3, meaningMatch: ".*TC_ACT_UNSPEC"},
		{name: "tc 33", kind: tracee.Program, typ: "sched_cls", ret: 33, text: "33", value: 33, odd: true, meaningMatch: ".*TC_ACT_UNSPEC.*class id"},
		{name: "tc classifier", kind: tracee.Program, typ: "sched_cls", attach: "classifier", ret: 0x10001, text: "65537", value: 65537, meaningMatch: "class id"},
		{name: "tcx", kind: tracee.Program, typ: "sched_cls", attach: "tcx_ingress", ret: low(-1), text: "TCX_NEXT", value: -1},
		{name: "tcx 3", kind: tracee.Program, typ: "sched_cls", attach: "tcx_egress", ret: 3, text: "3", value: 3, odd: true, meaningMatch: ".*TCX_NEXT"},
		{name: "netkit", kind: tracee.Program, typ: "sched_cls", attach: "netkit_peer", ret: 2, text: "NETKIT_DROP", value: 2},
		{name: "action", kind: tracee.Program, typ: "sched_act", ret: 3, text: "TC_ACT_PIPE", value: 3},
		{name: "ingress", kind: tracee.Program, typ: "cgroup_skb", attach: "cgroup_inet_ingress", ret: 2, text: "2", value: 2, odd: true, meaningMatch: ".*"},
		{name: "egress", kind: tracee.Program, typ: "cgroup_skb", attach: "cgroup_inet_egress", ret: 2, text: "2 (deny, congestion)", value: 2},
		{name: "device", kind: tracee.Program, typ: "cgroup_device", ret: 0, text: "0 (deny)"},
		{name: "filter", kind: tracee.Program, typ: "socket_filter", ret: 96, text: "96", value: 96, meaningMatch: "bytes kept"},
		{name: "filter none", kind: tracee.Program, typ: "socket_filter", ret: 0, text: "0 (drop)"},
		{name: "verdict", kind: tracee.Program, typ: "sk_skb", attach: "sk_skb_stream_verdict", ret: 1, text: "SK_PASS", value: 1},
		{name: "parser", kind: tracee.Program, typ: "sk_skb", attach: "sk_skb_stream_parser", ret: 1, text: "1", value: 1, meaningMatch: "length.*"},
		{name: "lwt", kind: tracee.Program, typ: "lwt_xmit", ret: 128, text: "BPF_LWT_REROUTE", value: 128},
		{name: "dissector", kind: tracee.Program, typ: "flow_dissector", ret: 129, text: "BPF_FLOW_DISSECTOR_CONTINUE", value: 129},
		{name: "lsm", kind: tracee.Program, typ: "lsm", attach: "lsm_mac", ret: low(-1), text: "-1 (-EPERM)", value: -1},
		{name: "lsm by type", kind: tracee.Program, typ: "lsm", attach: "lsm_mac", result: "int", first: "struct file *", ret: low(-13), text: "-13 (-EACCES)", value: -13},
		{name: "netfilter", kind: tracee.Program, typ: "netfilter", ret: 1, text: "NF_ACCEPT", value: 1},
		{name: "struct_ops", kind: tracee.Program, typ: "struct_ops", result: "u32", first: "struct sock *", ret: 10, text: "10", value: 10},
		{name: "kprobe", kind: tracee.Program, typ: "kprobe", ret: 0, text: "0 (event left out)"},
		{name: "int", kind: tracee.Kernel, result: "int", first: "int", ret: low(-22), text: "-22 (-EINVAL)", value: -22},
		{name: "kernel's own error", kind: tracee.Kernel, result: "long", first: "int", ret: neg(-512), text: "-512 (-ERESTARTSYS)", value: -512},
		{name: "int, garbage above", kind: tracee.Kernel, result: "int", first: "int", ret: 7<<32 | 5, text: "5", value: 5},
		{name: "unsigned", kind: tracee.Kernel, result: "unsigned int", first: "int", ret: low(-22), text: "4294967274", value: 4294967274},
		{name: "bool", kind: tracee.Kernel, result: "bool", first: "int", ret: 0xff00, text: "false"},
		{name: "pointer", kind: tracee.Kernel, result: "void *", first: "int", ret: 0xffff888000001000, text: "0xffff888000001000", value: -0x777ffffff000},
		{name: "ERR_PTR", kind: tracee.Kernel, result: "struct file *", first: "int", ret: neg(-2), text: "ERR_PTR(-2) (-ENOENT)", value: -2},
		{name: "NULL", kind: tracee.Kernel, result: "struct file *", first: "int", ret: 0, text: "NULL"},
		{name: "enum", kind: tracee.Kernel, result: "enum xdp_action", first: "int", ret: 3, text: "XDP_TX (3)", value: 3},
		{name: "void", kind: tracee.Kernel, result: "void", first: "int", ret: 3},
		{name: "unknown", kind: tracee.Kernel, ret: 3, text: "0x3", value: 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &tracee.Function{Kind: tc.kind, Name: "f", Types: types}
			if tc.kind != tracee.Kernel {
				f.Prog = &bpf.Program{ID: 1, Name: "p", Type: tc.typ, Attach: tc.attach}
			}
			if tc.result != "" {
				f.Proto = proto(t, types, tc.result, tc.first)
			}
			d := &trace.Decoder{Points: []trace.Point{{Func: f}}}
			c := d.Call(&probe.Event{Kind: probe.Returned, Start: 1, End: 2, Ret: tc.ret, Args: make([]uint64, 12)})
			if tc.text == "" {
				qt.Assert(t, qt.IsNil(c.Return))
				return
			}
			qt.Assert(t, qt.IsNotNil(c.Return))
			qt.Check(t, qt.Equals(c.Return.Text, tc.text))
			qt.Check(t, qt.Equals(c.Return.Value, tc.value))
			qt.Check(t, qt.Equals(c.Return.Raw, mem.Addr(tc.ret)))
			qt.Check(t, qt.Equals(c.Return.Odd, tc.odd))
			qt.Check(t, qt.Matches(c.Return.Meaning, tc.meaningMatch))
		})
	}
}

// TestExtensionActsAs: the numbers of an extension are those of the program
// that it stands in.
func TestExtensionActsAs(t *testing.T) {
	types := kernelTypes(t)
	f := &tracee.Function{Kind: tracee.Extension, Name: "fw_mod", Types: types, Proto: proto(t, types, "int", "struct xdp_md *"),
		Prog: &bpf.Program{ID: 31, Name: "fw_mod", Type: "ext"}, Stub: &tracee.Stub{ProgID: 7, ProgName: "xdp_main", Func: "module1"}}
	d := &trace.Decoder{Points: []trace.Point{{Func: f, Type: "xdp"}}}
	c := d.Call(&probe.Event{Kind: probe.Returned, Start: 1, End: 2, Ret: 2})
	qt.Check(t, qt.Equals(c.Return.Text, "XDP_PASS"))
	qt.Check(t, qt.DeepEquals(c.Stub, &trace.Function{Prog: trace.Program{ID: 7, Name: "xdp_main"}, Name: "module1"}))
	qt.Check(t, qt.DeepEquals(c.Prog, &trace.Program{ID: 31, Name: "fw_mod", Type: "ext"}))
}

// TestArgs: arguments by their types.
func TestArgs(t *testing.T) {
	types := kernelTypes(t)
	f := &tracee.Function{Kind: tracee.Kernel, Name: "f", Types: types,
		Proto: proto(t, types, "void", "int", "struct sk_buff *", "bool", "enum xdp_action", "void *", "unsigned long")}
	d := &trace.Decoder{Wall: 1000, Points: []trace.Point{{Func: f}}, Symbol: func(a uint64) (string, uint64, bool) {
		return "init_task", a - 0xffffffff81000000, a >= 0xffffffff81000000 && a < 0xffffffff82000000
	}}
	args := []uint64{1<<32 | 0xffffffff, 0xffff888000001000, 1, 2, 0xffffffff81000010, 7, 8, 9}
	c := d.Call(&probe.Event{Kind: probe.Returned, Start: 5, End: 25, Args: args, CPU: 3, PID: 4, TID: 5, Comm: "x", Stack: []uint64{0xffffffff81000010, 1}})
	var texts []string
	for _, a := range c.Args {
		texts = append(texts, a.Type+" "+a.Name+" "+a.Text)
	}
	qt.Check(t, qt.DeepEquals(texts, []string{
		"int a -1", "struct sk_buff * b 0xffff888000001000", "bool c true", "enum xdp_action d XDP_PASS (2)",
		"void * e 0xffffffff81000010 <init_task+0x10>", "unsigned long f 7",
	}))
	qt.Check(t, qt.Equals(c.Args[0].Raw, mem.Addr(1<<32|0xffffffff)))
	qt.Check(t, qt.Equals(c.Time, 1005))
	qt.Check(t, qt.Equals(*c.Duration, 20))
	qt.Check(t, qt.DeepEquals(c.Stack, []trace.Frame{{Addr: 0xffffffff81000010, Symbol: "init_task", Offset: 0x10}, {Addr: 1}}))

	// Fewer registers than parameters: those that are there.
	c = d.Call(&probe.Event{Kind: probe.Returned, Args: args[:2]})
	qt.Check(t, qt.HasLen(c.Args, 2))
	qt.Check(t, qt.IsNil(c.Duration))
	// A record by value takes its words.
	f.Proto = proto(t, types, "int", "struct list_head", "int")
	d.Points[0] = trace.Point{Func: f}
	c = d.Call(&probe.Event{Kind: probe.Returned, Args: []uint64{1, 2, 3}})
	qt.Check(t, qt.Equals(c.Args[0].Text, `{"next":"0x1","prev":"0x2"}`))
	qt.Check(t, qt.Equals(c.Args[1].Text, "3"))
	// No such point.
	qt.Check(t, qt.IsNil(d.Call(&probe.Event{Point: 9})))
}

// TestContext: a program's context is told by its packet.
func TestContext(t *testing.T) {
	types := kernelTypes(t)
	f := &tracee.Function{Kind: tracee.Program, Name: "xdp_main", Types: types, Proto: proto(t, types, "int", "struct xdp_md *"), Prog: &bpf.Program{ID: 7, Type: "xdp"}}
	d := &trace.Decoder{Points: []trace.Point{{Func: f, Packet: probe.XDPBuff}},
		Iface: func(netns uint32, i int) string { return map[int]string{2: "eth0"}[i] }}
	e := &probe.Event{Kind: probe.Returned, Start: 5, End: 25, Args: []uint64{0xffffc90000001000}, Packet: &probe.Packet{Len: 98, Ifindex: 2, Netns: 4026531840, ID: 0xabc}}
	c := d.Call(e)
	qt.Check(t, qt.Equals(c.Args[0].Text, "{eth0, 98 B}"))
	qt.Check(t, qt.DeepEquals(c.Packet, &trace.Packet{Len: 98, Ifindex: 2, Iface: "eth0", Netns: 4026531840, ID: "abc"}))
	e.Packet.Ifindex = 9
	qt.Check(t, qt.Equals(d.Call(e).Args[0].Text, "{if9, 98 B}"))
	// Without types the context is known all the same.
	f.Proto = nil
	d.Points[0] = trace.Point{Func: f}
	qt.Check(t, qt.Equals(d.Call(e).Args[0].Name, "ctx"))
}

// TestHistogram: buckets of powers of two.
func TestHistogram(t *testing.T) {
	f := &tracee.Function{Kind: tracee.Kernel, Name: "f"}
	d := &trace.Decoder{Points: []trace.Point{{Func: f}}}
	h := d.Histogram(0, "len", false, 0, []uint64{0, 3, 0, 1, 0}, nil)
	qt.Check(t, qt.DeepEquals(h.Buckets, []trace.Bucket{{Low: 1, High: 1, Count: 3}, {Low: 2, High: 3}, {Low: 4, High: 7, Count: 1}}))
	h = d.Histogram(0, "len", true, 5, []uint64{1}, []uint64{0, 0, 2})
	qt.Check(t, qt.DeepEquals(h.Buckets, []trace.Bucket{{Low: -3, High: -2, Count: 2}, {Low: -1, High: -1}, {Count: 1}}), qt.Commentf("%v", h.Buckets))
	qt.Check(t, qt.Equals(h.Return.Text, "0x5"))
	all := make([]uint64, 65)
	all[64], all[63], all[11] = 1, 1, 1
	h = d.Histogram(0, "x", false, 0, all, nil)
	qt.Check(t, qt.Equals(h.Buckets[0].RangeText(), "[negative]"))
	qt.Check(t, qt.Equals(h.Buckets[1].RangeText(), "[1K, 2K)"))
	qt.Check(t, qt.HasLen(h.Buckets, 54))
	qt.Check(t, qt.Equals(h.Buckets[53].RangeText(), "[4E, 9223372036854775807]"))
	qt.Check(t, qt.HasLen(d.Histogram(0, "x", false, 0, nil, nil).Buckets, 0))
	qt.Check(t, qt.DeepEquals(d.CountRow(0, false, 0, 9), trace.CountRow{Function: "f", Kind: "function", Count: 9}))
}
