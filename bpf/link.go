package bpf

import "github.com/ksleuth/ksleuth/mem"

// A Link ties a program to what it acts on.
type Link struct {
	Addr   mem.Addr `json:"addr,omitzero"` // of the struct bpf_link; 0 where memory cannot be read
	ID     int      `json:"id"`
	Type   string   `json:"type"`              // as bpftool names it: tracing, xdp, perf_event, ...
	ProgID int      `json:"prog_id,omitempty"` // 0: none (struct_ops), or detached
	Attach string   `json:"attach_type,omitempty"`
	Cookie uint64   `json:"bpf_cookie,omitempty"`
	// Targets are what the program acts on: one, but many for kprobe_multi,
	// uprobe_multi and tracing_multi; none once the target is gone.
	Targets []Target `json:"targets"`
	Missed  uint64   `json:"missed,omitempty"` // runs that the kernel left out
	Holders []Holder `json:"pids,omitempty"`
	Pins    []string `json:"pinned,omitempty"`
}

// An Attachment is a program at work without a link: on a queueing discipline,
// by netlink on a device, or by a command of bpf(2) or an ioctl of old.
type Attachment struct {
	Kind   string `json:"kind"` // tc, xdp, cgroup, perf_event, netns, sockmap, socket, ...
	ProgID int    `json:"prog_id"`
	Attach string `json:"attach_type,omitempty"` // ingress, egress, xdpgeneric, cgroup_inet_ingress, ...
	Target Target `json:"target"`
	// Prio, Handle and Chain place a tc filter.
	Prio   int      `json:"prio,omitempty"`
	Handle mem.Addr `json:"handle,omitempty"`
	Chain  int      `json:"chain,omitempty"`
}

// A TargetKind says what sort of thing a program acts on.
type TargetKind string

// The kinds of targets.
const (
	TargetFunction   TargetKind = "function"   // of the kernel or a module: Name, Module, Addr
	TargetProgram    TargetKind = "program"    // a function of a BPF program: ProgID, Name the function
	TargetTracepoint TargetKind = "tracepoint" // Name
	TargetEvent      TargetKind = "perf_event" // Name says which: "cpu-clock", "type 4 config 0x1"; Value the config
	TargetKprobe     TargetKind = "kprobe"     // Name, Module, Addr, Offset; Return
	TargetUprobe     TargetKind = "uprobe"     // Name is the file, Offset in it; Return; PID
	TargetNetdev     TargetKind = "netdev"     // Name, Ifindex, Netns
	TargetNetns      TargetKind = "netns"      // Netns
	TargetCgroup     TargetKind = "cgroup"     // Name is the path, Value the id
	TargetNetfilter  TargetKind = "netfilter"  // Name "ipv4 prerouting", Value the priority, Netns
	TargetStructOps  TargetKind = "struct_ops" // Name of the kernel's struct type, MapID
	TargetIterator   TargetKind = "iterator"   // Name as "task", "bpf_map_elem"; MapID, Value: what it is restricted to
	TargetMap        TargetKind = "map"        // a sockmap: MapID
)

// A Target is what a program acts on.
type Target struct {
	Kind   TargetKind `json:"kind"`
	Name   string     `json:"name,omitempty"`
	Module string     `json:"module,omitempty"`
	Addr   mem.Addr   `json:"addr,omitzero"`
	Offset mem.Addr   `json:"offset,omitzero"`
	Return bool       `json:"return,omitempty"` // probes the return
	PID    int        `json:"pid,omitempty"`

	ProgID  int    `json:"prog_id,omitempty"`
	MapID   int    `json:"map_id,omitempty"`
	BTF     int    `json:"btf_id,omitempty"`  // of the object that describes it: the kernel's, a module's or a program's
	Type    int    `json:"type_id,omitempty"` // in that BTF
	Ifindex int    `json:"ifindex,omitempty"`
	Netns   uint64 `json:"netns_ino,omitempty"` // inode number
	Value   uint64 `json:"value,omitempty"`
	Cookie  uint64 `json:"bpf_cookie,omitempty"` // of one of many targets
}
