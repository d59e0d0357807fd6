package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

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
	// Flags are those that a program was attached to a cgroup with, as bpftool
	// names them, override and multi; or direct_action of a tc filter.
	Flags []string `json:"attach_flags,omitempty"`
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
	TargetSocket     TargetKind = "socket"     // Name of the protocol, Value the inode number
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
	Value   int64  `json:"value,omitempty"`
	Cookie  uint64 `json:"bpf_cookie,omitempty"` // of one of many targets
	// RefCtr is where a uprobe's reference counter (semaphore) is in the file.
	RefCtr mem.Addr `json:"ref_ctr_offset,omitzero"`
	// Flags say more of a target: "defrag" of a netfilter hook that sees whole
	// packets, the order in which an iterator walks cgroups.
	Flags []string `json:"flags,omitempty"`
}

// Links returns the links by id (link_idr, from a3b80e107894 on, 5.8); with
// ids, those of them that there are, and nothing of the others is read. With an
// error comes what was read: a link whose target cannot be read is listed
// without.
func Links(k *kernel.Kernel, ids ...int) ([]*Link, error) {
	return listIDR(k, "link_idr", "BPF link", ids, func(addr uint64) (*Link, int, error) {
		l, err := linkAt(k, addr)
		if err != nil && l.ID == 0 {
			return nil, unreadable, err
		}
		return l, l.ID, err
	})
}

// linkAt reads the struct bpf_link at addr. A link that cannot be read has id 0;
// with an error and an id, what it acts on could not be read.
func linkAt(k *kernel.Kernel, addr uint64) (*Link, error) {
	o := k.Object("bpf_link", addr)
	l := &Link{
		Addr: mem.Addr(addr),
		ID:   int(o.Uint("id")),
		Type: enumName(k, "bpf_link_type", "BPF_LINK_TYPE_", o.Uint("type")),
	}
	prog := o.Ptr("prog")
	if err := o.Err(); err != nil {
		return &Link{}, err
	}
	if l.ID == 0 { // being made, or being freed
		return l, nil
	}
	var errs []error
	var err error
	if prog != 0 {
		l.ProgID, err = progID(k, prog)
		errs = append(errs, err)
	}
	if t, ok := linkTypes[l.Type]; ok {
		errs = append(errs, t.fill(k, o, l))
	}
	if err := errors.Join(errs...); err != nil {
		return l, fmt.Errorf("%s: %w", l.Type, err)
	}
	return l, nil
}

// progID returns the id of the struct bpf_prog at addr.
func progID(k *kernel.Kernel, addr uint64) (int, error) {
	aux := k.Object("bpf_prog", addr).Deref("aux")
	id := int(aux.Uint("id"))
	return id, aux.Err()
}
