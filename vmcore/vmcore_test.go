package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

func TestFormats(t *testing.T) {
	m := machine()
	some := image{}
	for pfn, page := range m {
		if pfn%3 != 0 {
			some[pfn] = page
		}
	}
	zlib := writeDump(t, m, some.pfns(), machineMeta(Zlib))
	rng := rand.New(rand.NewPCG(3, 4))
	tests := []struct {
		name   string
		files  [][]byte
		have   image
		format string
	}{
		{"zlib", [][]byte{zlib}, some, "kdump-compressed v6, zlib"},
		{"zstd", [][]byte{writeDump(t, m, m.pfns(), machineMeta(Zstd))}, m, "kdump-compressed v6, zstd"},
		{"snappy", [][]byte{writeDump(t, m, m.pfns(), machineMeta(Snappy))}, m, "kdump-compressed v6, snappy"},
		{"plain", [][]byte{writeDump(t, m, some.pfns(), machineMeta(Uncompressed))}, some, "kdump-compressed v6, uncompressed"},
		{"v5", [][]byte{downgrade(zlib, 5)}, some, "kdump-compressed v5, zlib"},
		{"v4", [][]byte{downgrade(zlib, 4)}, some, "kdump-compressed v4, zlib"},
		{"v3", [][]byte{downgrade(zlib, 3)}, some, "kdump-compressed v3, zlib"},
		{"v2", [][]byte{downgrade(zlib, 2)}, some, "kdump-compressed v2, zlib"},
		{"v1", [][]byte{downgrade(zlib, 1)}, some, "kdump-compressed v1, zlib"},
		{"v0", [][]byte{downgrade(zlib, 0)}, some, "kdump-compressed v0, zlib"},
		{"flattened", [][]byte{flatten(zlib, 1000, true, nil)}, some, "flattened kdump-compressed v6, zlib"},
		{"flattened shuffled", [][]byte{flatten(zlib, 97, true, rng)}, some, "flattened kdump-compressed v6, zlib"},
		{"split", splitAt(t, zlib, 5, 0x33, 0x10010), some, "kdump-compressed v6, zlib, split in 4 files"},
		{"ELF", [][]byte{machineELF(m, false)}, m, "ELF core (QEMU)"},
		{"ELF with many segments", [][]byte{machineELF(m, true)}, m, "ELF core (QEMU)"},
		{"ELF flattened", [][]byte{flatten(machineELF(m, false), 5000, true, rng)}, m, "flattened ELF core (QEMU)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for i := range test.files { // any order will do
				test.files[0], test.files[i] = test.files[i], test.files[0]
			}
			c := open(t, test.files...)
			qt.Check(t, qt.Equals(c.Format(), test.format))
			qt.Check(t, qt.HasLen(c.Warnings(), 0))
			wantImage(t, c, m, test.have, mem.Excluded)
			ranges, err := c.Ranges()
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(ranges, machineRanges))
			checkReads(t, c, test.have)
		})
	}
}

// checkReads reads at random places and lengths, many at once.
func checkReads(t *testing.T, c *Core, have image) {
	var wg sync.WaitGroup
	for worker := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(worker, 9))
			for range 300 {
				r := machineRanges[rng.IntN(len(machineRanges))]
				addr := r.Start + rng.Uint64N(r.End-r.Start)
				got, want := make([]byte, 1+rng.IntN(3*pageSize)), make([]byte, 3*pageSize+1)
				want = want[:len(got)]
				errGot, errWant := c.ReadMem(got, addr), have.ReadMem(want, addr)
				n := uint64(len(got))
				var f, g *mem.Fault
				if errors.As(errWant, &f) {
					n = f.Addr - addr
					if !errors.As(errGot, &g) || g.Addr != f.Addr || g.Space != mem.Physical {
						t.Errorf("read of %d bytes at %#x: %v, want a fault at %#x", len(got), addr, errGot, f.Addr)
						return
					}
				} else if errGot != nil {
					t.Errorf("read of %d bytes at %#x: %v", len(got), addr, errGot)
					return
				}
				if !bytes.Equal(got[:n], want[:n]) {
					t.Errorf("read of %d bytes at %#x differs", len(got), addr)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestCacheSizes runs the same reads with a cache that holds next to nothing
// and with none.
func TestCacheSizes(t *testing.T) {
	m := machine()
	b := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	for _, size := range []int{-1, pageSize, 20 * pageSize} {
		c, err := Options{CacheBytes: size}.New(asFiles(b)...)
		qt.Assert(t, qt.IsNil(err))
		checkReads(t, c, m)
		if c.cache != nil {
			for i := range c.cache.shards {
				qt.Check(t, qt.IsTrue(len(c.cache.shards[i].slots) <= 2))
			}
		}
	}
}

func TestSingleBitmap(t *testing.T) {
	m := machine()
	b := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	// Cut the first bitmap out; descriptors and data move up.
	f := open(t, b).kdump.files[0]
	half := f.bitmapBlocks / 2 * pageSize
	le := binary.LittleEndian
	for i := range uint64(len(m)) {
		d := b[f.descOff(i):]
		le.PutUint64(d, le.Uint64(d)-uint64(half))
	}
	le.PutUint32(b[436:], uint32(f.bitmapBlocks/2))
	b = append(bytes.Clone(b[:f.bitmapAt()]), b[f.bitmapAt()+half:]...)
	wantImage(t, open(t, b), m, m, 0)
}

func TestOldDiskdump(t *testing.T) {
	m := machine()
	b := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	copy(b, diskdumpMagic)
	c := open(t, b)
	qt.Check(t, qt.Equals(c.Format(), "diskdump v6, zlib"))
	wantImage(t, c, m, m, 0)
}

// TestLZO reads pages made by hand: a 16-byte literal and one long match.
func TestLZO(t *testing.T) {
	page := bytes.Repeat([]byte("0123456789abcdef"), pageSize/16)
	stream := append([]byte{17 + 16}, page[:16]...)
	stream = append(stream, 0x20)
	stream = append(stream, make([]byte, 15)...)
	stream = append(stream, 222, 15<<2, 0, 0x11, 0, 0)
	var d decoder
	got := make([]byte, pageSize)
	qt.Assert(t, qt.IsNil(d.decode(codecFor(flagLZO), got, stream)))
	qt.Assert(t, qt.IsTrue(bytes.Equal(got, page)))
	for i := range stream {
		_ = d.decode(codecFor(flagLZO), got, stream[:i])
	}
}

func TestHeaderAndNotes(t *testing.T) {
	m := machine()
	for _, b := range [][]byte{writeDump(t, m, m.pfns()[:3], machineMeta(Zlib)), machineELF(m, false)} {
		c := open(t, b)
		cpus := c.CPUs()
		qt.Assert(t, qt.HasLen(cpus, 2))
		qt.Check(t, qt.Equals(cpus[1].PID, 2))
		qt.Check(t, qt.Equals(cpus[1].Regs.R15, 200))
		qt.Check(t, qt.Equals(cpus[1].Regs.RIP, 216))
		qt.Check(t, qt.Equals(cpus[1].Regs.RSP, 219))
		qt.Check(t, qt.Equals(cpus[1].Regs.GS, 226))
		q := cpus[1].QEMU
		qt.Assert(t, qt.IsNotNil(q))
		qt.Check(t, qt.Equals(q.RAX, 2000))
		qt.Check(t, qt.Equals(q.RFLAGS, 2017))
		qt.Check(t, qt.Equals(q.CS.Base, 2020))
		qt.Check(t, qt.Equals(q.IDT.Base, 2047))
		qt.Check(t, qt.Equals(q.CR[3], 2051))
		qt.Check(t, qt.Equals(q.KernelGSBase, 2053))
		v, err := c.VMCoreInfo()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(v.Raw(), machineInfo))
	}
	c := open(t, writeDump(t, m, m.pfns(), machineMeta(Zlib)))
	h, ok := c.Header()
	qt.Assert(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(h.Utsname, Utsname{"Linux", "host", "6.1.0-test", "#1 SMP", "x86_64", ""}))
	qt.Check(t, qt.Equals(h.PhysBase, -606076928))
	qt.Check(t, qt.Equals(h.PageFrames, 0x10030))
	qt.Check(t, qt.Equals(h.CPUs, 2))
	qt.Check(t, qt.DeepEquals(c.Notes(), machineNotes()))
	_, ok = open(t, machineELF(m, false)).Header()
	qt.Check(t, qt.IsFalse(ok))
}

func TestELFSegments(t *testing.T) {
	page := func(c byte) []byte { return bytes.Repeat([]byte{c}, pageSize) }
	c := open(t, makeELF([]elfSeg{
		{typ: ptLoad, virt: 0xffffffff81000000, phys: 0x1000000, data: page('k')}, // kernel text, part of RAM
		{typ: ptLoad, virt: 0xffff888001000000, phys: 0x1000000, data: append(page('k'), page('r')...), memSize: 4 * pageSize},
		{typ: ptLoad, virt: 0xffffc90000000000, phys: noPhys, data: page('v')}, // vmalloc of /proc/kcore
		{typ: ptLoad, virt: 0xffff888002000000, phys: 0x2000800, data: page('u')[:0x100]},
	}, false))
	got := make([]byte, 1)
	read := func(r mem.Reader, addr uint64) any {
		if err := r.ReadMem(got, addr); err != nil {
			return mem.CauseOf(err)
		}
		return string(got)
	}
	v := c.Virtual()
	qt.Assert(t, qt.IsNotNil(v))
	for _, test := range []struct {
		r    mem.Reader
		addr uint64
		want any
	}{
		{c, 0x1000000, "k"}, {c, 0x1001fff, "r"}, {c, 0x1002000, mem.Excluded}, {c, 0x1004000, mem.Unmapped},
		{c, 0x2000800, "u"}, {c, 0x20008ff, "u"}, {c, 0x2000900, mem.Unmapped}, {c, 0x20007ff, mem.Unmapped},
		{v, 0xffffffff81000fff, "k"}, {v, 0xffff888001001000, "r"}, {v, 0xffffc90000000010, "v"},
		{v, 0xffffc90000001000, mem.Unmapped}, {v, 0xffff888001002000, mem.Unmapped},
	} {
		qt.Check(t, qt.Equals(read(test.r, test.addr), test.want), qt.Commentf("%#x", test.addr))
	}
	qt.Check(t, qt.HasLen(c.Segments(), 4))
	qt.Check(t, qt.IsFalse(c.Segments()[2].HasPhys))

	// /proc/kcore before 4.11.
	c = open(t, makeELF([]elfSeg{
		{typ: ptLoad, virt: 0xffff888000001000, data: page('a')},
		{typ: ptLoad, virt: 0xffffffff81000000, data: page('b')},
	}, false))
	qt.Check(t, qt.HasLen(c.Warnings(), 1))
	qt.Check(t, qt.Equals(read(c, 0), any(mem.Unmapped)))
	qt.Check(t, qt.Equals(read(c.Virtual(), 0xffffffff81000000), any("b")))
	qt.Check(t, qt.IsNil(open(t, makeELF([]elfSeg{{typ: ptLoad, data: page('a')}}, false)).Virtual()))
}

// TestSplitEmpty: makedumpfile ends a part that got no pages with the last byte
// of the bitmap that has bits, not with its last block.
func TestSplitEmpty(t *testing.T) {
	m := machine()
	whole := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	npfn := open(t, whole).kdump.files[0].npfn
	parts := splitAt(t, whole, npfn)
	off, used := open(t, parts[1]).kdump.files[0].lastBitmap()
	parts[1] = parts[1][:off+used]
	qt.Assert(t, qt.Not(qt.Equals(used%pageSize, 0)))
	c := open(t, parts...)
	wantImage(t, c, m, m, mem.Truncated)
	qt.Check(t, qt.HasLen(c.Warnings(), 0))

	_, err := New(asFiles(parts[0], parts[1][:off+used-1])...)
	qt.Check(t, qt.ErrorMatches(err, ".*bitmap: unexpected EOF"))
}

func TestSplitMissing(t *testing.T) {
	m := machine()
	parts := splitAt(t, writeDump(t, m, m.pfns(), machineMeta(Zlib)), 0x20, 0x10000)
	c := open(t, parts[2], parts[0])
	have := image{}
	for pfn, page := range m {
		if pfn < 0x20 || pfn >= 0x10000 {
			have[pfn] = page
		}
	}
	wantImage(t, c, m, have, mem.Truncated)
	qt.Check(t, qt.HasLen(c.Warnings(), 1))
	qt.Check(t, qt.HasLen(open(t, parts[0]).Warnings(), 1))

	whole := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	_, err := New(asFiles(parts[0], whole)...)
	var fe *FormatError
	qt.Assert(t, qt.ErrorAs(err, &fe))
	other := bytes.Clone(parts[1])
	copy(other[12+65:], "elsewhere")
	_, err = New(asFiles(parts[0], other)...)
	qt.Assert(t, qt.ErrorAs(err, &fe))
}

func TestTruncated(t *testing.T) {
	m := machine()
	whole := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	elf := machineELF(m, false)
	for name, b := range map[string][]byte{
		"kdump":          whole[:len(whole)*3/4],
		"flattened":      flatten(whole[:len(whole)*3/4], 500, false, nil),
		"flattened cut":  flatten(whole, 500, true, nil)[:len(whole)*3/4],
		"ELF":            elf[:len(elf)*3/4],
		"ELF flattened":  flatten(elf[:len(elf)*3/4], 5000, false, nil),
		"marked":         marked(t, whole, m),
		"no descriptors": whole[:open(t, whole).kdump.files[0].descAt()+500],
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, b)
			qt.Check(t, qt.Not(qt.HasLen(c.Warnings(), 0)))
			lost := 0
			page := make([]byte, pageSize)
			for pfn, want := range m {
				err := c.ReadMem(page, pfn<<pageShift)
				if err == nil {
					qt.Assert(t, qt.IsTrue(bytes.Equal(page, want)), qt.Commentf("page frame %#x", pfn))
					continue
				}
				qt.Assert(t, qt.Equals(mem.CauseOf(err), mem.Truncated), qt.Commentf("%v", err))
				lost++
			}
			qt.Check(t, qt.IsTrue(lost > 5 && (lost < len(m) || name == "no descriptors")), qt.Commentf("%d pages lost", lost))
		})
	}
	// Cut in the bitmaps or the headers, a dump cannot be used at all.
	for _, n := range []int{0, 10, 464, 4100, 9000, 13000} {
		_, err := New(asFiles(whole[:n])...)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%d bytes", n))
	}
}

// marked is what makedumpfile leaves when the device is full: the status says
// so, and the descriptors of the rest are zero.
func marked(t *testing.T, b []byte, m image) []byte {
	b = bytes.Clone(b)
	b[424] |= flagIncomplete
	f := open(t, b).kdump.files[0]
	clear(b[f.descOff(uint64(len(m)*3/4)):f.descOff(uint64(len(m)))])
	return b
}

func TestDamaged(t *testing.T) {
	m := machine()
	b := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	f := open(t, b).kdump.files[0]
	le := binary.LittleEndian
	damage := []func(d []byte){
		func(d []byte) { le.PutUint64(d, 0) },                      // no offset, but complete
		func(d []byte) { le.PutUint64(d, 1<<63) },                  // negative offset
		func(d []byte) { le.PutUint32(d[8:], 0) },                  // size
		func(d []byte) { le.PutUint32(d[8:], pageSize+1) },         // size
		func(d []byte) { le.PutUint32(d[12:], 0x40) },              // flags
		func(d []byte) { le.PutUint32(d[12:], 3) },                 // two flags
		func(d []byte) { le.PutUint32(d[12:], 0) },                 // short, but not compressed
		func(d []byte) { le.PutUint32(d[12:], flagZstd) },          // another compression
		func(d []byte) { le.PutUint32(d[12:], flagSnappy) },        // another compression
		func(d []byte) { le.PutUint32(d[12:], flagLZO) },           // another compression
		func(d []byte) { b[le.Uint64(d)+20] ^= 0x10 },              // data
		func(d []byte) { le.PutUint32(d[8:], le.Uint32(d[8:])-3) }, // data cut in the checksum
	}
	for i, do := range damage {
		do(b[f.descOff(uint64(i)):])
	}
	c := open(t, b)
	pfns := m.pfns()
	for i := range damage {
		err := c.ReadMem(make([]byte, 8), pfns[i]<<pageShift+40)
		if pfns[i]%7 == 0 || pfns[i]%11 == 0 {
			continue // shared, or stored as it is
		}
		qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Damaged), qt.Commentf("damage %d: %v", i, err))
		var fe *FormatError
		qt.Check(t, qt.ErrorAs(err, &fe))
		qt.Check(t, qt.ErrorMatches(err, `physical address 0x[0-9a-f]+028: damaged in the dump \(dump: offset 0x.*`))
	}
	qt.Check(t, qt.IsNil(c.ReadMem(make([]byte, 8), pfns[40]<<pageShift)))
}

func TestNotDump(t *testing.T) {
	m := machine()
	elf := machineELF(m, false)
	arch := bytes.Clone(elf)
	arch[18] = 183
	exe := bytes.Clone(elf)
	exe[16] = 2
	arm := writeDump(t, m, nil, machineMeta(Zlib))
	copy(arm[12+4*65:], "aarch64\x00")
	var ae *ArchError
	for name, b := range map[string][]byte{
		"is empty": nil, "gzip-compressed": []byte("\x1f\x8b\x08..."), "LUKS": []byte("LUKS\xba\xbe\x00\x02"), "executable": exe, "": make([]byte, 5000),
	} {
		_, err := New(asFiles(b)...)
		qt.Check(t, qt.ErrorIs(err, ErrNotDump))
		qt.Check(t, qt.ErrorMatches(err, "dump: not a crash dump.*"+name+".*"))
	}
	for _, b := range [][]byte{arch, arm} {
		_, err := New(asFiles(b)...)
		qt.Check(t, qt.ErrorAs(err, &ae))
	}
	_, err := Open(filepath.Join(t.TempDir(), "none"))
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
	_, err = Open(t.TempDir())
	qt.Check(t, qt.ErrorMatches(err, ".*is a directory"))
	_, err = Open()
	qt.Check(t, qt.IsNotNil(err))
}

// TestUnknownSize reads dumps from files that cannot tell their size.
func TestUnknownSize(t *testing.T) {
	m := machine()
	b := writeDump(t, m, m.pfns(), machineMeta(Zlib))
	for _, b := range [][]byte{b, flatten(b, 3000, true, nil), machineELF(m, false)} {
		c, err := New(File{"dump", onlyReaderAt{bytes.NewReader(b)}, -1})
		qt.Assert(t, qt.IsNil(err))
		wantImage(t, c, m, m, 0)
		qt.Check(t, qt.HasLen(c.Warnings(), 0))
	}
}

func TestOpenPath(t *testing.T) {
	m := machine()
	path := filepath.Join(t.TempDir(), "dump")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, writeDump(t, m, m.pfns(), machineMeta(Zlib)), 0o600)))
	c, err := Open(path)
	qt.Assert(t, qt.IsNil(err))
	wantImage(t, c, m, m, 0)
	qt.Check(t, qt.IsFalse(c.Live()))
	qt.Check(t, qt.IsNil(c.Close()))
	err = c.ReadMem(make([]byte, pageSize), 0x2000)
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.IO))
	qt.Check(t, qt.ErrorIs(err, fs.ErrClosed))
}

var _ io.ReaderAt = (*flat)(nil)
