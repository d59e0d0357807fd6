package graph

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
)

// target returns the id of the node for what a program acts on.
func (b *builder) target(t bpf.Target) string {
	switch t.Kind {
	case bpf.TargetProgram:
		return b.programTarget(t)
	case bpf.TargetMap:
		return b.mapNode(t.MapID)
	case bpf.TargetFunction, bpf.TargetKprobe:
		return b.kernelFunction(t)
	}
	n := Node{Kind: cmp.Or(attachKind[t.Kind], Unknown), Name: t.Name}
	switch t.Kind {
	case bpf.TargetNetdev:
		n.Num, n.Netns = t.Ifindex, t.Netns
		n.Name = cmp.Or(n.Name, fmt.Sprintf("interface %d", t.Ifindex))
		if len(b.netns[t.Name]) > 1 {
			n.ID = fmt.Sprintf("%s:%s@%d", n.Kind, n.Name, t.Netns)
		}
	case bpf.TargetNetns:
		n.Name = cmp.Or(n.Name, fmt.Sprint(t.Netns))
	case bpf.TargetCgroup:
		n.Name = cmp.Or(n.Name, fmt.Sprintf("id %d", t.Value))
	case bpf.TargetUprobe:
		n.Name = fmt.Sprintf("%s+%v", t.Name, t.Offset)
	case bpf.TargetIterator:
		if t.MapID != 0 {
			n.Name += fmt.Sprintf(" of map %d", t.MapID)
		}
	}
	n.Name = cmp.Or(n.Name, string(t.Kind), "unknown")
	n.ID = cmp.Or(n.ID, string(n.Kind)+":"+n.Name)
	return b.add(n).ID
}

// programTarget returns the node of a function of a program: of the program
// where that is its main one, or the function is not known.
func (b *builder) programTarget(t bpf.Target) string {
	i := slices.IndexFunc(b.inv.Programs, func(p *bpf.Program) bool { return p.ID == t.ProgID })
	if i < 0 {
		return b.progNode(t.ProgID, "")
	}
	p := b.inv.Programs[i]
	for i, s := range p.Subprogs {
		if t.Addr != 0 && s.Addr == t.Addr || t.Addr == 0 && t.Name != "" && s.Name == t.Name {
			return functionID(p, i)
		}
	}
	for i, s := range p.Subprogs {
		if t.Name != "" && s.Name == t.Name {
			return functionID(p, i)
		}
	}
	return progID(p.ID)
}

// kernelFunction returns the node of a function of the kernel. Of functions
// that share a name, all but the first met have their address in the id.
func (b *builder) kernelFunction(t bpf.Target) string {
	addr := uint64(t.Addr - t.Offset)
	if t.Addr < t.Offset {
		addr = 0
	}
	name := t.Name
	if name == "" {
		name = t.Addr.String()
	}
	if t.Module != "" {
		name = t.Module + ":" + name
	}
	id := "func:" + name
	// A probe at the beginning stands behind the endbr64 where there is one.
	const entry = 16
	if known := b.addrs[id]; known != 0 && addr != 0 && max(known, addr)-min(known, addr) > entry {
		id += fmt.Sprintf("@0x%x", addr)
	} else if addr != 0 && known == 0 {
		b.addrs[id] = addr
	}
	n := b.add(Node{ID: id, Kind: Kernel, Name: name})
	if n.Addr == 0 && addr != 0 {
		n.Addr = t.Addr - t.Offset
	}
	return id
}

// hook says how a link is attached to a target.
func hook(l *bpf.Link, t bpf.Target) string {
	if t.Kind != bpf.TargetKprobe && t.Kind != bpf.TargetUprobe {
		return mode(l.Type, l.Attach)
	}
	out := string(t.Kind)
	if t.Return {
		out = strings.Replace(out, "probe", "retprobe", 1)
	}
	if t.Offset != 0 && t.Kind == bpf.TargetKprobe {
		out += fmt.Sprintf(" +%v", t.Offset)
	}
	return out
}

// mode words a kind of attachment and what is particular of it: "cgroup
// inet_ingress", "xdp generic".
func mode(kind, attach string) string {
	return strings.TrimSpace(kind + " " + strings.TrimPrefix(strings.TrimPrefix(attach, kind), "_"))
}
