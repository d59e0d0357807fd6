//go:build linux

package bpfsys

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/cpulist"
	"github.com/ksleuth/ksleuth/ctype"
)

// mapReading says how the entries of a type of map are read by bpf(2).
type mapReading struct {
	batch  bool   // by BPF_MAP_LOOKUP_BATCH, where the kernel has it for the type
	perCPU bool   // a value for each possible CPU
	object string // kind of the objects whose ids the values are
	head   bool   // only the next element can be seen
	none   string // why there is nothing to read
}

// mapReadings are the types that are not read key by key.
var mapReadings = map[string]mapReading{
	"hash":                  {batch: true},
	"lru_hash":              {batch: true},
	"array":                 {batch: true},
	"lpm_trie":              {batch: true},
	"percpu_hash":           {batch: true, perCPU: true},
	"lru_percpu_hash":       {batch: true, perCPU: true},
	"percpu_array":          {batch: true, perCPU: true},
	"percpu_cgroup_storage": {perCPU: true},
	"prog_array":            {object: "prog"},
	"array_of_maps":         {object: "map"},
	"hash_of_maps":          {object: "map"},
	"queue":                 {head: true},
	"stack":                 {head: true},
	"perf_event_array":      {none: "its events"},
	"cgroup_array":          {none: "its cgroups"},
	"bloom_filter":          {none: "its bits"},
	"ringbuf":               {none: "its records"},
	"user_ringbuf":          {none: "its records"},
	"arena":                 {none: "its pages"},
	"sk_storage":            {none: "which sockets have a value in it"},
	"inode_storage":         {none: "which inodes have a value in it"},
	"task_storage":          {none: "which tasks have a value in it"},
	"cgrp_storage":          {none: "which cgroups have a value in it"},
}

// Entries reads the elements of one of the maps that h holds. Programs may
// change a map while it is read: an element that comes or goes meanwhile may
// be in or not, one that stays is there once.
//
// What bpf(2) does not show of a type of map is one [UnsupportedError]; the
// kernel's memory has it.
func Entries(h *Held[bpf.Map], id int) iter.Seq2[bpf.Entry, error] {
	return func(yield func(bpf.Entry, error) bool) {
		fd, err := h.Open(id)
		if err != nil {
			yield(bpf.Entry{}, err)
			return
		}
		defer unix.Close(fd)
		r, err := newEntryReader(h.Object(id), fd)
		if err != nil {
			yield(bpf.Entry{}, fmt.Errorf("entries of map %d: %w", id, err))
			return
		}
		failed := func(err error) bool {
			return yield(bpf.Entry{}, fmt.Errorf("entries of map %d: %w", id, err))
		}
		switch {
		case r.none != "":
			failed(r.notShown(r.none, nil))
		case r.head:
			r.peek(yield, failed)
		case !r.batch || !r.batches(yield, failed):
			r.keys(yield, failed)
		}
	}
}

// entryReader reads the entries of one map.
type entryReader struct {
	mapReading
	m      *bpf.Map
	fd     uint32
	cpus   []int
	stride int // bytes of a value as the kernel copies it, all CPUs
	names  map[uint32]*bpf.Object
	types  *ctype.Types // of keys and values, nil without
}

// A yield function and what gets the errors; both say whether to go on.
type (
	entryFunc = func(bpf.Entry, error) bool
	errorFunc = func(error) bool
)

// maxStride bounds the value of one key.
const maxStride = 1 << 30

func newEntryReader(m *bpf.Map, fd int) (*entryReader, error) {
	r := &entryReader{mapReading: mapReadings[m.Type], m: m, fd: uint32(fd), stride: int(m.ValueSize), names: make(map[uint32]*bpf.Object)}
	if r.perCPU {
		var err error
		if r.cpus, err = cpulist.Read(cpulist.Possible); err != nil {
			return nil, err
		}
		r.stride = (r.stride + 7) &^ 7 * len(r.cpus)
	}
	if r.stride > maxStride {
		return nil, fmt.Errorf("values of %d bytes", r.stride)
	}
	if m.BTF != 0 && m.KeyTypeID|m.ValueTypeID != 0 && m.Type != "struct_ops" {
		// Without types there are still the bytes.
		r.types, _ = TypesOf(m.BTF)
	}
	return r, nil
}

func (r *entryReader) notShown(what string, err error) error {
	return &UnsupportedError{Op: fmt.Sprintf("bpf(2) does not show, of a map of type %s, %s", r.m.Type, what), Need: "the kernel's memory", Err: err}
}

// entry makes an entry of a key and a value, which it copies.
func (r *entryReader) entry(key, value []byte) bpf.Entry {
	e := bpf.Entry{Key: bytes.Clone(key)}
	switch {
	case r.perCPU:
		value = bytes.Clone(value)
		each := len(value) / len(r.cpus)
		e.PerCPU = make([]bpf.CPUValue, len(r.cpus))
		for i, cpu := range r.cpus {
			e.PerCPU[i] = bpf.CPUValue{CPU: cpu, Value: value[i*each:][:r.m.ValueSize:r.m.ValueSize]}
		}
	default:
		e.Value = bytes.Clone(value)
		if r.object != "" && len(value) == 4 {
			e.Object = r.objectOf(*(*uint32)(unsafe.Pointer(unsafe.SliceData(value))))
		}
	}
	bpf.FormatEntry(&e, r.types, r.m.KeyTypeID, r.m.ValueTypeID)
	return e
}

// objectOf describes the object that a value stands for: by its id alone, if it
// is gone by now.
func (r *entryReader) objectOf(id uint32) *bpf.Object {
	if o, ok := r.names[id]; ok {
		return o
	}
	o := &bpf.Object{Kind: r.object, ID: int(id)}
	r.names[id] = o
	k := map[string]kind{"prog": progKind, "map": mapKind}[r.object]
	fd, err := fdByID(k.open, id)
	if err != nil {
		return o
	}
	defer unix.Close(fd)
	switch r.object {
	case "prog":
		var i progInfo
		if _, err := info(fd, &i); err == nil {
			o.Type, o.Name = progType(i.typ), cstr(i.name[:])
		}
	case "map":
		var i mapInfo
		if _, err := info(fd, &i); err == nil {
			o.Type, o.Name = mapType(i.typ), cstr(i.name[:])
		}
	}
	return o
}

// peek reads the element that a queue or a stack would give next.
func (r *entryReader) peek(yield entryFunc, failed errorFunc) {
	value := make([]byte, r.stride)
	_, err := call(mapLookup, &attrElem{fd: r.fd, value: first(value)})
	switch {
	case errors.Is(err, unix.ENOENT): // empty
	case err != nil:
		failed(classify(mapLookup, err))
	case yield(r.entry(nil, value), nil):
		failed(r.notShown("what is behind its first element", nil))
	}
}

// keys reads key by key. In a hash table the walk begins anew when the key it
// stands at goes away: what was seen is left out, and the steps are bounded.
func (r *entryReader) keys(yield entryFunc, failed errorFunc) {
	key, next, value := make([]byte, r.m.KeySize), make([]byte, r.m.KeySize), make([]byte, r.stride)
	seen := make(map[string]bool)
	a := attrElem{fd: r.fd}
	for range 2*uint64(r.m.MaxEntries) + 1024 {
		a.value = first(next)
		if _, err := call(mapNextKey, &a); err != nil {
			if !errors.Is(err, unix.ENOENT) {
				failed(r.refused(mapNextKey, err))
			}
			return
		}
		key, next = next, key
		if seen[string(key)] {
			a.key = first(key)
			continue
		}
		seen[string(key)] = true
		a.key, a.value = first(key), first(value)
		_, err := call(mapLookup, &a)
		switch {
		case errors.Is(err, unix.ENOENT): // an empty slot, or gone
		case err != nil:
			failed(r.refused(mapLookup, err))
			return
		case !yield(r.entry(key, value), nil):
			return
		}
	}
}

// refused explains why the values of a type of map cannot be had.
func (r *entryReader) refused(c command, err error) error {
	switch {
	case unsupported(err):
		return r.notShown("its values", err)
	case errors.Is(err, unix.ENOSPC): // cookies of sockets take 8 bytes
		return r.notShown("its sockets where values have less than 8 bytes", err)
	}
	return classify(c, err)
}

// Sizes of batches: of what is asked for at first, and at most.
const (
	batchBytes    = 256 << 10
	maxBatchBytes = 256 << 20
	batchTries    = 16
)

// batches reads many entries in one call (05799638dbbe and cb4d03ab499d, 5.6;
// per-CPU arrays f008d732ab18, 5.13). It returns false, and has yielded
// nothing, where the kernel cannot.
func (r *entryReader) batches(yield entryFunc, failed errorFunc) bool {
	keySize := int(r.m.KeySize)
	each := keySize + r.stride
	if each == 0 {
		return false
	}
	count := max(1, min(int(r.m.MaxEntries), batchBytes/each))
	// The kernel's place in the map: a key, or the number of a bucket.
	in, out := make([]byte, max(keySize, 4)), make([]byte, max(keySize, 4))
	var keys, values []byte
	a := attrBatch{fd: r.fd, out: first(out)}
	for steps, idle := 0, 0; ; steps++ {
		if len(keys) < count*keySize {
			keys, values = make([]byte, count*keySize), make([]byte, count*r.stride)
			a.keys, a.values = first(keys), first(values)
		}
		a.count = uint32(count)
		_, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(mapLookupBatch), uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
		var err error
		if errno != 0 {
			err = errno
		}
		switch {
		case err == nil, errors.Is(err, unix.ENOENT): // the latter: the last batch
		case steps == 0 && unsupported(err):
			return false
		case errors.Is(err, unix.ENOSPC) && 2*count*each <= maxBatchBytes:
			count *= 2 // a bucket holds more than was asked for
			continue
		case errors.Is(err, unix.EINTR) && idle < batchTries:
			// Entries went away while the kernel stood at them; what it had
			// before is there.
			if idle++; a.count == uint32(count) {
				continue
			}
		default:
			failed(classify(mapLookupBatch, err))
			return true
		}
		for i := range min(int(a.count), count) {
			if !yield(r.entry(keys[i*keySize:][:keySize], values[i*r.stride:][:r.stride]), nil) {
				return true
			}
		}
		if errors.Is(err, unix.ENOENT) {
			return true
		}
		if err == nil && a.count == 0 {
			if idle++; idle > batchTries {
				failed(errors.New("the kernel gives empty batches without end"))
				return true
			}
		}
		in, out = out, in
		a.in, a.out = first(in), first(out)
	}
}
