package cfg

// A tree is the dominator tree of a graph of numbered nodes.
type tree struct {
	idom []int // -1 for the root and what is not reached from it
	// A node's number in a walk over the tree, parents first, and how many
	// nodes are below it, itself included; 0 if it is not reached.
	num, size []int
}

// over says whether a is b or above it.
func (t *tree) over(a, b int) bool {
	return t.size[a] > 0 && t.size[b] > 0 && t.num[a] <= t.num[b] && t.num[b] < t.num[a]+t.size[a]
}

// dominators finds the dominators of all nodes reached from root: the algorithm
// of Lengauer and Tarjan (TOPLAS 1979), with simple path compression. In here
// nodes are known by their number in a depth-first walk.
func dominators(root int, succs [][]int) *tree {
	order, parent := depthFirst(root, succs)
	numOf := make([]int, len(succs))
	for i := range numOf {
		numOf[i] = -1
	}
	for i, v := range order {
		numOf[v] = i
	}
	preds := make([][]int32, len(order))
	for i, v := range order {
		for _, s := range succs[v] {
			j := numOf[s]
			preds[j] = append(preds[j], int32(i))
		}
	}
	l := newLinks(len(order))
	idom := make([]int, len(order))
	bucket := make([]int, len(order)) // first of the list of those whose semidominator it is
	next := make([]int, len(order))
	for i := range bucket {
		bucket[i] = -1
	}
	for w := len(order) - 1; w > 0; w-- {
		for _, p := range preds[w] {
			l.semi[w] = min(l.semi[w], l.semi[l.eval(int(p))])
		}
		s := l.semi[w]
		next[w], bucket[s] = bucket[s], w
		p := parent[w]
		l.above[w] = p
		for v := bucket[p]; v >= 0; v = next[v] {
			if u := l.eval(v); l.semi[u] < l.semi[v] {
				idom[v] = u
			} else {
				idom[v] = p
			}
		}
		bucket[p] = -1
	}
	for w := 1; w < len(order); w++ {
		if idom[w] != l.semi[w] {
			idom[w] = idom[idom[w]]
		}
	}
	return newTree(order, idom, len(succs))
}

// depthFirst walks a graph. It returns the nodes in the order in which they are
// first met, and the number in that order of the node each was met from.
func depthFirst(root int, succs [][]int) (order, parent []int) {
	type at struct{ num, next int }
	seen := make([]bool, len(succs))
	seen[root] = true
	order, parent = []int{root}, []int{-1}
	stack := []at{{0, 0}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		out := succs[order[top.num]]
		if top.next == len(out) {
			stack = stack[:len(stack)-1]
			continue
		}
		v := out[top.next]
		top.next++
		if !seen[v] {
			seen[v] = true
			order, parent = append(order, v), append(parent, top.num)
			stack = append(stack, at{len(order) - 1, 0})
		}
	}
	return order, parent
}

// links is the forest that the algorithm grows from the leaves of the
// depth-first tree, with its paths compressed.
type links struct {
	semi, above, label []int
	path               []int
}

func newLinks(n int) *links {
	l := &links{semi: make([]int, n), above: make([]int, n), label: make([]int, n)}
	for i := range n {
		l.semi[i], l.above[i], l.label[i] = i, -1, i
	}
	return l
}

// eval returns the node of least semidominator on the way up from v, the root of
// its tree excluded.
func (l *links) eval(v int) int {
	if l.above[v] < 0 {
		return v
	}
	l.path = l.path[:0]
	for u := v; l.above[l.above[u]] >= 0; u = l.above[u] {
		l.path = append(l.path, u)
	}
	for i := len(l.path) - 1; i >= 0; i-- {
		u := l.path[i]
		a := l.above[u]
		if l.semi[l.label[a]] < l.semi[l.label[u]] {
			l.label[u] = l.label[a]
		}
		l.above[u] = l.above[a]
	}
	return l.label[v]
}

// newTree turns immediate dominators by number of the walk into those of n nodes.
func newTree(order, idom []int, n int) *tree {
	t := &tree{idom: make([]int, n), num: make([]int, n), size: make([]int, n)}
	for i := range t.idom {
		t.idom[i] = -1
	}
	for _, v := range order {
		t.size[v] = 1
	}
	for w := len(order) - 1; w > 0; w-- {
		v := order[w]
		t.idom[v] = order[idom[w]]
		t.size[t.idom[v]] += t.size[v]
	}
	free := make([]int, n) // the next number below each node
	free[order[0]] = 1
	for _, v := range order[1:] { // a dominator comes before what it dominates
		p := t.idom[v]
		t.num[v] = free[p]
		free[v] = t.num[v] + 1
		free[p] += t.size[v]
	}
	return t
}
