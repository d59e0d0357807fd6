package judge

import (
	_ "embed"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// structNames are names of structs: every 16th of a 6.1 kernel's BTF, and
// those that ksleuth itself reads.
//
//go:embed testdata/structs.txt
var structNames string

// otherStructs are structs of which drgn has not the same.
var otherStructs = map[string]string{
	"struct __arch_relative_insn": "defined inside a function: drgn looks for those of file scope",
	"struct bts_record":           "defined inside a function, too",
	"struct chksum_desc_ctx":      "two structs have this name, those of crc32c and of crct10dif: each tool takes one",
}

// TestDrgnTypes holds sizes, offsets and bitfields of structs against drgn,
// which has them from DWARF.
func TestDrgnTypes(t *testing.T) {
	dump := dumptest.Get(t, "idle-"+drgnKernel+".elf")
	var names []string
	for name := range strings.FieldsSeq(structNames) {
		names = append(names, "struct "+name)
	}
	want := askDrgn(t, dump, nil, names).Types
	compared := 0
	for i, name := range names {
		if why := otherStructs[name]; why != "" {
			t.Logf("%s is not compared: %s", name, why)
			continue
		}
		status, out, _ := run(t, "-t", dump, "-o", "json", "type", name)
		if want[i].Error != "" && status != cli.StatusOK {
			continue // neither has it: the kernel has none of that name
		}
		if want[i].Error != "" || status != cli.StatusOK {
			t.Errorf("%s: drgn: %q; ksleuth: %s", name, want[i].Error, out)
			continue
		}
		got := decode[struct {
			Size    int `json:"size"`
			Members []struct {
				Name    string `json:"name"`
				Offset  int    `json:"offset"`
				Bit     int    `json:"bit"`
				BitSize int    `json:"bit_size"`
			} `json:"members"`
		}](t, "type", out)[0]
		g := drgnType{Size: got.Size, Members: []drgnMember{}}
		for _, m := range got.Members {
			g.Members = append(g.Members, drgnMember{m.Name, m.Offset*8 + m.Bit, m.BitSize})
		}
		qt.Check(t, qt.DeepEquals(g, want[i]), qt.Commentf("%s", name))
		compared++
	}
	qt.Assert(t, qt.IsTrue(compared > 400))
	t.Logf("%d structs compared", compared)
}
