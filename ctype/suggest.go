package ctype

import (
	"slices"
	"strings"
)

// maxSuggestions is how many near misses an error offers.
const maxSuggestions = 4

// A suggester keeps the names nearest to one that was not found.
type suggester struct {
	want  string
	limit int // greatest distance that counts as near
	found []suggestion
	rows  [3][]int
}

type suggestion struct {
	name string
	dist int
}

func newSuggester(want string) *suggester {
	if len(want) > 64 {
		want = want[:64] // no C name of the kernel is longer
	}
	s := &suggester{want: want, limit: min(3, 1+len(want)/5)}
	for i := range s.rows {
		s.rows[i] = make([]int, len(want)+1)
	}
	return s
}

func (s *suggester) consider(name []byte) {
	if d := len(name) - len(s.want); d > s.limit || -d > s.limit || len(name) == 0 {
		return
	}
	d := s.distance(name)
	if d > s.limit || slices.ContainsFunc(s.found, func(f suggestion) bool { return f.name == string(name) }) {
		return
	}
	s.found = append(s.found, suggestion{string(name), d})
	slices.SortStableFunc(s.found, func(a, b suggestion) int {
		if a.dist != b.dist {
			return a.dist - b.dist
		}
		return strings.Compare(a.name, b.name)
	})
	s.found = s.found[:min(len(s.found), maxSuggestions)]
}

func (s *suggester) best() (names []string) {
	for _, f := range s.found {
		names = append(names, f.name)
	}
	return names
}

// distance counts insertions, deletions, substitutions and swaps of
// neighbours; it stops counting beyond the limit.
func (s *suggester) distance(name []byte) int {
	before, prev, row := s.rows[0], s.rows[1], s.rows[2]
	for j := range prev {
		prev[j] = j
	}
	for i := range name {
		row[0] = i + 1
		lowest := row[0]
		for j := range len(s.want) {
			cost := 1
			if name[i] == s.want[j] {
				cost = 0
			}
			d := min(prev[j]+cost, prev[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && name[i] == s.want[j-1] && name[i-1] == s.want[j] {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = d
			lowest = min(lowest, d)
		}
		if lowest > s.limit {
			return lowest
		}
		before, prev, row = prev, row, before
	}
	return prev[len(s.want)]
}

// Suggest returns the names nearest to one that was not found, best first, and
// none if no name is near.
func Suggest(want string, names []string) []string {
	s := newSuggester(want)
	for _, n := range names {
		s.consider([]byte(n))
	}
	return s.best()
}
