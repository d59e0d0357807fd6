package vm

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/klauspost/compress/zstd"
)

// ko makes the smallest module: an ELF file with a .modinfo section.
func ko(depends string) []byte {
	const names = "\x00.modinfo\x00.shstrtab\x00"
	info := "license=GPL\x00depends=" + depends + "\x00name=x\x00"
	const headers, header = 64, 64
	data := uint64(headers + 3*header)
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: headers, Ehsize: headers, Shentsize: header, Shnum: 3, Shstrndx: 2,
	})
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: data, Size: uint64(len(info))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: data + uint64(len(info)), Size: uint64(len(names))})
	b.WriteString(info + names)
	return b.Bytes()
}

// moduleTree writes modules of every packing: top needs mid-dle and base,
// middle needs base, lost needs one that does not exist.
func moduleTree(t *testing.T) string {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		file := filepath.Join(dir, "kernel", name)
		qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(file), 0o755)))
		qt.Assert(t, qt.IsNil(os.WriteFile(file, b, 0o644)))
	}
	enc, err := zstd.NewWriter(nil)
	qt.Assert(t, qt.IsNil(err))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(ko(""))
	qt.Assert(t, qt.IsNil(w.Close()))
	write("net/top.ko", ko("mid_dle,base,in_side"))
	write("net/mid-dle.ko.zst", enc.EncodeAll(ko("base"), nil))
	write("lib/base.ko.gz", z.Bytes())
	write("lib/lost.ko", ko("gone"))
	write("lib/loop.ko", ko("loop"))
	write("lib/junk.ko", bytes.Repeat([]byte("junk"), 100))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/lib/in-side.ko\n"), 0o644)))
	return dir
}

func TestModules(t *testing.T) {
	d, err := openModules(moduleTree(t))
	qt.Assert(t, qt.IsNil(err))
	for _, test := range []struct {
		ask, want []string
		err       string
	}{
		{ask: nil},
		{ask: []string{"top"}, want: []string{"base", "mid_dle", "top"}},
		{ask: []string{"base", "top", "top"}, want: []string{"base", "mid_dle", "top"}},
		{ask: []string{"mid-dle"}, want: []string{"base", "mid_dle"}},
		{ask: []string{"in_side"}},
		{ask: []string{"loop"}, want: []string{"loop"}},
		{ask: []string{"lost"}, err: `kernel module lost: kernel module gone: file does not exist`},
		{ask: []string{"junk"}, err: `kernel module junk: .*/junk.ko: bad magic number.*`},
	} {
		got, err := d.load(test.ask)
		if test.err != "" {
			qt.Check(t, qt.ErrorMatches(err, test.err))
			continue
		}
		qt.Check(t, qt.IsNil(err))
		var names []string
		for _, m := range got {
			names = append(names, m.name)
			qt.Check(t, qt.Equals(string(m.data[1:4]), "ELF"))
		}
		qt.Check(t, qt.DeepEquals(names, test.want))
	}
	_, err = d.load([]string{"lost"})
	qt.Assert(t, qt.ErrorIs(err, fs.ErrNotExist))
}

func TestNoModules(t *testing.T) {
	d, err := openModules("")
	qt.Assert(t, qt.IsNil(err))
	_, err = d.load([]string{"x"})
	var missing *ModuleError
	qt.Assert(t, qt.IsTrue(errors.As(err, &missing)))
	_, err = openModules("/no/such")
	qt.Assert(t, qt.ErrorIs(err, fs.ErrNotExist))
}

func FuzzDependencies(f *testing.F) {
	f.Add(ko("a,b"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = dependencies(b) })
}
