package tracee

// CtxMember returns where the kernel has a member of what BPF programs see as
// their context, as a C expression over the kernel's types in which $ stands
// for a pointer to the kernel's context: of struct xdp_md ingress_ifindex is
// "(u32)$->rxq->dev->ifindex". It gives what a program reads there, in the same
// byte order: ports and addresses as they are on the wire where the program has
// them so.
//
// Members that the kernel does not simply load but computes by the type of
// program, its version or its configuration are not there: tstamp, tstamp_type,
// napi_id, vlan_present, sk and flow_keys of struct __sk_buff.
//
// It is about programs whose context is the usual one of that type; see
// [Function.CtxMember].
func CtxMember(userType, member string) (expr string, ok bool) {
	expr, ok = contexts[contextPair{userType, usual[userType]}][member]
	return expr, ok
}

// CtxMember is the function CtxMember for the context of this very function:
// what programs call struct __sk_buff can be one of several types.
func (f *Function) CtxMember(userType, member string) (expr string, ok bool) {
	if f.Context == nil {
		return "", false
	}
	if f.Prog != nil && f.Prog.Type == "sk_skb" && ofQdisc[member] {
		return "", false
	}
	expr, ok = contexts[contextPair{userType, f.Context.Strip().Name()}][member]
	return expr, ok
}

// ofQdisc are the members of struct __sk_buff that are in sk_buff.cb as traffic
// control lays it out; sk_skb programs have something else there.
var ofQdisc = map[string]bool{"cb": true, "tc_classid": true, "wire_len": true}

// A contextPair is a struct that programs see and the one that the kernel has.
type contextPair struct{ user, kern string }

// usual are the kernel's types behind those that programs see.
var usual = map[string]string{
	"xdp_md": "xdp_buff", "__sk_buff": "sk_buff", "bpf_sock": "sock", "bpf_sock_addr": "bpf_sock_addr_kern",
	"bpf_sock_ops": "bpf_sock_ops_kern", "sk_msg_md": "sk_msg", "bpf_sk_lookup": "bpf_sk_lookup_kern",
	"sk_reuseport_md": "sk_reuseport_kern", "bpf_sockopt": "bpf_sockopt_kern", "bpf_perf_event_data": "bpf_perf_event_data_kern",
}

// Parts of the expressions.
const (
	shared = "((struct skb_shared_info *)($->head + $->end))" // skb_shinfo; end is an offset where pointers have 64 bits
	qdisc  = "((struct qdisc_skb_cb *)$->cb)"
	common = "$->sk->__sk_common"
)

// contexts say what the functions *_convert_ctx_access of net/core/filter.c and
// kernel/trace/bpf_trace.c load for a member (Linux 5.10 to 7.2).
var contexts = map[contextPair]map[string]string{
	{"xdp_md", "xdp_buff"}: {
		"data":            "$->data",
		"data_end":        "$->data_end",
		"data_meta":       "$->data_meta",
		"ingress_ifindex": "(u32)$->rxq->dev->ifindex",
		"rx_queue_index":  "$->rxq->queue_index",
		"egress_ifindex":  "(u32)$->txq->dev->ifindex", // programs of a devmap alone have it
	},
	{"__sk_buff", "sk_buff"}: {
		"len":             "$->len",
		"pkt_type":        "(u32)$->pkt_type",
		"mark":            "$->mark",
		"queue_mapping":   "(u32)$->queue_mapping",
		"protocol":        "(u32)$->protocol", // big-endian
		"vlan_tci":        "(u32)$->vlan_tci",
		"vlan_proto":      "(u32)$->vlan_proto", // big-endian
		"priority":        "$->priority",
		"ingress_ifindex": "(u32)$->skb_iif",
		"ifindex":         "(u32)($->dev ? $->dev->ifindex : 0)",
		"tc_index":        "(u32)$->tc_index", // CONFIG_NET_SCHED
		"cb":              "((u32 *)" + qdisc + "->data)",
		"hash":            "$->hash",
		"tc_classid":      "(u32)" + qdisc + "->tc_classid",
		"data":            "$->data",
		// What the program reads was put into cb before it ran, to this value:
		// bpf_compute_data_pointers.
		"data_end":    "($->data + ($->len - $->data_len))",
		"data_meta":   "($->data - " + shared + "->meta_len)",
		"family":      "(u32)" + common + ".skc_family",
		"remote_ip4":  "(u32)" + common + ".skc_daddr",     // big-endian
		"local_ip4":   "(u32)" + common + ".skc_rcv_saddr", // big-endian
		"remote_ip6":  common + ".skc_v6_daddr.in6_u.u6_addr32",
		"local_ip6":   common + ".skc_v6_rcv_saddr.in6_u.u6_addr32",
		"remote_port": "((u32)" + common + ".skc_dport << 16)", // big-endian, as 32 bits
		"local_port":  "(u32)" + common + ".skc_num",
		"wire_len":    qdisc + "->pkt_len",
		"gso_segs":    "(u32)" + shared + "->gso_segs",
		"gso_size":    "(u32)" + shared + "->gso_size",
		"hwtstamp":    "(u64)" + shared + "->hwtstamps.hwtstamp", // f64c4acea51f, 5.16
	},
	{"__sk_buff", "bpf_flow_dissector"}: {
		"data":     "$->data",
		"data_end": "$->data_end",
	},
	{"bpf_sock", "sock"}: {
		"bound_dev_if": "(u32)$->__sk_common.skc_bound_dev_if",
		"family":       "(u32)$->__sk_common.skc_family",
		"type":         "(u32)$->sk_type",
		"protocol":     "(u32)$->sk_protocol",
		"mark":         "$->sk_mark",
		"priority":     "$->sk_priority",
		"src_ip4":      "(u32)$->__sk_common.skc_rcv_saddr", // big-endian
		"src_ip6":      "$->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32",
		"src_port":     "(u32)$->__sk_common.skc_num",
		"dst_port":     "(u32)$->__sk_common.skc_dport", // big-endian, as 16 bits
		"dst_ip4":      "(u32)$->__sk_common.skc_daddr", // big-endian
		"dst_ip6":      "$->__sk_common.skc_v6_daddr.in6_u.u6_addr32",
		"state":        "(u32)$->__sk_common.skc_state",
	},
	{"bpf_sock_addr", "bpf_sock_addr_kern"}: {
		"user_family": "(u32)$->uaddr->sa_family",
		"user_ip4":    "(u32)((struct sockaddr_in *)$->uaddr)->sin_addr.s_addr", // big-endian
		"user_ip6":    "((struct sockaddr_in6 *)$->uaddr)->sin6_addr.in6_u.u6_addr32",
		"user_port":   "(u32)((struct sockaddr_in *)$->uaddr)->sin_port", // at the same place for IPv6; big-endian
		"family":      "(u32)" + common + ".skc_family",
		"type":        "(u32)$->sk->sk_type",
		"protocol":    "(u32)$->sk->sk_protocol",
	},
	{"bpf_sock_ops", "bpf_sock_ops_kern"}: {
		"op":          "(u32)$->op",
		"family":      "(u32)" + common + ".skc_family",
		"remote_ip4":  "(u32)" + common + ".skc_daddr",
		"local_ip4":   "(u32)" + common + ".skc_rcv_saddr",
		"remote_ip6":  common + ".skc_v6_daddr.in6_u.u6_addr32",
		"local_ip6":   common + ".skc_v6_rcv_saddr.in6_u.u6_addr32",
		"remote_port": "((u32)" + common + ".skc_dport << 16)",
		"local_port":  "(u32)" + common + ".skc_num",
		"is_fullsock": "(u32)$->is_fullsock",
	},
	{"sk_msg_md", "sk_msg"}: {
		"data":        "$->data",
		"data_end":    "$->data_end",
		"family":      "(u32)" + common + ".skc_family",
		"remote_ip4":  "(u32)" + common + ".skc_daddr",
		"local_ip4":   "(u32)" + common + ".skc_rcv_saddr",
		"remote_ip6":  common + ".skc_v6_daddr.in6_u.u6_addr32",
		"local_ip6":   common + ".skc_v6_rcv_saddr.in6_u.u6_addr32",
		"remote_port": "((u32)" + common + ".skc_dport << 16)",
		"local_port":  "(u32)" + common + ".skc_num",
		"size":        "$->sg.size",
	},
	{"bpf_sk_lookup", "bpf_sk_lookup_kern"}: {
		"family":     "(u32)$->family",
		"protocol":   "(u32)$->protocol",
		"remote_ip4": "(u32)$->v4.saddr",
		"local_ip4":  "(u32)$->v4.daddr",
		"local_port": "(u32)$->dport", // in the host's order
	},
	{"sk_reuseport_md", "sk_reuseport_kern"}: {
		"data":         "$->skb->data",
		"len":          "$->skb->len",
		"eth_protocol": "(u32)$->skb->protocol", // big-endian
		"ip_protocol":  "(u32)$->sk->sk_protocol",
		"bind_inany":   "(u32)$->bind_inany",
		"hash":         "$->hash",
	},
	{"bpf_sockopt", "bpf_sockopt_kern"}: {
		"level":      "$->level",
		"optname":    "$->optname",
		"optlen":     "$->optlen",
		"optval":     "$->optval",
		"optval_end": "$->optval_end",
	},
	{"bpf_perf_event_data", "bpf_perf_event_data_kern"}: {
		"regs":          "(*$->regs)",
		"sample_period": "$->data->period",
		"addr":          "$->data->addr",
	},
}
