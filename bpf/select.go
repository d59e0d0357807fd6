package bpf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// A SelectError says that there is no program, or more than one, of a name.
type SelectError struct {
	Which string
	Text  string // a sentence
}

// Error returns the sentence.
func (e *SelectError) Error() string { return e.Text }

// Select returns the program with an id, else the only one with a name or tag.
// The error is a [*SelectError], which says what there is instead.
func Select(progs []*Program, which string) (*Program, error) {
	id, notID := strconv.Atoi(which)
	var named []*Program
	for _, p := range progs {
		switch {
		case notID == nil && p.ID == id:
			return p, nil
		case p.Name == which, p.Tag == which:
			named = append(named, p)
		}
	}
	if len(named) == 1 {
		return named[0], nil
	}
	return nil, &SelectError{which, notSelected(progs, named, which)}
}

// notSelected says which programs there are instead of one.
func notSelected(progs, named []*Program, which string) string {
	if len(named) > 1 {
		var ids []string
		for _, p := range named {
			ids = append(ids, strconv.Itoa(p.ID))
		}
		return fmt.Sprintf("%d BPF programs are called %s: name one by its id, prog:%s", len(named), which, strings.Join(ids, ", prog:"))
	}
	id, err := strconv.Atoi(which)
	switch {
	case len(progs) == 0:
		return fmt.Sprintf("there is no BPF program %s: none is loaded", which)
	case err == nil:
		return fmt.Sprintf("there is no BPF program with id %d; the nearest are %s", id, strings.Join(nearest(progs, id), ", "))
	}
	names := make([]string, len(progs))
	for i, p := range progs {
		names[i] = p.Name
	}
	text := fmt.Sprintf("there is no BPF program called %q", which)
	if near := ctype.Suggest(which, names); len(near) > 0 {
		text += " (did you mean " + strings.Join(near, ", ") + "?)"
	}
	return text
}

// nearest names the programs whose ids are nearest to one that does not exist.
func nearest(progs []*Program, id int) []string {
	const most = 4
	sorted := slices.Clone(progs)
	dist := func(p *Program) int { return max(p.ID-id, id-p.ID) }
	slices.SortStableFunc(sorted, func(a, b *Program) int { return dist(a) - dist(b) })
	sorted = sorted[:min(most, len(sorted))]
	slices.SortFunc(sorted, func(a, b *Program) int { return a.ID - b.ID })
	var out []string
	for _, p := range sorted {
		out = append(out, fmt.Sprintf("%d %s", p.ID, p.Name))
	}
	return out
}
