package cfg

import "slices"

// postDominators finds the dominators of the graph walked backwards from an
// exit added behind all ways out: node len(Blocks). See [Graph.PostDominators]
// for what counts as one.
func (g *Graph) postDominators() *tree {
	n := len(g.Blocks)
	leaves := g.leaves()
	back := make([][]int, n+1)
	for i := range g.Blocks {
		b := &g.Blocks[i]
		if b.Exit || b.Unknown || !leaves[i] && len(b.Succs) == 0 {
			back[n] = append(back[n], i)
		}
		for _, p := range b.Preds {
			if leaves[i] || !leaves[p] {
				back[i] = append(back[i], p)
			}
		}
	}
	back[n] = append(back[n], g.endless(leaves)...)
	return dominators(n, back)
}

// leaves says of each block whether control can get from it out of the function.
func (g *Graph) leaves() []bool {
	out := make([]bool, len(g.Blocks))
	var work []int
	add := func(i int) {
		if !out[i] {
			out[i] = true
			work = append(work, i)
		}
	}
	for i := range g.Blocks {
		if g.Blocks[i].Exit || g.Blocks[i].Unknown {
			add(i)
		}
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		for _, p := range g.Blocks[i].Preds {
			add(p)
		}
	}
	return out
}

// endless returns the latches of the loops that cannot be left: the blocks of
// such a loop that go to the one of it which is met first from the entry.
func (g *Graph) endless(leaves []bool) []int {
	var doomed []int
	for i := range g.Blocks {
		if !leaves[i] {
			doomed = append(doomed, i)
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	order, _ := depthFirst(g.entry, g.succs())
	num := make([]int, len(g.Blocks))
	for i, v := range order {
		num[v] = i
	}
	var out []int
	f := newComponents(g.succs())
	for _, c := range f.find(doomed) {
		left := slices.ContainsFunc(c, func(v int) bool {
			return len(g.Blocks[v].Succs) == 0 || slices.ContainsFunc(g.Blocks[v].Succs, func(s int) bool { return f.of[s] != f.of[v] })
		})
		if left {
			continue
		}
		head := slices.MinFunc(c, func(a, b int) int { return num[a] - num[b] })
		for _, v := range c {
			if slices.Contains(g.Blocks[v].Succs, head) {
				out = append(out, v)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Controls returns the control dependences of the instruction at addr: the
// addresses of the branches on which its execution depends directly, ascending.
// Of such a branch one way leads to the instruction for certain, and another
// may pass it by (Ferrante, Ottenstein, Warren; TOPLAS 1987).
//
// A branch between going on and an end that does not leave the function (a BUG)
// controls what is there, and nothing of what goes on: see
// [Graph.PostDominators]. It is nil for code that is not reached.
func (g *Graph) Controls(addr uint64) []uint64 {
	y, ok := g.BlockAt(addr)
	if !ok {
		return nil
	}
	var out []uint64
	t := g.postdom()
	for x := range g.Blocks {
		b := &g.Blocks[x]
		if !b.branches() || x != y && t.over(y, x) {
			continue
		}
		if slices.ContainsFunc(b.Succs, func(s int) bool { return t.over(y, s) }) {
			out = append(out, b.Last)
		}
	}
	slices.Sort(out)
	return out
}

// branches says whether control has a choice at the end of the block.
func (b *Block) branches() bool {
	return len(b.Succs) > 1 || len(b.Succs) == 1 && (b.Exit || b.Unknown)
}
