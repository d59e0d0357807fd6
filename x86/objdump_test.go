package x86

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/objdump"
)

// TestObjdump compares every instruction of a kernel's code with objdump.
//
// KSLEUTH_VMLINUX names ELF files (vmlinux, modules), separated by colons; all their
// sections with code are compared. (Package judge does the same with the text of
// running kernels.)
func TestObjdump(t *testing.T) {
	program, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("needs objdump of GNU binutils")
	}
	files := os.Getenv("KSLEUTH_VMLINUX")
	if files == "" {
		t.Skip("needs KSLEUTH_VMLINUX=vmlinux (or a module)")
	}
	for _, syntax := range []string{"att", "intel"} {
		t.Run(syntax, func(t *testing.T) {
			c := objdump.Comparison{Decode: forObjdump}
			for _, path := range filepath.SplitList(files) {
				compareELF(t, &c, program, path, syntax)
			}
			t.Log(c.String())
			qt.Check(t, qt.Equals(c.Length, 0), qt.Commentf("lengths"))
			qt.Check(t, qt.Equals(c.Text, 0), qt.Commentf("texts"))
		})
	}
}

func compareELF(t *testing.T, c *objdump.Comparison, program, path, syntax string) {
	f, err := elf.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || s.Flags&elf.SHF_WRITE != 0 || s.Type != elf.SHT_PROGBITS || s.Size == 0 {
			continue
		}
		data, err := s.Data()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(c.Add(data, s.Addr, syntax, program, objdump.Section(syntax, s.Name, path))))
	}
}

// forObjdump is how instructions are decoded to be compared.
func forObjdump(buf, code []byte, addr uint64, intel bool) ([]byte, int) {
	var in Inst
	in.Decode(code, addr) // a failure leaves (bad), which is compared
	if intel {
		return in.AppendIntel(buf, nil), in.Len
	}
	return in.AppendGNU(buf, nil), in.Len
}
