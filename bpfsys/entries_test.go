//go:build linux

package bpfsys_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
)

// entries reads a map and returns lines "key value", sorted, and the errors.
func entries(t *testing.T, m *ebpf.Map) (lines []string, errs []error) {
	t.Helper()
	id := mapID(t, m)
	h, err := bpfsys.Maps(id)
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	for e, err := range bpfsys.Entries(h, id) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lines = append(lines, entryLine(e))
	}
	slices.Sort(lines)
	return lines, errs
}

func entryLine(e bpf.Entry) string {
	line := hex.EncodeToString(e.Key) + " " + hex.EncodeToString(e.Value)
	for _, v := range e.PerCPU {
		line += fmt.Sprintf("%d:%x ", v.CPU, []byte(v.Value))
	}
	if e.Object != nil {
		line += " " + e.Object.String()
	}
	return line
}

// TestRunningKernelEntries holds what is read of each type of map against what
// was put in.
func TestRunningKernelEntries(t *testing.T) {
	mayAsk(t)
	const n = 1000
	for _, typ := range []ebpf.MapType{ebpf.Hash, ebpf.LRUHash, ebpf.Array, ebpf.LPMTrie} {
		t.Run(typ.String(), func(t *testing.T) {
			spec := &ebpf.MapSpec{Type: typ, KeySize: 8, ValueSize: 5, MaxEntries: 2 * n}
			switch typ {
			case ebpf.Array:
				spec.KeySize, spec.MaxEntries = 4, n
			case ebpf.LPMTrie:
				spec.Flags = 1 // BPF_F_NO_PREALLOC
			}
			m := create(t, spec)
			var want []string
			for i := range n {
				key := binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 32), uint32(i))
				if typ == ebpf.Array {
					key = binary.LittleEndian.AppendUint32(nil, uint32(i))
				}
				value := []byte{byte(i), byte(i >> 8), 3, 4, 5}
				qt.Assert(t, qt.IsNil(m.Put(key, value)))
				want = append(want, fmt.Sprintf("%x %x", key, value))
			}
			slices.Sort(want)
			got, errs := entries(t, m)
			qt.Check(t, qt.HasLen(errs, 0))
			qt.Check(t, qt.DeepEquals(got, want))
		})
	}
}

func TestRunningKernelEntriesPerCPU(t *testing.T) {
	mayAsk(t)
	cpus := ebpf.MustPossibleCPU()
	for _, typ := range []ebpf.MapType{ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.PerCPUArray} {
		t.Run(typ.String(), func(t *testing.T) {
			m := create(t, &ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: 12, MaxEntries: 3})
			var want []string
			for key := range uint32(3) {
				line := fmt.Sprintf("%x ", binary.LittleEndian.AppendUint32(nil, key))
				var values [][]byte
				for cpu := range cpus {
					v := binary.LittleEndian.AppendUint32(make([]byte, 8), key*100+uint32(cpu))
					values = append(values, v)
					line += fmt.Sprintf("%d:%x ", cpu, v)
				}
				qt.Assert(t, qt.IsNil(m.Put(key, values)))
				want = append(want, line)
			}
			got, errs := entries(t, m)
			qt.Check(t, qt.HasLen(errs, 0))
			qt.Check(t, qt.DeepEquals(got, want))
		})
	}
}

func TestRunningKernelEntriesObjects(t *testing.T) {
	mayAsk(t)
	p := load(t, filterSpec("callee", ebpf.SocketFilter, 0))
	jumps := create(t, &ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	qt.Assert(t, qt.IsNil(jumps.Put(uint32(2), uint32(p.FD()))))
	got, errs := entries(t, jumps)
	qt.Check(t, qt.HasLen(errs, 0))
	le := func(v int) string { return hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, uint32(v))) }
	qt.Check(t, qt.DeepEquals(got, []string{fmt.Sprintf("02000000 %s prog %d socket_filter callee", le(progID(t, p)), progID(t, p))}))

	inner := create(t, arraySpec("inner", 8))
	for _, typ := range []ebpf.MapType{ebpf.ArrayOfMaps, ebpf.HashOfMaps} {
		outer := create(t, &ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: 4, MaxEntries: 4, InnerMap: arraySpec("inner", 8)})
		qt.Assert(t, qt.IsNil(outer.Put(uint32(1), uint32(inner.FD()))))
		got, errs := entries(t, outer)
		qt.Check(t, qt.HasLen(errs, 0))
		qt.Check(t, qt.DeepEquals(got, []string{fmt.Sprintf("01000000 %s map %d array inner", le(mapID(t, inner)), mapID(t, inner))}))
	}
}

// TestRunningKernelEntriesNotShown: what bpf(2) does not show is said once.
func TestRunningKernelEntriesNotShown(t *testing.T) {
	mayAsk(t)
	for _, test := range []struct {
		spec *ebpf.MapSpec
		put  []uint32
		want []string
		err  string
	}{
		{&ebpf.MapSpec{Type: ebpf.Queue, ValueSize: 4, MaxEntries: 4}, []uint32{7, 8}, []string{" 07000000"}, `.*map of type queue.*behind its first element: needs the kernel's memory`},
		{&ebpf.MapSpec{Type: ebpf.Stack, ValueSize: 4, MaxEntries: 4}, []uint32{7, 8}, []string{" 08000000"}, `.*map of type stack.*`},
		{&ebpf.MapSpec{Type: ebpf.Queue, ValueSize: 4, MaxEntries: 4}, nil, nil, ``},
		{&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096}, nil, nil, `.*map of type ringbuf, its records: needs.*`},
		{&ebpf.MapSpec{Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}, nil, nil, `.*its events.*`},
		{&ebpf.MapSpec{Type: ebpf.CGroupArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}, nil, nil, `.*its cgroups.*`},
	} {
		t.Run(fmt.Sprint(test.spec.Type, len(test.put)), func(t *testing.T) {
			m := create(t, test.spec)
			for _, v := range test.put {
				qt.Assert(t, qt.IsNil(m.Put(nil, v)))
			}
			got, errs := entries(t, m)
			qt.Check(t, qt.DeepEquals(got, test.want))
			if test.err == "" {
				qt.Check(t, qt.HasLen(errs, 0))
				return
			}
			qt.Assert(t, qt.HasLen(errs, 1))
			qt.Check(t, qt.ErrorIs(errs[0], errors.ErrUnsupported))
			qt.Check(t, qt.ErrorMatches(errs[0], test.err))
		})
	}
}

// TestRunningKernelEntriesChange: of a map whose other entries come and go,
// those that stay are read once each.
func TestRunningKernelEntriesChange(t *testing.T) {
	mayAsk(t)
	for _, typ := range []ebpf.MapType{ebpf.Hash, ebpf.HashOfMaps} {
		t.Run(typ.String(), func(t *testing.T) {
			spec := &ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: 4, MaxEntries: 600}
			value, stay := uint32(1), uint32(300)
			if typ == ebpf.HashOfMaps {
				stay = 20 // each Put waits for all CPUs
				spec.InnerMap = arraySpec("inner", 8)
				value = uint32(create(t, arraySpec("inner", 8)).FD())
			}
			m := create(t, spec)
			for key := range stay {
				qt.Assert(t, qt.IsNil(m.Put(key, value)))
			}
			stop, done := make(chan bool), make(chan bool)
			go func() {
				defer close(done)
				for key := stay; ; key++ {
					select {
					case <-stop:
						return
					default:
					}
					m.Put(key, value)
					m.Delete(key)
				}
			}()
			defer func() { close(stop); <-done }()
			h, err := bpfsys.Maps(mapID(t, m))
			qt.Assert(t, qt.IsNil(err))
			defer h.Close()
			for range 50 {
				seen := make(map[uint32]int)
				for e, err := range bpfsys.Entries(h, mapID(t, m)) {
					qt.Assert(t, qt.IsNil(err))
					seen[binary.LittleEndian.Uint32(e.Key)]++
				}
				for key := range stay {
					qt.Assert(t, qt.Equals(seen[key], 1), qt.Commentf("key %d", key))
				}
			}
		})
	}
}
