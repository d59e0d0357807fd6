package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// objects are what the calls look at besides what every kernel has.
type objects struct {
	hash, array, trie *ebpf.Map
	ids               [3]uint64 // of the maps
	kthread           uint64    // PID of kswapd0
	marker            *os.File
}

// makeObjects makes maps and an entry in the trace buffer.
func makeObjects() (*objects, error) {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return nil, err
	}
	o := &objects{}
	for i, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
		keys [][]byte
	}{
		{&o.hash, ebpf.MapSpec{Name: "calls_hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 16}, [][]byte{u32(1), u32(2), u32(77)}},
		{&o.array, ebpf.MapSpec{Name: "calls_array", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4}, [][]byte{u32(0), u32(3)}},
		{&o.trie, ebpf.MapSpec{Name: "calls_trie", Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 8, Flags: unix.BPF_F_NO_PREALLOC},
			[][]byte{{8, 0, 0, 0, 10}, {16, 0, 0, 0, 10, 1}, {24, 0, 0, 0, 192, 168, 7}}},
	} {
		made, err := ebpf.NewMap(&m.spec)
		if err != nil {
			return nil, err
		}
		for n, key := range m.keys {
			key = append(key, make([]byte, int(m.spec.KeySize)-len(key))...)
			if err := made.Put(key, binary.LittleEndian.AppendUint64(nil, uint64(n))); err != nil {
				return nil, err
			}
		}
		info, err := made.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		*m.to, o.ids[i] = made, uint64(id)
	}
	o.kthread = pidOf("kswapd0")
	var err error
	if o.marker, err = os.OpenFile("/sys/kernel/tracing/trace_marker", os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	_, err = fmt.Fprint(o.marker, "callscene")
	return o, err
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// pidOf returns the PID of the first process with a name, or 0.
func pidOf(comm string) uint64 {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			continue
		}
		b, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
		if strings.TrimSpace(string(b)) == comm {
			return pid
		}
	}
	return 0
}
