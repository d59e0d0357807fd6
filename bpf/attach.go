package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// Attachments returns the programs at work without a link, as memory tells. It
// looks through
//
//   - the network namespaces' own programs, and of each device the XDP programs
//     set by netlink, the filters (bpf, matchall with bpf actions) of its
//     queueing disciplines, and what BPF_PROG_ATTACH put on tcx and netkit;
//   - the cgroups of the default hierarchy;
//   - the perf events, and tracefs's events;
//   - sockmaps, and struct_ops maps that were registered by an update.
//
// Sockets are not found this way, see [SocketAttachments]; nor are programs of
// lirc devices, of lightweight tunnels on routes, of tun devices and of actions
// that only filters of other kinds run. With an error comes what was read. A
// running kernel can change while it is read: what is on the move may be
// missing or be there twice.
func Attachments(k *kernel.Kernel) ([]Attachment, error) {
	r := &attachReader{k: k, ids: make(map[uint64]int)}
	for _, part := range []struct {
		what string
		read func() error
	}{
		{"network namespaces", r.namespaces},
		{"cgroups", r.cgroups},
		{"perf events", r.perfEvents},
		{"maps", r.maps},
	} {
		if err := part.read(); err != nil {
			r.errs.Add(fmt.Errorf("%s: %w", part.what, err))
		}
	}
	return r.out, r.errs.Err()
}

// An attachReader is one search for attachments.
type attachReader struct {
	k    *kernel.Kernel
	out  []Attachment
	errs kernel.Errors
	ids  map[uint64]int // of programs, by the address of their struct bpf_prog
}

// add takes in an attachment of the struct bpf_prog at prog, unless that is
// NULL, or a classic packet filter, which is no program of bpf(2).
func (r *attachReader) add(prog uint64, a Attachment) error {
	if prog == 0 {
		return nil
	}
	id, ok := r.ids[prog]
	if !ok {
		var err error
		if id, err = progID(r.k, prog); err != nil {
			return fmt.Errorf("program of %s: %w", a.Target.Name, err)
		}
		r.ids[prog] = id
	}
	if id != 0 {
		a.ProgID = id
		r.out = append(r.out, a)
	}
	return nil
}

// maxAttached bounds the programs, filters or chains in one place.
const maxAttached = 1 << 16

// hlist returns the nodes of the hlist_head at addr, which for this matter is
// any chain of structs that begin with, or have at next, a pointer to the next.
func hlist(k *kernel.Kernel, addr, next uint64) ([]uint64, error) {
	var out []uint64
	at, err := mem.U64(k.Mem(), addr)
	for err == nil && at != 0 {
		if len(out) == maxAttached {
			return out, fmt.Errorf("list at 0x%x has more than %d nodes: damaged", addr, maxAttached)
		}
		out = append(out, at)
		at, err = mem.U64(k.Mem(), at+next)
	}
	if err != nil {
		err = fmt.Errorf("list at 0x%x, node %d: %w", addr, len(out), err)
	}
	return out, err
}

// listOf yields what the nodes of the list_head at head are the member of.
func (r *attachReader) listOf(head uint64, record, member string) ([]*kernel.Object, error) {
	off, err := r.k.Offset(record, member)
	if err != nil {
		return nil, err
	}
	var out []*kernel.Object
	for at, err := range r.k.List(head) {
		if err != nil {
			return out, err
		}
		out = append(out, r.k.Object(record, at-off))
	}
	return out, nil
}

// globalList is listOf for one of the kernel's own lists.
func (r *attachReader) globalList(name, record, member string) ([]*kernel.Object, error) {
	head, err := r.k.Addr(name)
	if err != nil {
		return nil, err
	}
	return r.listOf(head, record, member)
}

// cgroupAttachFlags are the flags that an attachment to a cgroup keeps, as
// bpftool names them.
var cgroupAttachFlags = []string{"override", "multi"}

// cgroups walks the default hierarchy, which alone can have programs.
func (r *attachReader) cgroups() error {
	root, err := r.k.Addr("cgrp_dfl_root")
	if err != nil {
		return err
	}
	first := r.k.Object("cgroup_root", root).At("cgrp")
	w, err := newCgroupWalk(r)
	if err != nil {
		return err
	}
	seen := map[uint64]bool{first: true}
	for todo := []uint64{first}; len(todo) > 0 && !r.errs.TooMany(); {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := w.programs(at); err != nil {
			r.errs.Add(fmt.Errorf("cgroup at 0x%x: %w", at, err))
		}
		children, err := r.listOf(r.k.Object("cgroup", at).At("self.children"), "cgroup", "self.sibling")
		if err != nil {
			r.errs.Add(fmt.Errorf("children of the cgroup at 0x%x: %w", at, err))
		}
		slices.Reverse(children) // so that the first is next
		for _, c := range children {
			if !seen[c.Addr] && len(seen) < maxCgroups {
				seen[c.Addr] = true
				todo = append(todo, c.Addr)
			}
		}
	}
	return nil
}

const maxCgroups = 1 << 18

// A cgroupWalk knows where a kernel's cgroups keep their programs: in a list
// for each attach type, a list_head up to 00442143a2ab (6.0), since then an
// hlist_head.
type cgroupWalk struct {
	*attachReader
	progs, flags uint64 // offsets in struct cgroup
	types        uint64 // how many attach types there are
	step, fstep  uint64 // bytes of one head and one set of flags
	node         uint64 // offset in bpf_prog_list
	names        []string
}

func newCgroupWalk(r *attachReader) (*cgroupWalk, error) {
	w := &cgroupWalk{attachReader: r}
	var errs []error
	offset := func(record, path string) uint64 {
		off, err := r.k.Offset(record, path)
		errs = append(errs, err)
		return off
	}
	w.progs, w.flags, w.node = offset("cgroup", "bpf.progs"), offset("cgroup", "bpf.flags"), offset("bpf_prog_list", "node")
	w.step = offset("cgroup", "bpf.progs[1]") - w.progs
	w.fstep = offset("cgroup", "bpf.flags[1]") - w.flags
	w.types = uint64(r.k.Object("cgroup_bpf", 0).Len("progs"))
	for i := range w.types {
		w.names = append(w.names, cgroupAttachName(r.k, i))
	}
	return w, errors.Join(errs...)
}

// cgroupAttachName names an index into a cgroup's lists of programs: an attach
// type, from 6fc88c354f3a (5.15) on those of enum cgroup_bpf_attach_type, which
// has ten for LSM hooks (69fd337a975c, 6.0).
func cgroupAttachName(k *kernel.Kernel, i uint64) string {
	types, err := k.Types()
	if err != nil {
		return fmt.Sprintf("type %d", i)
	}
	if _, err := types.Lookup("enum cgroup_bpf_attach_type"); err != nil {
		return attachName(k, i)
	}
	if first, _, err := types.Enumerator("CGROUP_LSM_START"); err == nil && i >= first.Value {
		if last, _, err := types.Enumerator("CGROUP_LSM_END"); err == nil && i <= last.Value {
			return "lsm_cgroup"
		}
	}
	return "cgroup_" + enumName(k, "cgroup_bpf_attach_type", "CGROUP_", i)
}

// programs reads the lists of one cgroup.
func (w *cgroupWalk) programs(at uint64) error {
	heads, err := mem.Bytes(w.k.Mem(), at+w.progs, int(w.types*w.step))
	if err != nil {
		return err
	}
	var target Target
	for i := range w.types {
		head := at + w.progs + i*w.step
		if first := le64(heads[i*w.step:]); first == 0 || first == head {
			continue
		}
		if target.Kind == "" {
			if target, err = cgroupTarget(w.k, at); err != nil {
				return err
			}
		}
		if err := w.list(head, at+w.flags+i*w.fstep, Attachment{Kind: "cgroup", Attach: w.names[i], Target: target}); err != nil {
			w.errs.Add(fmt.Errorf("cgroup %s, %s: %w", target.Name, w.names[i], err))
		}
	}
	return nil
}

// list reads the programs of one attach type. An entry has a program of its
// own, or a link (af6eea57437a, 5.7).
func (w *cgroupWalk) list(head, flags uint64, a Attachment) error {
	bits, err := mem.U8(w.k.Mem(), flags)
	if err != nil {
		return err
	}
	for i, name := range cgroupAttachFlags {
		if bits>>i&1 != 0 {
			a.Flags = append(a.Flags, name)
		}
	}
	var nodes []uint64
	if w.step == 8 {
		nodes, err = hlist(w.k, head, 0)
	} else {
		for at, lerr := range w.k.List(head) {
			if err = lerr; err == nil {
				nodes = append(nodes, at)
			}
		}
	}
	for _, at := range nodes {
		o := w.k.Object("bpf_prog_list", at-w.node)
		prog := o.Ptr("prog")
		if o.Has("link") && o.Ptr("link") != 0 {
			prog = 0
		}
		w.errs.Add(o.Err())
		w.errs.Add(w.add(prog, a))
		if w.errs.TooMany() {
			break
		}
	}
	return err
}
