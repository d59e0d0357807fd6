package vmcore

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ksleuth/ksleuth/mem"
)

// A Compression is how [Write] stores pages.
type Compression uint32

// The compressions. Every reader of the format knows zlib; zstd needs crash
// 8.0 or makedumpfile 1.7.0, and snappy a build with it.
const (
	Zlib         Compression = flagZlib
	Snappy       Compression = flagSnappy
	Zstd         Compression = flagZstd
	Uncompressed Compression = math.MaxUint32
)

// Meta is what a dump says besides memory.
type Meta struct {
	Utsname    Utsname   // Release is taken from VMCoreInfo if empty
	Time       time.Time // of the crash
	PhysBase   int64     // VMCoreInfo's NUMBER(phys_base) overrides it
	PageFrames uint64    // raised to cover Ranges and the pages
	Ranges     []Range   // memory that existed; what of it is not dumped reads as excluded
	CPUs       int       // taken from Notes if 0
	VMCoreInfo string    // the text
	Notes      []byte    // raw ELF notes, see [Core.Notes]

	Compression Compression // Zlib if 0
	Level       int         // 0 is the default of the compression
}

// Meta returns what is known of a dump, for a copy of parts of it.
func (c *Core) Meta() Meta {
	h, _ := c.Header()
	m := Meta{Utsname: h.Utsname, Time: h.Time, PhysBase: h.PhysBase, PageFrames: h.PageFrames, CPUs: h.CPUs, Notes: c.Notes()}
	m.Ranges, _ = c.Ranges()
	if v, err := c.VMCoreInfo(); err == nil {
		m.VMCoreInfo = v.Raw()
	}
	return m
}

// Written counts what [Write] did.
type Written struct {
	Pages   int   // stored, zeros included
	Zeros   int   // pages of zeros; they share one copy
	Skipped int   // not readable, so not in the dump
	Bytes   int64 // size of the file
}

// Write writes a kdump-compressed file of version 6 with the page frames pfns
// (in any order) of src, which crash, makedumpfile and this package can read.
// Pages that src does not have are left out and counted. The headers are
// written last: what a cancelled Write leaves behind is not taken for a dump.
// An error is w's or the context's.
func Write(ctx context.Context, w io.WriterAt, src mem.Reader, pfns []uint64, m Meta) (Written, error) {
	pfns = slices.Clone(pfns)
	slices.Sort(pfns)
	pfns = slices.Compact(pfns)
	if n := len(pfns); n > 0 && pfns[n-1] >= maxPFN {
		return Written{}, fmt.Errorf("page frame %#x: %w", pfns[n-1], errRange)
	}
	if err := m.complete(pfns); err != nil {
		return Written{}, err
	}
	k, err := newDumpWriter(w, src, &m)
	if err != nil {
		return Written{}, err
	}
	k.data = k.descAt + int64(len(pfns))*descSize
	stored, err := k.pages(ctx, pfns)
	if err == nil {
		err = k.bitmaps(m.Ranges, stored)
	}
	if err == nil {
		err = k.headers(&m, len(stored))
	}
	k.out.Pages, k.out.Bytes = len(stored), k.data
	return k.out, err
}

// complete fills in what follows from the rest.
func (m *Meta) complete(pfns []uint64) error {
	v := ParseVMCoreInfo(m.VMCoreInfo)
	if m.Utsname.Release == "" {
		m.Utsname.Release = v.OSRelease()
	}
	if m.Utsname.Sysname == "" {
		m.Utsname.Sysname = "Linux"
	}
	m.Utsname.Machine = "x86_64"
	if n, ok := v.Number("phys_base"); ok {
		m.PhysBase = n
	}
	if m.CPUs == 0 {
		n := &notes{}
		_ = n.region(noteRegion{in: &input{r: bytesAt(m.Notes), size: -1, stored: -1}, region: region{0, int64(len(m.Notes))}}, new(int))
		m.CPUs = max(1, len(n.cpus))
	}
	m.Ranges = slices.Clone(m.Ranges)
	slices.SortFunc(m.Ranges, func(a, b Range) int { return compareRange(a, b) })
	for _, r := range m.Ranges {
		m.PageFrames = max(m.PageFrames, (r.End+pageSize-1)>>pageShift)
	}
	if n := len(pfns); n > 0 {
		m.PageFrames = max(m.PageFrames, pfns[n-1]+1)
	}
	if m.PageFrames > maxPFN {
		return fmt.Errorf("%#x page frames: %w", m.PageFrames, errRange)
	}
	if m.Compression == 0 {
		m.Compression = Zlib
	}
	return nil
}

func compareRange(a, b Range) int {
	if a.Start < b.Start {
		return -1
	}
	if a.Start > b.Start {
		return 1
	}
	return 0
}

// A bytesAt is an io.ReaderAt over bytes.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// A dumpWriter writes the parts of a dump.
type dumpWriter struct {
	w        io.WriterAt
	src      mem.Reader
	flag     uint32
	encoders []*encoder // one per worker

	npfn         uint64
	subBlocks    int64
	bitmapBlocks int64 // both bitmaps
	descAt       int64
	desc         int64 // next descriptor's index
	data         int64 // where the next page's data goes
	zero         []byte
	out          Written
}

func newDumpWriter(w io.WriterAt, src mem.Reader, m *Meta) (*dumpWriter, error) {
	k := &dumpWriter{w: w, src: src, npfn: m.PageFrames}
	if m.Compression != Uncompressed {
		k.flag = uint32(m.Compression)
	}
	for range runtime.GOMAXPROCS(0) {
		e, err := newEncoder(m.Compression, m.Level)
		if err != nil {
			return nil, err
		}
		k.encoders = append(k.encoders, e)
	}
	sub := int64(subHeaderSize + len(m.VMCoreInfo) + len(m.Notes) + 16)
	k.subBlocks = (sub + pageSize - 1) / pageSize
	k.bitmapBlocks = 2 * bitmapBlocks(k.npfn)
	k.descAt = (1 + k.subBlocks + k.bitmapBlocks) * pageSize
	return k, nil
}

// A rawPage is a page on its way from memory into the file.
type rawPage struct {
	pfn  uint64
	buf  [pageSize]byte
	enc  []byte // buf compressed, or buf itself
	flag uint32
	zero bool
	err  error
}

// writeBatch is how many pages are compressed before they are written.
const writeBatch = 256

// pages stores the pages and returns the page frames that could be read.
func (k *dumpWriter) pages(ctx context.Context, pfns []uint64) (stored []uint64, err error) {
	batch := make([]rawPage, min(writeBatch, len(pfns)))
	var descs, data []byte
	for len(pfns) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(len(pfns), len(batch))
		for i := range n {
			batch[i].pfn = pfns[i]
		}
		pfns = pfns[n:]
		k.fill(batch[:n])
		descs, data = descs[:0], data[:0]
		at := k.descAt + k.desc*descSize
		for i := range n {
			p := &batch[i]
			if p.err != nil {
				k.out.Skipped++
				continue
			}
			descs, data = k.add(p, descs, data)
			stored = append(stored, p.pfn)
		}
		if _, err := k.w.WriteAt(descs, at); err != nil {
			return nil, err
		}
		if _, err := k.w.WriteAt(data, k.data); err != nil {
			return nil, err
		}
		k.data += int64(len(data))
	}
	return stored, nil
}

// fill reads and compresses a batch, on all CPUs.
func (k *dumpWriter) fill(batch []rawPage) {
	var wg sync.WaitGroup
	for i, e := range k.encoders {
		wg.Go(func() {
			for j := i; j < len(batch); j += len(k.encoders) {
				p := &batch[j]
				p.err = k.src.ReadMem(p.buf[:], p.pfn<<pageShift)
				if p.err == nil {
					p.zero = isZero(p.buf[:])
					p.enc, p.flag = e.encode(p.enc[:0], p.buf[:]), k.flag
					if len(p.enc) >= pageSize || k.flag == 0 {
						p.enc, p.flag = append(p.enc[:0], p.buf[:]...), 0
					}
				}
			}
		})
	}
	wg.Wait()
}

// add appends a page to the descriptors and data of a batch. All pages of
// zeros share the data of the first.
func (k *dumpWriter) add(p *rawPage, descs, data []byte) ([]byte, []byte) {
	le := binary.LittleEndian
	k.desc++
	if p.zero {
		k.out.Zeros++
		if k.zero != nil {
			return append(descs, k.zero...), data
		}
	}
	var d [descSize]byte
	le.PutUint64(d[0:], uint64(k.data)+uint64(len(data)))
	le.PutUint32(d[8:], uint32(len(p.enc)))
	le.PutUint32(d[12:], p.flag)
	if p.zero {
		k.zero = slices.Clone(d[:])
	}
	return append(descs, d[:]...), append(data, p.enc...)
}

// bitmaps writes both bitmaps: what exists, and what is stored.
func (k *dumpWriter) bitmaps(ranges []Range, stored []uint64) error {
	const blockPFNs = 8 * pageSize
	half := k.bitmapBlocks / 2 * pageSize
	first := (1 + k.subBlocks) * pageSize
	var exist, dumped [pageSize]byte
	for base := uint64(0); base < k.npfn; base += blockPFNs {
		clear(exist[:])
		clear(dumped[:])
		for _, r := range ranges {
			start, end := max(r.Start>>pageShift, base), min((r.End+pageSize-1)>>pageShift, base+blockPFNs)
			for pfn := start; pfn < end; pfn++ {
				setBit(&exist, pfn-base)
			}
		}
		for len(stored) > 0 && stored[0] < base+blockPFNs {
			setBit(&exist, stored[0]-base)
			setBit(&dumped, stored[0]-base)
			stored = stored[1:]
		}
		at := first + int64(base/8)
		if _, err := k.w.WriteAt(exist[:], at); err != nil {
			return err
		}
		if _, err := k.w.WriteAt(dumped[:], at+half); err != nil {
			return err
		}
	}
	return nil
}

func setBit(b *[pageSize]byte, i uint64) { b[i/8] |= 1 << (i % 8) }

// headers writes the sub-header with what it points at, then the header.
func (k *dumpWriter) headers(m *Meta, stored int) error {
	le := binary.LittleEndian
	sub := make([]byte, k.subBlocks*pageSize)
	le.PutUint64(sub[0:], uint64(m.PhysBase))
	level := uint32(0)
	if stored == 0 || uint64(stored) < k.npfn {
		level = 31 // some pages were left out, of no particular kind
	}
	le.PutUint32(sub[8:], level)
	put := func(field, at int, b []byte) int {
		if len(b) > 0 {
			le.PutUint64(sub[field:], uint64(pageSize+at))
			le.PutUint64(sub[field+8:], uint64(len(b)))
		}
		return (at + copy(sub[at:], b) + 7) &^ 7
	}
	at := put(48, subHeaderSize, m.Notes)
	put(32, at, []byte(m.VMCoreInfo))
	le.PutUint64(sub[88:], k.npfn)
	le.PutUint64(sub[96:], k.npfn)
	if _, err := k.w.WriteAt(sub, pageSize); err != nil {
		return err
	}

	h := make([]byte, pageSize)
	copy(h, kdumpMagic)
	le.PutUint32(h[8:], 6)
	for i, s := range []string{m.Utsname.Sysname, m.Utsname.Nodename, m.Utsname.Release,
		m.Utsname.Version, m.Utsname.Machine, m.Utsname.Domainname} {
		copy(h[12+i*utsFieldSize:12+(i+1)*utsFieldSize-1], s)
	}
	if !m.Time.IsZero() {
		le.PutUint64(h[408:], uint64(m.Time.Unix()))
		le.PutUint64(h[416:], uint64(m.Time.Nanosecond()/1000))
	}
	le.PutUint32(h[424:], k.flag)
	le.PutUint32(h[428:], pageSize)
	le.PutUint32(h[432:], uint32(k.subBlocks))
	le.PutUint32(h[436:], uint32(k.bitmapBlocks))
	le.PutUint32(h[440:], uint32(min(k.npfn, math.MaxUint32)))
	le.PutUint32(h[448:], uint32(min((k.data+pageSize-1)/pageSize, math.MaxUint32)))
	le.PutUint32(h[460:], uint32(m.CPUs))
	_, err := k.w.WriteAt(h, 0)
	return err
}
