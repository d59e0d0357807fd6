package ctype

import (
	"os"
	"testing"

	"github.com/ksleuth/ksleuth/mem"
)

// exercise calls everything that walks a type. It must return.
func exercise(ts *Types, typ *Type) {
	_ = typ.String()
	_ = FormatType(typ)
	_, _ = ts.Sizeof(typ)
	_, _ = ts.Member(typ, "a.b[2].c")
	_ = Identical(typ, typ.Elem())
	v := ts.Object(mem.Snapshot{Base: 0x1000, Data: make([]byte, 256)}, typ, 0x1000, "v")
	o := FormatOptions{Depth: 2, Elements: 4}
	_, _ = FormatValue(v, o)
	_ = v.Plain(o)
	if d, err := v.Deref(); err == nil {
		_, _ = FormatValue(d, o)
	}
	for _, m := range typ.Members()[:min(len(typ.Members()), 4)] {
		_, _ = ts.Member(typ, m.Name)
	}
}

func FuzzBTF(f *testing.F) {
	blob, err := os.ReadFile("testdata/fixture.btf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	small := newBuilder()
	small.add(Int, "int", false, 0, 4, 32|encSigned<<24)
	small.add(Struct, "s", true, 2, 8, small.str("a"), 1, 3<<24|5, small.str("s"), 2, 32)
	f.Add(small.blob())
	f.Fuzz(func(t *testing.T, b []byte) {
		ts, err := New(b)
		if err != nil {
			return
		}
		for i := range min(len(ts.vmlinux.offs), 12) {
			exercise(ts, ts.vmlinux.byID(ts.vmlinux.firstID+uint32(i)))
		}
		_, _ = ts.Lookup("task")
		_, _, _ = ts.Enumerator("F_READ")
		if ts.AddModule("m", b) == nil {
			_, _ = ts.Lookup("struct nothing")
		}
	})
}

func FuzzParseType(f *testing.F) {
	for _, s := range []string{"struct task *", "int (*(*)(void *, ...))[3]", "const char *const [4]", "unsigned long long int", "u8[", "(((((*"} {
		f.Add(s)
	}
	blob, err := os.ReadFile("testdata/fixture.btf")
	if err != nil {
		f.Fatal(err)
	}
	ts, err := New(blob)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		typ, err := ts.ParseType(s)
		if err != nil {
			return
		}
		// What is printed parses again, to the same.
		again, err := ts.ParseType(typ.String())
		if err != nil {
			t.Fatalf("%q is printed as %q: %v", s, typ, err)
		}
		if again.String() != typ.String() {
			t.Fatalf("%q is printed as %q, and that as %q", s, typ, again)
		}
	})
}
