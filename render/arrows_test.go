package render

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/mem"
)

// jumps makes a listing of n instructions of which some jump to another.
func jumps(n int, to map[int]int) disasm.Listing {
	l := disasm.Listing{Name: "f", Addr: 0x1000}
	for i := range n {
		line := disasm.Line{Addr: mem.Addr(0x1000 + i), Offset: mem.Addr(i), Text: "nop"}
		if t, ok := to[i]; ok {
			line.Flow, line.Target = "branch", mem.Addr(0x1000+t)
		}
		l.Lines = append(l.Lines, line)
	}
	return l
}

func drawn(l disasm.Listing) string {
	a := newArrows(l)
	var out []string
	for i := range l.Lines {
		out = append(out, strings.TrimRight(a.line(i), " "))
	}
	return "\n" + strings.Join(out, "\n") + "\n"
}

func TestArrows(t *testing.T) {
	for _, test := range []struct {
		name string
		n    int
		to   map[int]int
		want string
	}{
		{"none", 2, nil, `


`},
		{"down", 3, map[int]int{0: 2}, `
╭─
│
╰►
`},
		{"up", 3, map[int]int{2: 0}, `
╭►
│
╰─
`},
		{"to itself", 1, map[int]int{0: 0}, "\n\n"},
		{"nested", 5, map[int]int{0: 4, 1: 3}, `
╭──
│╭─
││
│╰►
╰─►
`},
		{"crossing", 4, map[int]int{0: 2, 1: 3}, `
 ╭─
╭┼─
│╰►
╰─►
`},
		{"one place", 4, map[int]int{0: 3, 1: 3, 2: 3}, `
╭─
├─
├─
╰►
`},
		{"from above and below", 5, map[int]int{0: 2, 4: 2}, `
╭─
│
├►
│
╰─
`},
		{"one after the other", 6, map[int]int{0: 2, 3: 5}, `
╭─
│
╰►
╭─
│
╰►
`},
		{"target that jumps", 5, map[int]int{0: 2, 2: 4}, `
 ╭─
 │
╭┴►
│
╰─►
`},
	} {
		qt.Check(t, qt.Equals(drawn(jumps(test.n, test.to)), test.want), qt.Commentf("%s", test.name))
	}
}

// TestArrowsBounded: what would take more lanes, or go further than the eye, is
// not drawn.
func TestArrowsBounded(t *testing.T) {
	to := make(map[int]int)
	for i := range 20 {
		to[i] = 40 - i
	}
	a := newArrows(jumps(50, to))
	qt.Check(t, qt.Equals(a.width(), maxLanes+1))
	qt.Check(t, qt.Equals(newArrows(jumps(1000, map[int]int{0: 999})).width(), 0))
	// A call is no jump.
	l := jumps(3, map[int]int{0: 2})
	l.Lines[0].Flow = "call"
	qt.Check(t, qt.Equals(newArrows(l).width(), 0))
}
