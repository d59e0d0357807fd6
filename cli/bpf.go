package cli

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
)

// bpfSource returns where BPF objects are looked at. On the running kernel
// memory is not needed for most of what there is to say: where it cannot be
// read, that is said and bpf(2) tells the rest.
func (a *app) bpfSource() (bpfview.Source, error) {
	k, err := a.open()
	if a.withoutMemory("BPF objects are told by bpf(2)", err) {
		return bpfview.Source{Running: true, Users: true}, nil
	}
	if err != nil {
		return bpfview.Source{}, err
	}
	src := bpfview.Source{Kernel: k, Running: k.Live(), Users: true}
	if _, err := k.Addr("prog_idr"); err != nil && src.Running {
		a.note("BPF objects are told by bpf(2) alone: this kernel's symbol table has no variables (CONFIG_KALLSYMS_ALL is not set), so that they cannot be found in its memory")
		src.Kernel = nil
	}
	return src, nil
}

// quickly tries to answer without opening the running kernel's memory, which
// takes longer than the rest, and reports whether that did.
func (a *app) quickly(list func(bpfview.Source) bool) bool {
	if len(a.dumps) > 0 || a.kernel != nil {
		return false
	}
	return list(bpfview.Source{Running: true, Users: true, Brief: true})
}

// partly goes on with what was read where an error came with it, and ends the
// command where nothing was.
func partly[T any](a *app, objs []T, err error) ([]T, error) {
	if err != nil && len(objs) == 0 && !isChanged(err) {
		return nil, err
	}
	a.gap(err)
	return objs, nil
}

// isChanged reports whether err says that objects came and went while they
// were read.
func isChanged(err error) bool {
	var changed *bpfview.ChangedError
	return errors.As(err, &changed)
}

// A namedObject is one that command lines name by id or by another word.
type namedObject[T any] struct {
	kind  string
	id    func(*T) int
	words func(*T) []string
}

// pick returns the objects that the arguments name: by id, or by a word or a
// pattern with * ? and [].
func (n namedObject[T]) pick(all []*T, args []string) ([]*T, error) {
	var out []*T
	for _, arg := range args {
		before := len(out)
		id, err := strconv.Atoi(arg)
		for _, o := range all {
			if err == nil && n.id(o) == id || err != nil && fits(arg, n.words(o)) {
				out = append(out, o)
			}
		}
		if len(out) == before {
			return out, usage(n.none(all, arg))
		}
	}
	return out, nil
}

// none says that nothing has the name, and what comes near.
func (n namedObject[T]) none(all []*T, arg string) error {
	if len(all) == 0 {
		return fmt.Errorf("there is no BPF %s %q; there are none at all", n.kind, arg)
	}
	want, err := strconv.Atoi(arg)
	var near []string
	if err == nil {
		ids := make([]int, len(all))
		for i, o := range all {
			ids[i] = n.id(o)
		}
		slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(distance(a, want), distance(b, want)) })
		for _, id := range ids[:min(len(ids), 3)] {
			near = append(near, strconv.Itoa(id))
		}
		return fmt.Errorf("there is no BPF %s with id %d (%d there are; the nearest ids: %s)", n.kind, want, len(all), strings.Join(near, ", "))
	}
	var names []string
	for _, o := range all {
		names = append(names, n.words(o)...)
	}
	if near = ctype.Suggest(arg, names); len(near) > 0 {
		return fmt.Errorf("there is no BPF %s %q; did you mean %s?", n.kind, arg, strings.Join(near, ", "))
	}
	return fmt.Errorf("there is no BPF %s %q among the %d there are", n.kind, arg, len(all))
}

func distance(a, b int) int { return max(a-b, b-a) }

func fits(pattern string, words []string) bool {
	for _, w := range words {
		if ok, err := path.Match(pattern, w); w != "" && (ok && err == nil || w == pattern) {
			return true
		}
	}
	return false
}

var (
	namedProgram = namedObject[bpf.Program]{
		"program", func(p *bpf.Program) int { return p.ID }, func(p *bpf.Program) []string { return append([]string{p.Name, p.Tag, p.Type}, p.Pins...) },
	}
	namedMap = namedObject[bpf.Map]{
		"map", func(m *bpf.Map) int { return m.ID }, func(m *bpf.Map) []string { return append([]string{m.Name, m.Type}, m.Pins...) },
	}
	namedLink = namedObject[bpf.Link]{
		"link", func(l *bpf.Link) int { return l.ID }, func(l *bpf.Link) []string { return append([]string{l.Type, l.Attach}, l.Pins...) },
	}
)
