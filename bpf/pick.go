package bpf

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// PickPrograms returns the programs that a word names: by id, or by name, tag,
// type or pinned path, where * ? and [] stand for parts. The error is a
// [*SelectError], which offers near names.
func PickPrograms(progs []*Program, which string) ([]*Program, error) {
	return namedProgram.pick(progs, which)
}

// PickMaps returns the maps that a word names: by id, or by name, type or
// pinned path, as [PickPrograms] does.
func PickMaps(maps []*Map, which string) ([]*Map, error) { return namedMap.pick(maps, which) }

// PickLinks returns the links that a word names: by id, or by type, attach type
// or pinned path, as [PickPrograms] does.
func PickLinks(links []*Link, which string) ([]*Link, error) { return namedLink.pick(links, which) }

// A named is a kind of object that people name by id or by another word.
type named[T any] struct {
	kind  string
	id    func(*T) int
	words func(*T) []string
}

var (
	namedProgram = named[Program]{
		"program", func(p *Program) int { return p.ID }, func(p *Program) []string { return append([]string{p.Name, p.Tag, p.Type}, p.Pins...) },
	}
	namedMap = named[Map]{
		"map", func(m *Map) int { return m.ID }, func(m *Map) []string { return append([]string{m.Name, m.Type}, m.Pins...) },
	}
	namedLink = named[Link]{
		"link", func(l *Link) int { return l.ID }, func(l *Link) []string { return append([]string{l.Type, l.Attach}, l.Pins...) },
	}
)

// pick returns the objects that a word names.
func (n named[T]) pick(all []*T, which string) ([]*T, error) {
	id, err := strconv.Atoi(which)
	var out []*T
	for _, o := range all {
		if err == nil && n.id(o) == id || err != nil && Fits(which, n.words(o)...) {
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return nil, &SelectError{which, n.none(all, which)}
	}
	return out, nil
}

// Fits reports whether a word or a pattern, as [path.Match] takes it, stands for
// one of several words. Empty words stand for nothing.
func Fits(pattern string, words ...string) bool {
	for _, w := range words {
		if ok, err := path.Match(pattern, w); w != "" && (ok && err == nil || w == pattern) {
			return true
		}
	}
	return false
}

// none says that nothing has the name, and what comes near.
func (n named[T]) none(all []*T, which string) string {
	if len(all) == 0 {
		return fmt.Sprintf("there is no BPF %s %q; there are none at all", n.kind, which)
	}
	want, err := strconv.Atoi(which)
	if err == nil {
		ids := make([]int, len(all))
		for i, o := range all {
			ids[i] = n.id(o)
		}
		slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(distance(a, want), distance(b, want)) })
		var near []string
		for _, id := range ids[:min(len(ids), 3)] {
			near = append(near, strconv.Itoa(id))
		}
		return fmt.Sprintf("there is no BPF %s with id %d (%d there are; the nearest ids: %s)", n.kind, want, len(all), strings.Join(near, ", "))
	}
	var names []string
	for _, o := range all {
		names = append(names, n.words(o)...)
	}
	if near := ctype.Suggest(which, names); len(near) > 0 {
		return fmt.Sprintf("there is no BPF %s %q; did you mean %s?", n.kind, which, strings.Join(near, ", "))
	}
	return fmt.Sprintf("there is no BPF %s %q among the %d there are", n.kind, which, len(all))
}

func distance(a, b int) int { return max(a-b, b-a) }
