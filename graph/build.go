package graph

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"github.com/ksleuth/ksleuth/bpf"
)

// maxTargets bounds how many targets of one link get nodes.
const maxTargets = 4096

// builder is a graph being built.
type builder struct {
	*Graph
	inv bpf.Inventory
	// netns are the network namespaces that have a device of a name.
	netns map[string]map[uint64]bool
	// addrs are the addresses of kernel functions by the id of their node.
	addrs map[string]uint64
	tramp map[string][]*bpf.Trampoline // by the node they hang on
}

// Build returns the graph of everything in an inventory.
func Build(inv bpf.Inventory) *Graph {
	b := &builder{
		Graph: newGraph(), inv: inv,
		netns: make(map[string]map[uint64]bool), addrs: make(map[string]uint64),
		tramp: make(map[string][]*bpf.Trampoline),
	}
	b.countNetns()
	for _, p := range inv.Programs {
		b.program(p)
	}
	for _, m := range inv.Maps {
		id := b.mapNode(m.ID)
		n := b.nodes[id]
		n.Name, n.Type, n.Size, n.Pins, n.Missing = m.Name, m.Type, int(m.MaxEntries), m.Pins, false
		b.holders(m.Holders, id)
	}
	for _, m := range inv.Maps {
		b.entries(m)
	}
	for _, p := range inv.Programs {
		b.mapsOf(p)
	}
	for _, t := range inv.Trampolines {
		b.trampoline(t)
	}
	for _, l := range inv.Links {
		b.link(l)
	}
	for _, a := range inv.Attachments {
		b.attachment(a)
	}
	slices.SortStableFunc(b.Nodes, compareNodes)
	return b.Graph
}

// countNetns finds names of devices that are used in several namespaces.
func (b *builder) countNetns() {
	note := func(t bpf.Target) {
		if t.Kind == bpf.TargetNetdev {
			if b.netns[t.Name] == nil {
				b.netns[t.Name] = make(map[uint64]bool)
			}
			b.netns[t.Name][t.Netns] = true
		}
	}
	for _, l := range b.inv.Links {
		for _, t := range l.Targets {
			note(t)
		}
	}
	for _, a := range b.inv.Attachments {
		note(a.Target)
	}
}

// holders adds the processes that hold a node.
func (b *builder) holders(hs []bpf.Holder, id string) {
	for _, h := range hs {
		pid := b.add(Node{ID: fmt.Sprint("pid:", h.PID), Kind: Process, Name: h.Comm, Num: h.PID})
		if !b.has(pid.ID, id, Holds) {
			b.edge(Edge{From: pid.ID, To: id, Kind: Holds})
		}
	}
}

func (b *builder) program(p *bpf.Program) {
	n := b.add(Node{ID: progID(p.ID), Kind: Program, Num: p.ID})
	n.Name, n.Type, n.Size, n.Pins = p.Name, p.Type, p.JitedLen, p.Pins
	n.TailCalls = p.TailCall != nil && *p.TailCall
	for i, s := range p.Subprogs {
		if i == 0 {
			n.Addr = s.Addr
			if n.Size == 0 || len(p.Subprogs) > 1 {
				n.Size = s.Len // of the main function; the others have nodes
			}
			continue
		}
		f := b.add(Node{ID: functionID(p, i), Kind: Function, Num: p.ID, Name: s.Name, Addr: s.Addr, Size: s.Len})
		b.edge(Edge{From: n.ID, To: f.ID, Kind: Consists})
	}
	b.holders(p.Holders, n.ID)
}

func progID(id int) string { return fmt.Sprint("prog:", id) }

// functionID returns the id of a function of a program: by its name, or by its
// number where several have the name.
func functionID(p *bpf.Program, i int) string {
	if i == 0 {
		return progID(p.ID)
	}
	name := p.Subprogs[i].Name
	same := slices.IndexFunc(p.Subprogs, func(s bpf.Subprog) bool { return s.Name == name })
	if name == "" || same != i {
		name = strconv.Itoa(i)
	}
	return progID(p.ID) + "/" + name
}

// progNode returns the id of a program's node, also of one that is not listed.
func (b *builder) progNode(id int, name string) string {
	return b.add(Node{ID: progID(id), Kind: Program, Num: id, Name: name, Missing: true}).ID
}

func (b *builder) mapNode(id int) string {
	return b.add(Node{ID: fmt.Sprint("map:", id), Kind: Map, Num: id, Missing: true}).ID
}

// mapsOf ties a program to its maps. Only a tail call can use a program array.
func (b *builder) mapsOf(p *bpf.Program) {
	for _, id := range p.MapIDs {
		to, kind := b.mapNode(id), Uses
		if b.nodes[to].Type == "prog_array" {
			kind = TailCalls
		}
		if !b.has(progID(p.ID), to, kind) {
			b.edge(Edge{From: progID(p.ID), To: to, Kind: kind})
		}
	}
}

// entries ties a map to the programs and maps in it.
func (b *builder) entries(m *bpf.Map) {
	from := b.mapNode(m.ID)
	entries, read := b.inv.Entries[m.ID]
	used := 0
	if read {
		b.nodes[from].Used = &used
	}
	for _, e := range entries {
		if e.Object == nil || e.Object.ID == 0 {
			continue
		}
		used++
		label := e.KeyText
		if label == "" && len(e.Key) == 4 {
			label = fmt.Sprint(binary.LittleEndian.Uint32(e.Key))
		} else if label == "" {
			label = fmt.Sprintf("0x%x", []byte(e.Key))
		}
		switch e.Object.Kind {
		case "prog":
			b.edge(Edge{From: from, To: b.progNode(e.Object.ID, e.Object.Name), Kind: Slot, Label: label})
		case "map":
			b.edge(Edge{From: from, To: b.mapNode(e.Object.ID), Kind: Inner, Label: label})
		}
	}
}

// trampoline adds an image, what it hangs on and what it runs.
func (b *builder) trampoline(t *bpf.Trampoline) {
	if t.Kind == "struct_ops" {
		b.structOpsImage(t)
		return
	}
	on := ""
	if t.Target.Kind != "" && (t.Target.Name != "" || t.Target.ProgID != 0 || t.Target.Addr != 0) {
		on = b.target(t.Target)
		b.tramp[on] = append(b.tramp[on], t)
	}
	if t.Replaced != 0 && on != "" {
		name := ""
		for _, p := range t.Progs {
			if p.When == "replace" {
				name = p.Name
			}
		}
		b.edge(Edge{From: on, To: b.progNode(t.Replaced, name), Kind: ReplacedBy, Label: "freplace"})
	}
	if t.Image == 0 {
		return
	}
	n := b.image(t)
	if on != "" {
		b.edge(Edge{From: on, To: n.ID, Kind: Traced})
	}
	order := 0
	entered := make(map[int]bool)
	for _, p := range t.Progs {
		if p.When == "replace" {
			continue
		}
		e := Edge{From: n.ID, Kind: Runs, Label: p.When}
		if entered[p.ID] {
			e.Label += " return"
		}
		entered[p.ID] = p.When == "fsession"
		if t.Kind == "trampoline" {
			order++
			e.Order = order
		}
		if p.ID == 0 { // a stand-in of the kernel for the programs of a cgroup
			name := cmp.Or(p.Name, "unknown")
			e.To = b.add(Node{ID: "func:" + name, Kind: Kernel, Name: name}).ID
		} else {
			e.To = b.progNode(p.ID, p.Name)
		}
		b.edge(e)
	}
}

func (b *builder) image(t *bpf.Trampoline) *Node {
	return b.add(Node{
		ID: "tramp:" + t.Image.String(), Kind: Trampoline, Type: t.Kind, Name: t.Name,
		Addr: t.Image, Size: t.Size, KeepsTailCalls: t.KeepsTailCalls,
	})
}

// structOpsImage adds the code through which the kernel calls a program of a
// struct_ops map.
func (b *builder) structOpsImage(t *bpf.Trampoline) {
	n := b.image(t)
	n.Name = cmp.Or(n.Name, t.Member)
	b.edge(Edge{From: b.mapNode(t.Target.MapID), To: n.ID, Kind: Implements, Label: t.Member})
	for _, p := range t.Progs {
		b.edge(Edge{From: n.ID, To: b.progNode(p.ID, p.Name), Kind: Runs, Label: p.When})
	}
}

// link adds a link, its program and what it acts on.
func (b *builder) link(l *bpf.Link) {
	n := b.add(Node{ID: fmt.Sprint("link:", l.ID), Kind: Link, Num: l.ID, Type: l.Type, Name: l.Attach, Pins: l.Pins, Targets: len(l.Targets)})
	b.holders(l.Holders, n.ID)
	if l.ProgID != 0 {
		b.edge(Edge{From: n.ID, To: b.progNode(l.ProgID, ""), Kind: Links})
	}
	freplace := l.ProgID != 0 && b.nodes[progID(l.ProgID)].Type == "ext"
	for i, t := range l.Targets {
		if i == maxTargets {
			break
		}
		if l.ProgID == 0 && t.MapID != 0 && t.Kind == bpf.TargetStructOps {
			b.edge(Edge{From: n.ID, To: b.mapNode(t.MapID), Kind: Links})
		}
		on := b.target(t)
		e := b.edge(Edge{From: on, To: n.ID, Kind: Attached, Label: hook(l, t)})
		for _, tr := range b.tramp[on] {
			if slices.ContainsFunc(tr.Progs, func(p bpf.TrampolineProg) bool { return p.ID == l.ProgID && p.When != "replace" }) {
				e.Via = "tramp:" + tr.Image.String()
			}
		}
		if freplace {
			if !b.has(on, progID(l.ProgID), ReplacedBy) {
				b.edge(Edge{From: on, To: progID(l.ProgID), Kind: ReplacedBy, Label: "freplace"})
			}
			e.Via = on
		}
	}
}

// attachment adds a program that is at work without a link.
func (b *builder) attachment(a bpf.Attachment) {
	if a.ProgID == 0 {
		return
	}
	label := mode(a.Kind, a.Attach)
	if a.Chain != 0 {
		label += fmt.Sprintf(" chain %d", a.Chain)
	}
	if a.Prio != 0 {
		label += fmt.Sprintf(" prio %d", a.Prio)
	}
	on, prog := b.target(a.Target), b.progNode(a.ProgID, "")
	if a.Target.Kind == bpf.TargetStructOps && a.Target.MapID != 0 { // registered by its map
		m := b.mapNode(a.Target.MapID)
		if !b.has(on, m, Attached) {
			b.edge(Edge{From: on, To: m, Kind: Attached, Label: label})
		}
		if !slices.ContainsFunc(b.in[prog], func(e *Edge) bool { return b.has(m, e.From, Implements) }) {
			b.edge(Edge{From: m, To: prog, Kind: Attached, Label: label})
		}
		return
	}
	b.edge(Edge{From: on, To: prog, Kind: Attached, Label: label})
}
