package ctype

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
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
		_, err = ts.Layout("task_struct", "pid", "comm", "tasks.next", "__state|state", "mm")
		qt.Assert(b, qt.IsNil(err))
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

func BenchmarkLayoutRead(b *testing.B) {
	raw, _ := vmlinuxBTF(b)
	ts, err := New(raw)
	qt.Assert(b, qt.IsNil(err))
	l, err := ts.Layout("task_struct", "pid", "comm", "tasks.next", "__state|state", "mm")
	qt.Assert(b, qt.IsNil(err))
	m := mem.Snapshot{Base: base, Data: make([]byte, 32<<10)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		r, err := l.Read(m, base, &buf)
		if err != nil || r.Uint(0) != 0 || r.Uint(4) != 0 {
			b.Fatal(err)
		}
	}
}
