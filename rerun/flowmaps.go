package rerun

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/typeflow"
)

// flowMaps names the memory of BPF maps: the variables of programs, which are
// values of maps (.data, .bss, .rodata), the elements of arrays, and the maps
// themselves.
type flowMaps struct {
	vars []typeflow.Variable // by address; Size is set
}

// mapStructs are the structs that the kernel has for maps of a type, where
// more than a struct bpf_map is known.
var mapStructs = []struct{ types, name string }{
	{"array percpu_array prog_array perf_event_array cgroup_array array_of_maps", "bpf_array"},
	{"hash percpu_hash lru_hash lru_percpu_hash hash_of_maps", "bpf_htab"},
	{"ringbuf user_ringbuf", "bpf_ringbuf_map"},
	{"lpm_trie", "lpm_trie"},
	{"queue stack", "bpf_queue_stack"},
	{"devmap devmap_hash", "bpf_dtab"},
	{"cpumap", "bpf_cpu_map"},
}

const maxMapVars = 1 << 16

// flowMaps reads the maps. What cannot be read has no name.
func (s *Session) flowMaps() *flowMaps {
	f := &flowMaps{}
	maps, _ := bpf.Maps(s.k)
	for _, m := range maps {
		if m.Addr == 0 || len(f.vars) > maxMapVars {
			continue
		}
		name := "bpf_map"
		for _, row := range mapStructs {
			if hasWord(row.types, m.Type) {
				name = row.name
			}
		}
		if t, err := s.types.Struct(name); err == nil {
			if n, err := t.Size(); err == nil {
				f.vars = append(f.vars, typeflow.Variable{Name: m.Name, Addr: uint64(m.Addr), Type: t, Size: uint64(n), CPU: -1})
			}
		}
		if m.Type == "array" {
			s.arrayVars(f, m)
		}
	}
	slices.SortStableFunc(f.vars, func(a, b typeflow.Variable) int { return cmp.Compare(a.Addr, b.Addr) })
	return f
}

// arrayVars adds the elements of an array, or the variables in its only one.
func (s *Session) arrayVars(f *flowMaps, m *bpf.Map) {
	types, err := m.Types(s.k)
	if err != nil || types == nil || m.ValueTypeID == 0 {
		return
	}
	t, err := types.ByID("", m.ValueTypeID)
	o := s.k.Object("bpf_array", uint64(m.Addr))
	base, elem := o.At("value"), o.Uint("elem_size")
	if err != nil || o.Err() != nil {
		return
	}
	if t.Kind() == ctype.Datasec {
		for _, v := range t.Variables() {
			if n, err := v.Type.Size(); err == nil && uint64(v.Offset/8)+uint64(n) <= uint64(m.ValueSize) {
				f.vars = append(f.vars, typeflow.Variable{Name: v.Name, Addr: base + uint64(v.Offset/8), Type: v.Type, Size: uint64(n), CPU: -1})
			}
		}
		return
	}
	n, err := t.Size()
	if err != nil || uint64(n) > elem {
		return
	}
	const most = 1 << 12
	for i := range min(uint64(m.MaxEntries), most) {
		f.vars = append(f.vars, typeflow.Variable{Name: fmt.Sprintf("%s[%d]", m.Name, i), Addr: base + i*elem, Type: t, Size: elem, CPU: -1})
	}
}

// at returns the variable that addr lies in. Values lie inside of the map they
// belong to, and come behind it.
func (f *flowMaps) at(addr uint64) (typeflow.Variable, bool) {
	i := sort.Search(len(f.vars), func(i int) bool { return f.vars[i].Addr > addr })
	for n := 0; i > 0 && n < 2; n++ {
		i--
		if v := f.vars[i]; addr-v.Addr < v.Size {
			return v, true
		}
	}
	return typeflow.Variable{}, false
}
