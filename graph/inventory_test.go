package graph_test

import (
	"fmt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/mem"
)

// inventory makes up BPF objects.
type inventory struct{ bpf.Inventory }

const (
	bpfCode    mem.Addr = 0xffffffffc0000000
	kernelCode mem.Addr = 0xffffffff81000000
)

func newInventory() *inventory {
	return &inventory{bpf.Inventory{Entries: make(map[int][]bpf.Entry)}}
}

func (inv *inventory) prog(id int, typ, name string, maps []int, funcs ...string) *bpf.Program {
	p := &bpf.Program{ID: id, Type: typ, Name: name, MapIDs: maps, JitedLen: 40 + id}
	for i, f := range append([]string{name}, funcs...) {
		p.Subprogs = append(p.Subprogs, bpf.Subprog{Name: f, Addr: bpfCode + mem.Addr(id<<12+i<<8), Len: 40 + id + i})
	}
	inv.Programs = append(inv.Programs, p)
	return p
}

func (inv *inventory) maps(id int, typ, name string, size uint32) *bpf.Map {
	m := &bpf.Map{ID: id, Type: typ, Name: name, MaxEntries: size}
	inv.Maps = append(inv.Maps, m)
	return m
}

func (inv *inventory) link(id int, typ, attach string, prog int, targets ...bpf.Target) *bpf.Link {
	l := &bpf.Link{ID: id, Type: typ, Attach: attach, ProgID: prog, Targets: targets}
	inv.Links = append(inv.Links, l)
	return l
}

func (inv *inventory) attach(kind, attach string, prio, prog int, t bpf.Target) {
	inv.Attachments = append(inv.Attachments, bpf.Attachment{Kind: kind, Attach: attach, Prio: prio, ProgID: prog, Target: t})
}

func (inv *inventory) slot(m, key int, kind string, id int) {
	inv.Entries[m] = append(inv.Entries[m], bpf.Entry{
		Key: bpf.Bytes{byte(key), byte(key >> 8), 0, 0}, Object: &bpf.Object{Kind: kind, ID: id},
	})
}

func (inv *inventory) tramp(image mem.Addr, on bpf.Target, keeps *bool, progs ...bpf.TrampolineProg) *bpf.Trampoline {
	t := &bpf.Trampoline{
		Addr: image + 0x100000, Kind: "trampoline", Name: fmt.Sprintf("bpf_trampoline_%d", image&0xffff), Image: image, Size: 200,
		Target: on, Progs: progs, KeepsTailCalls: keeps,
	}
	inv.Trampolines = append(inv.Trampolines, t)
	return t
}

func netdev(name string, index int) bpf.Target {
	return bpf.Target{Kind: bpf.TargetNetdev, Name: name, Ifindex: index}
}

func function(name string, at mem.Addr) bpf.Target {
	return bpf.Target{Kind: bpf.TargetFunction, Name: name, Addr: kernelCode + at}
}

func kprobe(name string, at mem.Addr, ret bool) bpf.Target {
	return bpf.Target{Kind: bpf.TargetKprobe, Name: name, Addr: kernelCode + at, Return: ret}
}

// some is one of each: what an XDP dispatcher, tracers of it and a few others
// look like.
func some() bpf.Inventory {
	inv := newInventory()
	no, yes := false, true
	inv.maps(3, "prog_array", "modules", 8)
	inv.maps(4, "percpu_array", "stats", 16)
	inv.maps(5, "hash", "only_here", 64)
	inv.maps(6, "hash_of_maps", "outer", 8)
	inv.maps(7, "hash", "inner", 8)
	inv.maps(8, "struct_ops", "my_cc", 1)
	inv.maps(9, "ringbuf", "alone", 4096)
	inv.prog(10, "xdp", "xdp_main", []int{3, 4, 5}, "module1", "module2", "module3").TailCall = &yes
	inv.Programs[0].Holders = []bpf.Holder{{PID: 93, Comm: "loader"}}
	inv.Programs[0].Pins = []string{"/sys/fs/bpf/xdp/main"}
	inv.prog(11, "ext", "fw_mod", []int{4})
	inv.prog(12, "tracing", "module3_entry", nil)
	inv.prog(13, "tracing", "module3_exit", nil)
	inv.prog(14, "xdp", "xdp_mod", []int{3, 4})
	inv.prog(15, "kprobe", "on_open", nil)
	inv.prog(16, "tracing", "on_read", []int{6})
	inv.prog(17, "struct_ops", "my_ssthresh", nil)
	inv.prog(18, "sched_cls", "tc_in", []int{4}).Holders = []bpf.Holder{{PID: 1, Comm: "init"}, {PID: 93, Comm: "loader"}}
	inv.prog(19, "socket_filter", "idle", nil)
	inv.slot(3, 0, "prog", 14)
	inv.slot(3, 1, "prog", 14)
	inv.slot(3, 2, "prog", 14)
	inv.slot(3, 7, "prog", 99) // not listed
	inv.slot(6, 5, "map", 7)

	inv.link(1, "xdp", "xdp", 10, netdev("eth0", 2))
	module := func(i int) bpf.Target {
		s := inv.Programs[0].Subprogs[i]
		return bpf.Target{Kind: bpf.TargetProgram, ProgID: 10, Name: s.Name, Addr: s.Addr}
	}
	inv.link(2, "tracing", "", 11, module(1))
	inv.link(3, "tracing", "trace_fentry", 12, module(3))
	inv.link(4, "tracing", "trace_fexit", 13, module(3))
	inv.link(5, "perf_event", "", 15, kprobe("do_sys_open", 0x100, false))
	inv.link(6, "tracing", "trace_fentry", 16, function("vfs_read", 0x900))
	inv.link(7, "struct_ops", "", 0, bpf.Target{Kind: bpf.TargetStructOps, Name: "tcp_congestion_ops", MapID: 8})
	inv.link(8, "cgroup", "cgroup_inet_ingress", 0) // its cgroup is gone
	var many []bpf.Target
	for i := range 40 {
		many = append(many, kprobe(fmt.Sprintf("function_%d", i), mem.Addr(0x10000+i<<8), i%2 == 1))
	}
	inv.link(9, "kprobe_multi", "trace_kprobe_multi", 15, many...)
	inv.attach("tc", "ingress", 10, 18, netdev("eth0", 2))

	inv.tramp(bpfCode+0x800000, module(3), &no,
		bpf.TrampolineProg{ID: 12, Name: "module3_entry", When: "fentry"}, bpf.TrampolineProg{ID: 13, Name: "module3_exit", When: "fexit"})
	inv.tramp(bpfCode+0x801000, function("vfs_read", 0x900), nil, bpf.TrampolineProg{ID: 16, Name: "on_read", When: "fentry"})
	freplace := inv.tramp(0, module(1), nil, bpf.TrampolineProg{ID: 11, Name: "fw_mod", When: "replace"})
	freplace.Replaced, freplace.Name = 11, ""
	cc := inv.tramp(bpfCode+0x802000, bpf.Target{Kind: bpf.TargetStructOps, Name: "tcp_congestion_ops", MapID: 8}, nil,
		bpf.TrampolineProg{ID: 17, Name: "my_ssthresh", When: "struct_ops"})
	cc.Kind, cc.Member, cc.Addr, cc.Name = "struct_ops", "ssthresh", 0, ""
	d := inv.tramp(bpfCode+0x803000, function("bpf_dispatcher_xdp_func", 0x7000), nil, bpf.TrampolineProg{ID: 10, Name: "xdp_main", When: "dispatch"})
	d.Kind, d.Addr, d.Name = "dispatcher", 0, "bpf_dispatcher_xdp"
	return inv.Inventory
}

// many is what a busy host has: n programs, of which most are not attached.
func many(n int) bpf.Inventory {
	inv := newInventory()
	inv.maps(1, "array", "config", 1)
	inv.maps(2, "prog_array", "calls", 64)
	inv.maps(3, "lru_hash", "conntrack", 65536)
	id := 10
	for i := range n / 20 {
		inv.maps(1000+i, "hash", "fw_state", 1024)
		cgroup := bpf.Target{Kind: bpf.TargetCgroup, Name: fmt.Sprintf("/system.slice/service-with-a-long-name-%d.service", i)}
		for _, way := range []string{"egress", "ingress"} {
			inv.prog(id, "cgroup_skb", "sd_fw_"+way, []int{1000 + i})
			inv.link(id, "cgroup", "cgroup_inet_"+way, id, cgroup).Holders = []bpf.Holder{{PID: 1, Comm: "systemd"}}
			id++
		}
	}
	for i := range n / 10 {
		inv.prog(id, "kprobe", fmt.Sprintf("trace_%d", i%7), []int{1}, "helper")
		inv.link(id, "perf_event", "", id, kprobe(fmt.Sprintf("kernel_function_%d", i), mem.Addr(i<<8), false))
		id++
	}
	for i := range 40 {
		inv.prog(id, "sched_cls", fmt.Sprintf("tail_handler_%d", i), []int{1, 2, 3})
		inv.slot(2, i, "prog", id)
		id++
	}
	for i := range 25 {
		inv.prog(id, "sched_cls", "from_container", []int{1, 2, 3}, "parse", "policy")
		inv.attach("tc", "ingress", 1, id, netdev(fmt.Sprintf("lxc%d", i), i+5))
		id++
	}
	for i := 0; id < n+10; i++ {
		inv.prog(id, "socket_filter", fmt.Sprintf("filter_%d", i), nil)
		id++
	}
	for i := range n / 4 {
		inv.maps(2000+i, []string{"hash", "array", "ringbuf"}[i%3], fmt.Sprintf("scratch_%d", i), 10)
	}
	return inv.Inventory
}

// hostile has names that a terminal, XML and Graphviz would take for their own,
// circles, and references to what is not there.
func hostile() bpf.Inventory {
	inv := newInventory()
	inv.maps(1, "prog_array", "a\"b\\c<d>&amp;'\n", 4)
	inv.prog(1, "xdp", "\x1b[31mred\x00\xff\"];}", []int{1, 1, 77}, "same", "same", "")
	inv.prog(2, "xdp", "</text><script>", []int{1})
	inv.slot(1, 0, "prog", 1)
	inv.slot(1, 1, "prog", 2)
	inv.slot(1, 2, "map", 1) // a map in itself
	inv.link(1, "a--\"x\\", "\n", 1, bpf.Target{Kind: "nonsense"}, bpf.Target{Kind: bpf.TargetProgram, ProgID: 2}, bpf.Target{Kind: bpf.TargetProgram, ProgID: 55})
	inv.link(2, "", "", 2, bpf.Target{Kind: bpf.TargetCgroup, Name: "/日本語/\u202e]]>-->\t/" + fmt.Sprint(make([]int, 200))})
	inv.tramp(bpfCode+1, bpf.Target{Kind: bpf.TargetProgram, ProgID: 1}, nil, bpf.TrampolineProg{ID: 1, When: "fentry"}, bpf.TrampolineProg{When: "lsm_cgroup"})
	inv.Programs[0].Holders = []bpf.Holder{{PID: -1, Comm: "<&>\x07"}}
	return inv.Inventory
}

// deep is a chain of n programs, each called by the one before.
func deep(n int) bpf.Inventory {
	inv := newInventory()
	for i := range n {
		inv.maps(i+1, "prog_array", fmt.Sprintf("next_%d", i), 1)
		inv.prog(i+1, "xdp", fmt.Sprintf("step_%d", i), []int{i + 1})
		inv.slot(i+1, 0, "prog", i+2)
	}
	inv.prog(n+1, "xdp", "last", nil)
	inv.link(1, "xdp", "xdp", 1, netdev("eth0", 2))
	return inv.Inventory
}
