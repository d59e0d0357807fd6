package ctype

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// BenchmarkOpen is what a command pays for types: index vmlinux, find
// task_struct and a few members.
func BenchmarkOpen(b *testing.B) {
	raw, _ := vmlinuxBTF(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		ts, err := New(raw)
		qt.Assert(b, qt.IsNil(err))
		task, err := ts.Struct("task_struct")
		qt.Assert(b, qt.IsNil(err))
		for _, member := range []string{"pid", "comm", "tasks.next", "mm"} {
			_, err = ts.Member(task, member)
			qt.Assert(b, qt.IsNil(err))
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	raw, _ := vmlinuxBTF(b)
	b.ReportAllocs()
	for b.Loop() {
		_, err := New(raw)
		qt.Assert(b, qt.IsNil(err))
	}
}

func BenchmarkNotFound(b *testing.B) {
	raw, _ := vmlinuxBTF(b)
	ts, err := New(raw)
	qt.Assert(b, qt.IsNil(err))
	for b.Loop() {
		_, err := ts.Struct("taks_struct")
		if !strings.Contains(err.Error(), "task_struct") {
			b.Fatal(err)
		}
	}
}

func BenchmarkEnumerator(b *testing.B) {
	raw, _ := vmlinuxBTF(b)
	ts, err := New(raw)
	qt.Assert(b, qt.IsNil(err))
	for b.Loop() {
		_, _, err := ts.Enumerator("PIDTYPE_TGID")
		qt.Assert(b, qt.IsNil(err))
	}
}
