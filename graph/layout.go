package graph

import (
	"cmp"
	"slices"
)

// Measures of the picture, in pixels.
const (
	charWidth  = 6.63 // of the 11 px font, at most
	titleWidth = 7.3  // of the 12 px bold one
	titleLine  = 17
	subLine    = 13
	rowLine    = 14
	padding    = 6
	vgap       = 10 // between boxes of a column
	wireGap    = 7  // between wires that pass through a column
	mostChars  = 46 // of a line; the rest is in its tooltip
)

// measure sets the size of a box by its text.
func (b *box) measure() {
	if b.dummy {
		return
	}
	b.title = shorten(visible(b.title), mostChars-4)
	b.sub = shorten(visible(b.sub), mostChars)
	b.w = max(float64(columns(b.title))*titleWidth, float64(columns(b.sub))*charWidth)
	for i := range b.rows {
		b.rows[i].text = shorten(visible(b.rows[i].text), mostChars)
		b.w = max(b.w, float64(columns(b.rows[i].text))*charWidth+8)
	}
	b.w += 2*padding + 4
	b.h = 2*padding + titleLine + float64(len(b.rows))*rowLine
	if b.sub != "" {
		b.h += subLine
	}
}

// port returns how far below the top of its box a line's wires are.
func (b *box) port(row int) float64 {
	if b.dummy {
		return 0
	}
	if row < 0 {
		return padding + titleLine/2
	}
	y := float64(padding + titleLine)
	if b.sub != "" {
		y += subLine
	}
	return y + (float64(row)+0.5)*rowLine
}

// hop is a piece of a wire between neighbouring layers, from left to right.
type hop struct {
	from, to       *box
	fromRow, toRow int
}

// component is boxes that wires hold together, laid out for itself.
type component struct {
	boxes  []*box // without dummies
	wires  []*wire
	layers [][]*box
	hops   []hop
	paths  map[*wire][]*box // all boxes it passes, from left to right
	back   map[*wire]bool   // leads from right to left
	w, h   float64
	x, y   float64

	alike []*component // of the same shape, not drawn
	note  []string     // what is said of them
}

// components splits a view into what is connected, in the order of its boxes.
func (v *view) components() []*component {
	group := make(map[*box]*component)
	next := make(map[*box][]*box)
	for _, w := range v.wires {
		next[w.from] = append(next[w.from], w.to)
		next[w.to] = append(next[w.to], w.from)
	}
	var out []*component
	for _, b := range v.order {
		if group[b] != nil {
			continue
		}
		c := &component{paths: make(map[*wire][]*box), back: make(map[*wire]bool)}
		out = append(out, c)
		group[b] = c
		for todo := []*box{b}; len(todo) > 0; todo = todo[1:] {
			c.boxes = append(c.boxes, todo[0])
			for _, n := range next[todo[0]] {
				if group[n] == nil {
					group[n] = c
					todo = append(todo, n)
				}
			}
		}
	}
	for _, w := range v.wires {
		c := group[w.from]
		c.wires = append(c.wires, w)
	}
	return out
}

// layout places the boxes of a component: in columns so that wires lead to the
// right, in an order with few crossings, near what they are wired to.
func (c *component) layout() {
	for _, b := range c.boxes {
		b.measure()
	}
	c.rank()
	c.route()
	c.orderLayers()
	c.place()
}

// rank gives each box its layer: one more than the highest of those that lead
// to it. Wires that close a circle lead back.
func (c *component) rank() {
	out := make(map[*box][]*wire)
	indegree := make(map[*box]int)
	for _, w := range c.wires {
		out[w.from] = append(out[w.from], w)
		indegree[w.to]++
	}
	const (
		fresh = iota
		open
		done
	)
	state := make(map[*box]int)
	var topo []*box
	// An explicit stack: chains of tail calls can be long.
	type frame struct {
		b *box
		i int
	}
	visit := func(b *box) {
		stack := []frame{{b, 0}}
		state[b] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.i == len(out[top.b]) {
				state[top.b] = done
				topo = append(topo, top.b)
				stack = stack[:len(stack)-1]
				continue
			}
			w := out[top.b][top.i]
			top.i++
			switch state[w.to] {
			case fresh:
				state[w.to] = open
				stack = append(stack, frame{w.to, 0})
			case open:
				c.back[w] = true
			}
		}
	}
	for _, b := range c.boxes {
		if indegree[b] == 0 {
			visit(b)
		}
	}
	for _, b := range c.boxes {
		if state[b] == fresh {
			visit(b)
		}
	}
	for _, b := range slices.Backward(topo) {
		for _, w := range out[b] {
			if !c.back[w] {
				w.to.layer = max(w.to.layer, b.layer+1)
			}
		}
	}
	c.pullRight(topo, out)
}

// pullRight moves boxes that nothing leads to next to what they lead to.
func (c *component) pullRight(topo []*box, out map[*box][]*wire) {
	led := make(map[*box]bool)
	for _, w := range c.wires {
		if !c.back[w] {
			led[w.to] = true
		}
	}
	for _, b := range topo {
		least := -1
		for _, w := range out[b] {
			if !c.back[w] && (least < 0 || w.to.layer < least) {
				least = w.to.layer
			}
		}
		if !led[b] && least > 0 {
			b.layer = least - 1
		}
	}
}

// route splits wires into hops between neighbouring layers, with a dummy where
// a wire passes one.
func (c *component) route() {
	last := 0
	for _, b := range c.boxes {
		last = max(last, b.layer)
	}
	c.layers = make([][]*box, last+1)
	for _, b := range c.boxes {
		c.layers[b.layer] = append(c.layers[b.layer], b)
	}
	for _, w := range c.wires {
		left, right, leftRow, rightRow := w.from, w.to, w.row, -1
		if left.layer > right.layer || c.back[w] {
			c.back[w] = true
			left, right, leftRow, rightRow = w.to, w.from, -1, w.row
		}
		at, row := left, leftRow
		path := []*box{left}
		for l := left.layer + 1; l < right.layer; l++ {
			d := &box{layer: l, dummy: true}
			c.layers[l] = append(c.layers[l], d)
			c.hops = append(c.hops, hop{at, d, row, -1})
			at, row = d, -1
			path = append(path, d)
		}
		c.hops = append(c.hops, hop{at, right, row, rightRow})
		c.paths[w] = append(path, right)
	}
}

// neighbours are the hops by the box at one end.
func (c *component) neighbours() (left, right map[*box][]hop) {
	left, right = make(map[*box][]hop), make(map[*box][]hop)
	for _, h := range c.hops {
		left[h.to] = append(left[h.to], h)
		right[h.from] = append(right[h.from], h)
	}
	return left, right
}

// orderLayers sorts each layer by the places of what its boxes are wired to,
// in sweeps from left to right and back, and keeps the order with the fewest
// crossings.
func (c *component) orderLayers() {
	const sweeps = 12
	left, right := c.neighbours()
	c.number()
	best, fewest := c.snapshot(), c.crossings()
	for i := 0; i < sweeps && fewest > 0; i++ {
		if i%2 == 0 {
			for l := 1; l < len(c.layers); l++ {
				sortLayer(c.layers[l], left, func(h hop) float64 { return h.from.pos + rowPart(h.from, h.fromRow) })
			}
		} else {
			for l := len(c.layers) - 2; l >= 0; l-- {
				sortLayer(c.layers[l], right, func(h hop) float64 { return h.to.pos + rowPart(h.to, h.toRow) })
			}
		}
		if n := c.crossings(); n < fewest {
			best, fewest = c.snapshot(), n
		}
	}
	c.layers = best
	c.number()
}

// rowPart is where a line is in its box, from 0 to below 1.
func rowPart(b *box, row int) float64 { return float64(row+1) / float64(len(b.rows)+2) }

func sortLayer(layer []*box, hops map[*box][]hop, at func(hop) float64) {
	key := make(map[*box]float64, len(layer))
	for _, b := range layer {
		key[b] = b.pos
		if hs := hops[b]; len(hs) > 0 {
			sum := 0.0
			for _, h := range hs {
				sum += at(h)
			}
			key[b] = sum / float64(len(hs))
		}
	}
	slices.SortStableFunc(layer, func(a, b *box) int { return cmp.Compare(key[a], key[b]) })
	for i, b := range layer {
		b.pos = float64(i)
	}
}

func (c *component) number() {
	for _, layer := range c.layers {
		for i, b := range layer {
			b.pos = float64(i)
		}
	}
}

func (c *component) snapshot() [][]*box {
	out := make([][]*box, len(c.layers))
	for i, l := range c.layers {
		out[i] = slices.Clone(l)
	}
	return out
}

// crossings counts the pairs of hops that cross, layer by layer, with a
// Fenwick tree over the order of their right ends.
func (c *component) crossings() int {
	byLayer := make([][]hop, len(c.layers))
	for _, h := range c.hops {
		byLayer[h.from.layer] = append(byLayer[h.from.layer], h)
	}
	total := 0
	for _, hops := range byLayer {
		slices.SortFunc(hops, func(a, b hop) int {
			return cmp.Or(cmp.Compare(a.from.pos, b.from.pos), cmp.Compare(a.fromRow, b.fromRow),
				cmp.Compare(a.to.pos, b.to.pos), cmp.Compare(a.toRow, b.toRow))
		})
		ends := make([]float64, len(hops))
		for i, h := range hops {
			ends[i] = h.to.pos + rowPart(h.to, h.toRow)
		}
		sorted := slices.Clone(ends)
		slices.Sort(sorted)
		sorted = slices.Compact(sorted)
		tree := make([]int, len(sorted)+1)
		for seen, e := range ends {
			i, _ := slices.BinarySearch(sorted, e)
			upTo := 0
			for j := i + 1; j > 0; j -= j & -j {
				upTo += tree[j]
			}
			total += seen - upTo
			for j := i + 1; j < len(tree); j += j & -j {
				tree[j]++
			}
		}
	}
	return total
}
