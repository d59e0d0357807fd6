package vmcore

import (
	"cmp"
	"container/heap"
	"slices"
	"sort"
)

// A span says that the bytes [start, end) of an address space are stored in a
// file from offset file on, or nowhere (noFile).
type span struct {
	start, end uint64
	file       int64
}

// noFile is the file offset of a span whose bytes were not stored.
const noFile = -1

// from returns the part of s that starts at x.
func (s span) from(x uint64) span {
	if s.file != noFile {
		s.file += int64(x - s.start)
	}
	s.start = x
	return s
}

// find returns the index of the first span of sorted, disjoint spans that ends
// behind x.
func find(spans []span, x uint64) int {
	return sort.Search(len(spans), func(i int) bool { return spans[i].end > x })
}

// resolve sorts spans by start and makes them disjoint; where spans overlap,
// the later one in the argument wins. It returns at most twice as many spans
// and may reuse the argument.
func resolve(spans []span) []span {
	spans = slices.DeleteFunc(spans, func(s span) bool { return s.start >= s.end })
	byStart := func(a, b span) int { return cmp.Compare(a.start, b.start) }
	sorted := spans
	if !slices.IsSortedFunc(spans, byStart) {
		sorted = slices.Clone(spans)
		slices.SortFunc(sorted, byStart)
	}
	if overlap(sorted) {
		sorted = sweep(spans)
	}
	return merge(sorted)
}

// overlap reports whether spans sorted by start overlap.
func overlap(spans []span) bool {
	for i := 1; i < len(spans); i++ {
		if spans[i].start < spans[i-1].end {
			return true
		}
	}
	return false
}

// merge joins neighbours that are adjacent in the address space and the file.
func merge(spans []span) []span {
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && out[n-1].end == s.start {
			last := &out[n-1]
			if last.file == noFile && s.file == noFile ||
				last.file != noFile && s.file != noFile && last.from(last.end).file == s.file {
				last.end = s.end
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// sweep walks the spans in the order of their starts and emits, for every
// stretch, the span with the highest index.
func sweep(spans []span) []span {
	order := make([]int32, len(spans))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(spans[a].start, spans[b].start) })
	out := make([]span, 0, len(spans))
	var active indexHeap
	var x uint64
	for len(order) > 0 || len(active) > 0 {
		if len(active) == 0 {
			x = spans[order[0]].start
		}
		for len(order) > 0 && spans[order[0]].start <= x {
			heap.Push(&active, order[0])
			order = order[1:]
		}
		top := spans[active[0]]
		if top.end <= x {
			heap.Pop(&active)
			continue
		}
		stop := top.end
		if len(order) > 0 {
			stop = min(stop, spans[order[0]].start)
		}
		piece := top.from(x)
		piece.end = stop
		out = append(out, piece)
		x = stop
	}
	return out
}

// An indexHeap is a max-heap of indexes.
type indexHeap []int32

func (h indexHeap) Len() int           { return len(h) }
func (h indexHeap) Less(i, j int) bool { return h[i] > h[j] }
func (h indexHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *indexHeap) Push(x any)        { *h = append(*h, x.(int32)) }
func (h *indexHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
