package kernel_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

func TestObject(t *testing.T) {
	k := example.Kernel(t)
	addr, err := k.Addr("init_task")
	qt.Assert(t, qt.IsNil(err))
	o := k.Object("task_struct", addr)
	qt.Check(t, qt.Equals(o.Str("comm"), "swapper/0"))
	qt.Check(t, qt.Equals(o.Int("pid"), int64(0)))
	qt.Check(t, qt.Equals(o.Int("prio"), int64(120)))
	qt.Check(t, qt.Equals(o.Int("se.on_rq"), int64(0)))
	qt.Check(t, qt.IsTrue(o.Has("__state")))
	qt.Check(t, qt.IsFalse(o.Has("state")))
	qt.Check(t, qt.Equals(o.Uint("__state|state"), uint64(0)))
	qt.Check(t, qt.Equals(o.Len("comm"), 16))
	qt.Check(t, qt.Equals(o.Deref("real_parent").Addr, addr))
	qt.Check(t, qt.Equals(o.Field("tasks").Addr, o.At("tasks")))
	uts, err := k.Addr("init_uts_ns")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(k.Object("uts_namespace", uts).Field("name").Str("sysname"), "Linux"))
	qt.Check(t, qt.Equals(o.Uint("in_execve"), uint64(0))) // a bitfield
	qt.Check(t, qt.IsNil(o.Err()))
}

// TestObjectError: the first error sticks, says where it happened, and every
// read after it gives zero.
func TestObjectError(t *testing.T) {
	k := example.Kernel(t)
	addr, err := k.Addr("init_task")
	qt.Assert(t, qt.IsNil(err))
	for _, test := range []struct {
		name string
		read func() *kernel.Object
		err  string
	}{
		{"no member", func() *kernel.Object {
			o := k.Object("task_struct", addr)
			o.Uint("no_such_member")
			return o
		}, `.*task_struct.*no_such_member.*`},
		{"no struct", func() *kernel.Object { return k.Object("no_such_struct", addr) }, `.*no_such_struct.*`},
		{"not mapped", func() *kernel.Object {
			o := k.Object("task_struct", 0x1000)
			o.Uint("pid")
			return o
		}, `.*task_struct at 0x1000.*pid: virtual address 0x[0-9a-f]+: not mapped.*`},
		{"NULL", func() *kernel.Object { return k.Object("task_struct", addr).Deref("mm") }, `.*task_struct at 0x[0-9a-f]+.*mm.*NULL.*`},
		{"below NULL", func() *kernel.Object { return k.Object("task_struct", addr).Deref("mm").Field("mmap_lock") }, `.*mm.*NULL.*`},
		{"no word", func() *kernel.Object {
			o := k.Object("task_struct", addr)
			o.Uint("se")
			return o
		}, `.*task_struct.*se.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := test.read()
			qt.Assert(t, qt.ErrorMatches(o.Err(), test.err))
			first := o.Err()
			qt.Check(t, qt.Equals(o.Uint("pid"), uint64(0)))
			qt.Check(t, qt.Equals(o.Str("comm"), ""))
			qt.Check(t, qt.Equals(o.Int("prio"), int64(0)))
			qt.Check(t, qt.IsNotNil(o.Field("se").Err()))
			qt.Check(t, qt.IsNotNil(o.Deref("mm").Err()))
			qt.Check(t, qt.Equals(o.Err(), first))
		})
	}
}

// TestObjectLoad: a struct that was read whole says the same as one that is
// read member by member, also where it cannot be read whole.
func TestObjectLoad(t *testing.T) {
	k := example.Kernel(t)
	addr, err := k.Addr("init_task")
	qt.Assert(t, qt.IsNil(err))
	one, whole := k.Object("task_struct", addr), k.Object("task_struct", addr).Load()
	for _, path := range []string{"pid", "prio", "__state", "no_such|__state|state", "in_execve", "real_parent", "se.exec_start", "stack", "comm"} {
		qt.Check(t, qt.Equals(whole.Uint(path), one.Uint(path)), qt.Commentf("%s", path))
	}
	qt.Check(t, qt.Equals(whole.Str("comm"), "swapper/0"))
	qt.Check(t, qt.Equals(whole.Kind("real_parent"), ctype.Pointer))
	qt.Check(t, qt.Equals(whole.Kind("se"), ctype.Struct))
	qt.Check(t, qt.IsNil(whole.Err()))

	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	o := example.Kernel(t, example.Absent(task)).Object("task_struct", task).Load()
	qt.Check(t, qt.IsNil(o.Err()))
	o.Uint("flags")
	qt.Check(t, qt.ErrorMatches(o.Err(), `.*task_struct at 0x[0-9a-f]+\)\.flags: .*excluded from the dump.*`))
}

func TestEnumerators(t *testing.T) {
	k := example.Kernel(t)
	for range 2 { // the second time from memory
		e := k.Enumerators("bpf_prog_type")
		qt.Assert(t, qt.IsTrue(len(e) > 20))
		qt.Check(t, qt.Equals(e[1].Name, "BPF_PROG_TYPE_SOCKET_FILTER"))
		qt.Check(t, qt.HasLen(k.Enumerators("no_such_enum"), 0))
	}
}

// TestLookupAll: several symbols in one pass.
func TestLookupAll(t *testing.T) {
	k := example.Kernel(t)
	got := k.LookupAll("_stext", "schedule", "no_such_symbol")
	qt.Check(t, qt.HasLen(got, 2))
	for name, s := range got {
		want, err := k.Find(name)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(s, want))
	}
}

func TestObjectMissingPage(t *testing.T) {
	k := example.Kernel(t)
	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	o := example.Kernel(t, example.Absent(task)).Object("task_struct", task)
	qt.Check(t, qt.Equals(o.Uint("flags"), uint64(0)))
	qt.Check(t, qt.Equals(mem.CauseOf(o.Err()), mem.Excluded))
}

func TestSymbols(t *testing.T) {
	k := example.Kernel(t)
	for _, test := range []struct {
		name   string
		kind   kernel.Kind
		module string
	}{
		{"do_syscall_64", kernel.KindKernel, ""},
		{"nf_conntrack:nf_ct_delete", kernel.KindModule, "nf_conntrack"},
		{"nf_ct_delete", kernel.KindModule, "nf_conntrack"},
		{"bpf_prog_46535d100e342878_lookup", kernel.KindBPF, ""},
	} {
		s, err := k.Find(test.name)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", test.name))
		qt.Check(t, qt.Equals(s.Kind, test.kind))
		qt.Check(t, qt.Equals(s.Module, test.module))
		for _, off := range []uint64{0, 1, s.Size - 1} {
			got, gotOff, ok := k.Symbolize(s.Addr + off)
			qt.Check(t, qt.IsTrue(ok))
			qt.Check(t, qt.Equals(got.Addr, s.Addr))
			qt.Check(t, qt.Equals(gotOff, off))
		}
	}
	s, _ := k.Find("nf_ct_delete")
	qt.Check(t, qt.Equals(k.FormatAddr(s.Addr+0x10), "nf_ct_delete+0x10 [nf_conntrack]"))
	qt.Check(t, qt.Equals(k.FormatAddr(s.Addr), "nf_ct_delete [nf_conntrack]"))
	qt.Check(t, qt.Equals(k.FormatAddr(0x1000), "0x1000"))
	for _, nowhere := range []uint64{0, 0x400000, 1 << 47, ^uint64(0), 0xffff_ffff_ffff_f000} {
		_, _, ok := k.Symbolize(nowhere)
		qt.Check(t, qt.IsFalse(ok), qt.Commentf("%#x", nowhere))
	}
	_, err := k.Find("do_syscal_64")
	var no *kernel.NoSymbolError
	qt.Assert(t, qt.IsTrue(errors.As(err, &no)))
	qt.Check(t, qt.SliceContains(no.Suggestions, "do_syscall_64"))
	_, err = k.Find("no_module:nf_ct_delete")
	qt.Check(t, qt.IsTrue(errors.As(err, &no)))
}

func TestMatch(t *testing.T) {
	k := example.Kernel(t)
	for _, test := range []struct {
		pattern string
		want    []string
	}{
		{"do_syscall_6?", []string{"do_syscall_64"}},
		{"nf_ct_delet[ef]", []string{"nf_ct_delete"}},
		{"bpf_prog_4*_lookup", []string{"bpf_prog_46535d100e342878_lookup"}},
		{"no such symbol*", nil},
	} {
		syms, err := k.Match(test.pattern)
		qt.Assert(t, qt.IsNil(err))
		var got []string
		for _, s := range syms {
			got = append(got, s.Name)
		}
		qt.Check(t, qt.DeepEquals(got, test.want), qt.Commentf("%s", test.pattern))
	}
	_, err := k.Match("[")
	qt.Check(t, qt.IsNotNil(err))
}

func TestPerCPU(t *testing.T) {
	k := example.Kernel(t)
	n, err := k.CPUs()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 2))
	present, err := k.PresentCPUs()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(present, []int{0, 1}))
	possible, err := k.PossibleCPUs()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(possible, []int{0, 1}))
	for _, cpu := range []int{-1, 2, 1 << 40} {
		_, err := k.PerCPU(0, cpu)
		qt.Check(t, qt.ErrorMatches(err, `CPU .*: this kernel has CPUs 0 to 1`))
		_, ok := k.Registers(cpu)
		qt.Check(t, qt.IsFalse(ok))
	}
	nr, err := k.Addr("nr_cpu_ids")
	qt.Assert(t, qt.IsNil(err))
	for _, bad := range [][]byte{{0, 0, 0, 0}, {1, 32, 0, 0}, {0xff, 0xff, 0xff, 0xff}} {
		_, err := example.Kernel(t, example.Write(nr, bad)).CPUs()
		qt.Check(t, qt.ErrorMatches(err, `nr_cpu_ids at 0x[0-9a-f]+ is \d+: damaged`))
	}
}

func TestModules(t *testing.T) {
	k := example.Kernel(t)
	mods, err := k.Modules()
	qt.Assert(t, qt.IsNil(err))
	var names []string
	for _, m := range mods {
		names = append(names, m.Name)
		qt.Check(t, qt.Equals(m.State, "live"))
		got, ok := k.ModuleAt(m.Base() + m.Size() - 1)
		qt.Check(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(got, m))
	}
	qt.Check(t, qt.DeepEquals(names, []string{"nf_conntrack", "libcrc32c", "nf_defrag_ipv6", "nf_defrag_ipv4", "qemu_fw_cfg"}))
	qt.Check(t, qt.Equals(mods[0].Refs, int64(2)))

	// A module that cannot be read ends the list; those before it stay.
	k = example.Kernel(t, example.Absent(mods[2].Addr))
	some, err := k.Modules()
	qt.Check(t, qt.Equals(len(some) >= 1 && len(some) <= 2, true))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Excluded))
}

// TestNoModuleType: without the type by which modules' types are found, there
// are none of them; to look for it among them is to wait for ever.
func TestNoModuleType(t *testing.T) {
	k := example.Kernel(t)
	start, err := k.Addr("__start_BTF")
	qt.Assert(t, qt.IsNil(err))
	stop, err := k.Addr("__stop_BTF")
	qt.Assert(t, qt.IsNil(err))
	btf, err := mem.Bytes(k.Mem(), start, int(stop-start))
	qt.Assert(t, qt.IsNil(err))
	at := bytes.Index(btf, []byte("\x00btf_module\x00"))
	qt.Assert(t, qt.IsTrue(at > 0))
	k = example.Kernel(t, example.Write(start+uint64(at)+1, []byte("x")))
	done := make(chan error, 1)
	go func() {
		_, err := k.Types()
		done <- err
	}()
	select {
	case err := <-done:
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(k.ModuleTypesError()))
	case <-time.After(time.Minute):
		t.Fatal("deadlock")
	}
}
