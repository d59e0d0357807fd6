package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
)

// A linkType says where the links of one type keep what is asked for. Members
// are named as in [kernel.Object], newest first. From 6.17 on bpf_link itself
// has the flags and the attach type, which its types had before.
type linkType struct {
	record string // the struct that the struct bpf_link is the member "link" of
	attach string // the attach type; "" where the type has but one
	cookie string
	// targets reads what the link acts on; of a link that lost its target
	// there are none.
	targets func(*linkReader) ([]Target, error)
}

// A linkReader is a link being read: o is the struct of its type, base the
// struct bpf_link in it.
type linkReader struct {
	k       *kernel.Kernel
	o, base *kernel.Object
	l       *Link
}

// linkTypes are the types of enum bpf_link_type, by the name that [Link.Type]
// has. Types that are not here are listed without a target.
//
// The cookie of a tracing link is younger than the link: 2fcc82411e74 (5.19); it
// moved with fsession (7.0). Cookies of raw tracepoints: 68ca5d4eebb8 (6.10).
var linkTypes = map[string]linkType{
	"raw_tracepoint": {record: "bpf_raw_tp_link", cookie: "cookie", targets: rawTracepoint},
	"tracing":        {record: "bpf_tracing_link", attach: "attach_type|link.link.attach_type", cookie: "link.node.cookie|link.cookie", targets: tracing},
	"cgroup":         {record: "bpf_cgroup_link", attach: "type|link.attach_type", targets: cgroupLink},
	"iter":           {record: "bpf_iter_link", targets: iterator},
	"netns":          {record: "bpf_netns_link", attach: "type|link.attach_type", targets: netnsLink},
	"xdp":            {record: "bpf_xdp_link", targets: xdpLink},
	"perf_event":     {record: "bpf_perf_link", targets: perfLink},
	"kprobe_multi":   {record: "bpf_kprobe_multi_link", targets: kprobeMulti},
	"struct_ops":     {record: "bpf_struct_ops_link", targets: structOps},
	"netfilter":      {record: "bpf_nf_link", targets: netfilter},
	"tcx":            {record: "tcx_link", attach: "location|link.attach_type", targets: netdevLink},
	"uprobe_multi":   {record: "bpf_uprobe_multi_link", targets: uprobeMulti},
	"netkit":         {record: "netkit_link", attach: "location|link.attach_type", targets: netdevLink},
	"sockmap":        {record: "sockmap_link", attach: "attach_type|link.attach_type", targets: sockmapLink},
	"tracing_multi":  {record: "bpf_tracing_multi_link", attach: "link.attach_type", targets: tracingMulti},
}

// fill reads what the type's own struct has.
func (t linkType) fill(k *kernel.Kernel, base *kernel.Object, l *Link) error {
	off, err := k.Offset(t.record, "link")
	if err != nil {
		return err
	}
	r := &linkReader{k: k, o: k.Object(t.record, base.Addr-off), base: base, l: l}
	if t.attach != "" {
		l.Attach = attachName(k, r.o.Uint(t.attach))
	}
	if t.cookie != "" && hasAny(r.o, t.cookie) {
		l.Cookie = r.o.Uint(t.cookie)
	}
	if err := r.o.Err(); err != nil {
		return err
	}
	l.Targets, err = t.targets(r)
	return errors.Join(err, r.o.Err())
}

// hasAny says whether one of several paths names a member.
func hasAny(o *kernel.Object, paths string) bool {
	return slices.ContainsFunc(strings.Split(paths, "|"), o.Has)
}

// attachName returns the name of an attach type: trace_fentry.
func attachName(k *kernel.Kernel, v uint64) string {
	return enumName(k, "bpf_attach_type", "BPF_", v)
}

// flags reads the flags of a link: of its type's struct or of bpf_link.
func (r *linkReader) flags() uint64 {
	if r.o.Has("flags") {
		return r.o.Uint("flags")
	}
	return r.base.Uint("flags")
}

// multiReturn is BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN.
const multiReturn = 1

func rawTracepoint(r *linkReader) ([]Target, error) {
	tp := r.o.Deref("btp").Deref("tp")
	name := tp.Str("name")
	return []Target{{Kind: TargetTracepoint, Name: name}}, tp.Err()
}

// tracing links hang on a trampoline; those of modify_return and LSM hooks,
// freplace and fsession do, too.
func tracing(r *linkReader) ([]Target, error) {
	t, err := trampolineTarget(r.k, r.o.Ptr("trampoline"), r.o.Ptr("tgt_prog"), r.base.Ptr("prog"))
	return []Target{t}, errors.Join(err, r.base.Err())
}

// cgroupLink: the cgroup is gone once it was removed.
func cgroupLink(r *linkReader) ([]Target, error) {
	cgrp := r.o.Ptr("cgroup")
	if cgrp == 0 {
		return nil, nil
	}
	t, err := cgroupTarget(r.k, cgrp)
	return []Target{t}, err
}

// iterator reads bpf_iter_aux_info, which says what the iterator is restricted
// to: a map (5.8), a task (f0d74c4da1f0, 6.1), a cgroup and what is below, or
// above, it (d4ccaf58a847, 6.1).
func iterator(r *linkReader) ([]Target, error) {
	reg := r.o.Deref("tinfo").Deref("reg_info")
	t := Target{Kind: TargetIterator, Name: reg.Str("target")}
	errs := []error{reg.Err()}
	if m := r.o.Ptr("aux.map"); m != 0 {
		id, err := mapID(r.k, m)
		t.MapID, errs = id, append(errs, err)
	}
	if r.o.Has("aux.cgroup") {
		if cgrp := r.o.Ptr("aux.cgroup.start"); cgrp != 0 {
			c, err := cgroupTarget(r.k, cgrp)
			t.Value, errs = c.Value, append(errs, err)
			t.Flags = []string{enumName(r.k, "bpf_cgroup_iter_order", "BPF_CGROUP_ITER_", r.o.Uint("aux.cgroup.order"))}
		}
	}
	if r.o.Has("aux.task") {
		t.PID = int(r.o.Uint("aux.task.pid"))
	}
	return []Target{t}, errors.Join(errs...)
}

// netnsLink: the namespace is gone once its last user left.
func netnsLink(r *linkReader) ([]Target, error) {
	net := r.o.Ptr("net")
	if net == 0 {
		return nil, nil
	}
	inum, err := netnsInode(r.k, net)
	return []Target{{Kind: TargetNetns, Netns: inum}}, err
}

// netdevLink: the device is gone once it was removed.
func netdevLink(r *linkReader) ([]Target, error) {
	dev := r.o.Ptr("dev")
	if dev == 0 {
		return nil, nil
	}
	t, err := netdevTarget(r.k, dev)
	return []Target{t}, err
}

// xdpLink finds the mode that the program runs in: where the device refers to
// the link (7f0a838254bd, 5.9).
func xdpLink(r *linkReader) ([]Target, error) {
	dev := r.o.Ptr("dev")
	if dev == 0 {
		return nil, nil
	}
	modes, err := xdpStates(r.k, dev)
	for _, m := range modes {
		if m.link == r.o.Addr {
			r.l.Attach = m.name
		}
	}
	t, err2 := netdevTarget(r.k, dev)
	return []Target{t}, errors.Join(err, err2)
}

func sockmapLink(r *linkReader) ([]Target, error) {
	m := r.o.Ptr("map")
	if m == 0 {
		return nil, nil
	}
	id, err := mapID(r.k, m)
	return []Target{{Kind: TargetMap, MapID: id}}, err
}

// structOps: the map is gone once the link was detached (6.11).
func structOps(r *linkReader) ([]Target, error) {
	m := r.o.Ptr("map")
	if m == 0 {
		return nil, nil
	}
	t, err := structOpsTarget(r.k, m)
	return []Target{t}, err
}

// nfProtos are the protocol families that a netfilter link can have, with their
// hooks (include/uapi/linux/netfilter.h).
var (
	nfProtos = map[uint64]string{2: "ipv4", 10: "ipv6"}
	nfHooks  = []string{"prerouting", "input", "forward", "output", "postrouting"}
)

// netfilter links stay in the table of links when their namespace goes; the
// memory of that one may be another's then, which "dead" tells.
func netfilter(r *linkReader) ([]Target, error) {
	pf, hook := r.o.Uint("hook_ops.pf"), r.o.Uint("hook_ops.hooknum")
	t := Target{Kind: TargetNetfilter, Value: r.o.Int("hook_ops.priority")}
	family, ok := nfProtos[pf]
	if !ok {
		family = fmt.Sprintf("pf %d", pf)
	}
	if hook < uint64(len(nfHooks)) {
		t.Name = family + " " + nfHooks[hook]
	} else {
		t.Name = fmt.Sprintf("%s hook %d", family, hook)
	}
	if r.o.Has("defrag_hook") && r.o.Ptr("defrag_hook") != 0 { // 91721c2d02d3, 6.6
		t.Flags = []string{"defrag"}
	}
	var err error
	if r.o.Uint("dead") != 0 {
		return nil, nil
	}
	t.Netns, err = netnsInode(r.k, r.o.Ptr("net"))
	return []Target{t}, err
}
