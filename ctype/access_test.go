package ctype

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// TestByID: types by their numbers, in vmlinux's BTF and in a module's.
func TestByID(t *testing.T) {
	ts := fixture(t)
	task, err := ts.Struct("task")
	qt.Assert(t, qt.IsNil(err))
	b := splitBuilder(ts.vmlinux)
	own := b.add(Struct, "own", false, 0, 24)
	qt.Assert(t, qt.IsNil(ts.AddModule("m", b.blob())))
	for _, test := range []struct {
		module string
		id     uint32
		want   string
	}{
		{"", 0, "void"}, {"", task.ID(), "struct task"}, {"vmlinux", task.ID(), "struct task"},
		{"m", task.ID(), "struct task"}, {"m", own, "struct own"},
	} {
		typ, err := ts.ByID(test.module, test.id)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(typ.String(), test.want))
	}
	for _, test := range []struct {
		module string
		id     uint32
	}{{"", own}, {"m", own + 1}, {"nosuchmodule", 1}, {"", 1 << 31}} {
		_, err := ts.ByID(test.module, test.id)
		qt.Check(t, qt.ErrorIs(err, ErrNotFound))
	}
}

// TestVariables: the variables of a data section, where its loader put them.
func TestVariables(t *testing.T) {
	b := newBuilder()
	i := b.add(Int, "int", false, 0, 4, 32|1<<24)
	x := b.add(Var, "x", false, 0, i, 1)
	y := b.add(Var, "y", false, 0, i, 0)
	sec := b.add(Datasec, ".data", false, 3, 12, x, 0, 4, i, 4, 4, y, 8, 4) // an int is no variable
	ts, err := New(b.blob())
	qt.Assert(t, qt.IsNil(err))
	typ, err := ts.ByID("", sec)
	qt.Assert(t, qt.IsNil(err))
	vars := typ.Variables()
	qt.Assert(t, qt.HasLen(vars, 2))
	qt.Check(t, qt.Equals(vars[0].Name, "x"))
	qt.Check(t, qt.Equals(vars[1].Name, "y"))
	qt.Check(t, qt.Equals(vars[1].Offset, uint32(64)))
	qt.Check(t, qt.Equals(vars[1].Type.String(), "int"))
	other, err := ts.ByID("", i)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(other.Variables(), 0))
}

// TestPeekUint: the short way gives what the long way gives.
func TestPeekUint(t *testing.T) {
	m := tasks(t)
	v := m.task(initTask, "init_task")
	loaded := must(v.Load())
	for _, path := range []string{
		"pid", "state", "fl", "mm", "parent", "tasks.next", "bits.a", "bits.b", "bits.c", "bits.wide", "bits.over",
		"bits.last", "lo", "hi", "lock.raw", "traced", "nice", "label", "matrix[1][2]", "counters[0]", "mac[5]", "kind",
	} {
		want, err := must(loaded.Field(path)).Uint()
		qt.Assert(t, qt.IsNil(err))
		got, ok := loaded.PeekUint(path)
		qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s", path))
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", path))
		_, ok = v.PeekUint(path)
		qt.Check(t, qt.IsFalse(ok)) // nothing has been read
	}
	for _, path := range []string{"tasks", "comm", "no_such_member", ""} {
		_, ok := loaded.PeekUint(path)
		qt.Check(t, qt.IsFalse(ok), qt.Commentf("%s", path))
	}
}

// TestObjectAt: an object is named by its address in errors.
func TestObjectAt(t *testing.T) {
	m := tasks(t)
	v := m.ts.ObjectAt(m, must(m.ts.Struct("task")), 0x1000, "task")
	_, err := must(v.Field("pid")).Uint()
	qt.Check(t, qt.ErrorMatches(err, `\(task at 0x1000\)\.pid: .*not mapped.*`))
}
