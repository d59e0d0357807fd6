package vmcore

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

// A memFile is a file in memory that can be written at any offset.
type memFile struct{ b []byte }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

// image is the memory of a made-up machine: page frame to content.
type image map[uint64][]byte

// ReadMem implements mem.Reader.
func (m image) ReadMem(p []byte, addr uint64) error {
	for len(p) > 0 {
		page, ok := m[addr>>pageShift]
		if !ok {
			return fault(addr, mem.Unmapped, nil)
		}
		n := copy(p, page[addr%pageSize:])
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

func (m image) pfns() []uint64 {
	var out []uint64
	for pfn := range m {
		out = append(out, pfn)
	}
	slices.Sort(out)
	return out
}

// The made-up machine has two ranges of memory; every seventh page is zero,
// every eleventh is noise that does not compress.
var machineRanges = []Range{{0x1000, 0x60000}, {0x10000000, 0x10030000}}

func machine() image {
	rng := rand.New(rand.NewPCG(1, 2))
	m := image{}
	for _, r := range machineRanges {
		for pfn := r.Start >> pageShift; pfn < r.End>>pageShift; pfn++ {
			page := make([]byte, pageSize)
			switch {
			case pfn%7 == 0:
			case pfn%11 == 0:
				for i := range page {
					page[i] = byte(rng.Uint32())
				}
			default:
				for i := 0; i < pageSize; i += 8 {
					binary.LittleEndian.PutUint64(page[i:], pfn<<32|uint64(i)/64)
				}
			}
			m[pfn] = page
		}
	}
	return m
}

const machineInfo = "OSRELEASE=6.1.0-test\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82410000\nSYMBOL(_stext)=ffffffff81000000\n" +
	"NUMBER(phys_base)=-606076928\nKERNELOFFSET=36e00000\nOFFSET(list_head.next)=0\nSIZE(page)=64\nLENGTH(free_area.free_list)=5\nNUMBER(X)=0xffffffff80000000\n"

// note makes an ELF note.
func note(name string, typ uint32, desc []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(name)+1))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, typ)
	pad := func() {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	b = append(append(b, name...), 0)
	pad()
	b = append(b, desc...)
	pad()
	return b
}

// machineNotes are those of two CPUs in QEMU.
func machineNotes() []byte {
	le := binary.LittleEndian
	var b []byte
	for cpu := range uint64(2) {
		d := make([]byte, 336)
		le.PutUint32(d[32:], uint32(cpu+1))
		for i := range uint64(27) {
			le.PutUint64(d[112+8*i:], 100*(cpu+1)+i)
		}
		b = append(b, note("CORE", 1, d)...)
	}
	for cpu := range uint64(2) {
		d := make([]byte, 440)
		le.PutUint32(d[0:], 1)
		le.PutUint32(d[4:], 440)
		for i := range uint64(54) {
			le.PutUint64(d[8+8*i:], 1000*(cpu+1)+i)
		}
		b = append(b, note("QEMU", 0, d)...)
	}
	return b
}

func machineMeta(c Compression) Meta {
	return Meta{
		Utsname: Utsname{Sysname: "Linux", Nodename: "host", Release: "6.1.0-test", Version: "#1 SMP"},
		Ranges:  machineRanges, VMCoreInfo: machineInfo, Notes: machineNotes(), Compression: c,
	}
}

// writeDump writes a dump of some pages of an image.
func writeDump(t testing.TB, m mem.Reader, pfns []uint64, meta Meta) []byte {
	t.Helper()
	var f memFile
	_, err := Write(context.Background(), &f, m, pfns, meta)
	qt.Assert(t, qt.IsNil(err))
	return f.b
}

// open opens dumps held in memory.
func open(t testing.TB, files ...[]byte) *Core {
	t.Helper()
	c, err := New(asFiles(files...)...)
	qt.Assert(t, qt.IsNil(err))
	return c
}

func asFiles(files ...[]byte) []File {
	var in []File
	for _, b := range files {
		in = append(in, File{"dump", bytes.NewReader(b), int64(len(b))})
	}
	return in
}

// wantImage checks every page of the machine: those in have are there, the
// others missing for the given cause, and what is outside is unmapped.
func wantImage(t testing.TB, c *Core, m, have image, missing mem.Cause) {
	t.Helper()
	got := make([]byte, pageSize)
	for pfn, want := range m {
		err := c.ReadMem(got, pfn<<pageShift)
		if _, ok := have[pfn]; !ok {
			qt.Assert(t, qt.Equals(mem.CauseOf(err), missing), qt.Commentf("page frame %#x: %v", pfn, err))
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(bytes.Equal(got, want)), qt.Commentf("page frame %#x", pfn))
	}
	for _, addr := range []uint64{0, 0x60000, 0x10030000, 1 << 40, ^uint64(0) - 5000, ^uint64(0)} {
		err := c.ReadMem(got[:1], addr)
		qt.Assert(t, qt.Equals(mem.CauseOf(err), mem.Unmapped), qt.Commentf("%#x: %v", addr, err))
	}
}

// flatten makes the flattened form, with records of the given size in the
// order that shuffle leaves them in; end says whether to mark the end.
func flatten(b []byte, size int, end bool, shuffle *rand.Rand) []byte {
	var records [][2]int
	for off := 0; off < len(b); off += size {
		records = append(records, [2]int{off, min(off+size, len(b))})
	}
	if shuffle != nil {
		shuffle.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	}
	out := make([]byte, flatHeaderSize)
	copy(out, flatMagic)
	binary.BigEndian.PutUint64(out[16:], 1)
	binary.BigEndian.PutUint64(out[24:], 1)
	add := func(off int, data []byte) {
		out = binary.BigEndian.AppendUint64(out, uint64(off))
		out = binary.BigEndian.AppendUint64(out, uint64(len(data)))
		out = append(out, data...)
	}
	add(0, []byte("overwritten later"))
	for _, r := range records {
		add(r[0], b[r[0]:r[1]])
	}
	if end {
		out = binary.BigEndian.AppendUint64(out, ^uint64(0))
		out = binary.BigEndian.AppendUint64(out, ^uint64(0))
	}
	return out
}

// downgrade turns a version 6 dump into one of an older version, with garbage
// where the older version had nothing.
func downgrade(b []byte, version int) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[8:], uint32(version))
	first := map[int]int{0: 8, 1: 12, 2: 32, 3: 48, 4: 64, 5: 80, 6: 104}[version]
	for i := pageSize + first; i < pageSize+subHeaderSize; i++ {
		b[i] = 0xa5
	}
	return b
}

// splitAt cuts a dump into a set: every file has all bitmaps and the
// descriptors of its own page frames.
func splitAt(t testing.TB, b []byte, cuts ...uint64) [][]byte {
	t.Helper()
	c := open(t, b)
	f := c.kdump.files[0]
	le := binary.LittleEndian
	var out [][]byte
	start := uint64(0)
	for _, end := range append(cuts, f.npfn) {
		part := bytes.Clone(b[:f.descAt()])
		le.PutUint32(part[pageSize+12:], 1)
		le.PutUint64(part[pageSize+80:], start)
		le.PutUint64(part[pageSize+88:], end)
		first, err := f.dumped.before(start)
		qt.Assert(t, qt.IsNil(err))
		last, err := f.dumped.before(end)
		qt.Assert(t, qt.IsNil(err))
		descs := bytes.Clone(b[f.descOff(first):f.descOff(last)])
		data := int64(len(part) + len(descs))
		var pages []byte
		for d := descs; len(d) > 0; d = d[descSize:] {
			off, size := le.Uint64(d), uint64(le.Uint32(d[8:]))
			le.PutUint64(d, uint64(data)+uint64(len(pages)))
			pages = append(pages, b[off:off+size]...)
		}
		out = append(out, slices.Concat(part, descs, pages))
		start = end
	}
	return out
}

// An elfSeg is a segment of a made-up ELF core.
type elfSeg struct {
	typ        uint32
	virt, phys uint64
	data       []byte
	memSize    uint64
}

// makeELF makes an ELF core. With xnum the number of program headers is in
// section 0, as it is where there are 0xffff or more.
func makeELF(segs []elfSeg, xnum bool) []byte {
	le := binary.LittleEndian
	b := make([]byte, elfHeader)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], etCore)
	le.PutUint16(b[18:], emX8664)
	le.PutUint64(b[32:], elfHeader)
	le.PutUint16(b[54:], elfProgram)
	le.PutUint16(b[56:], uint16(len(segs)))
	data := elfHeader + len(segs)*elfProgram
	if xnum {
		le.PutUint64(b[40:], uint64(data))
		le.PutUint16(b[56:], pnXnum)
		data += 64
	}
	var body []byte
	for _, s := range segs {
		p := make([]byte, elfProgram)
		le.PutUint32(p, s.typ)
		le.PutUint64(p[8:], uint64(data+len(body)))
		le.PutUint64(p[16:], s.virt)
		le.PutUint64(p[24:], s.phys)
		le.PutUint64(p[32:], uint64(len(s.data)))
		le.PutUint64(p[40:], max(s.memSize, uint64(len(s.data))))
		b = append(b, p...)
		body = append(body, s.data...)
	}
	if xnum {
		sh := make([]byte, 64)
		le.PutUint32(sh[44:], uint32(len(segs)))
		b = append(b, sh...)
	}
	return append(b, body...)
}

// machineELF is the machine as an ELF core.
func machineELF(m image, xnum bool) []byte {
	notes := append(machineNotes(), note("VMCOREINFO", 0, []byte(machineInfo))...)
	segs := []elfSeg{{typ: ptNote, data: notes}}
	for _, r := range machineRanges {
		s := elfSeg{typ: ptLoad, virt: 0xffff888000000000 + r.Start, phys: r.Start}
		for pfn := r.Start >> pageShift; pfn < r.End>>pageShift; pfn++ {
			s.data = append(s.data, m[pfn]...)
		}
		segs = append(segs, s)
	}
	return makeELF(segs, xnum)
}

// onlyReaderAt hides every other method.
type onlyReaderAt struct{ io.ReaderAt }
