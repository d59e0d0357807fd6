package kallsyms

import (
	"cmp"
	"slices"
	"strings"
)

// Bounds of [Table.Suggest].
const (
	maxSuggestions = 5
	maxQuery       = 128 // longer names are no typing errors
)

// Suggest returns at most five names of the table that someone who typed name
// may have meant, the likeliest first: name with a compiler's suffix
// (name.isra.0) or a system call's prefix (__x64_sys_name), then names that
// differ from it in a few characters.
func (t *Table) Suggest(name string) []string {
	if name == "" || len(name) > maxQuery {
		return nil
	}
	limit := 1 + len(name)/6
	type hit struct {
		name string
		cost int
	}
	var hits []hit
	var buf []byte
	e := newEditor(name)
	off := 0
	for range t.addrs {
		var c []byte
		c, off = t.next(off)
		buf = t.expand(buf[:0], c)
		if len(buf) < 2 {
			continue
		}
		cost := e.variant(buf[1:])
		if cost < 0 {
			if cost = e.distance(buf[1:], limit); cost > limit {
				continue
			}
		}
		hits = append(hits, hit{string(buf[1:]), cost})
		if len(hits) > 1000 { // keep it bounded; the order makes this exact
			slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(a.cost-b.cost, strings.Compare(a.name, b.name)) })
			hits = slices.Compact(hits)
			hits = hits[:min(len(hits), maxSuggestions)]
		}
	}
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(a.cost-b.cost, strings.Compare(a.name, b.name)) })
	var out []string
	for _, h := range slices.Compact(hits) {
		if out = append(out, h.name); len(out) == maxSuggestions {
			break
		}
	}
	return out
}

// An editor measures how far names are from one.
type editor struct {
	name            string
	before, row, up []int
}

func newEditor(name string) *editor {
	n := len(name) + 1
	return &editor{name: name, before: make([]int, n), row: make([]int, n), up: make([]int, n)}
}

// variant returns 0 if s is the name as the compiler or the kernel's macros
// spell it, else -1.
func (e *editor) variant(s []byte) int {
	text := string(s)
	if rest, ok := strings.CutPrefix(text, e.name); ok && (rest == "" || rest[0] == '.') {
		return 0
	}
	for _, prefix := range []string{"__x64_", "__x64_sys_", "__do_sys_", "__se_sys_"} {
		if rest, ok := strings.CutPrefix(text, prefix); ok && rest == e.name {
			return 0
		}
	}
	return -1
}

// distance returns the number of single-character edits, with swaps of
// neighbours counted as one, or more than limit if there are more.
func (e *editor) distance(s []byte, limit int) int {
	if d := len(s) - len(e.name); d > limit || -d > limit {
		return limit + 1
	}
	for j := range e.up {
		e.up[j] = j
	}
	for i := 1; i <= len(s); i++ {
		e.row[0] = i
		least := i
		for j := 1; j <= len(e.name); j++ {
			change := 1
			if s[i-1] == e.name[j-1] {
				change = 0
			}
			d := min(e.up[j]+1, e.row[j-1]+1, e.up[j-1]+change)
			if i > 1 && j > 1 && s[i-1] == e.name[j-2] && s[i-2] == e.name[j-1] {
				d = min(d, e.before[j-2]+1)
			}
			e.row[j] = d
			least = min(least, d)
		}
		if least > limit {
			return limit + 1
		}
		e.before, e.up, e.row = e.up, e.row, e.before
	}
	return e.up[len(e.name)]
}
