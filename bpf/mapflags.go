package bpf

import "fmt"

// mapFlags are the names of the bits of map_flags, lowest first
// (include/uapi/linux/bpf.h, BPF_F_*, in lower case).
var mapFlags = []string{
	"no_prealloc", "no_common_lru", "numa_node", "rdonly", "wronly", "stack_build_id", "zero_seed",
	"rdonly_prog", "wronly_prog", "clone", "mmapable", "preserve_elems", "inner_map", "link",
	"path_fd", "vtype_btf_obj_fd", "token_fd", "segv_on_fault", "no_user_conv", "rb_overwrite",
}

// FlagNames returns the names of the map's flags.
func (m *Map) FlagNames() []string {
	var out []string
	for i := range 32 {
		if m.Flags>>i&1 == 0 {
			continue
		}
		if i < len(mapFlags) {
			out = append(out, mapFlags[i])
		} else {
			out = append(out, fmt.Sprintf("bit %d", i))
		}
	}
	return out
}
