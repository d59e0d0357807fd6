package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// Maps returns the maps by id (map_idr); with ids, those of them that there
// are, and nothing of the others is read. With an error comes what was read: a
// map of which only the surroundings cannot be read is listed. ProgIDs are left
// to [UsedBy].
func Maps(k *kernel.Kernel, ids ...int) ([]*Map, error) {
	r := newMapReader(k)
	return listIDR(k, "map_idr", "BPF map", ids, func(addr uint64) (*Map, int, error) {
		m, err := r.read(addr)
		if m == nil {
			return nil, unreadable, err
		}
		return m, m.ID, err
	})
}

// MapAt reads the struct bpf_map at addr. It returns a map and an error where
// only what surrounds the map could not be read: its types, its memory.
func MapAt(k *kernel.Kernel, addr uint64) (*Map, error) {
	return newMapReader(k).read(addr)
}

// UsedBy fills in the ids of the programs that use each map.
func UsedBy(maps []*Map, progs []*Program) {
	byID := make(map[int]*Map, len(maps))
	for _, m := range maps {
		m.ProgIDs = nil
		byID[m.ID] = m
	}
	for _, p := range progs {
		for _, id := range p.MapIDs {
			if m := byID[id]; m != nil && !slices.Contains(m.ProgIDs, p.ID) {
				m.ProgIDs = append(m.ProgIDs, p.ID)
			}
		}
	}
}

// A mapReader reads maps; it keeps what all of them need.
type mapReader struct {
	k     *kernel.Kernel
	types *btfCache
	usage usageReader
	// offloadOps is the address of the operations of offloaded maps, or 0.
	offloadOps uint64
}

func newMapReader(k *kernel.Kernel) *mapReader {
	r := &mapReader{k: k, types: newBTFCache(k), usage: newUsageReader(k)}
	r.offloadOps, _ = k.Addr("bpf_map_offload_ops")
	return r
}

// read reads the struct bpf_map at addr. It returns a map and an error where
// only what surrounds the map could not be read.
func (r *mapReader) read(addr uint64) (*Map, error) {
	o := r.k.Object("bpf_map", addr).Load()
	m := &Map{
		Addr:        mem.Addr(addr),
		ID:          int(o.Uint("id")),
		Type:        mapTypeName(r.k, o.Uint("map_type")),
		Name:        o.Str("name"),
		Flags:       uint32(o.Uint("map_flags")),
		KeySize:     uint32(o.Uint("key_size")),
		ValueSize:   uint32(o.Uint("value_size")),
		MaxEntries:  uint32(o.Uint("max_entries")),
		Frozen:      o.Bool("frozen"),
		KeyTypeID:   uint32(o.Uint("btf_key_type_id")),
		ValueTypeID: uint32(o.Uint("btf_value_type_id")),
	}
	if o.Has("map_extra") { // 9330986c0300, 5.16
		m.Extra = o.Uint("map_extra")
	}
	if m.Type == "struct_ops" {
		m.ValueTypeID = uint32(o.Uint("btf_vmlinux_value_type_id"))
	}
	if err := o.Err(); err != nil {
		return nil, err
	}
	return m, errors.Join(r.owner(m, o), r.inner(m, o), r.offload(m, o), r.btf(m, o), r.usage.read(m, o))
}

// owners are the places, newest first, of which programs a map takes.
var owners = []struct {
	pointer string // member to follow from bpf_map, or from bpf_array
	array   bool
	path    string
}{
	{pointer: "owner"}, // fd1c98f0ef5c, 6.17, and stable kernels
	{path: "owner."},   // f45d5b6ce2e8, 5.17
	{array: true, pointer: "aux", path: "owner."}, // 2beee5f57441, 5.5
}

// owner reads which programs a map takes: of what type, jited or not. They are
// those like the first that was put into it, or that used it.
func (r *mapReader) owner(m *Map, o *kernel.Object) error {
	for _, w := range owners {
		base := o
		if w.array {
			if m.Type != "prog_array" {
				return nil
			}
			base = r.k.Object("bpf_array", o.Addr)
		}
		if w.pointer != "" {
			if !isPointer(base, w.pointer) {
				continue
			}
			if base.Ptr(w.pointer) == 0 {
				return base.Err()
			}
			base = base.Deref(w.pointer)
		}
		if base.Err() == nil && !base.Has(w.path+"type") {
			continue
		}
		typ, jited := base.Uint(w.path+"type"), base.Bool(w.path+"jited")
		if typ != 0 {
			m.OwnerType, m.OwnerJited = typeName(r.k, typ), jited
		}
		return base.Err()
	}
	return nil
}

// isPointer says whether a struct has a member that is a pointer: its name
// alone does not tell, where a struct became a pointer to one.
func isPointer(o *kernel.Object, path string) bool {
	return o.Err() == nil && o.Has(path) && o.Kind(path) == ctype.Pointer
}

// inner reads the template of the maps that a map of maps takes.
func (r *mapReader) inner(m *Map, o *kernel.Object) error {
	if o.Ptr("inner_map_meta") == 0 {
		return o.Err()
	}
	in := o.Deref("inner_map_meta")
	m.Inner = &MapShape{
		Type:       mapTypeName(r.k, in.Uint("map_type")),
		KeySize:    uint32(in.Uint("key_size")),
		ValueSize:  uint32(in.Uint("value_size")),
		MaxEntries: uint32(in.Uint("max_entries")),
		Flags:      uint32(in.Uint("map_flags")),
	}
	if err := in.Err(); err != nil {
		m.Inner = nil
		return fmt.Errorf("template of its maps: %w", err)
	}
	return nil
}

func (r *mapReader) offload(m *Map, o *kernel.Object) error {
	if r.offloadOps == 0 || o.Ptr("ops") != r.offloadOps {
		return o.Err()
	}
	off := r.k.Object("bpf_offloaded_map", o.Addr)
	if off.Ptr("netdev") == 0 {
		return off.Err()
	}
	dev := off.Deref("netdev")
	m.Ifindex = int(dev.Uint("ifindex"))
	return cmp.Or(off.Err(), dev.Err())
}

// btf names the types of a map's keys and values.
func (r *mapReader) btf(m *Map, o *kernel.Object) error {
	addr := o.Ptr("btf")
	if addr != 0 {
		b := o.Deref("btf")
		if m.BTF = int(b.Uint("id")); b.Err() != nil {
			return b.Err()
		}
	}
	if m.KeyTypeID == 0 && m.ValueTypeID == 0 {
		return nil
	}
	types, err := r.mapTypes(m, addr)
	if errors.Is(err, errNoBTF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its types: %w", err)
	}
	m.KeyType, m.ValueType = TypeText(types, m.KeyTypeID), TypeText(types, m.ValueTypeID)
	return nil
}

// mapTypes returns the types of a map whose struct btf is at addr. Those of a
// struct_ops map are the kernel's, whatever BTF it was made with.
func (r *mapReader) mapTypes(m *Map, addr uint64) (*ctype.Types, error) {
	if m.Type == "struct_ops" {
		return r.k.Types()
	}
	return r.types.at(addr)
}

// Types returns the types of the map's keys and values, of which KeyTypeID and
// ValueTypeID are numbers; nil for a map made without.
func (m *Map) Types(k *kernel.Kernel) (*ctype.Types, error) {
	o := k.Object("bpf_map", uint64(m.Addr))
	addr := o.Ptr("btf")
	if err := o.Err(); err != nil {
		return nil, err
	}
	types, err := newMapReader(k).mapTypes(m, addr)
	if errors.Is(err, errNoBTF) {
		return nil, nil
	}
	return types, err
}
