package graph_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/graph"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/render"
)

var update = flag.Bool("update", false, "write the expectations anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(got), 0o644)))
	}
	want, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, string(want)))
}

func tree(g *graph.Graph) string {
	var b bytes.Buffer
	render.NewPrinter(&b, render.Options{}).Graph(g)
	return b.String()
}

var inventories = map[string]func() bpf.Inventory{
	"some": some, "many": func() bpf.Inventory { return many(500) }, "hostile": hostile,
	"deep": func() bpf.Inventory { return deep(40) }, "none": func() bpf.Inventory { return bpf.Inventory{} },
}

// exampleInventory is what the dump in testdata tells.
func exampleInventory(t *testing.T) bpf.Inventory {
	t.Helper()
	inv, err := bpfview.Source{Kernel: example.Kernel(t)}.Inventory(t.Context())
	qt.Assert(t, qt.IsNil(err))
	return inv
}

func TestTree(t *testing.T) {
	for name, inv := range inventories {
		t.Run(name, func(t *testing.T) { checkTree(t, name, inv()) })
	}
	t.Run("example", func(t *testing.T) { checkTree(t, "example", exampleInventory(t)) })
}

func checkTree(t *testing.T, name string, inv bpf.Inventory) {
	g := graph.Build(inv)
	got := tree(g)
	golden(t, name+".txt", got)
	for line := range strings.Lines(got) {
		qt.Check(t, qt.IsTrue(lipgloss.Width(strings.TrimSuffix(line, "\n")) <= render.Width), qt.Commentf("%s", line))
	}
	// Twice the same, whatever the order of maps in the program.
	qt.Check(t, qt.Equals(tree(graph.Build(inv)), got))
}

// TestComplete: the tree leaves no program or map out, unless it says how many.
func TestComplete(t *testing.T) {
	for name, inv := range inventories {
		g := graph.Build(inv())
		got := make(map[string]bool)
		var walk func(b *graph.Branch)
		walk = func(b *graph.Branch) {
			got[b.Node.ID] = true
			if b.Through != nil {
				got[b.Through.ID] = true
			}
			for _, n := range b.Leaves {
				got[n.ID] = true
			}
			for _, c := range append(b.Children, b.Like...) {
				walk(c)
			}
		}
		listed := 0
		for _, s := range g.Forest() {
			for _, b := range s.Roots {
				walk(b)
			}
			for _, l := range s.Lists {
				listed += len(l.Nodes) + len(l.More)
			}
		}
		objects := 0
		for _, n := range g.Nodes {
			if n.Kind == graph.Program || n.Kind == graph.Map {
				objects++
				if got[n.ID] {
					listed++
				}
			}
		}
		qt.Check(t, qt.Equals(listed, objects), qt.Commentf("%s", name))
	}
}

// TestEdges: nodes and edges of each relation.
func TestEdges(t *testing.T) {
	g := graph.Build(some())
	var got []string
	for _, e := range g.Edges {
		if strings.HasPrefix(e.From, "func:function_") && e.From != "func:function_7" {
			continue
		}
		line := e.From + " " + string(e.Kind) + " " + e.To
		if e.Label != "" {
			line += " (" + e.Label + ")"
		}
		if e.Via != "" {
			line += " via " + e.Via
		}
		got = append(got, line)
	}
	golden(t, "some.edges", strings.Join(got, "\n")+"\n")
	raw, err := json.Marshal(g)
	qt.Assert(t, qt.IsNil(err))
	var back graph.Graph
	qt.Assert(t, qt.IsNil(json.Unmarshal(raw, &back)))
	qt.Check(t, qt.HasLen(back.Nodes, len(g.Nodes)))
	for _, e := range g.Edges {
		qt.Check(t, qt.IsNotNil(g.Node(e.From)), qt.Commentf("%s", e.From))
		qt.Check(t, qt.IsNotNil(g.Node(e.To)), qt.Commentf("%s", e.To))
	}
}

// TestWithoutMemory: where there are no trampolines links tell the same.
func TestWithoutMemory(t *testing.T) {
	inv := some()
	inv.Trampolines = nil
	golden(t, "some-links.txt", tree(graph.Build(inv)))
}

func TestFrom(t *testing.T) {
	g := graph.Build(some())
	for _, id := range []string{"prog:10", "prog:12", "prog:14", "prog:18", "map:4", "map:7", "eth0", "pid:93", "vfs_read", "module1", "tramp:0xffffffffc0800010", "link:9"} {
		t.Run(id, func(t *testing.T) {
			n, err := g.Find(id)
			qt.Assert(t, qt.IsNil(err))
			golden(t, "from-"+strings.NewReplacer(":", "-", "/", "-").Replace(id)+".txt", tree(g.From(n.ID)))
		})
	}
	// A map that many programs use brings them only if it is asked for.
	big := graph.Build(many(500))
	qt.Check(t, qt.IsTrue(big.From("prog:40").Count(graph.Program) < 5))
	qt.Check(t, qt.Equals(big.From("map:1").Count(graph.Program), 40+50+25))
}

func TestFind(t *testing.T) {
	g := graph.Build(some())
	for _, test := range []struct{ name, want, err string }{
		{"prog:10/module3", "prog:10/module3", ""},
		{"xdp_main", "prog:10", ""},
		{"/sys/fs/bpf/xdp/main", "prog:10", ""},
		{"stats", "map:4", ""},
		{"loader", "pid:93", ""},
		{"0xffffffffc000a301", "prog:10/module3", ""},
		{"tramp:0xffffffffc08010c7", "tramp:0xffffffffc0801000", ""},
		{"tramp:0xffffffffc08010c8", "", `nothing of BPF here is called tramp:0xffffffffc08010c8.*`},
		{"vfs_raed", "", `nothing of BPF here is called vfs_raed \(did you mean func:vfs_read\?\)`},
		{"prog:1", "", `.*did you mean prog:1\d.*`},
		{"", "", `nothing of BPF here is called `},
	} {
		n, err := g.Find(test.name)
		if test.err != "" {
			qt.Check(t, qt.ErrorMatches(err, test.err))
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(n.ID, test.want))
	}
	inv := some()
	inv.Programs = append(inv.Programs, &bpf.Program{ID: 30, Name: "stats"})
	_, err := graph.Build(inv).Find("stats")
	qt.Check(t, qt.ErrorMatches(err, `stats could be prog:30, map:4`))
}
