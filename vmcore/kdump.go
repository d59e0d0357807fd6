package vmcore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ksleuth/ksleuth/mem"
)

const (
	descSize   = 24  // struct page_desc: offset, size, flags, page_flags
	descGroup  = 128 // descriptors read together: 3 KiB, half a megabyte of memory
	descSlots  = 512 // groups kept: 1.5 MiB, a quarter of a gigabyte of memory
	noZeroPage = -1

	shortfallLook = 64 * descGroup // descriptors at the end that are held against the file's size
)

// A kdump is a kdump-compressed dump: one file, or the files of a split set.
type kdump struct {
	files []*kdumpFile // by start page frame
	decs  decoders
}

// A kdumpFile is one file of the dump.
type kdumpFile struct {
	*kdumpHeader
	in     *input
	exist  *bitmap // page frames that exist
	dumped *bitmap // page frames with a descriptor

	baseOnce sync.Once
	base     uint64 // bits of dumped before start, in a split file
	baseErr  error

	endOnce sync.Once
	endErr  error

	groups [descSlots]atomic.Pointer[descs] // direct mapped by group number

	// zero is the offset of the data of a page of zeros, once one was seen.
	// makedumpfile and QEMU let all such pages share one, and a guest's memory
	// is full of them.
	zero atomic.Int64
}

// descs is a group of page descriptors.
type descs struct {
	index uint64
	raw   []byte
	err   error // why raw is short
}

// openKdump opens a kdump-compressed dump.
func openKdump(inputs []*input) (*kdump, error) {
	k := &kdump{}
	for _, in := range inputs {
		h, err := readKdumpHeader(in)
		if err != nil {
			return nil, err
		}
		if len(inputs) > 1 && !h.split {
			return nil, in.errorAt(pageSize+12, "split flag", errors.New("not set, but several files were given"))
		}
		f := &kdumpFile{kdumpHeader: h, in: in}
		f.zero.Store(noZeroPage)
		f.exist, f.dumped = h.bitmaps(in)
		if !h.split {
			f.start, f.end = 0, h.npfn
		}
		f.end = min(f.end, h.npfn)
		k.files = append(k.files, f)
	}
	slices.SortFunc(k.files, func(a, b *kdumpFile) int { return cmp.Compare(a.start, b.start) })
	first := k.files[0]
	for _, f := range k.files[1:] {
		if f.npfn != first.npfn || f.uts != first.uts || !f.time.Equal(first.time) {
			return nil, f.in.errorAt(0, "split set", fmt.Errorf("not of the same dump as %s", first.in.name))
		}
	}
	return k, nil
}

// fileFor returns the file that holds a page frame, or nil.
func (k *kdump) fileFor(pfn uint64) *kdumpFile {
	for _, f := range k.files {
		if pfn >= f.start && pfn < f.end {
			return f
		}
	}
	return nil
}

// page fills dst with a page frame; the error is a *mem.Fault.
func (k *kdump) page(dst []byte, pfn uint64) error {
	f := k.fileFor(pfn)
	if f == nil {
		return k.noFile(pfn)
	}
	set, rank, err := f.dumped.get(pfn)
	if err != nil {
		return fault(pfn<<pageShift, causeOf(err), err)
	}
	if !set {
		return f.absent(pfn)
	}
	if f.start > 0 {
		f.baseOnce.Do(func() { f.base, f.baseErr = f.dumped.before(f.start) })
		if f.baseErr != nil {
			return fault(pfn<<pageShift, causeOf(f.baseErr), f.baseErr)
		}
		rank -= f.base
	}
	if err := f.load(dst, rank, &k.decs); err != nil {
		cause := causeOf(err)
		var bad *damage
		if errors.As(err, &bad) {
			cause = bad.cause
		}
		return fault(pfn<<pageShift, cause, err)
	}
	return nil
}

// noFile says why no file has a page frame.
func (k *kdump) noFile(pfn uint64) error {
	f := k.files[0]
	if pfn >= f.npfn {
		return fault(pfn<<pageShift, mem.Unmapped, nil)
	}
	set, _, err := f.dumped.get(pfn)
	if err != nil {
		return fault(pfn<<pageShift, causeOf(err), err)
	}
	if !set {
		return f.absent(pfn)
	}
	return fault(pfn<<pageShift, mem.Truncated, errors.New("a file of the split set was not given"))
}

// absent says why a page frame has no descriptor.
func (f *kdumpFile) absent(pfn uint64) error {
	set, _, err := f.exist.get(pfn)
	switch {
	case err != nil:
		return fault(pfn<<pageShift, causeOf(err), err)
	case set:
		return fault(pfn<<pageShift, mem.Excluded, f.in.errorAt(f.dumped.offsetOf(pfn), "bit of the page frame", errNotSet))
	}
	return fault(pfn<<pageShift, mem.Unmapped, f.in.errorAt(f.exist.offsetOf(pfn), "bit of the page frame", errNotSet))
}

var errNotSet = errors.New("not set")

// A damage is an error of a page that is there but cannot be used.
type damage struct {
	cause mem.Cause
	err   error
}

func (d *damage) Error() string { return d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

// load fills dst with the page of the descriptor at index.
func (f *kdumpFile) load(dst []byte, index uint64, pool *decoders) error {
	d, err := f.desc(index)
	if err != nil {
		return err
	}
	off := int64(binary.LittleEndian.Uint64(d))
	size := binary.LittleEndian.Uint32(d[8:])
	flags := binary.LittleEndian.Uint32(d[12:])
	if off == f.zero.Load() {
		clear(dst)
		return nil
	}
	if off == 0 {
		return f.lost(index)
	}
	c := codecFor(flags &^ (flagIncomplete | flagExcludedVmemmap))
	if c == nil || size == 0 || size > pageSize || off < 0 {
		return f.bad(f.descOff(index), "page descriptor", fmt.Errorf("%w: offset %#x, size %d, flags %#x", errRange, uint64(off), size, flags))
	}
	if c.flag == 0 && size == pageSize {
		if err := f.in.readAt(dst, off, "page"); err != nil {
			return err
		}
	} else if err := f.unpack(dst, off, int(size), c, pool); err != nil {
		return err
	}
	if f.zero.Load() == noZeroPage && isZero(dst) {
		f.zero.Store(off)
	}
	return nil
}

// unpack decompresses the size bytes at off.
func (f *kdumpFile) unpack(dst []byte, off int64, size int, c *codec, pool *decoders) error {
	dec := pool.get()
	defer pool.put(dec)
	src := dec.in[:size]
	if err := f.in.readAt(src, off, "page"); err != nil {
		return err
	}
	if err := dec.decode(c, dst, src); err != nil {
		return f.bad(off, "page", err)
	}
	return nil
}

// bad makes the error of bytes that contradict themselves.
func (f *kdumpFile) bad(off int64, what string, err error) error {
	return &damage{mem.Damaged, f.in.errorAt(off, what, err)}
}

// lost makes the error of a descriptor that points nowhere: the writer did not
// get to it, or the file is damaged.
func (f *kdumpFile) lost(index uint64) error {
	err := f.in.errorAt(f.descOff(index), "page descriptor", errors.New("offset 0"))
	if f.incomplete() {
		return &damage{mem.Truncated, err}
	}
	return &damage{mem.Damaged, err}
}

// descOff returns the file offset of a descriptor.
func (f *kdumpFile) descOff(index uint64) int64 { return f.descAt() + int64(index)*descSize }

// desc returns the bytes of a descriptor.
func (f *kdumpFile) desc(index uint64) ([]byte, error) {
	group := index / descGroup
	slot := &f.groups[group%descSlots]
	g := slot.Load()
	if g == nil || g.index != group {
		g = &descs{index: group, raw: make([]byte, descGroup*descSize)}
		n, err := f.in.readSome(g.raw, f.descOff(group*descGroup))
		if n < len(g.raw) {
			g.raw, g.err = g.raw[:n], err
		}
		slot.Store(g)
	}
	i := int(index%descGroup) * descSize
	if i+descSize > len(g.raw) {
		return nil, f.in.errorAt(f.descOff(index), "page descriptor", g.err)
	}
	return g.raw[i : i+descSize], nil
}

// incomplete reports whether the writer or the file says that pages are lost.
func (f *kdumpFile) incomplete() bool {
	return f.status&flagIncomplete != 0 || f.in.flat != nil && f.in.flat.err != nil || f.shortfall() != nil
}

// shortfall returns what is wrong if the file ends before the data of its last
// page.
func (f *kdumpFile) shortfall() error {
	f.endOnce.Do(func() { f.endErr = f.findShortfall() })
	return f.endErr
}

func (f *kdumpFile) findShortfall() error {
	last, err := f.dumped.before(f.end)
	if err != nil {
		return err
	}
	first, err := f.dumped.before(f.start)
	if err != nil || last <= first {
		return err
	}
	// Pages of zeros share data near the start: look at many descriptors.
	for i, n := last-first, 0; i > 0 && n < shortfallLook; n++ {
		i--
		d, err := f.desc(i)
		if err != nil {
			return err
		}
		off, size := int64(binary.LittleEndian.Uint64(d)), int64(binary.LittleEndian.Uint32(d[8:]))
		if off > 0 && size <= pageSize && f.in.size >= 0 && off > f.in.size-size {
			return f.in.errorAt(off, "one of the last pages", io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// warnings says what is wrong with the files.
func (k *kdump) warnings() []error {
	var out []error
	var next uint64
	for _, f := range k.files {
		if f.status&flagIncomplete != 0 {
			out = append(out, f.in.errorAt(424, "status", errors.New("the writer marked the dump incomplete")))
		}
		if err := f.shortfall(); err != nil {
			out = append(out, err)
		}
		if f.start > next {
			out = append(out, missingPart(next, f.start))
		}
		next = max(next, f.end)
	}
	if npfn := k.files[0].npfn; next < npfn {
		out = append(out, missingPart(next, npfn))
	}
	return out
}

func missingPart(start, end uint64) error {
	return fmt.Errorf("split set: no file for page frames %#x to %#x", start, end)
}

// ranges returns the physical memory that exists.
func (k *kdump) ranges() ([]Range, error) {
	var out []Range
	err := k.files[0].exist.runs(func(start, end uint64) bool {
		out = append(out, Range{start << pageShift, end << pageShift})
		return len(out) < maxRanges
	})
	return out, err
}

// stored returns the physical memory that has descriptors. Small gaps are taken
// in: there may be a gap for every other page.
func (k *kdump) stored() ([]Range, error) {
	const gap = 256 << pageShift
	var out []Range
	err := k.files[0].dumped.runs(func(start, end uint64) bool {
		r := Range{start << pageShift, end << pageShift}
		if n := len(out); n > 0 && r.Start-out[n-1].End <= gap {
			out[n-1].End = r.End
		} else {
			out = append(out, r)
		}
		return len(out) < maxRanges
	})
	return out, err
}

// noteRegions returns the raw notes and the VMCOREINFO text.
func (k *kdump) noteRegions() []noteRegion {
	f := k.files[0]
	return []noteRegion{{f.in, f.notes, false}, {f.in, f.vmcoreinfo, true}}
}

// isZero reports whether p holds zeros only.
func isZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	return true
}
