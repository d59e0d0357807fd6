package bpf_test

import (
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
	"github.com/ksleuth/ksleuth/mem"
)

// trampolineLine writes what is the same on every boot.
func trampolineLine(t *bpf.Trampoline) string {
	s := t.Kind + " " + t.Target.Name
	if t.Member != "" {
		s += "." + t.Member
	}
	s += ":"
	for _, p := range t.Progs {
		s += " " + p.When + " " + p.Name
	}
	if t.Original {
		s += ", calls it"
	}
	if t.KeepsTailCalls != nil {
		s += map[bool]string{true: ", keeps the count", false: ", loses the count"}[*t.KeepsTailCalls]
	}
	return s
}

// TestTrampolines: what the scenes of BPF objects are known to have made.
func TestTrampolines(t *testing.T) {
	for _, test := range []struct {
		kernel string
		full   int // programs that one trampoline runs at most
		want   []string
	}{
		{"5.10", 40, []string{
			"trampoline module3: fentry module3_entry fexit module3_exit, calls it, loses the count",
			"trampoline xdp_main: fexit xdp_main_exit, calls it", // it counts for itself
		}},
		{"6.1", 38, []string{
			"trampoline module3: fentry module3_entry fexit module3_exit, calls it, keeps the count",
			"trampoline bpf_lsm_socket_listen: lsm_cgroup __cgroup_bpf_run_lsm_current, calls it",
		}},
		{"6.12", 38, []string{
			"trampoline module3: fentry module3_entry fexit module3_exit, calls it, keeps the count",
			"trampoline bpf_lsm_socket_listen: lsm_cgroup __cgroup_bpf_run_lsm_current, calls it",
		}},
		{"7.2", 36, []string{
			"trampoline module3: fentry module3_entry fexit module3_exit, calls it, keeps the count",
			"trampoline bpf_fentry_test5: fsession z_fsession fsession z_fsession, calls it",
			"trampoline bpf_fentry_test7: fentry z_fentry_multi",
		}},
	} {
		t.Run(test.kernel, func(t *testing.T) {
			scene := "bpf-" + test.kernel
			ts, err := bpf.Trampolines(example.KernelOf(t, dumptest.Get(t, scene+".kdump")))
			qt.Assert(t, qt.IsNil(err))
			var got []string
			most := 0
			for _, tr := range ts {
				got = append(got, trampolineLine(tr))
				most = max(most, len(tr.Progs))
				if tr.Kind == "trampoline" && tr.Replaced == 0 && tr.Size <= 0 {
					t.Errorf("%s has no size", tr.Name)
				}
				if tr.Original && tr.Call == 0 && !slices.Contains(tr.Flags, "orig_stack") {
					t.Errorf("%s: where does it call the function?", tr.Name)
				}
			}
			for _, want := range append(test.want,
				"trampoline bpf_fentry_test4: fentry z_fentry fexit z_fexit, calls it",
				"trampoline bpf_fentry_test1: fentry z_tr0_test1",
				"trampoline security_task_getioprio: fmod_ret z_fmod_ret, calls it",
				"trampoline module1: replace fw_mod",
				"trampoline fw_mod: fentry fw_mod_entry",
				"struct_ops tcp_congestion_ops.ssthresh: struct_ops zoo_ssthresh",
				"struct_ops tcp_congestion_ops.cong_avoid: struct_ops zoo_cong_avoid",
				"struct_ops tcp_congestion_ops.undo_cwnd: struct_ops zoo_undo_cwnd",
			) {
				qt.Check(t, qt.IsTrue(slices.Contains(got, want)), qt.Commentf("no %q in\n%s", want, strings.Join(got, "\n")))
			}
			qt.Check(t, qt.Equals(most, test.full))
			checkKallsyms(t, scene, ts)
		})
	}
}

// checkKallsyms: the kernel's own list of generated code has the same images,
// those of struct_ops in newer kernels alone.
func checkKallsyms(t *testing.T, scene string, ts []*bpf.Trampoline) {
	t.Helper()
	named := func(name string) bool {
		return strings.HasPrefix(name, "bpf_trampoline_") || strings.HasPrefix(name, "bpf_dispatcher_") || strings.HasPrefix(name, "bpf__")
	}
	var want, got []string
	raw, err := os.ReadFile(dumptest.Get(t, scene+".kallsyms"))
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 4 && f[3] == "[bpf]" && named(f[2]) {
			want = append(want, "0x"+f[0]+" "+f[2])
		}
	}
	for _, tr := range ts {
		if tr.Name != "" {
			got = append(got, fmt.Sprintf("%v %s", tr.Image, tr.Name))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	qt.Check(t, qt.IsTrue(len(want) > 10))
	qt.Check(t, qt.DeepEquals(got, want))
}

func trampolines(t *testing.T, changes ...example.Change) (*kernel.Kernel, []*bpf.Trampoline, error) {
	t.Helper()
	k := example.KernelOf(t, dumptest.Get(t, "bpf-6.1.kdump"), changes...)
	ts, err := bpf.Trampolines(k)
	return k, ts, err
}

// TestTrampolinesDamaged: what cannot be read is said, the rest is there, and
// no list leads round for ever.
func TestTrampolinesDamaged(t *testing.T) {
	k, sound, err := trampolines(t)
	qt.Assert(t, qt.IsNil(err))
	at := func(name string) *bpf.Trampoline {
		i := slices.IndexFunc(sound, func(t *bpf.Trampoline) bool { return t.Target.Name == name })
		qt.Assert(t, qt.IsTrue(i >= 0))
		return sound[i]
	}
	tr := at("bpf_fentry_test4")
	o := k.Object("bpf_trampoline", uint64(tr.Addr))
	table, err := k.Addr("trampoline_table")
	qt.Assert(t, qt.IsNil(err))
	fentry, err := mem.U64(k.Mem(), o.At("progs_hlist"))
	qt.Assert(t, qt.IsNil(err))
	big := at("bpf_fentry_test3")
	bigHead, err := mem.U64(k.Mem(), k.Object("bpf_trampoline", uint64(big.Addr)).At("progs_hlist"))
	qt.Assert(t, qt.IsNil(err))
	image := o.Deref("cur_image")
	cc := at("tcp_congestion_ops")
	for _, test := range []struct {
		name   string
		change example.Change
		fewer  int // than of the sound dump; -1 where parts of one are listed, too
		err    string
	}{
		{"a page of the table", example.Absent(table + 8*512), -1, `(?s).*trampoline_table\[\d+\] and \d+ more: .*excluded from the dump.*`},
		{"list of trampolines that goes round", example.Words(uint64(tr.Addr), uint64(tr.Addr)), -1, `(?s).*trampoline_table\[\d+\]: the list does not end: damaged.*`},
		{"list of trampolines that goes astray", example.Words(uint64(tr.Addr), 0x1000), -1, `(?s).*trampoline_table\[\d+\]: .*not mapped.*`},
		{"list of programs that goes round", example.Words(bigHead, bigHead), 0, `(?s).*fentry programs of the trampoline at .*: the list does not end.*list of fentry programs has 1, and it counts 38.*`},
		{"list of programs that goes astray", example.Words(fentry, 0x1000), 0, `(?s).*fentry programs of .*not mapped.*`},
		{"count of programs", example.Write(o.At("progs_cnt"), []byte{9, 0, 0, 0}), 0, `.*list of fentry programs has 1, and it counts 9`},
		{"image", example.Words(o.At("cur_image"), 0x1000), -1, `(?s)image of the trampoline at .*not mapped.*`},
		{"code", example.Words(image.At("image"), 0x1000), -1, `(?s).*it is at 0x1000, its symbol at 0x.*code of the image at 0x1000: .*not mapped.*`},
		{"extension", example.Words(o.At("extension_prog"), 0x1000), 0, `(?s)program of a trampoline: .*not mapped.*`},
		{"struct_ops map", example.Words(k.Object("bpf_struct_ops_map", mapAddr(t, k, cc.Target.MapID)).At("uvalue"), 0x1000), 3, `(?s)struct_ops map id \d+: .*not mapped.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, ts, err := trampolines(t, test.change)
			qt.Check(t, qt.ErrorMatches(err, test.err))
			if test.fewer >= 0 {
				qt.Check(t, qt.Equals(len(ts), len(sound)-test.fewer))
			}
			for _, tr := range ts {
				qt.Check(t, qt.IsTrue(tr.Size >= 0))
				// What was not seen to be in use is not said to be out of use.
				if test.fewer < 0 {
					qt.Check(t, qt.Not(qt.Equals(tr.Kind, "retired")))
				}
			}
		})
	}
}

func mapAddr(t *testing.T, k *kernel.Kernel, id int) uint64 {
	t.Helper()
	idr, err := k.Addr("map_idr")
	qt.Assert(t, qt.IsNil(err))
	for e, err := range k.XArray(idr) {
		qt.Assert(t, qt.IsNil(err))
		if e.Index == uint64(id) {
			return e.Entry
		}
	}
	t.Fatalf("no map %d", id)
	return 0
}

// TestRetired: an image that no trampoline has any more is said to be one.
func TestRetired(t *testing.T) {
	k, sound, err := trampolines(t)
	qt.Assert(t, qt.IsNil(err))
	i := slices.IndexFunc(sound, func(t *bpf.Trampoline) bool { return t.Target.Name == "bpf_fentry_test4" })
	old := sound[i]
	_, ts, err := trampolines(t, example.Words(k.Object("bpf_trampoline", uint64(old.Addr)).At("cur_image"), 0))
	qt.Assert(t, qt.IsNil(err))
	i = slices.IndexFunc(ts, func(t *bpf.Trampoline) bool { return t.Kind == "retired" })
	qt.Assert(t, qt.IsTrue(i >= 0))
	qt.Check(t, qt.Equals(ts[i].Image, old.Image))
	qt.Check(t, qt.Equals(ts[i].Name, old.Name))
	qt.Check(t, qt.Equals(ts[i].Key, old.Key))
	qt.Check(t, qt.Equals(ts[i].Target.Type, old.Target.Type))
	qt.Check(t, qt.HasLen(ts[i].Progs, 0))
}
