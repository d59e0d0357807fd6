//go:build linux

package bpfsys_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfsys"
)

// bpftool returns what "bpftool -j" answers, by id.
func bpftool(t *testing.T, args ...string) map[int]map[string]any {
	t.Helper()
	out, err := exec.Command(need(t, "bpftool"), append([]string{"-j"}, args...)...).Output()
	qt.Assert(t, qt.IsNil(err))
	var list []map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &list)))
	byID := make(map[int]map[string]any)
	for _, o := range list {
		byID[int(o["id"].(float64))] = o
	}
	return byID
}

// plain is the JSON form of an object, by name.
func plain(t *testing.T, o any) map[string]any {
	t.Helper()
	raw, err := json.Marshal(o)
	qt.Assert(t, qt.IsNil(err))
	var out map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal(raw, &out)))
	return out
}

// agree compares the fields that both have. A field that ours leaves out is one
// that bpftool has as zero or empty.
func agree(t *testing.T, what string, ours, theirs map[string]any) {
	t.Helper()
	for name, want := range theirs {
		got, ok := ours[name]
		switch v := got.(type) {
		case nil:
			if reflect.ValueOf(want).IsZero() || fmt.Sprint(want) == "[]" {
				continue
			}
		case bool:
			if n, isNumber := want.(float64); isNumber {
				want = n != 0
			}
		case float64:
			// Both compute it from two clocks that can be set in between.
			if name == "loaded_at" {
				if d := v - want.(float64); d >= -1 && d <= 1 {
					continue
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s is %v (there: %v), bpftool: %v", what, name, got, ok, want)
		}
	}
}

// TestRunningKernelBpftool holds every field that bpftool has, too, against it.
// Other objects may come and go; those of the test are looked at.
func TestRunningKernelBpftool(t *testing.T) {
	mayAsk(t)
	need(t, "bpftool")
	var progs, maps []int
	for _, typ := range []ebpf.ProgramType{ebpf.SocketFilter, ebpf.SchedCLS, ebpf.XDP, ebpf.CGroupSKB, ebpf.CGroupDevice, ebpf.Tracing} {
		spec := filterSpec("judged", typ, len(progs))
		if typ == ebpf.Tracing {
			spec.AttachType, spec.AttachTo = ebpf.AttachTraceIter, "bpf_map"
		}
		p, err := ebpf.NewProgram(spec)
		if err != nil {
			t.Logf("no program of type %s: %v", typ, err)
			continue
		}
		defer p.Close()
		progs = append(progs, progID(t, p))
	}
	for _, spec := range []*ebpf.MapSpec{
		{Type: ebpf.Hash, KeySize: 9, ValueSize: 3, MaxEntries: 5, Flags: 1}, {Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 5},
		{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 64, MaxEntries: 5}, {Type: ebpf.RingBuf, MaxEntries: 8192},
		{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 5}, {Type: ebpf.LRUHash, KeySize: 4, ValueSize: 4, MaxEntries: 9},
		{Type: ebpf.BloomFilter, ValueSize: 4, MaxEntries: 9}, {Type: ebpf.StackTrace, KeySize: 4, ValueSize: 80, MaxEntries: 9},
	} {
		spec.Name = "judged"
		maps = append(maps, mapID(t, create(t, spec)))
	}
	theirs := bpftool(t, "prog", "show")
	ours, err := bpfsys.Programs(progs...)
	qt.Assert(t, qt.IsNil(err))
	defer ours.Close()
	qt.Assert(t, qt.HasLen(ours.Objects, len(progs)))
	for _, p := range ours.Objects {
		agree(t, fmt.Sprintf("program %d (%s)", p.ID, p.Type), plain(t, p), theirs[p.ID])
	}
	theirs = bpftool(t, "map", "show")
	oursMaps, err := bpfsys.Maps(maps...)
	qt.Assert(t, qt.IsNil(err))
	defer oursMaps.Close()
	qt.Assert(t, qt.HasLen(oursMaps.Objects, len(maps)))
	for _, m := range oursMaps.Objects {
		agree(t, fmt.Sprintf("map %d (%s)", m.ID, m.Type), plain(t, m), theirs[m.ID])
	}
	// And all ids.
	all, err := bpfsys.Maps()
	qt.Assert(t, qt.IsNil(err))
	defer all.Close()
	for _, id := range maps {
		qt.Check(t, qt.IsTrue(slices.ContainsFunc(maps, func(i int) bool { return i == id }) && all.Object(id) != nil))
	}
}

// many makes 500 programs and 500 maps.
func many(b *testing.B) {
	b.Helper()
	for i := range 500 {
		load(b, filterSpec(fmt.Sprintf("many_%d", i), ebpf.SocketFilter, i%7))
		create(b, arraySpec(fmt.Sprintf("many_%d", i), 8))
	}
}

// BenchmarkPrograms lists 500 programs; BenchmarkBpftoolPrograms, in its own
// process, too.
func BenchmarkPrograms(b *testing.B) {
	mayAsk(b)
	many(b)
	for b.Loop() {
		h, err := bpfsys.Programs()
		qt.Assert(b, qt.IsNil(err))
		qt.Assert(b, qt.IsTrue(len(h.Objects) >= 500))
		h.Close()
	}
}

// BenchmarkMaps lists 500 maps.
func BenchmarkMaps(b *testing.B) {
	mayAsk(b)
	many(b)
	for b.Loop() {
		h, err := bpfsys.Maps()
		qt.Assert(b, qt.IsNil(err))
		qt.Assert(b, qt.IsTrue(len(h.Objects) >= 500))
		h.Close()
	}
}

// BenchmarkHolders looks through the descriptors of all processes.
func BenchmarkHolders(b *testing.B) {
	mayAsk(b)
	for b.Loop() {
		_, err := bpfsys.Holders(b.Context())
		qt.Assert(b, qt.IsNil(err))
	}
}

func BenchmarkBpftoolPrograms(b *testing.B) { benchBpftool(b, "prog") }
func BenchmarkBpftoolMaps(b *testing.B)     { benchBpftool(b, "map") }

func benchBpftool(b *testing.B, kind string) {
	tool := need(b, "bpftool")
	mayAsk(b)
	many(b)
	for b.Loop() {
		out, err := exec.Command(tool, "-j", kind, "show").Output()
		qt.Assert(b, qt.IsNil(err))
		qt.Assert(b, qt.IsTrue(len(out) > 500*100))
	}
}
