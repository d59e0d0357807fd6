package disasm

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// TestRead: a range over the end of what is mapped, and over a page that is
// missing, is read as far as it is there.
func TestRead(t *testing.T) {
	k := example.Kernel(t)
	// Of the pages of BPF code, that of program 9 is in the dump, and those
	// before and behind it are not.
	sym, ok := k.Lookup("bpf_prog_2be77e55c77ca1bf_call_kfunc")
	qt.Assert(t, qt.IsTrue(ok))
	page := sym.Addr &^ (pageSize - 1)
	d := New(example.Kernel(t, example.Absent(page-pageSize)))
	for _, test := range []struct {
		start uint64
		n     int
		parts string // offset and length from the page
		gaps  string
	}{
		{page, 16, "[0+16]", "[]"},
		{page, pageSize, "[0+4096]", "[]"},
		{page - 8, 16, "[0+8]", "[-8+8]"},
		{page + pageSize - 8, 16, "[4088+8]", "[4096+8]"},
		{page - 2*pageSize, 4 * pageSize, "[0+4096]", "[-8192+8192 4096+4096]"},
	} {
		parts, gaps, err := d.read(test.start, test.n)
		c := qt.Commentf("%#x+%d", test.start-page, test.n)
		var p, g []string
		for _, x := range parts {
			p = append(p, fmt.Sprintf("%d+%d", int64(x.addr-page), len(x.code)))
		}
		for _, x := range gaps {
			g = append(g, fmt.Sprintf("%d+%d", int64(uint64(x.Addr)-page), x.Len))
			qt.Check(t, qt.Not(qt.Equals(x.Why, "")))
		}
		qt.Check(t, qt.Equals(fmt.Sprint(p), test.parts), c)
		qt.Check(t, qt.Equals(fmt.Sprint(g), test.gaps), c)
		qt.Check(t, qt.Equals(err == nil, len(gaps) == 0), c)
	}
	parts, _, err := d.read(0x1000, 64)
	qt.Check(t, qt.HasLen(parts, 0))
	qt.Check(t, qt.ErrorMatches(err, "virtual address 0x1000: not mapped.*"))
	// The end of the address space does not wrap round.
	parts, gaps, err := d.read(^uint64(0)-15, 64)
	qt.Check(t, qt.IsNotNil(err))
	qt.Check(t, qt.IsTrue(len(parts)+len(gaps) < 4))
}

func TestTrimPadding(t *testing.T) {
	code := []byte{0x55, 0xe9, 0xcc, 0xcc, 0xcc, 0xcc} // push, jmp with a target that looks like padding
	for _, test := range []struct {
		fill byte
		n    int
		kind kernel.Kind
		keep int
	}{
		{0xcc, 40, kernel.KindTrampoline, 2 + 4},
		{0x00, 40, kernel.KindTrampoline, 2 + 4},
		{0xcc, 8, kernel.KindTrampoline, 6 + 8},
		{0x90, 40, kernel.KindTrampoline, 6 + 40},
		{0xcc, 40, kernel.KindKernel, 6 + 40},
	} {
		all := append(bytes.Clone(code), bytes.Repeat([]byte{test.fill}, test.n)...)
		parts, cut := trimPadding([]part{{0x1000, all}}, test.kind)
		c := qt.Commentf("%#x %d %s", test.fill, test.n, test.kind)
		qt.Check(t, qt.HasLen(parts[0].code, test.keep), c)
		qt.Check(t, qt.Equals(cut, len(all)-test.keep), c)
	}
	parts, cut := trimPadding([]part{{0x1000, make([]byte, 64)}}, kernel.KindTrampoline)
	qt.Check(t, qt.HasLen(parts[0].code, 64)) // nothing but padding
	qt.Check(t, qt.Equals(cut, 0))
}
