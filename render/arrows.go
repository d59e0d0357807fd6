package render

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/mem"
)

// Bounds of the arrows beside a listing: more lanes, or an arrow over more than
// a few screens, no eye can follow. The text names the target all the same.
const (
	maxLanes    = 6
	maxArrowLen = 200 // lines
)

// directions that a box character has arms to.
type directions uint8

const (
	up directions = 1 << iota
	down
	left
	right
)

// boxes are the characters by their arms.
var boxes = [16]rune{
	0: ' ', up | down: '│', left | right: '─',
	down | right: '╭', up | right: '╰', down | left: '╮', up | left: '╯',
	up | down | right: '├', up | down | left: '┤', left | right | down: '┬', left | right | up: '┴',
	up | down | left | right: '┼',
	up:                       '╵', down: '╷', left: '╴', right: '╶',
}

// arrows are the jumps of a listing, drawn at its left: a row of cells for
// each line, the last of which is the head. Jumps to one place share a lane.
type arrows struct {
	rows  [][]directions
	heads []bool
}

// A jumpTarget is a line and all that jump there.
type jumpTarget struct {
	to      int
	from    []int
	top, at int // first and last line
}

// newArrows places the arrows; it has no rows if there are none.
func newArrows(l disasm.Listing) *arrows {
	targets := jumpTargets(l)
	var lanes [][]bool // which lines each lane is taken at
	placed := make(map[int][]jumpTarget)
	for _, t := range targets {
		lane := slices.IndexFunc(lanes, func(taken []bool) bool { return !slices.Contains(taken[t.top:t.at+1], true) })
		if lane < 0 {
			if len(lanes) == maxLanes {
				continue
			}
			lane = len(lanes)
			lanes = append(lanes, make([]bool, len(l.Lines)))
		}
		for i := t.top; i <= t.at; i++ {
			lanes[lane][i] = true
		}
		placed[lane] = append(placed[lane], t)
	}
	a := &arrows{}
	if len(lanes) == 0 {
		return a
	}
	a.rows, a.heads = make([][]directions, len(l.Lines)), make([]bool, len(l.Lines))
	for i := range a.rows {
		a.rows[i] = make([]directions, len(lanes)+1)
	}
	for lane, ts := range placed {
		for _, t := range ts {
			a.draw(len(lanes)-1-lane, t)
		}
	}
	return a
}

// jumpTargets returns the targets of jumps inside the listing, those with the
// shortest way first.
func jumpTargets(l disasm.Listing) []jumpTarget {
	byAddr := make(map[mem.Addr]int, len(l.Lines))
	for i, line := range l.Lines {
		byAddr[line.Addr] = i
	}
	index := make(map[int]int)
	var out []jumpTarget
	for i, line := range l.Lines {
		to, ok := byAddr[line.Target]
		if !ok || to == i || line.Flow != "jump" && line.Flow != "branch" || max(to-i, i-to) > maxArrowLen {
			continue
		}
		n, known := index[to]
		if !known {
			n = len(out)
			index[to] = n
			out = append(out, jumpTarget{to: to, top: to, at: to})
		}
		t := &out[n]
		t.from, t.top, t.at = append(t.from, i), min(t.top, i), max(t.at, i)
	}
	slices.SortStableFunc(out, func(a, b jumpTarget) int { return cmp.Compare(a.at-a.top, b.at-b.top) })
	return out
}

// draw draws a vertical line in a column and a branch to the right at each
// line that belongs to it.
func (a *arrows) draw(col int, t jumpTarget) {
	for i := t.top; i <= t.at; i++ {
		if i > t.top {
			a.rows[i][col] |= up
		}
		if i < t.at {
			a.rows[i][col] |= down
		}
	}
	for _, i := range append(t.from, t.to) {
		a.rows[i][col] |= right
		for c := col + 1; c < len(a.rows[i]); c++ {
			a.rows[i][c] |= left | right
		}
	}
	a.heads[t.to] = true
}

// width is the number of columns the arrows take.
func (a *arrows) width() int {
	if len(a.rows) == 0 {
		return 0
	}
	return len(a.rows[0])
}

// line returns what stands beside line i.
func (a *arrows) line(i int) string {
	if len(a.rows) == 0 {
		return ""
	}
	var b strings.Builder
	for c, d := range a.rows[i] {
		if c == len(a.rows[i])-1 && a.heads[i] {
			b.WriteRune('►')
			continue
		}
		b.WriteRune(boxes[d])
	}
	return b.String()
}

// above returns what stands beside a row between line i-1 and line i: the
// lines that pass.
func (a *arrows) above(i int) string {
	if i >= len(a.rows) {
		return strings.Repeat(" ", a.width())
	}
	var b strings.Builder
	for _, d := range a.rows[i] {
		b.WriteRune(boxes[d&up|(d&up)<<1])
	}
	return b.String()
}
