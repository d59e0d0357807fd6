package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// netnsInode returns the inode number of the struct net at addr, by which
// /proc/PID/ns/net names it.
func netnsInode(k *kernel.Kernel, addr uint64) (uint64, error) {
	o := k.Object("net", addr)
	inum := o.Uint("ns.inum")
	return inum, o.Err()
}

// netdevTarget describes the struct net_device at addr.
func netdevTarget(k *kernel.Kernel, addr uint64) (Target, error) {
	o := k.Object("net_device", addr)
	t := Target{Kind: TargetNetdev, Name: o.Str("name"), Ifindex: int(o.Uint("ifindex"))}
	net := o.Ptr("nd_net.net")
	if err := o.Err(); err != nil {
		return t, err
	}
	var err error
	t.Netns, err = netnsInode(k, net)
	return t, err
}

// xdpModes are the modes of enum bpf_xdp_mode, named by the keywords that "ip
// link" takes and shows.
var xdpModes = []string{"xdpgeneric", "xdpdrv", "xdpoffload"}

// An xdpState is one program that a device runs: prog, or that of a link.
type xdpState struct {
	name       string // of the mode
	prog, link uint64
}

// xdpStates reads net_device.xdp_state, one for each mode (7f0a838254bd, 5.9).
// Before, only the drivers knew of other programs than the generic one.
func xdpStates(k *kernel.Kernel, dev uint64) ([]xdpState, error) {
	d := k.Object("net_device", dev)
	if !d.Has("xdp_state") {
		prog := d.Ptr("xdp_prog")
		return []xdpState{{name: xdpModes[0], prog: prog}}, d.Err()
	}
	n := min(d.Len("xdp_state"), len(xdpModes))
	e := d.Field("xdp_state")
	var out []xdpState
	for i := range n {
		o := e.Elem(i)
		s := xdpState{name: xdpModes[i], prog: o.Ptr("prog"), link: o.Ptr("link")}
		if err := o.Err(); err != nil {
			return out, err
		}
		if s.prog != 0 || s.link != 0 {
			out = append(out, s)
		}
	}
	return out, errors.Join(d.Err(), e.Err())
}

// maxDepth bounds the depth of trees: cgroups end at INT_MAX in theory, and far
// earlier in practice.
const maxDepth = 1 << 10

// cgroupTarget describes the struct cgroup at addr: its id, which bpf(2) takes
// for it, and its path from the root of its hierarchy.
func cgroupTarget(k *kernel.Kernel, addr uint64) (Target, error) {
	o := k.Object("cgroup", addr)
	kn := o.Deref("kn")
	t := Target{Kind: TargetCgroup, Value: int64(kn.Uint("id"))}
	if err := errors.Join(o.Err(), kn.Err()); err != nil {
		return t, err
	}
	var err error
	t.Name, err = kernfsPath(k, kn)
	return t, err
}

// kernfsPath joins the names of a kernfs node and of those above it. The root
// has no parent; kernfs_node.parent got its underscores when it came under RCU
// (633488947ef6, 6.15).
func kernfsPath(k *kernel.Kernel, kn *kernel.Object) (string, error) {
	var path string
	for range maxDepth {
		up := kn.Ptr("__parent|parent")
		if up == 0 {
			if path == "" {
				path = "/"
			}
			return path, kn.Err()
		}
		path = "/" + kn.Str("name") + path
		if err := kn.Err(); err != nil {
			return path, err
		}
		kn = k.Object("kernfs_node", up)
	}
	return path, fmt.Errorf("kernfs_node at 0x%x has more than %d above it: damaged", kn.Addr, maxDepth)
}

// mapID returns the id of the struct bpf_map at addr.
func mapID(k *kernel.Kernel, addr uint64) (int, error) {
	o := k.Object("bpf_map", addr)
	id := int(o.Uint("id"))
	return id, o.Err()
}

// structOpsTarget describes the struct bpf_struct_ops_map at addr: which of
// the kernel's structs of functions it implements. Its description moved into a
// struct of its own (4c5763ed996a, 6.9).
func structOpsTarget(k *kernel.Kernel, addr uint64) (Target, error) {
	o := k.Object("bpf_struct_ops_map", addr)
	t := Target{Kind: TargetStructOps, MapID: int(o.Uint("map.id"))}
	var ops *kernel.Object
	if o.Has("st_ops_desc") {
		ops = o.Deref("st_ops_desc").Deref("st_ops")
	} else {
		ops = o.Deref("st_ops")
	}
	t.Name = ops.Str("name")
	return t, errors.Join(o.Err(), ops.Err())
}

// A trampoline's key is made of the id of what its target belongs to and the
// target's type id in its BTF: bpf_trampoline_compute_key. The flag says that
// the first is the id of a BTF, not of a program (22dc4a0f5ed1, 5.11; before,
// there is none for the kernel's own BTF).
const (
	keyIsBTF  = 1 << 31
	keyTypeID = 1<<31 - 1
)

// trampolineTarget describes the function that the struct bpf_trampoline at
// addr hangs on; target is the BPF program it is of, or 0. prog is a program
// that hangs on it, or 0: it knows the function's name.
func trampolineTarget(k *kernel.Kernel, addr, target, prog uint64) (Target, error) {
	o := k.Object("bpf_trampoline", addr)
	key, fn := o.Uint("key"), o.Ptr("func.addr")
	t := Target{Kind: TargetFunction, Addr: mem.Addr(fn), Type: int(key & keyTypeID)}
	if err := o.Err(); err != nil {
		return t, err
	}
	if target != 0 {
		t.Kind = TargetProgram
		if text, ok := k.BPFTextAt(fn); ok {
			t.Name = functionName(text.Name)
		}
		aux := k.Object("bpf_prog", target).Deref("aux")
		t.ProgID = int(aux.Uint("id"))
		if aux.Ptr("btf") != 0 {
			btf := aux.Deref("btf")
			t.BTF = int(btf.Uint("id"))
			return t, errors.Join(aux.Err(), btf.Err())
		}
		return t, aux.Err()
	}
	if key&keyIsBTF != 0 {
		t.BTF = int(key >> 32)
	}
	if s, _, ok := k.Symbolize(fn); ok {
		t.Name, t.Module = s.Name, s.Module
	}
	if prog == 0 {
		return t, nil
	}
	// Symbols can share an address; the program was loaded for a name.
	aux := k.Object("bpf_prog", prog).Deref("aux")
	if name := aux.Str("attach_func_name"); name != "" {
		t.Name = name
	}
	return t, aux.Err()
}

// symbolTarget describes the place of a probe in the kernel.
func symbolTarget(k *kernel.Kernel, kind TargetKind, addr uint64) Target {
	t := Target{Kind: kind, Addr: mem.Addr(addr)}
	if s, off, ok := k.Symbolize(addr); ok {
		t.Name, t.Module, t.Offset = s.Name, s.Module, mem.Addr(off)
	}
	return t
}

// words reads n 64-bit words at addr; NULL gives none.
func words(k *kernel.Kernel, addr, n uint64) ([]uint64, error) {
	if addr == 0 {
		return nil, nil
	}
	raw, err := mem.Bytes(k.Mem(), addr, int(8*n))
	if err != nil {
		return nil, err
	}
	out := make([]uint64, 0, n)
	for b := range slices.Chunk(raw, 8) {
		out = append(out, le64(b))
	}
	return out, nil
}
