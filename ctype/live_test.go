package ctype

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"
)

// TestRunningKernel holds every type of the running kernel against what
// cilium/ebpf makes of it. The kernel matrix runs it in the guests.
func TestRunningKernel(t *testing.T) {
	const path = "/sys/kernel/btf/vmlinux"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("the running kernel shows no BTF: %v", err)
	}
	ts, err := New(raw)
	qt.Assert(t, qt.IsNil(err))
	spec, err := btf.LoadSpec(path)
	qt.Assert(t, qt.IsNil(err))
	records, enums := 0, 0
	for want, err := range spec.All() {
		qt.Assert(t, qt.IsNil(err))
		id, err := spec.TypeID(want)
		qt.Assert(t, qt.IsNil(err))
		got := ts.vmlinux.byID(uint32(id))
		// 0 is void, which BTF does not name; the name of a tag is its value.
		if id != 0 && got.Kind() != TypeTag && got.Kind() != DeclTag && got.Name() != want.TypeName() {
			t.Errorf("type %d is %s, cilium/ebpf: %s", id, got, want)
		}
		switch want := want.(type) {
		case *btf.Struct:
			compareMembers(t, got, want.Size, want.Members)
			records++
		case *btf.Union:
			compareMembers(t, got, want.Size, want.Members)
			records++
		case *btf.Enum:
			values := got.Enumerators()
			qt.Assert(t, qt.Equals(len(values), len(want.Values)))
			for i, v := range want.Values {
				g := values[i]
				if !want.Signed && got.IsSigned() { // BTF before 6.0 does not tell; looksSigned does
					g.Value &= 0xffffffff
				}
				if g != (Enumerator{v.Name, v.Value}) {
					t.Errorf("%s: %v, cilium/ebpf: %v", got, g, v)
				}
			}
			enums++
		}
	}
	t.Logf("%d structs and unions, %d enums", records, enums)
	qt.Check(t, qt.IsTrue(records > 5000 && enums > 1000))
}

func compareMembers(t *testing.T, got *Type, size uint32, want []btf.Member) {
	t.Helper()
	n, err := got.Size()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(uint32(n), size), qt.Commentf("size of %s", got))
	members := got.Members()
	qt.Assert(t, qt.Equals(len(members), len(want)), qt.Commentf("members of %s", got))
	for i, w := range want {
		g := members[i]
		if g.Name != w.Name || g.Offset != uint32(w.Offset) || g.BitSize != uint32(w.BitfieldSize) {
			t.Errorf("%s.%s: bit %d, %d bits wide; cilium/ebpf: %s, bit %d, %d bits wide", got, g.Name, g.Offset, g.BitSize, w.Name, w.Offset, w.BitfieldSize)
		}
	}
}
