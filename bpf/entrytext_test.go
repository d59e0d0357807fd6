package bpf_test

import (
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// typesWith makes the types of a BPF object, and returns the numbers of those
// that are given.
func typesWith(t *testing.T, types ...btf.Type) (*ctype.Types, []uint32) {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	qt.Assert(t, qt.IsNil(err))
	raw, err := b.Marshal(nil, nil)
	qt.Assert(t, qt.IsNil(err))
	ts, err := ctype.New(raw)
	qt.Assert(t, qt.IsNil(err))
	var ids []uint32
	for _, typ := range types {
		id, err := b.Add(typ)
		qt.Assert(t, qt.IsNil(err))
		ids = append(ids, uint32(id))
	}
	return ts, ids
}

func TestFormatEntry(t *testing.T) {
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	char := &btf.Int{Name: "char", Size: 1, Encoding: btf.Char}
	point := &btf.Struct{Name: "point", Size: 8, Members: []btf.Member{{Name: "x", Type: u32}, {Name: "y", Type: u32, Offset: 32}}}
	pair := &btf.Struct{Name: "pair", Size: 24, Members: []btf.Member{
		{Name: "of", Type: &btf.Array{Index: u32, Type: point, Nelems: 2}},
		{Name: "name", Type: &btf.Array{Index: u32, Type: char, Nelems: 8}, Offset: 128},
	}}
	empty := &btf.Struct{Name: "empty"}
	bss := &btf.Datasec{Name: ".bss", Size: 12, Vars: []btf.VarSecinfo{
		{Type: &btf.Var{Name: "hits", Type: u32, Linkage: btf.GlobalVar}, Offset: 0, Size: 4},
		{Type: &btf.Var{Name: "last", Type: point, Linkage: btf.StaticVar}, Offset: 4, Size: 8},
		{Type: &btf.Var{Name: "beyond", Type: point, Linkage: btf.StaticVar}, Offset: 8, Size: 8},
	}}
	types, ids := typesWith(t, u32, point, pair, empty, bss)

	for _, test := range []struct {
		id    uint32
		bytes string
		decl  string
		text  string
	}{
		{ids[0], "\x2a\x00\x00\x00", "unsigned int", "42"},
		{ids[1], "\x01\x00\x00\x00\x02\x00\x00\x00", "struct point", "{.x = 1, .y = 2}"},
		{ids[2], "\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00a\n}{\x00\x00\x00\x00", "struct pair",
			`{.of = {{.x = 1, .y = 2}, {.x = 3, .y = 4}}, .name = "a\n}{"}`},
		{ids[3], "", "struct empty", ""},
		{ids[4], "\x07\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00", ".bss", "{.hits = 7, .last = {.x = 1, .y = 2}}"},
		{ids[1], "\x01\x00\x00\x00", "struct point", ""}, // fewer bytes than the type has
		{ids[0], "\x01\x00\x00\x00\x05\x05\x05\x05", "unsigned int", "1"},
		{0, "\x01", "", ""},
		{1 << 20, "\x01", "", ""},
	} {
		c := qt.Commentf("%s", test.decl)
		qt.Check(t, qt.Equals(bpf.TypeText(types, test.id), test.decl), c)
		e := bpf.Entry{
			Key: bpf.Bytes(test.bytes), Value: bpf.Bytes(test.bytes),
			PerCPU: []bpf.CPUValue{{CPU: 0, Value: bpf.Bytes(test.bytes)}},
		}
		bpf.FormatEntry(&e, types, test.id, test.id)
		qt.Check(t, qt.DeepEquals([]string{e.KeyText, e.ValueText, e.PerCPU[0].Text}, []string{test.text, test.text, test.text}), c)
	}
	e := bpf.Entry{Key: bpf.Bytes("\x01\x00\x00\x00")}
	bpf.FormatEntry(&e, nil, ids[0], ids[0])
	qt.Check(t, qt.Equals(e.KeyText, ""))
	qt.Check(t, qt.Equals(bpf.TypeText(nil, 1), ""))
}
