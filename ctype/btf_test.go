package ctype

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// A builder makes BTF blobs by hand.
type builder struct {
	types []byte
	strs  []byte
	first uint32 // string offset of strs[0]
	n     uint32 // id of the last type
}

func newBuilder() *builder { return &builder{strs: []byte{0}} }

// splitBuilder continues a base's ids and strings.
func splitBuilder(base *table) *builder {
	return &builder{first: base.firstStr + uint32(len(base.strs)), n: uint32(len(base.offs))}
}

func (b *builder) str(s string) uint32 {
	if s == "" {
		return 0
	}
	off := b.first + uint32(len(b.strs))
	b.strs = append(append(b.strs, s...), 0)
	return off
}

// add appends a type and returns its id. words follow struct btf_type.
func (b *builder) add(k Kind, name string, flag bool, vlen int, sizeOrType uint32, words ...uint32) uint32 {
	info := uint32(k)<<24 | uint32(vlen)
	if flag {
		info |= 1 << 31
	}
	for _, w := range append([]uint32{b.str(name), info, sizeOrType}, words...) {
		b.types = le.AppendUint32(b.types, w)
	}
	b.n++
	return b.n
}

func (b *builder) blob() []byte {
	h := []byte{0x9f, 0xeb, 1, 0}
	for _, w := range []int{btfHeaderLen, 0, len(b.types), len(b.types), len(b.strs)} {
		h = le.AppendUint32(h, uint32(w))
	}
	return append(append(h, b.types...), b.strs...)
}

func fixture(t testing.TB) *Types {
	b, err := os.ReadFile("testdata/fixture.btf")
	qt.Assert(t, qt.IsNil(err))
	ts, err := New(b)
	qt.Assert(t, qt.IsNil(err))
	return ts
}

func TestNewerKinds(t *testing.T) {
	b := newBuilder()
	i := b.add(Int, "int", false, 0, 4, 32|encSigned<<24)
	e := b.add(Enum64, "wide", false, 2, 8, b.str("LOW"), 1, 0, b.str("TOP"), 0, 1<<31)
	tag := b.add(TypeTag, "rcu", false, 0, i)
	p := b.add(Pointer, "", false, 0, tag)
	b.add(DeclTag, "note", false, 0, p, 0)
	b.add(Float, "double", false, 0, 8)
	v := b.add(Var, "counter", false, 0, i, 1)
	b.add(Datasec, ".data..percpu", false, 1, 4, v, 16, 4)
	b.add(Struct, "old", false, 1, 4, b.str("field"), b.add(Int, "bits", false, 0, 4, 5|3<<16), 8)
	ts, err := New(b.blob())
	qt.Assert(t, qt.IsNil(err))

	c, typ, err := ts.Enumerator("TOP")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(c.Value, uint64(1<<63)))
	qt.Check(t, qt.Equals(typ.ID(), e))
	qt.Check(t, qt.Equals(FormatType(typ), "enum wide {\n\tLOW = 1,\n\tTOP = 0x8000000000000000,\n};\n"))
	qt.Check(t, qt.Equals(ts.vmlinux.byID(p).String(), "int *"))
	typ, err = ts.Lookup("var counter")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(FormatType(typ), "int counter;\n"))
}

// TestLegacyBitfield holds for BTF of before 5.0: the integer has the bits.
func TestLegacyBitfield(t *testing.T) {
	b := newBuilder()
	i := b.add(Int, "bits", false, 0, 4, 5|3<<16)
	b.add(Struct, "old", false, 1, 4, b.str("field"), i, 8)
	ts, err := New(b.blob())
	qt.Assert(t, qt.IsNil(err))
	s, err := ts.Struct("old")
	qt.Assert(t, qt.IsNil(err))
	m := s.Members()[0]
	qt.Check(t, qt.Equals(m.Offset, uint32(11)))
	qt.Check(t, qt.Equals(m.BitSize, uint32(5)))
}

func TestModules(t *testing.T) {
	ts := fixture(t)
	b := splitBuilder(ts.vmlinux)
	task, err := ts.Struct("task")
	qt.Assert(t, qt.IsNil(err))
	p := b.add(Pointer, "", false, 0, task.ID())
	b.add(Struct, "conn", false, 1, 8, b.str("owner"), p, 0)
	b.add(Struct, "opaque", false, 0, 24)
	qt.Assert(t, qt.IsNil(ts.AddModule("nf_conntrack", b.blob())))
	bad := splitBuilder(ts.vmlinux)
	bad.add(31, "", false, 0, 0)
	qt.Assert(t, qt.IsNil(ts.AddModule("damaged", bad.blob())))

	s, err := ts.Struct("conn")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(s.Module(), "nf_conntrack"))
	qt.Check(t, qt.Equals(s.Members()[0].Type.String(), "struct task *"))
	qt.Check(t, qt.Equals(s.Members()[0].Type.Elem(), task))

	_, err = ts.Struct("nowhere")
	qt.Check(t, qt.ErrorIs(err, ErrNotFound))
	qt.Assert(t, qt.HasLen(ts.ModuleErrors(), 1))
	qt.Check(t, qt.ErrorMatches(ts.ModuleErrors()[0], "BTF of damaged: .* unknown kind 31"))

	// The definition of what vmlinux only declares.
	priv, err := ts.Member(task, "priv")
	qt.Assert(t, qt.IsNil(err))
	n, err := ts.Sizeof(priv.Type.Elem())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 24))
	_, err = priv.Type.Elem().Size()
	qt.Check(t, qt.ErrorMatches(err, `struct opaque is declared but not defined in this BTF`))
}

func TestReadAsksForNoMoreThanTheBlob(t *testing.T) {
	blob := newBuilder()
	blob.add(Int, "int", false, 0, 4, 32)
	padded := append(blob.blob(), make([]byte, 4096)...)
	ts, err := Read(bytes.NewReader(padded))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(ts.IsTypedef("int")))
	_, err = Read(bytes.NewReader(padded[:30]))
	qt.Check(t, qt.ErrorMatches(err, "BTF of vmlinux: 30 of .* bytes: EOF"))
}

func TestDamage(t *testing.T) {
	good := newBuilder()
	good.add(Struct, "s", false, 2, 8, 0, 99, 0, 0xffffff, 1, 0)
	for _, test := range []struct {
		name string
		blob []byte
		want string
	}{
		{"short", []byte{0x9f, 0xeb}, `.*offset 0x0: 2 bytes are too few for a header`},
		{"magic", make([]byte, 24), `.*offset 0x0: magic is 0x0000.*`},
		{"truncated", good.blob()[:50], `.*section .* ends beyond the blob.*`},
		{"kind", patch(good.blob(), btfHeaderLen+7, 31), `.*offset 0x1c: type 1 has unknown kind 31`},
		{"vlen", patch(good.blob(), btfHeaderLen+5, 0xff), `.*offset 0x18: type 1 is cut off.*`},
		{"strings", patch(good.blob(), len(good.blob())-1, 'x'), `.*the string section does not end in NUL`},
		{"huge", patch(good.blob(), 15, 0x7f), `.*section of .* bytes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.blob)
			qt.Assert(t, qt.ErrorMatches(err, test.want))
			var fe *FormatError
			qt.Assert(t, qt.IsTrue(errors.As(err, &fe)))
		})
	}
	// References to nothing are said, not followed.
	ts, err := New(good.blob())
	qt.Assert(t, qt.IsNil(err))
	s, err := ts.Struct("s")
	qt.Assert(t, qt.IsNil(err))
	text := FormatType(s)
	qt.Check(t, qt.StringContains(text, "<damaged: type id 99>"))
	qt.Check(t, qt.StringContains(text, "<damaged: string offset 0xffffff>"))
}

func patch(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

// TestEndless has types that refer to themselves in every way.
func TestEndless(t *testing.T) {
	b := newBuilder()
	b.add(Typedef, "ring", false, 0, 1)                                                        // 1
	b.add(Struct, "self", false, 3, 8, 0, 2, 0, 0, 2, 0, b.str("x"), 2, 0)                     // 2
	b.add(Array, "", false, 0, 0, 3, 3, 4)                                                     // 3
	b.add(Typedef, "arr", false, 0, 3)                                                         // 4
	b.add(FuncProto, "", false, 8, 5, 0, 5, 0, 5, 0, 5, 0, 5, 0, 5, 0, 5, 0, 5, 0, 5)          // 5
	b.add(Typedef, "fn", false, 0, 5)                                                          // 6
	b.add(Pointer, "", false, 0, 7)                                                            // 7
	b.add(Typedef, "ptr", false, 0, 7)                                                         // 8
	b.add(Const, "", false, 0, 10)                                                             // 9
	b.add(Volatile, "", false, 0, 9)                                                           // 10
	b.add(Typedef, "quals", false, 0, 9)                                                       // 11
	b.add(Array, "", false, 0, 0, 2, 2, 1<<31)                                                 // 12
	b.add(Struct, "huge", false, 2, 1<<31, b.str("a"), 12, 0, b.str("b"), 12, 0x80000000>>1+7) // 13
	b.add(Struct, "mute", false, 3, 8, 0, 14, 0, 0, 14, 0, 0, 14, 0)                           // 14
	ts, err := New(b.blob())
	qt.Assert(t, qt.IsNil(err))
	for _, name := range []string{"ring", "self", "mute", "arr", "fn", "ptr", "quals", "huge"} {
		typ, err := ts.Lookup(name)
		qt.Assert(t, qt.IsNil(err))
		exercise(ts, typ)
	}
	_, err = ts.Member(must(ts.Struct("self")), "nowhere")
	qt.Check(t, qt.ErrorIs(err, ErrNotFound))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestChain is the blob that kills a loader which follows every reference at once.
func TestChain(t *testing.T) {
	b := newBuilder()
	const n = 500000
	for i := range n {
		b.types = le.AppendUint32(b.types, 0)
		b.types = le.AppendUint32(b.types, uint32(Const)<<24)
		b.types = le.AppendUint32(b.types, uint32(i+2))
	}
	b.n = n
	b.add(Typedef, "long_chain", false, 0, 1)
	ts, err := New(b.blob())
	qt.Assert(t, qt.IsNil(err))
	typ, err := ts.Lookup("long_chain")
	qt.Assert(t, qt.IsNil(err))
	_, err = typ.Size()
	qt.Check(t, qt.ErrorMatches(err, ".*typedefs without end.*"))
	qt.Check(t, qt.IsTrue(len(ts.vmlinux.cache) < 1000))
}

func TestSuggestions(t *testing.T) {
	ts := fixture(t)
	_, err := ts.Struct("list_haed")
	qt.Check(t, qt.ErrorMatches(err, `no struct "list_haed"; did you mean list_head, hlist_head\?`))
	var nf *NotFoundError
	qt.Assert(t, qt.IsTrue(errors.As(err, &nf)))
	qt.Check(t, qt.DeepEquals(nf.Suggestions, []string{"list_head", "hlist_head"}))
	_, err = ts.Member(must(ts.Struct("task")), "tokn")
	qt.Check(t, qt.ErrorMatches(err, `struct task has no member "tokn"; did you mean token\?`))
	_, err = ts.Lookup(strings.Repeat("q", 1000))
	qt.Check(t, qt.ErrorIs(err, ErrNotFound))
}

// TestMatch: types of a kind are found by what their names fit, those of
// modules behind the kernel's.
func TestMatch(t *testing.T) {
	b := newBuilder()
	void := b.add(FuncProto, "", false, 0, 0)
	b.add(Func, "one", false, 0, void)
	b.add(Struct, "one_more", false, 0, 0)
	b.add(Func, "other", false, 0, void)
	ts, err := New(b.blob())
	qt.Assert(t, qt.IsNil(err))
	m := splitBuilder(ts.vmlinux)
	m.add(Func, "one_of_module", false, 0, void)
	qt.Assert(t, qt.IsNil(ts.AddModule("mod", m.blob())))
	var got []string
	for typ := range ts.Match(Func, func(name []byte) bool { return bytes.HasPrefix(name, []byte("one")) }) {
		got = append(got, typ.Module()+":"+typ.Name())
	}
	qt.Check(t, qt.DeepEquals(got, []string{"vmlinux:one", "mod:one_of_module"}))
	for typ := range ts.Match(Func, func([]byte) bool { return true }) { // ends when told
		qt.Check(t, qt.Equals(typ.Name(), "one"))
		break
	}
}
