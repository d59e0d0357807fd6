//go:build linux

package bpfsys

import (
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
)

// TestRunningKernelNames holds the tables of names against the running kernel's
// own enums.
func TestRunningKernelNames(t *testing.T) {
	raw, err := os.ReadFile(kernelBTFFile)
	if err != nil {
		t.Skipf("the running kernel shows no BTF: %v", err)
	}
	types, err := ctype.New(raw)
	qt.Assert(t, qt.IsNil(err))
	for _, test := range []struct {
		enum, prefix string
		table        []string
	}{
		{"bpf_prog_type", "BPF_PROG_TYPE_", progTypes[:]},
		{"bpf_map_type", "BPF_MAP_TYPE_", mapTypes[:]},
		{"bpf_link_type", "BPF_LINK_TYPE_", linkTypes[:]},
		{"bpf_attach_type", "BPF_", attachTypes[:]},
		{"bpf_cgroup_iter_order", "BPF_CGROUP_ITER_", cgroupOrders[:]},
	} {
		t.Run(test.enum, func(t *testing.T) {
			enum, err := types.Lookup("enum " + test.enum)
			if err != nil {
				t.Skip(err) // younger than this kernel
			}
			n := 0
			for _, e := range enum.Enumerators() {
				name, ok := strings.CutPrefix(e.Name, test.prefix)
				if !ok || strings.HasPrefix(e.Name, "__MAX") || strings.HasPrefix(e.Name, "MAX_") {
					continue
				}
				n++
				want := strings.ToLower(strings.TrimSuffix(name, "_DEPRECATED"))
				if e.Value >= uint64(len(test.table)) {
					t.Errorf("%s = %d is younger than the table", e.Name, e.Value)
					continue
				}
				qt.Check(t, qt.Equals(named(test.table, uint32(e.Value)), want))
			}
			qt.Check(t, qt.IsTrue(n > 4))
			qt.Check(t, qt.Equals(named(test.table, 1000), "type 1000"))
		})
	}
	for typ := range mapReadings {
		qt.Check(t, qt.SliceContains(mapTypes[:], typ))
	}
	for typ := range linkReaders {
		qt.Check(t, qt.SliceContains(linkTypes[:], typ))
	}
	for typ, attach := range cgroupAttach {
		qt.Check(t, qt.SliceContains(progTypes[:], typ))
		qt.Check(t, qt.HasLen(attachTypesOf(attach...), len(attach)))
	}
}
