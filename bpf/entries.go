package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// Entries yields the elements of a map, in the order they have in memory: an
// array's by index, a hash's by bucket, a queue's and a stack's as they would
// be taken out. Keys and values are what bpf(2) would give; of types that it
// does not hand out there are texts instead. Empty slots of arrays of
// references are left out. What cannot be read is yielded as an error and left
// out; the walk goes on where that is possible.
func Entries(k *kernel.Kernel, m *Map) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &entryReader{k: k, m: m, yield: yield}
		err := r.prepare()
		if err == nil {
			err = entryWalks[m.Type].walk(r)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Entry{}, fmt.Errorf("entries of BPF map id %d: %w", m.ID, err))
		}
	}
}

// ErrNoEntries says that a map's type is not known.
var ErrNoEntries = errors.New("entries of this type of map are not understood")

// errStop ends a walk whose consumer has had enough, or that met too many
// errors.
var errStop = errors.New("stop")

// An entryWalk walks the maps of a type: each is the beginning of a record.
type entryWalk struct {
	record string
	walk   func(*entryReader) error
}

// entryWalks are the types whose entries can be read.
var entryWalks = map[string]entryWalk{
	"array":                 {"bpf_array", (*entryReader).array},
	"percpu_array":          {"bpf_array", (*entryReader).perCPUArray},
	"prog_array":            {"bpf_array", slots("ptrs", (*entryReader).program)},
	"perf_event_array":      {"bpf_array", slots("ptrs", (*entryReader).perfEvent)},
	"cgroup_array":          {"bpf_array", slots("ptrs", (*entryReader).cgroup)},
	"array_of_maps":         {"bpf_array", slots("ptrs", (*entryReader).innerMap)},
	"hash":                  {"bpf_htab", (*entryReader).hash},
	"lru_hash":              {"bpf_htab", (*entryReader).hash},
	"percpu_hash":           {"bpf_htab", (*entryReader).hash},
	"lru_percpu_hash":       {"bpf_htab", (*entryReader).hash},
	"hash_of_maps":          {"bpf_htab", (*entryReader).hash},
	"rhash":                 {"bpf_rhtab", (*entryReader).resizableHash},
	"lpm_trie":              {"lpm_trie", (*entryReader).trie},
	"queue":                 {"bpf_queue_stack", (*entryReader).queue},
	"stack":                 {"bpf_queue_stack", (*entryReader).queue},
	"stack_trace":           {"bpf_stack_map", (*entryReader).stackTraces},
	"ringbuf":               {"bpf_ringbuf_map", (*entryReader).ringbuf},
	"user_ringbuf":          {"bpf_ringbuf_map", (*entryReader).ringbuf},
	"bloom_filter":          {"bpf_bloom_filter", (*entryReader).bloom},
	"devmap":                {"bpf_dtab", slotsAt("netdev_map", (*entryReader).netdev)},
	"devmap_hash":           {"bpf_dtab", (*entryReader).devmapHash},
	"cpumap":                {"bpf_cpu_map", slotsAt("cpu_map", (*entryReader).cpu)},
	"xskmap":                {"xsk_map", slots("xsk_map", (*entryReader).xsk)},
	"sockmap":               {"bpf_stab", slotsAt("sks", (*entryReader).socket)},
	"reuseport_sockarray":   {"reuseport_array", slots("ptrs", (*entryReader).socket)},
	"sockhash":              {"bpf_shtab", (*entryReader).sockhash},
	"sk_storage":            {"bpf_local_storage_map", (*entryReader).localStorage},
	"inode_storage":         {"bpf_local_storage_map", (*entryReader).localStorage},
	"task_storage":          {"bpf_local_storage_map", (*entryReader).localStorage},
	"cgrp_storage":          {"bpf_local_storage_map", (*entryReader).localStorage},
	"cgroup_storage":        {"bpf_cgroup_storage_map", (*entryReader).cgroupStorage},
	"percpu_cgroup_storage": {"bpf_cgroup_storage_map", (*entryReader).cgroupStorage},
	"struct_ops":            {"bpf_struct_ops_map", (*entryReader).structOps},
	"arena":                 {"bpf_arena", (*entryReader).arena},
	"insn_array":            {"bpf_insn_array", (*entryReader).insnArray},
}

// HasEntries says whether the entries of a type of map can be read from memory.
func HasEntries(typ string) bool {
	_, ok := entryWalks[typ]
	return ok
}

// Limits on what is believed of foreign memory.
const (
	maxKey      = 1 << 16 // bytes; the kernel's is MAX_BPF_STACK, 512
	maxValue    = 1 << 26
	chunkSize   = 1 << 16 // bytes read at once of an array
	maxBadParts = 16      // parts of a map that cannot be read, before it is given up
)

// An entryReader reads the entries of one map.
type entryReader struct {
	k     *kernel.Kernel
	m     *Map
	o     *kernel.Object // the record that the map is the beginning of
	yield func(Entry, error) bool

	cpus     []int
	types    *ctype.Types
	key, val int // sizes
	bad      int // parts that could not be read
}

func (r *entryReader) prepare() error {
	w, ok := entryWalks[r.m.Type]
	if !ok {
		return fmt.Errorf("%w: %s", ErrNoEntries, r.m.Type)
	}
	if r.m.Addr == 0 {
		return errors.New("its place in memory is not known")
	}
	if r.m.KeySize > maxKey || r.m.ValueSize > maxValue {
		return fmt.Errorf("keys of %d and values of %d bytes: damaged", r.m.KeySize, r.m.ValueSize)
	}
	r.key, r.val = int(r.m.KeySize), int(r.m.ValueSize)
	r.o = r.k.Object(w.record, uint64(r.m.Addr))
	if perCPUMaps[r.m.Type] {
		var err error
		if r.cpus, err = r.k.PossibleCPUs(); err != nil {
			return err
		}
	}
	var err error
	if r.types, err = r.m.Types(r.k); err != nil {
		return fmt.Errorf("its types: %w", err)
	}
	return r.o.Err()
}

// emit yields an entry with its texts.
func (r *entryReader) emit(e Entry) error {
	texts := e
	FormatEntry(&texts, r.types, r.m.KeyTypeID, r.m.ValueTypeID)
	if texts.KeyText == "" {
		texts.KeyText = e.KeyText
	}
	if texts.ValueText == "" {
		texts.ValueText = e.ValueText
	}
	if !r.yield(texts, nil) {
		return errStop
	}
	return nil
}

// lost yields an error for a part of the map that cannot be read.
func (r *entryReader) lost(err error) error {
	if r.bad++; r.bad > maxBadParts {
		r.yield(Entry{}, fmt.Errorf("entries of BPF map id %d: given up after %d errors", r.m.ID, maxBadParts))
		return errStop
	}
	if !r.yield(Entry{}, fmt.Errorf("entries of BPF map id %d: %w", r.m.ID, err)) {
		return errStop
	}
	return nil
}

// read reads bytes of memory.
func (r *entryReader) read(addr uint64, n int) ([]byte, error) {
	return mem.Bytes(r.k.Mem(), addr, n)
}

// index is the key of an array's element.
func (r *entryReader) index(i uint64) Bytes {
	return binary.LittleEndian.AppendUint32(nil, uint32(i))
}

// id is the value that stands for another object.
func idBytes(id int) Bytes { return binary.LittleEndian.AppendUint32(nil, uint32(id)) }

// perCPU reads the copies of a value at a per-CPU address.
func (r *entryReader) perCPU(base uint64) ([]CPUValue, error) {
	out := make([]CPUValue, 0, len(r.cpus))
	for _, cpu := range r.cpus {
		at, err := r.k.PerCPU(base, cpu)
		if err != nil {
			return nil, err
		}
		b, err := r.read(at, r.val)
		if err != nil {
			return nil, fmt.Errorf("value of CPU %d: %w", cpu, err)
		}
		out = append(out, CPUValue{CPU: cpu, Value: b})
	}
	return out, nil
}
