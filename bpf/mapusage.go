package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
)

// A usageReader finds out how much memory a map takes, as the kernel tells it
// in the fdinfo of a map's descriptor. It has told three different things.
type usageReader struct {
	k    *kernel.Kernel
	cpus uint64 // that per-CPU memory is allocated for
	err  error
	// callbacks: the types tell it themselves (90a5527d7686, 6.4).
	callbacks bool
	fields    map[string]uint64 // of records, by name
}

func newUsageReader(k *kernel.Kernel) usageReader {
	r := usageReader{k: k, fields: make(map[string]uint64)}
	cpus, err := k.PossibleCPUs()
	r.cpus, r.err = uint64(len(cpus)), err
	_, err = k.Offset("bpf_map_ops", "map_mem_usage")
	r.callbacks = err == nil
	return r
}

// read fills in the memory of a map; where it is not known for a type, 0.
func (r *usageReader) read(m *Map, o *kernel.Object) error {
	if o.Has("memory.pages") { // up to 5.10 (80ee81e0403c, 5.11)
		m.Memory = o.Uint("memory.pages") * pageSize
		return o.Err()
	}
	if r.err != nil {
		return fmt.Errorf("its memory: %w", r.err)
	}
	if !r.callbacks {
		m.Memory = r.footprint(m)
		return nil
	}
	row, ok := usages[m.Type]
	if !ok {
		return nil
	}
	c := r.k.Object(row.record, o.Addr)
	n := row.usage(r, m, c, r.size(row.record))
	if err := c.Err(); err != nil {
		return fmt.Errorf("its memory: %w", err)
	}
	m.Memory = n
	return nil
}

// footprint is what a map with these sizes takes at most
// (bpf_map_memory_footprint).
func (r *usageReader) footprint(m *Map) uint64 {
	value := uint64(m.ValueSize)
	if perCPUMaps[m.Type] {
		value = roundUp(value, 8) * r.cpus
	}
	return roundUp(uint64(m.MaxEntries)*roundUp(uint64(m.KeySize)+value, 8), pageSize)
}

// perCPUMaps are the types with a value for each CPU.
var perCPUMaps = map[string]bool{
	"percpu_hash": true, "lru_percpu_hash": true, "percpu_array": true, "percpu_cgroup_storage": true,
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// A usage computes what a type's map_mem_usage does, from the map, the struct
// that the map is the beginning of, and that struct's own size.
type usage struct {
	record string
	usage  func(r *usageReader, m *Map, o *kernel.Object, own uint64) uint64
}

// usages are the types whose memory is known.
var usages = map[string]usage{
	"array":                 {"bpf_array", (*usageReader).array},
	"percpu_array":          {"bpf_array", (*usageReader).array},
	"prog_array":            {"bpf_array", (*usageReader).array},
	"perf_event_array":      {"bpf_array", (*usageReader).array},
	"cgroup_array":          {"bpf_array", (*usageReader).array},
	"array_of_maps":         {"bpf_array", (*usageReader).array},
	"hash":                  {"bpf_htab", (*usageReader).hash},
	"percpu_hash":           {"bpf_htab", (*usageReader).hash},
	"lru_hash":              {"bpf_htab", (*usageReader).hash},
	"lru_percpu_hash":       {"bpf_htab", (*usageReader).hash},
	"hash_of_maps":          {"bpf_htab", (*usageReader).hash},
	"rhash":                 {"bpf_rhtab", (*usageReader).resizableHash},
	"lpm_trie":              {"lpm_trie", (*usageReader).trie},
	"queue":                 {"bpf_queue_stack", (*usageReader).queue},
	"stack":                 {"bpf_queue_stack", (*usageReader).queue},
	"stack_trace":           {"bpf_stack_map", (*usageReader).stackTrace},
	"ringbuf":               {"bpf_ringbuf_map", (*usageReader).ringbuf},
	"user_ringbuf":          {"bpf_ringbuf_map", (*usageReader).ringbuf},
	"bloom_filter":          {"bpf_bloom_filter", (*usageReader).bloom},
	"devmap":                {"bpf_dtab", (*usageReader).devmap},
	"devmap_hash":           {"bpf_dtab", (*usageReader).devmap},
	"cpumap":                {"bpf_cpu_map", (*usageReader).pointers},
	"xskmap":                {"xsk_map", (*usageReader).pointers},
	"sockmap":               {"bpf_stab", (*usageReader).pointers},
	"reuseport_sockarray":   {"reuseport_array", (*usageReader).pointers},
	"sockhash":              {"bpf_shtab", (*usageReader).sockhash},
	"sk_storage":            {"bpf_local_storage_map", (*usageReader).storage},
	"inode_storage":         {"bpf_local_storage_map", (*usageReader).storage},
	"task_storage":          {"bpf_local_storage_map", (*usageReader).storage},
	"cgrp_storage":          {"bpf_local_storage_map", (*usageReader).storage},
	"cgroup_storage":        {"bpf_cgroup_storage_map", (*usageReader).bare},
	"percpu_cgroup_storage": {"bpf_cgroup_storage_map", (*usageReader).bare},
	"struct_ops":            {"bpf_struct_ops_map", (*usageReader).structOps},
	"insn_array":            {"bpf_insn_array", (*usageReader).insnArray},
}

// size is that of a struct.
func (r *usageReader) size(record string) uint64 {
	n, ok := r.fields[record]
	if !ok {
		n = r.k.Sizeof(record)
		r.fields[record] = n
	}
	return n
}

func (r *usageReader) bare(_ *Map, _ *kernel.Object, own uint64) uint64 { return own }

// pointers is a map that is an array of pointers to what is not counted.
func (r *usageReader) pointers(m *Map, _ *kernel.Object, own uint64) uint64 {
	return own + 8*uint64(m.MaxEntries)
}

const mmapable = 1 << 10 // BPF_F_MMAPABLE

func (r *usageReader) array(m *Map, o *kernel.Object, own uint64) uint64 {
	elem, n := o.Uint("elem_size"), uint64(m.MaxEntries)
	switch {
	case m.Type == "percpu_array":
		return own + n*8 + n*elem*r.cpus
	case m.Flags&mmapable != 0:
		return roundUp(own, pageSize) + roundUp(n*elem, pageSize)
	}
	return own + n*elem
}

func (r *usageReader) hash(m *Map, o *kernel.Object, own uint64) uint64 {
	const locks, noPrealloc = 8, 1 // HASHTAB_MAP_LOCK_COUNT, BPF_F_NO_PREALLOC
	elem := o.Uint("elem_size")
	value := roundUp(uint64(m.ValueSize), 8)
	n := own + o.Uint("n_buckets")*r.size("bucket")
	if o.Has("map_locked") { // up to 6.14
		n += 4 * r.cpus * locks
	}
	if m.Flags&noPrealloc == 0 {
		count := uint64(m.MaxEntries)
		if o.Ptr("extra_elems") != 0 {
			count += r.cpus
		}
		n += elem * count
		switch m.Type {
		case "percpu_hash", "lru_percpu_hash":
			n += value * r.cpus * count
		case "hash", "hash_of_maps":
			n += 8 * r.cpus
		}
		return n
	}
	const llistNode = 8
	count := r.count(o)
	n += (elem + llistNode) * count
	if perCPUMaps[m.Type] {
		n += (llistNode + 8 + value*r.cpus) * count
	}
	return n
}

// count is the number of elements of a hash that allocates them one by one.
func (r *usageReader) count(o *kernel.Object) uint64 {
	if !o.Bool("use_percpu_counter") {
		return uint64(uint32(o.Uint("count.counter")))
	}
	n, base := o.Int("pcount.count"), o.Ptr("pcount.counters")
	cpus, err := r.k.PossibleCPUs()
	if err != nil || o.Err() != nil {
		return 0
	}
	for _, cpu := range cpus {
		var b [4]byte
		at, err := r.k.PerCPU(base, cpu)
		if err != nil || r.k.Mem().ReadMem(b[:], at) != nil {
			return 0
		}
		n += int64(int32(le32(b[:])))
	}
	return uint64(n)
}

// resizableHash does not count its buckets.
func (r *usageReader) resizableHash(_ *Map, o *kernel.Object, own uint64) uint64 {
	return own + uint64(uint32(o.Uint("ht.nelems.counter")))*o.Uint("elem_size")
}

func (r *usageReader) trie(m *Map, o *kernel.Object, _ uint64) uint64 {
	return (r.size("lpm_trie_node") + o.Uint("data_size") + uint64(m.ValueSize)) * o.Uint("n_entries")
}

func (r *usageReader) queue(m *Map, _ *kernel.Object, own uint64) uint64 {
	return own + (uint64(m.MaxEntries)+1)*uint64(m.ValueSize)
}

func (r *usageReader) stackTrace(m *Map, o *kernel.Object, own uint64) uint64 {
	return own + o.Uint("n_buckets")*8 +
		uint64(m.MaxEntries)*(r.size("stack_map_bucket")+uint64(m.ValueSize))
}

func (r *usageReader) ringbuf(m *Map, o *kernel.Object, own uint64) uint64 {
	const metaPages = 3 // RINGBUF_NR_META_PAGES
	rb := o.Deref("rb")
	pages := rb.Uint("nr_pages")
	if rb.Err() != nil {
		return 0
	}
	return own + pages*pageSize + (metaPages+2*uint64(m.MaxEntries)/pageSize)*8
}

func (r *usageReader) bloom(_ *Map, o *kernel.Object, own uint64) uint64 {
	bits := o.Uint("bitset_mask") + 1
	return own + roundUp((bits+7)/8, 8)
}

func (r *usageReader) devmap(m *Map, o *kernel.Object, own uint64) uint64 {
	n := uint64(m.MaxEntries)
	if m.Type == "devmap_hash" {
		n = o.Uint("n_buckets")
	}
	return own + 8*n + o.Uint("items")*r.size("bpf_dtab_netdev")
}

func (r *usageReader) sockhash(_ *Map, o *kernel.Object, own uint64) uint64 {
	return own + o.Uint("buckets_num")*r.size("bpf_shtab_bucket") +
		uint64(uint32(o.Uint("count.counter")))*o.Uint("elem_size")
}

func (r *usageReader) storage(_ *Map, o *kernel.Object, own uint64) uint64 {
	return own + r.size("bpf_local_storage_map_bucket")<<min(o.Uint("bucket_log"), 32)
}

// structOps counts the image of one page whatever it takes.
func (r *usageReader) structOps(m *Map, o *kernel.Object, own uint64) uint64 {
	if !o.Has("ksyms") { // 7c8ce4ffb684, 6.13, and stable kernels
		return 0
	}
	value := uint64(m.ValueSize)
	return own + value - r.size("bpf_struct_ops_value") + value + o.Uint("funcs_cnt")*16 + pageSize
}

func (r *usageReader) insnArray(m *Map, _ *kernel.Object, own uint64) uint64 {
	return own + uint64(m.MaxEntries)*(r.size("bpf_insn_array_value")+8)
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
