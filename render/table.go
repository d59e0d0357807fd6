package render

import (
	"strings"
)

// A column is a column of a table.
type column struct {
	title string
	right bool // aligned to the right
	most  int  // columns of the screen at most; 0 for no limit
}

// table writes rows below their titles, each column as wide as its widest
// cell. Columns that are empty in every row are left out.
func (p *Printer) table(columns []column, rows [][]string) {
	width := make([]int, len(columns))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], displayWidth(short(Clean(cell), columns[i].most)))
		}
	}
	last := len(columns) - 1
	for last > 0 && width[last] == 0 {
		last--
	}
	line := func(cells []string) string {
		var b strings.Builder
		for i, cell := range cells[:last+1] {
			if width[i] == 0 {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("  ")
			}
			cell = short(Clean(cell), columns[i].most)
			w := max(width[i], len(columns[i].title))
			switch {
			case columns[i].right:
				b.WriteString(strings.Repeat(" ", max(w-displayWidth(cell), 0)) + cell)
			case i == last:
				b.WriteString(cell)
			default:
				b.WriteString(pad(cell, w))
			}
		}
		return strings.TrimRight(b.String(), " ")
	}
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	p.Line(p.Label(line(titles)))
	for _, r := range rows {
		p.Line(line(r))
	}
}

// short cuts text to a number of columns and marks the cut; 0 leaves it whole.
func short(s string, most int) string {
	if most == 0 || displayWidth(s) <= most {
		return s
	}
	r := []rune(s)
	return string(r[:min(len(r), most-1)]) + "…"
}
