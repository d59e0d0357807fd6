package bpf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
)

// An Object is what a BPF file descriptor stands for.
type Object struct {
	Kind string `json:"kind"` // prog, map, link, btf
	ID   int    `json:"id"`
	Type string `json:"type,omitempty"`
	Name string `json:"name,omitempty"`
}

// String returns "prog 7 sched_cls call_kfunc".
func (o *Object) String() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s %d %s %s", o.Kind, o.ID, o.Type, o.Name)), " ")
}

// objects tells by a file's operations what its private data is
// (kernel/bpf/syscall.c, kernel/bpf/btf.c).
var objects = map[string]func(*kernel.Kernel, uint64) (*Object, error){
	"bpf_prog_fops":      progObject,
	"bpf_map_fops":       mapObject,
	"bpf_link_fops":      linkObject,
	"bpf_link_fops_poll": linkObject,
	"btf_fops":           btfObject,
}

// ObjectOf returns the BPF object behind a file with the given operations and
// private data, or nil if the file is none of BPF's.
func ObjectOf(k *kernel.Kernel, fops string, private uint64) (*Object, error) {
	read := objects[fops]
	if read == nil {
		return nil, nil
	}
	return read(k, private)
}

// unreadable is the id of an object that could not be read.
const unreadable = -1

// listIDR reads the objects of a struct idr by id; with ids, those of them that
// there are, and nothing of the others. read returns an object's own id, as on a
// running kernel an object can go, and its id with it, before it is read; or
// unreadable, and an error; or both an id and an error for an object of which
// something is missing. With an error comes what was read.
func listIDR[T any](k *kernel.Kernel, symbol, what string, ids []int, read func(addr uint64) (T, int, error)) ([]T, error) {
	idr, err := k.Addr(symbol)
	if err != nil {
		return nil, err
	}
	var out []T
	var errs kernel.Errors
	one := func(id int, addr uint64) {
		v, own, err := read(addr)
		switch {
		case own == 0 && k.Live(): // gone meanwhile
		case err != nil:
			errs.Add(fmt.Errorf("%s id %d: %w", what, id, err))
			if own == id {
				out = append(out, v)
			}
		case own == id:
			out = append(out, v)
		default:
			errs.Add(fmt.Errorf("%s id %d: what the kernel's table leads to, at 0x%x, has id %d", what, id, addr, own))
		}
	}
	if len(ids) > 0 {
		ids = slices.Clone(ids)
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			addr, err := k.XALoad(idr, uint64(id)) // struct idr begins with its xarray
			if err != nil {
				errs.Add(fmt.Errorf("%s id %d: %w", what, id, err))
			} else if addr != 0 {
				one(id, addr)
			}
		}
		return out, errs.Err()
	}
	for e, err := range k.XArray(idr) {
		if err != nil {
			errs.Add(fmt.Errorf("%ss: %w", what, err))
			break
		}
		if one(int(e.Index), e.Entry); errs.TooMany() {
			break
		}
	}
	return out, errs.Err()
}

// enumName names a value of an enum of the kernel, without its prefix and in
// lower case, as bpftool does.
func enumName(k *kernel.Kernel, enum, prefix string, v uint64) string {
	if name, ok := enumerator(k, enum, prefix, v); ok {
		name = strings.TrimSuffix(strings.TrimPrefix(name, prefix), "_DEPRECATED")
		return strings.ToLower(name)
	}
	return fmt.Sprintf("type %d", v)
}

// enumerator returns the first constant of an enum with a prefix and a value.
func enumerator(k *kernel.Kernel, enum, prefix string, v uint64) (string, bool) {
	for _, e := range k.Enumerators(enum) {
		if e.Value == v && strings.HasPrefix(e.Name, prefix) {
			return e.Name, true
		}
	}
	return "", false
}

// typeName names a program type.
func typeName(k *kernel.Kernel, v uint64) string {
	return enumName(k, "bpf_prog_type", "BPF_PROG_TYPE_", v)
}

// mapTypeName names a map type.
func mapTypeName(k *kernel.Kernel, v uint64) string {
	return enumName(k, "bpf_map_type", "BPF_MAP_TYPE_", v)
}

// CommandName returns the name of a command of bpf(2), such as
// BPF_PROG_TEST_RUN, or its number.
func CommandName(k *kernel.Kernel, cmd uint64) string {
	if name, ok := enumerator(k, "bpf_cmd", "", cmd); ok {
		return name
	}
	return fmt.Sprint(cmd)
}

func progObject(k *kernel.Kernel, addr uint64) (*Object, error) {
	o := k.Object("bpf_prog", addr)
	aux := o.Deref("aux")
	p := &Object{Kind: "prog", ID: int(aux.Uint("id")), Type: typeName(k, o.Uint("type")), Name: aux.Str("name")}
	if err := cmp.Or(o.Err(), aux.Err()); err != nil {
		return nil, err
	}
	// The symbol has the name in full.
	if aux.Has("ksym.name") {
		if name := functionName(aux.Str("ksym.name")); strings.HasPrefix(name, p.Name) {
			p.Name = name
		}
	}
	return p, aux.Err()
}

func mapObject(k *kernel.Kernel, addr uint64) (*Object, error) {
	o := k.Object("bpf_map", addr)
	m := &Object{
		Kind: "map", ID: int(o.Uint("id")), Name: o.Str("name"),
		Type: mapTypeName(k, o.Uint("map_type")),
	}
	return m, o.Err()
}

func linkObject(k *kernel.Kernel, addr uint64) (*Object, error) {
	o := k.Object("bpf_link", addr)
	l := &Object{
		Kind: "link", ID: int(o.Uint("id")),
		Type: enumName(k, "bpf_link_type", "BPF_LINK_TYPE_", o.Uint("type")),
	}
	if o.Ptr("prog") != 0 {
		l.Name = o.Deref("prog").Deref("aux").Str("name")
	}
	return l, o.Err()
}

func btfObject(k *kernel.Kernel, addr uint64) (*Object, error) {
	o := k.Object("btf", addr)
	btf := &Object{Kind: "btf", ID: int(o.Uint("id"))}
	if o.Has("name") { // 5329722057d4 (5.11)
		btf.Name = o.Str("name")
	}
	return btf, o.Err()
}
