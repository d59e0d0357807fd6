package bpf_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// TestMaps: the maps are those that the guest saw by bpf(2), and their
// programs, too.
func TestMaps(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			k := example.KernelOf(t, dumptest.Get(t, scene+".kdump"))
			maps, err := bpf.Maps(k)
			qt.Assert(t, qt.IsNil(err))
			progs, err := bpf.Programs(k)
			qt.Assert(t, qt.IsNil(err))
			bpf.UsedBy(maps, progs)

			var got []string
			for _, p := range progs {
				var ids []string
				for _, id := range p.MapIDs {
					ids = append(ids, fmt.Sprint(id))
				}
				got = append(got, fmt.Sprintf("prog %d %s %s maps=%s", p.ID, p.Name, p.Tag, strings.Join(ids, ",")))
			}
			for _, m := range maps {
				got = append(got, fmt.Sprintf("map %d %s key=%d value=%d max=%d", m.ID, m.Name, m.KeySize, m.ValueSize, m.MaxEntries))
				for _, p := range progs {
					qt.Check(t, qt.Equals(slices.Contains(m.ProgIDs, p.ID), slices.Contains(p.MapIDs, m.ID)))
				}
			}
			qt.Check(t, qt.DeepEquals(got, seenByGuest(t, scene)))
		})
	}
}

// seenByGuest returns the lines of a scene's list of BPF objects that are of
// programs and maps, without their types: the library that made the list has
// names of its own for them.
func seenByGuest(t *testing.T, scene string) []string {
	t.Helper()
	f, err := os.Open(dumptest.Get(t, scene+".bpf"))
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if words := strings.Fields(s.Text()); len(words) > 3 && words[0] != "link" {
			out = append(out, strings.Join(slices.Delete(words, 2, 3), " "))
		}
	}
	return out
}

// TestMapDetails: what the three maps of the idle guests are.
func TestMapDetails(t *testing.T) {
	for _, test := range []struct {
		scene string
		// What a map's descriptor tells of its memory: pages of 5.10, an upper
		// bound up to 6.3, what it takes since.
		visits, packets, verdicts uint64
	}{
		{"idle-5.10", 24576, 4096, 4096},
		{"idle-6.1", 8192, 4096, 4096},
		{"idle-6.12", 23648, 360, 296},
		{"idle-7.2", 23584, 400, 336},
	} {
		k := example.KernelOf(t, dumptest.Get(t, test.scene+".kdump"))
		maps := mapsByName(t, k)
		v, p, a := maps["visits"], maps["packets"], maps["verdicts"]
		qt.Check(t, qt.DeepEquals([]string{v.Type, v.KeyType, v.ValueType}, []string{"hash", "__u32", "struct visit"}))
		qt.Check(t, qt.DeepEquals([]string{p.Type, p.KeyType, p.ValueType}, []string{"percpu_array", "__u32", "__u64"}))
		qt.Check(t, qt.DeepEquals([]string{a.Type, a.OwnerType}, []string{"prog_array", "sched_cls"}))
		qt.Check(t, qt.IsTrue(a.OwnerJited))
		qt.Check(t, qt.DeepEquals([]uint64{v.Memory, p.Memory, a.Memory}, []uint64{test.visits, test.packets, test.verdicts}), qt.Commentf("%s", test.scene))
	}
}

// TestShape: what maps of maps take, flags, frozen.
func TestShape(t *testing.T) {
	for _, version := range matrix {
		k := example.KernelOf(t, dumptest.Get(t, "bpf-"+version+".kdump"))
		maps := mapsByName(t, k)
		for _, name := range []string{"outer_hash", "outer_array"} {
			qt.Check(t, qt.DeepEquals(maps[name].Inner, &bpf.MapShape{Type: "hash", KeySize: 4, ValueSize: 8, MaxEntries: 8}))
		}
		qt.Check(t, qt.IsNil(maps["inner"].Inner))
		qt.Check(t, qt.IsTrue(maps["frozen"].Frozen))
		qt.Check(t, qt.IsFalse(maps["inner"].Frozen))
		qt.Check(t, qt.DeepEquals(maps["frozen"].FlagNames(), []string{"rdonly_prog"}))
		qt.Check(t, qt.Equals(maps[".rodata"].ValueType, ".rodata"))
	}
}

// TestSome: with ids, only what has them is read, and what there is not is
// left out.
func TestSome(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "idle-6.1.kdump"))
	maps, err := bpf.Maps(k)
	qt.Assert(t, qt.IsNil(err))
	progs, err := bpf.Programs(k)
	qt.Assert(t, qt.IsNil(err))
	btfs, err := bpf.BTFs(k)
	qt.Assert(t, qt.IsNil(err))

	some, err := bpf.Maps(k, 1<<20, maps[2].ID, maps[1].ID, 100, maps[1].ID)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(some, maps[1:3]))
	p, err := bpf.Programs(k, progs[3].ID)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(p, 1))
	qt.Check(t, qt.Equals(p[0].Name, progs[3].Name))
	b, err := bpf.BTFs(k, 1)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(b, btfs[:1]))
	qt.Check(t, qt.Equals(b[0].Name, "vmlinux"))

	// Another map's memory is not looked at.
	damaged := example.KernelOf(t, dumptest.Get(t, "idle-6.1.kdump"), example.Absent(uint64(maps[0].Addr)))
	_, err = bpf.Maps(damaged)
	qt.Check(t, qt.ErrorMatches(err, `(?s)BPF map id \d+: .*excluded from the dump.*`))
	some, err = bpf.Maps(damaged, maps[1].ID)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(some, 1))
}

// TestDamagedMaps: what surrounds a map is not needed to list it.
func TestDamagedMaps(t *testing.T) {
	dump := dumptest.Get(t, "idle-6.1.kdump")
	k := example.KernelOf(t, dump)
	visits := mapsByName(t, k)["visits"]
	o := k.Object("bpf_map", uint64(visits.Addr))
	btf := o.Deref("btf")
	for _, test := range []struct {
		name   string
		change example.Change
		listed bool
		err    string
	}{
		{"BTF", example.Words(o.At("btf"), 0x1000), true, `.*not mapped.*`},
		{"BTF's bytes", example.Words(btf.At("data"), 0x1000), true, `.*its types: BTF id \d+: .*not mapped.*`},
		{"BTF's size", example.Words(btf.At("data_size"), 1<<30), true, `.*its types: BTF id \d+ at 0x\w+ has 1073741824 bytes: damaged`},
		{"id", example.Words(o.At("id"), 77), false, `.*has id 77`},
		{"template", example.Words(o.At("inner_map_meta"), 0x1000), true, `.*template of its maps: .*not mapped.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := example.KernelOf(t, dump, test.change)
			maps, err := bpf.Maps(k)
			qt.Check(t, qt.ErrorMatches(err, `(?s)BPF map id \d+: `+test.err))
			qt.Check(t, qt.Equals(slices.ContainsFunc(maps, func(m *bpf.Map) bool { return m.Name == "visits" }), test.listed))
		})
	}
}

// TestLoadedAt: when a program was loaded, by the clock of the guest.
func TestLoadedAt(t *testing.T) {
	for _, scene := range dumptest.Idle {
		k := example.KernelOf(t, dumptest.Get(t, scene+".kdump"))
		info, err := os.Stat(dumptest.Get(t, scene+".kdump"))
		qt.Assert(t, qt.IsNil(err))
		progs, err := bpf.Programs(k)
		qt.Assert(t, qt.IsNil(err))
		for _, p := range progs {
			// The guest's clock is the host's, and the dump was written soon after.
			age := info.ModTime().Unix() - p.LoadedAt
			qt.Check(t, qt.IsTrue(age >= 0 && age < 600), qt.Commentf("%s: loaded %d s before", scene, age))
			qt.Check(t, qt.IsTrue(p.LoadTime > 1e8 && p.LoadTime < 600e9))
			qt.Check(t, qt.IsTrue(p.GPL && p.Jited))
			qt.Check(t, qt.Equals(p.XlatedLen, len(insns(t, k, p))))
		}
	}
}

// insns returns the instructions of all functions of a program.
func insns(t *testing.T, k *kernel.Kernel, p *bpf.Program) []byte {
	t.Helper()
	var all []byte
	for i := range p.Subprogs {
		o := bpf.Owner{Prog: p, Subprog: i}
		first, err := o.FirstInsn(k)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(first, len(all)/8))
		b, err := o.Insns(k)
		qt.Assert(t, qt.IsNil(err))
		const exit = 0x95
		qt.Check(t, qt.IsTrue(len(b) > 0 && b[len(b)-8] == exit || b[len(b)-8] == 0x05)) // BPF_EXIT, or a jump back
		all = append(all, b...)
	}
	return all
}
