package cfg

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"
)

// graphOf makes a graph of nothing but edges; node 0 is the entry, and what it
// does not reach is left out.
func graphOf(succs [][]int, exit []bool) *Graph {
	order, _ := depthFirst(0, succs)
	slices.Sort(order)
	g := &Graph{}
	for i, v := range order {
		b := Block{Start: uint64(i), End: uint64(i) + 1, Last: uint64(i), Exit: exit[v]}
		for _, s := range succs[v] {
			if j, _ := slices.BinarySearch(order, s); !slices.Contains(b.Succs, j) {
				b.Succs = append(b.Succs, j)
			}
		}
		b.NoReturn = len(b.Succs) == 0 && !b.Exit
		g.Blocks = append(g.Blocks, b)
		g.blockOf = append(g.blockOf, int32(i))
	}
	for i, b := range g.Blocks {
		for _, s := range b.Succs {
			g.Blocks[s].Preds = append(g.Blocks[s].Preds, i)
		}
	}
	g.parts, g.base = []Part{{0, make([]byte, len(order))}}, []int{0}
	g.lazily()
	return g
}

func random(r *rand.Rand) *Graph {
	n := 1 + r.IntN(9)
	succs, exit := make([][]int, n), make([]bool, n)
	for v := range n {
		for range r.IntN(4) {
			succs[v] = append(succs[v], r.IntN(n))
		}
		exit[v] = r.IntN(5) == 0
	}
	return graphOf(succs, exit)
}

// reach returns which nodes can be reached from one, itself included, without
// entering a node that is dropped.
func reach(from, drop int, succs func(int) []int, n int) []bool {
	seen := make([]bool, n)
	if from == drop {
		return seen
	}
	seen[from] = true
	for work := []int{from}; len(work) > 0; {
		v := work[0]
		work = work[1:]
		for _, s := range succs(v) {
			if s != drop && !seen[s] {
				seen[s] = true
				work = append(work, s)
			}
		}
	}
	return seen
}

// TestDominance holds dominance against its definition: a dominates b if b
// cannot be reached without a.
func TestDominance(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		g := random(r)
		n := len(g.Blocks)
		succs := func(v int) []int { return g.Blocks[v].Succs }
		strict := make([][]int, n) // the strict dominators of each
		for a := range n {
			without := reach(0, a, succs, n)
			for b := range n {
				qt.Assert(t, qt.Equals(g.Dominates(a, b), !without[b]), qt.Commentf("%d over %d in %v", a, b, g.Blocks))
				if !without[b] && a != b {
					strict[b] = append(strict[b], a)
				}
			}
		}
		for b, i := range g.Dominators() {
			checkImmediate(t, strict, b, i)
		}
	}
}

// checkImmediate checks that i is the nearest of the strict dominators of b:
// the one that all others dominate.
func checkImmediate(t *testing.T, strict [][]int, b, i int) {
	t.Helper()
	if i < 0 {
		qt.Assert(t, qt.HasLen(strict[b], 0))
		return
	}
	qt.Assert(t, qt.SliceContains(strict[b], i))
	qt.Assert(t, qt.HasLen(strict[i], len(strict[b])-1))
}

// exitGraph is the graph by which post-dominance is defined: node n is the exit.
func exitGraph(g *Graph) (succs [][]int, n int) {
	n = len(g.Blocks)
	direct := func(v int) []int { return g.Blocks[v].Succs }
	leaves := make([]bool, n)
	for v := range n {
		for w, ok := range reach(v, -1, direct, n) {
			leaves[v] = leaves[v] || ok && (g.Blocks[w].Exit || g.Blocks[w].Unknown)
		}
	}
	order, _ := depthFirst(g.entry, g.succs())
	succs = make([][]int, n+1)
	for v, b := range g.Blocks {
		for _, s := range b.Succs {
			if leaves[s] || !leaves[v] {
				succs[v] = append(succs[v], s)
			}
		}
		if b.Exit || b.Unknown || len(b.Succs) == 0 {
			succs[v] = append(succs[v], n)
		}
		if leaves[v] {
			continue
		}
		// Of a loop that cannot be left, every block can reach all that v can.
		from := reach(v, -1, direct, n)
		endless := true
		for w, ok := range from {
			endless = endless && (!ok || len(g.Blocks[w].Succs) > 0 && reach(w, -1, direct, n)[v])
		}
		head := order[slices.IndexFunc(order, func(w int) bool { return from[w] })]
		if endless && slices.Contains(b.Succs, head) {
			succs[v] = append(succs[v], n)
		}
	}
	return succs, n
}

// TestPostDominance holds post-dominance and control dependence against their
// definitions.
func TestPostDominance(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 20000 {
		g := random(r)
		all, n := exitGraph(g)
		succs := func(v int) []int { return all[v] }
		over := make([][]bool, n) // over[a][b]: a post-dominates b
		strict := make([][]int, n)
		for a := range n {
			over[a] = make([]bool, n)
			for b := range n {
				over[a][b] = a == b || !reach(b, a, succs, n+1)[n]
				qt.Assert(t, qt.Equals(g.PostDominates(a, b), over[a][b]), qt.Commentf("%d over %d in %v", a, b, g.Blocks))
				if over[a][b] && a != b {
					strict[b] = append(strict[b], a)
				}
			}
		}
		for b, i := range g.PostDominators() {
			checkImmediate(t, strict, b, i)
		}
		for y := range n {
			var want []uint64
			for x, b := range g.Blocks {
				ways := len(b.Succs)
				if b.Exit {
					ways++
				}
				certain := slices.ContainsFunc(b.Succs, func(s int) bool { return over[y][s] })
				if ways > 1 && certain && (x == y || !over[y][x]) {
					want = append(want, uint64(x))
				}
			}
			qt.Assert(t, qt.DeepEquals(g.Controls(uint64(y)), want), qt.Commentf("%d in %v", y, g.Blocks))
		}
	}
}

// TestNaturalLoops holds the loops with one way in against the definition of a
// natural loop by back edges.
func TestNaturalLoops(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 20000 {
		g := random(r)
		n := len(g.Blocks)
		want := map[int]string{}
		for h := range n {
			body := []int{h}
			for _, p := range g.Blocks[h].Preds {
				if !g.Dominates(h, p) {
					continue
				}
				for b, ok := range reach(p, h, func(v int) []int { return g.Blocks[v].Preds }, n) {
					if ok {
						body = append(body, b)
					}
				}
				slices.Sort(body)
				body = slices.Compact(body)
				want[h] = fmt.Sprint(body)
			}
		}
		got := map[int]string{}
		loops := g.Loops()
		for i, l := range loops {
			if !l.Irreducible {
				qt.Assert(t, qt.Equals(got[l.Head], ""))
				got[l.Head] = fmt.Sprint(l.Blocks)
			}
			checkLoop(t, g, loops, i)
		}
		qt.Assert(t, qt.DeepEquals(got, want), qt.Commentf("%v", g.Blocks))
	}
}

// checkLoop checks what must hold of any loop or region.
func checkLoop(t *testing.T, g *Graph, loops []Loop, i int) {
	t.Helper()
	l := loops[i]
	qt.Assert(t, qt.Equals(l.Irreducible, len(l.Entries) > 1))
	qt.Assert(t, qt.SliceContains(l.Blocks, l.Head))
	qt.Assert(t, qt.Not(qt.HasLen(l.Latches, 0)))
	if l.Parent >= 0 {
		p := loops[l.Parent]
		qt.Assert(t, qt.Equals(p.Depth+1, l.Depth))
		qt.Assert(t, qt.IsTrue(l.Parent > i))
		for _, b := range l.Blocks {
			qt.Assert(t, qt.SliceContains(p.Blocks, b))
		}
	}
	for _, e := range l.Exits {
		qt.Assert(t, qt.SliceContains(l.Blocks, e.From))
		qt.Assert(t, qt.IsFalse(slices.Contains(l.Blocks, e.To)))
	}
	// Every block of it lies on a circle within it.
	for _, b := range l.Blocks {
		inside := func(v int) (out []int) {
			for _, s := range g.Blocks[v].Succs {
				if slices.Contains(l.Blocks, s) {
					out = append(out, s)
				}
			}
			return out
		}
		qt.Assert(t, qt.IsTrue(reach(b, -1, inside, len(g.Blocks))[l.Head]))
	}
}

// TestEndless: what the rules for code without a way out say.
func TestEndless(t *testing.T) {
	// 0 -> 1 (exit) or 2; 2 -> 3 or 4; 3, 4 -> 5 -> 2: a loop for ever.
	g := graphOf([][]int{{1, 2}, nil, {3, 4}, {5}, {5}, {2}}, []bool{false, true, false, false, false, false})
	qt.Check(t, qt.DeepEquals(g.PostDominators(), []int{1, -1, 5, 5, 5, -1}))
	qt.Check(t, qt.DeepEquals(g.Controls(1), nil))         // goes on for certain
	qt.Check(t, qt.DeepEquals(g.Controls(2), []uint64{0})) // into the loop
	qt.Check(t, qt.DeepEquals(g.Controls(3), []uint64{2})) // within
	qt.Check(t, qt.DeepEquals(g.Controls(5), []uint64{0})) // its latch
	qt.Check(t, qt.DeepEquals(g.Loops()[0].Blocks, []int{2, 3, 4, 5}))
	qt.Check(t, qt.HasLen(g.Loops()[0].Exits, 0))
}

// TestIrreducible: a circle with two ways in.
func TestIrreducible(t *testing.T) {
	g := graphOf([][]int{{1, 2}, {2, 3}, {1}, nil}, []bool{false, false, false, true})
	l := g.Loops()
	qt.Assert(t, qt.HasLen(l, 1))
	qt.Check(t, qt.IsTrue(l[0].Irreducible))
	qt.Check(t, qt.DeepEquals(l[0].Entries, []int{1, 2}))
	qt.Check(t, qt.DeepEquals(l[0].Exits, []Edge{{1, 3}}))
}
