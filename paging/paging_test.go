package paging

import (
	"encoding/binary"
	"errors"
	"regexp"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

// phys is sparse physical memory made of whole pages.
type phys map[uint64]*[PageSize]byte

func (m phys) ReadMem(p []byte, addr uint64) error {
	for i := range p {
		a := addr + uint64(i)
		page := m[a&^(PageSize-1)]
		if page == nil {
			return &mem.Fault{Space: mem.Physical, Addr: a, Cause: mem.Excluded}
		}
		p[i] = page[a%PageSize]
	}
	return nil
}

func (m phys) set(table, index, entry uint64) {
	if m[table] == nil {
		m[table] = new([PageSize]byte)
	}
	binary.LittleEndian.PutUint64(m[table][8*index:], entry)
}

func (m phys) fill(page uint64, b byte) {
	m[page] = new([PageSize]byte)
	for i := range m[page] {
		m[page][i] = b
	}
}

const (
	encBit = 1 << 47
	va     = 0xffff_8880_0000_0000 // pgd 273
)

// fourLevels maps, from va on: two 4 KiB pages that are adjacent in physical
// memory, one that is elsewhere and missing, a hole, and one 2 MiB and one
// 1 GiB page.
func fourLevels(enc uint64) phys {
	m := phys{}
	m.set(0x1000, 273, 0x2000|present|writable|enc)
	m.set(0x2000, 0, 0x3000|present|writable|enc)
	m.set(0x2000, 1, 0x4000_0000|1<<12|present|large|nx|enc) // PAT bit set
	m.set(0x3000, 0, 0x4000|present|writable|enc)
	m.set(0x3000, 1, 0x60_0000|present|large|enc)
	m.set(0x3000, 2, 0x9000|present|enc) // its table is missing
	m.set(0x4000, 0, 0x5000|present|writable|enc)
	m.set(0x4000, 1, 0x6000|present|writable|enc)
	m.set(0x4000, 2, 0x8000|present|writable|enc)
	m.set(0x4000, 4, 0x5000|protNone|enc)
	m.fill(0x5000, 'a')
	m.fill(0x6000, 'b')
	m.fill(0x60_0000, 'h')
	return m
}

func TestWalk(t *testing.T) {
	for _, enc := range []uint64{0, encBit} {
		s, err := New(Config{Phys: fourLevels(enc), Root: 0x1000 | enc, Levels: 4, EncMask: enc})
		qt.Assert(t, qt.IsNil(err))
		for _, tt := range []struct {
			name string
			addr uint64
			want Mapping
		}{
			{"4 KiB", va + 0x10, Mapping{0x5010, 1 << 12, true, true}},
			{"PROT_NONE", va + 0x4000, Mapping{0x5000, 1 << 12, false, true}},
			{"2 MiB", va + 0x20_1234, Mapping{0x60_1234, 1 << 21, false, true}},
			{"1 GiB, PAT bit", va + 0x7fff_ffff, Mapping{0x7fff_ffff, 1 << 30, false, false}},
		} {
			got, err := s.Walk(tt.addr)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", tt.name))
			qt.Check(t, qt.Equals(got, tt.want), qt.Commentf("%s", tt.name))
		}
	}
}

func TestWalkFaults(t *testing.T) {
	s, err := New(Config{Phys: fourLevels(0), Root: 0x1000, Levels: 4})
	qt.Assert(t, qt.IsNil(err))
	for _, tt := range []struct {
		addr  uint64
		cause mem.Cause
		text  string
	}{
		{va + 0x3000, mem.Unmapped, "virtual address 0xffff888000003000: not mapped (pte is 0x0)"},
		{va + 0x40_0000, mem.Excluded, "virtual address 0xffff888000400000: excluded from the dump (reading its pte: physical address 0x9000: excluded from the dump)"},
		{0, mem.Unmapped, "virtual address 0x0: not mapped (pgd is 0x0)"},
		{0x8000_0000_0000_0000, mem.Unmapped, "virtual address 0x8000000000000000: not mapped (not a canonical address)"},
	} {
		_, err := s.Walk(tt.addr)
		qt.Check(t, qt.Equals(mem.CauseOf(err), tt.cause))
		qt.Check(t, qt.ErrorMatches(err, regexp.QuoteMeta(tt.text)))
	}
}

func TestFiveLevels(t *testing.T) {
	m := fourLevels(0)
	m.set(0xa000, 256, 0x1000|present|writable)
	s, err := New(Config{Phys: m, Root: 0xa000, Levels: 5})
	qt.Assert(t, qt.IsNil(err))
	// The five-level address whose pgd index is 256 and the rest that of va.
	got, err := s.Translate(0xff00_8880_0000_0000 | 0x1008)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, uint64(0x6008)))
}

func TestReadMem(t *testing.T) {
	s, err := New(Config{Phys: fourLevels(0), Root: 0x1000, Levels: 4})
	qt.Assert(t, qt.IsNil(err))

	p := make([]byte, 4)
	qt.Assert(t, qt.IsNil(s.ReadMem(p, va+0xffe)))
	qt.Check(t, qt.Equals(string(p), "aabb"))

	// The third page is mapped but its memory is not in the dump: what comes
	// before is delivered, and the fault names the virtual address.
	clear(p)
	err = s.ReadMem(p, va+0x1ffe)
	var f *mem.Fault
	qt.Assert(t, qt.IsTrue(errors.As(err, &f)))
	qt.Check(t, qt.Equals(string(p[:2]), "bb"))
	qt.Check(t, qt.Equals(f.Addr, uint64(va+0x2000)))
	qt.Check(t, qt.Equals(f.Space, mem.Virtual))
	qt.Check(t, qt.Equals(f.Cause, mem.Excluded))
}

func TestBadLevels(t *testing.T) {
	_, err := New(Config{Levels: 3})
	qt.Check(t, qt.ErrorMatches(err, "page tables of 3 levels: .*"))
}

// TestRefresh sees a change of the tables after a refresh, and not before.
func TestRefresh(t *testing.T) {
	m := phys{}
	m.set(0x1000, 273, 0x2000|present)
	m.set(0x2000, 0, 0x3000|present)
	m.set(0x3000, 0, 0x4000|present)
	m.set(0x4000, 0, 0x5000|present)
	s, err := New(Config{Phys: m, Root: 0x1000, Levels: 4})
	qt.Assert(t, qt.IsNil(err))
	for _, step := range []struct {
		change func()
		want   uint64
	}{
		{func() {}, 0x5000},
		{func() { m.set(0x4000, 0, 0x6000|present) }, 0x5000},
		{s.Refresh, 0x6000},
	} {
		step.change()
		got, err := s.Translate(va)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, step.want))
	}
}
