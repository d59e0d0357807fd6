// Package graph draws how the BPF objects of a kernel hang together: what makes
// programs run, which functions they consist of, what is traced or replaced,
// where tail calls can go, which maps are used and which processes hold what.
//
// A [Graph] is built from plain data. [Graph.From] cuts out what concerns one
// object, [Graph.Forest] makes a text tree of it, [Graph.DOT] a graph for
// Graphviz and [Graph.SVG] a picture.
package graph

import (
	"cmp"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/mem"
)

// A Kind says what a node stands for.
type Kind string

// The kinds of nodes. A kind is the first part of its nodes' ids.
const (
	Program    Kind = "prog"
	Function   Kind = "function" // of a BPF program, but for its main one; its id is prog:ID/NAME
	Map        Kind = "map"
	Link       Kind = "link"
	Trampoline Kind = "tramp"
	Process    Kind = "pid"

	// What programs act on.
	Kernel     Kind = "func" // a function of the kernel or a module
	Tracepoint Kind = "tracepoint"
	Event      Kind = "perf_event"
	Uprobe     Kind = "uprobe"
	Netdev     Kind = "netdev"
	Netns      Kind = "netns"
	Cgroup     Kind = "cgroup"
	Netfilter  Kind = "netfilter"
	StructOps  Kind = "struct_ops"
	Iterator   Kind = "iterator"
	Unknown    Kind = "target" // of links whose target could not be read
)

// Source says that nodes of the kind are where events enter: what runs programs
// without being one.
func (k Kind) Source() bool {
	switch k {
	case Program, Function, Map, Link, Trampoline, Process:
		return false
	}
	return true
}

// A Relation says how one node of an edge depends on the other. Edges lead in
// the direction that events and data take: from what runs to what is run or used.
type Relation string

// The relations.
const (
	Attached   Relation = "attached"    // target to link, or to a program at work without one
	Links      Relation = "link"        // link to its program, or struct_ops map
	Traced     Relation = "trampoline"  // function to the trampoline that hangs on it
	Runs       Relation = "runs"        // trampoline to program
	ReplacedBy Relation = "replaced_by" // function of a program to the freplace program
	Consists   Relation = "function"    // program to its other functions
	TailCalls  Relation = "tail_calls"  // program to the program array it jumps through
	Slot       Relation = "slot"        // program array, or map of devices and the like, to a program in it
	Uses       Relation = "uses"        // program to map
	Inner      Relation = "inner"       // map of maps to one of them
	Implements Relation = "implements"  // struct_ops map to its images
	Holds      Relation = "holds"       // process to what it has a descriptor of
)

// A Node is an object.
type Node struct {
	ID   string `json:"id"` // kind:NUMBER-OR-NAME, the same whenever the same object is met
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	Type string `json:"type,omitempty"` // of a program, map, link or trampoline
	Num  int    `json:"num,omitempty"`  // id of a program, map, link; pid; interface index
	// Netns is the inode number of a device's network namespace.
	Netns uint64 `json:"netns_ino,omitempty"`

	Addr mem.Addr `json:"addr,omitzero"`  // of code
	Size int      `json:"size,omitempty"` // bytes of code; entries that a map has room for
	// Missing: others name it, but it is not among the objects listed: it was
	// gone, or could not be read.
	Missing bool `json:"missing,omitempty"`
	// KeepsTailCalls is the trampoline's: see [bpf.Trampoline].
	KeepsTailCalls *bool `json:"keeps_tail_call_cnt,omitempty"`
	// TailCalls: the program can be left by a tail call.
	TailCalls bool `json:"tail_call_reachable,omitempty"`
	Targets   int  `json:"targets,omitempty"` // of a link, how many there are
	// Used is how many entries of a map have a program or map in them; nil if
	// they were not read.
	Used *int     `json:"used_entries,omitempty"`
	Pins []string `json:"pinned,omitempty"`
}

// An Edge ties two nodes together.
type Edge struct {
	From  string   `json:"from"`
	To    string   `json:"to"`
	Kind  Relation `json:"kind"`
	Label string   `json:"label,omitempty"` // the slot, the hook, when it runs
	Order int      `json:"order,omitempty"` // of the programs of a trampoline, from 1
	// Via is the trampoline that does what the edge of a link says, where it
	// is known.
	Via string `json:"via,omitempty"`
}

// A Graph is a set of nodes and the edges between them.
type Graph struct {
	Nodes []*Node `json:"nodes"`
	Edges []*Edge `json:"edges"`

	nodes   map[string]*Node
	out, in map[string][]*Edge
}

// Node returns the node of an id, or nil.
func (g *Graph) Node(id string) *Node { return g.nodes[id] }

// Out returns the edges that leave a node.
func (g *Graph) Out(id string) []*Edge { return g.out[id] }

// In returns the edges that lead to a node.
func (g *Graph) In(id string) []*Edge { return g.in[id] }

// Count returns how many nodes of a kind there are.
func (g *Graph) Count(k Kind) int {
	n := 0
	for _, node := range g.Nodes {
		if node.Kind == k {
			n++
		}
	}
	return n
}

func newGraph() *Graph {
	return &Graph{
		Nodes: []*Node{}, Edges: []*Edge{},
		nodes: make(map[string]*Node), out: make(map[string][]*Edge), in: make(map[string][]*Edge),
	}
}

// add puts a node in, unless one of its id is there, and returns the one that is.
func (g *Graph) add(n Node) *Node {
	if have := g.nodes[n.ID]; have != nil {
		return have
	}
	g.nodes[n.ID] = &n
	g.Nodes = append(g.Nodes, &n)
	return &n
}

// edge puts an edge in.
func (g *Graph) edge(e Edge) *Edge {
	g.Edges = append(g.Edges, &e)
	g.out[e.From] = append(g.out[e.From], &e)
	g.in[e.To] = append(g.in[e.To], &e)
	return &e
}

// has says whether there is an edge of a kind between two nodes.
func (g *Graph) has(from, to string, kind Relation) bool {
	return slices.ContainsFunc(g.out[from], func(e *Edge) bool { return e.To == to && e.Kind == kind })
}

// kindOrder is how nodes are sorted: sources first, as roots of the tree.
var kindOrder = []Kind{
	Netdev, Netns, Netfilter, Cgroup, Tracepoint, Event, Kernel, Uprobe, StructOps, Iterator, Unknown,
	Link, Program, Function, Trampoline, Map, Process,
}

// compareNodes sorts by kind, then number, then name.
func compareNodes(a, b *Node) int {
	return cmp.Or(
		cmp.Compare(slices.Index(kindOrder, a.Kind), slices.Index(kindOrder, b.Kind)),
		cmp.Compare(a.Num, b.Num), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID),
	)
}

// attachKind tells the kinds of nodes for the kinds of targets.
var attachKind = map[bpf.TargetKind]Kind{
	bpf.TargetFunction: Kernel, bpf.TargetKprobe: Kernel,
	bpf.TargetTracepoint: Tracepoint, bpf.TargetEvent: Event, bpf.TargetUprobe: Uprobe,
	bpf.TargetNetdev: Netdev, bpf.TargetNetns: Netns, bpf.TargetCgroup: Cgroup,
	bpf.TargetNetfilter: Netfilter, bpf.TargetStructOps: StructOps, bpf.TargetIterator: Iterator,
	bpf.TargetMap: Map, bpf.TargetProgram: Program,
}
