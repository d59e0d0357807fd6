package trace

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An action is a number that a program may return, and what it is called: a
// constant of the kernel's headers, or words where it has none.
type action struct {
	value int64
	name  string
	note  string // what else is to be said of it
}

// verdicts are what the numbers mean that programs of some types return.
type verdicts struct {
	types  []string // as bpf.Program.Type names them
	attach []string // beginnings of the attach type; nil for any
	signed bool     // the 32 bits are an int
	// actions are the numbers that mean something. Others mean what any says,
	// or are no action, of which odd says what the kernel does then.
	actions []action
	any     string
	odd     string
}

// verdictTable is searched from the top: rows of some attach types stand in
// front of those of any. The sources are the places that act on the numbers:
// bpf_prog_run_xdp's callers and bpf_xdp_action (include/uapi/linux/bpf.h),
// cls_bpf_exec_opcode and tcf_bpf_act (net/sched), tcx_action_code
// (include/net/tcx.h, e420bed02507, 6.6), netkit_run (35dfaad7188c, 6.7),
// run_lwt_bpf (net/core/lwt_bpf.c), __cgroup_bpf_run_filter_skb
// (kernel/bpf/cgroup.c), trace_call_bpf (kernel/trace/bpf_trace.c),
// check_return_code (kernel/bpf/verifier.c), nf_hook_run_bpf
// (net/netfilter/nf_bpf_link.c, fd9c663b9ad6, 6.4).
var verdictTable = []verdicts{
	{types: []string{"xdp"}, actions: []action{{0, "XDP_ABORTED", ""}, {1, "XDP_DROP", ""}, {2, "XDP_PASS", ""}, {3, "XDP_TX", ""}, {4, "XDP_REDIRECT", ""}},
		odd: "the kernel warns once and drops the packet"},
	{types: []string{"sched_cls"}, attach: []string{"tcx_"}, signed: true,
		actions: []action{{-1, "TCX_NEXT", ""}, {0, "TCX_PASS", ""}, {2, "TCX_DROP", ""}, {7, "TCX_REDIRECT", ""}},
		odd:     "the kernel takes it as TCX_NEXT"},
	{types: []string{"sched_cls"}, attach: []string{"netkit_"}, signed: true,
		actions: []action{{-1, "NETKIT_NEXT", ""}, {0, "NETKIT_PASS", ""}, {2, "NETKIT_DROP", ""}, {7, "NETKIT_REDIRECT", ""}},
		odd:     "the kernel drops the packet"},
	{types: []string{"sched_cls"}, attach: []string{"classifier"}, signed: true,
		actions: []action{{0, "no match", ""}, {-1, "match", ""}}, any: "class id"},
	{types: []string{"sched_cls"}, signed: true, actions: []action{
		{-1, "TC_ACT_UNSPEC", ""}, {0, "TC_ACT_OK", ""}, {2, "TC_ACT_SHOT", ""}, {4, "TC_ACT_STOLEN", ""}, {7, "TC_ACT_REDIRECT", ""}, {8, "TC_ACT_TRAP", ""},
		{1, "TC_ACT_RECLASSIFY", asUnspec}, {3, "TC_ACT_PIPE", asUnspec}, {5, "TC_ACT_QUEUED", asUnspec}, {6, "TC_ACT_REPEAT", asUnspec}},
		odd: asUnspec + ", one without direct-action as a class id"},
	{types: []string{"sched_act"}, signed: true, actions: []action{
		{-1, "TC_ACT_UNSPEC", ""}, {0, "TC_ACT_OK", ""}, {1, "TC_ACT_RECLASSIFY", ""}, {2, "TC_ACT_SHOT", ""}, {3, "TC_ACT_PIPE", ""}, {7, "TC_ACT_REDIRECT", ""},
		{4, "TC_ACT_STOLEN", actUnspec}, {5, "TC_ACT_QUEUED", actUnspec}, {6, "TC_ACT_REPEAT", actUnspec}, {8, "TC_ACT_TRAP", actUnspec}},
		odd: actUnspec},
	{types: []string{"cgroup_skb"}, attach: []string{"cgroup_inet_egress"},
		actions: []action{{0, "deny", ""}, {1, "allow", ""}, {2, "deny, congestion", ""}, {3, "allow, congestion", ""}}, odd: inRange},
	{types: []string{"cgroup_sock_addr"}, attach: []string{"cgroup_inet4_bind", "cgroup_inet6_bind"}, // 772412176fb9, 5.12
		actions: []action{{0, "deny", ""}, {1, "allow", ""}, {2, "deny", ""}, {3, "allow, without CAP_NET_BIND_SERVICE", ""}}, odd: inRange},
	{types: []string{"cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_device", "cgroup_sysctl", "cgroup_sockopt"},
		actions: []action{{0, "deny", ""}, {1, "allow", ""}}, odd: inRange},
	{types: []string{"lsm"}, attach: []string{"lsm_cgroup"}, actions: []action{{0, "deny", ""}, {1, "allow", ""}}, odd: inRange},
	{types: []string{"sock_ops"}, actions: []action{{0, "reply not used", ""}, {1, "reply used", ""}}, odd: inRange},
	{types: []string{"socket_filter"}, actions: []action{{0, "drop", ""}, {0xffffffff, "keep all", ""}}, any: "bytes kept"},
	{types: []string{"sk_skb"}, attach: []string{"sk_skb_stream_parser"}, signed: true,
		actions: []action{{0, "more needed", ""}}, any: "length of the message"},
	{types: []string{"sk_skb"}, attach: []string{"sk_skb_stream_verdict", "sk_skb_verdict"}, actions: skActions, odd: "the kernel drops the data"},
	{types: []string{"sk_skb"}, actions: skActions, any: "length of the message, if it is a parser"},
	{types: []string{"sk_msg", "sk_lookup", "sk_reuseport"}, actions: skActions, odd: "the kernel takes it as SK_DROP"},
	{types: []string{"lwt_out"}, actions: []action{{0, "BPF_OK", ""}, {2, "BPF_DROP", ""}, {7, "BPF_REDIRECT", lwtOK}, {128, "BPF_LWT_REROUTE", lwtOK}}, odd: lwtOdd},
	{types: []string{"lwt_in"}, actions: []action{{0, "BPF_OK", ""}, {2, "BPF_DROP", ""}, {7, "BPF_REDIRECT", lwtOK}, {128, "BPF_LWT_REROUTE", ""}}, odd: lwtOdd},
	{types: []string{"lwt_xmit"}, actions: []action{{0, "BPF_OK", ""}, {2, "BPF_DROP", ""}, {7, "BPF_REDIRECT", ""}, {128, "BPF_LWT_REROUTE", ""}}, odd: lwtOdd},
	{types: []string{"lwt_seg6local"}, actions: []action{{0, "BPF_OK", ""}, {2, "BPF_DROP", ""}, {7, "BPF_REDIRECT", ""}}, odd: lwtOdd},
	{types: []string{"flow_dissector"}, // BPF_FLOW_DISSECTOR_CONTINUE: 91350fe15261, 6.1
		actions: []action{{0, "BPF_OK", ""}, {2, "BPF_DROP", ""}, {129, "BPF_FLOW_DISSECTOR_CONTINUE", ""}}, odd: "the kernel takes it as BPF_DROP"},
	{types: []string{"netfilter"}, actions: []action{{0, "NF_DROP", ""}, {1, "NF_ACCEPT", ""}}, odd: inRange},
	{types: []string{"kprobe"}, attach: []string{"trace_kprobe_session", "trace_uprobe_session"},
		actions: []action{{0, "also at the return", ""}, {1, "not at the return", ""}}, odd: inRange},
	{types: []string{"kprobe", "tracepoint", "perf_event"}, actions: []action{{0, "event left out", ""}}, any: "event kept"},
	{types: []string{"tracing"}, attach: []string{"modify_return"}, signed: true, actions: []action{{0, "the function runs", ""}}, any: "the function's result"},
	{types: []string{"tracing"}, attach: []string{"trace_iter"}, signed: true, actions: []action{{0, "go on", ""}, {1, "again", ""}}, odd: inRange},
	{types: []string{"tracing"}, attach: []string{"trace_fentry", "trace_fexit"}, signed: true, actions: []action{{0, "", ""}}, odd: inRange},
}

// What is said more than once in the table.
const (
	asUnspec  = "a direct-action filter takes it as TC_ACT_UNSPEC"
	actUnspec = "the action takes it as TC_ACT_UNSPEC"
	inRange   = "the verifier lets no such program be loaded"
	lwtOK     = "taken as BPF_OK here"
	lwtOdd    = "the kernel warns once and drops the packet"
)

var skActions = []action{{0, "SK_DROP", ""}, {1, "SK_PASS", ""}}

// verdictsOf returns what programs of a type return; nil if their numbers mean
// nothing that would not follow from the C type.
func verdictsOf(typ, attach string) *verdicts {
	for i := range verdictTable {
		v := &verdictTable[i]
		if !slices.Contains(v.types, typ) {
			continue
		}
		if v.attach == nil || slices.ContainsFunc(v.attach, func(a string) bool { return strings.HasPrefix(attach, a) }) {
			return v
		}
	}
	return nil
}

// number returns r0 as the kernel takes it: 32 bits of it.
func (v *verdicts) number(r0 uint64) int64 {
	if v.signed {
		return int64(int32(r0))
	}
	return int64(uint32(r0))
}

func (v *verdicts) find(n int64) (action, bool) {
	i := slices.IndexFunc(v.actions, func(a action) bool { return a.value == n })
	if i < 0 {
		return action{}, false
	}
	return v.actions[i], true
}

// constant says whether an action is named by a constant of the headers.
func (a action) constant() bool { return a.name != "" && a.name == strings.ToUpper(a.name) }

// fill words the number that a program of a type returned.
func (v *verdicts) fill(r *Return, typ string) {
	r.Value = v.number(uint64(r.Raw))
	num := strconv.FormatInt(r.Value, 10)
	a, known := v.find(r.Value)
	switch {
	case known && a.constant():
		r.Text, r.Meaning = a.name, a.note
	case known && a.name != "":
		r.Text, r.Meaning = num+" ("+a.name+")", a.note
	case known:
		r.Text = num
	case v.any != "":
		r.Text, r.Meaning = num, v.any
	default:
		r.Text, r.Odd = num, true
		r.Meaning = fmt.Sprintf("no action of %s programs: %s", typ, v.odd)
	}
}
