package graph

import (
	"cmp"
	"math"
	"slices"
)

// place gives the boxes of an ordered component their coordinates.
func (c *component) place() {
	c.columns()
	for _, layer := range c.layers {
		y := 0.0
		for i, b := range layer {
			if i > 0 {
				y += gap(layer[i-1], b)
			}
			b.y = y
			y += b.h
		}
	}
	left, right := c.neighbours()
	const rounds = 10
	for i := range rounds {
		if i%2 == 0 {
			for _, layer := range c.layers[1:] {
				settle(layer, left, right)
			}
			continue
		}
		for l := len(c.layers) - 2; l >= 0; l-- {
			settle(c.layers[l], right, left)
		}
	}
	top := math.Inf(1)
	for _, layer := range c.layers {
		top = min(top, layer[0].y)
	}
	for _, layer := range c.layers {
		for _, b := range layer {
			b.y -= top
			c.h = max(c.h, b.y+b.h)
		}
	}
}

// columns sets the left edges: the wider the gap, the more wires are in it.
func (c *component) columns() {
	hops := make([]int, len(c.layers))
	for _, h := range c.hops {
		hops[h.from.layer]++
	}
	x := 0.0
	for l, layer := range c.layers {
		w := 0.0
		for _, b := range layer {
			w = max(w, b.w)
		}
		for _, b := range layer {
			b.x = x
			if b.dummy {
				b.w = w
			}
		}
		c.w = x + w
		x += w + min(40+2*float64(hops[l]), 140)
	}
}

// gap is the room between two boxes of a column.
func gap(a, b *box) float64 {
	if a.dummy && b.dummy {
		return wireGap
	}
	return vgap
}

// settle moves the boxes of a layer to where their wires would be straight, as
// near as their order and size permit: the least sum of squares, found by
// pooling neighbours that would overlap. Wires from the side before count
// fully, those behind little.
func settle(layer []*box, before, behind map[*box][]hop) {
	type pool struct {
		sum, weight float64 // of the wanted places, less the offsets
		first       int
	}
	offset := make([]float64, len(layer))
	var pools []pool
	for i, b := range layer {
		if i > 0 {
			offset[i] = offset[i-1] + layer[i-1].h + gap(layer[i-1], b)
		}
		sum, weight := wanted(b, before, 1)
		s2, w2 := wanted(b, behind, 0.1)
		sum, weight = sum+s2, weight+w2
		if weight == 0 {
			sum, weight = b.y*0.01, 0.01
		}
		if b.dummy { // wires that pass should be straight
			sum, weight = 4*sum, 4*weight
		}
		p := pool{sum - offset[i]*weight, weight, i}
		for len(pools) > 0 {
			last := pools[len(pools)-1]
			if last.sum/last.weight <= p.sum/p.weight {
				break
			}
			p = pool{p.sum + last.sum, p.weight + last.weight, last.first}
			pools = pools[:len(pools)-1]
		}
		pools = append(pools, p)
	}
	for i, p := range pools {
		end := len(layer)
		if i+1 < len(pools) {
			end = pools[i+1].first
		}
		for j := p.first; j < end; j++ {
			layer[j].y = p.sum/p.weight + offset[j]
		}
	}
}

// wanted sums up where the wires of one side would have a box.
func wanted(b *box, hops map[*box][]hop, factor float64) (sum, weight float64) {
	for _, h := range hops[b] {
		other, otherRow, row := h.from, h.fromRow, h.toRow
		if h.from == b {
			other, otherRow, row = h.to, h.toRow, h.fromRow
		}
		sum += factor * (other.y + other.port(otherRow) - b.port(row))
		weight += factor
	}
	return sum, weight
}

// pack places components on a canvas of some width: each as high as there is
// room for it, the tallest first. It returns the height used.
func pack(cs []*component, width, space float64) float64 {
	type step struct{ x, w, y float64 } // the skyline from left to right
	line := []step{{0, width, 0}}
	order := slices.Clone(cs)
	slices.SortStableFunc(order, func(a, b *component) int { return cmp.Compare(b.h, a.h) })
	bottom := 0.0
	for _, c := range order {
		w, h := c.w+space, c.h+space
		bestX, bestY := 0.0, math.Inf(1)
		for i, s := range line {
			if s.x > 0 && s.x+w > width+space {
				break
			}
			y := 0.0
			for _, t := range line[i:] {
				if t.x >= s.x+w {
					break
				}
				y = max(y, t.y)
			}
			if y < bestY {
				bestX, bestY = s.x, y
			}
		}
		c.x, c.y = bestX, bestY
		bottom = max(bottom, bestY+c.h)
		var next []step
		put := func(s step) {
			if s.w <= 0 {
				return
			}
			if n := len(next); n > 0 && next[n-1].y == s.y {
				next[n-1].w += s.w
				return
			}
			next = append(next, s)
		}
		placed := false
		for _, s := range line {
			if s.x+s.w <= bestX || s.x >= bestX+w {
				if s.x >= bestX+w && !placed {
					put(step{bestX, w, bestY + h})
					placed = true
				}
				put(s)
				continue
			}
			put(step{s.x, bestX - s.x, s.y})
			if !placed {
				put(step{bestX, w, bestY + h})
				placed = true
			}
			put(step{bestX + w, s.x + s.w - bestX - w, s.y})
		}
		if !placed {
			put(step{bestX, w, bestY + h})
		}
		line = next
	}
	return bottom
}
