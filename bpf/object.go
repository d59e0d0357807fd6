package bpf

import (
	"fmt"
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

func progObject(k *kernel.Kernel, addr uint64) (*Object, error) {
	p, err := ProgramAt(k, addr)
	if err != nil {
		return nil, err
	}
	return &Object{Kind: "prog", ID: p.ID, Type: p.Type, Name: p.Name}, nil
}

func mapObject(k *kernel.Kernel, addr uint64) (*Object, error) {
	o := k.Object("bpf_map", addr)
	m := &Object{
		Kind: "map", ID: int(o.Uint("id")), Name: o.Str("name"),
		Type: enumName(k, "bpf_map_type", "BPF_MAP_TYPE_", o.Uint("map_type")),
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
	return &Object{Kind: "btf", ID: int(o.Uint("id")), Name: o.Str("name")}, o.Err()
}
