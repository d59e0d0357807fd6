package bpfview

import (
	"errors"
	"reflect"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/kernel"
)

// A kind is a sort of object that has ids and descriptors.
type kind[T any] struct {
	name string
	hold func(ids ...int) (*bpfsys.Held[T], error)        // of the running kernel
	read func(k *kernel.Kernel, ids ...int) ([]*T, error) // in memory
	id   func(*T) int
}

// The kinds.
var (
	programs = kind[bpf.Program]{"prog", bpfsys.Programs, bpf.Programs, func(p *bpf.Program) int { return p.ID }}
	maps     = kind[bpf.Map]{"map", bpfsys.Maps, bpf.Maps, func(m *bpf.Map) int { return m.ID }}
	links    = kind[bpf.Link]{"link", bpfsys.Links, bpf.Links, func(l *bpf.Link) int { return l.ID }}
)

// objects reads the objects of a kind, all or those asked for, by id.
func objects[T any](s Source, ids []int, k kind[T]) ([]*T, error) {
	var all []*T
	var err error
	if s.Running {
		all, err = running(s.Kernel, ids, k)
	} else {
		all, err = k.read(s.Kernel, ids...)
	}
	if err == nil {
		for _, id := range ids {
			if !slices.ContainsFunc(all, func(o *T) bool { return k.id(o) == id }) {
				return all, &bpfsys.NotFoundError{Kind: k.name, ID: id}
			}
		}
	}
	return all, err
}

// running reads objects of the running kernel: by bpf(2), and their memory
// while they are held. What memory alone tells comes from there, the rest from
// whichever says more.
func running[T any](mem *kernel.Kernel, ids []int, k kind[T]) ([]*T, error) {
	held, err := k.hold(ids...)
	if held == nil || err != nil && len(held.Objects) == 0 {
		return nil, err
	}
	defer held.Close()
	all := held.Objects
	if mem == nil || len(all) == 0 {
		return all, err
	}
	mem.Refresh()
	want := make([]int, len(all))
	for i, o := range all {
		want[i] = k.id(o)
	}
	read, merr := k.read(mem, want...)
	byID := make(map[int]*T, len(read))
	for _, o := range read {
		byID[k.id(o)] = o
	}
	for i, o := range all {
		if m := byID[k.id(o)]; m != nil {
			fill(m, o)
			all[i] = m
		}
	}
	return all, errors.Join(err, merr)
}

// fill sets the fields of dst that are zero to what src has.
func fill[T any](dst, src *T) {
	d, s := reflect.ValueOf(dst).Elem(), reflect.ValueOf(src).Elem()
	for i := range d.NumField() {
		if f := d.Field(i); f.CanSet() && f.IsZero() {
			f.Set(s.Field(i))
		}
	}
}
