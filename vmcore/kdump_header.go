package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// The kdump-compressed format, as makedumpfile's diskdump_mod.h and crash's
// diskdump.h describe it for x86-64. All numbers are little-endian.
const (
	kdumpMagic    = "KDUMP   "
	diskdumpMagic = "DISKDUMP" // its predecessor, with registers for a sub-header

	pageSize  = 4096
	pageShift = 12

	mainHeaderSize = 464 // struct disk_dump_header without its tasks
	subHeaderSize  = 104 // struct kdump_sub_header of version 6
	utsFieldSize   = 65  // __NEW_UTS_LEN + 1
	maxPFN         = 1 << 40
)

// Bits of the header's status and of a page descriptor's flags.
const (
	flagZlib            = 0x01 // the page is compressed with zlib
	flagLZO             = 0x02 // makedumpfile 1.4.0
	flagSnappy          = 0x04 // makedumpfile 1.5.0
	flagIncomplete      = 0x08 // status only: the device was full (makedumpfile 1.5.7)
	flagExcludedVmemmap = 0x10 // status only: unused parts of vmemmap left out (makedumpfile 1.6.1)
	flagZstd            = 0x20 // makedumpfile 1.7.0
)

// Utsname names a kernel as uname(2) does.
type Utsname struct {
	Sysname, Nodename, Release, Version, Machine, Domainname string
}

// A region is a piece of a file that a header points at.
type region struct{ off, size int64 }

// A kdumpHeader is the main header and sub-header of a kdump-compressed file,
// all versions in the form of version 6.
type kdumpHeader struct {
	diskdump     bool // not kdump: no sub-header
	version      int32
	uts          Utsname
	time         time.Time
	status       uint32
	subBlocks    int64
	bitmapBlocks int64
	cpus         int32
	npfn         uint64 // page frames the bitmaps cover

	physBase   uint64
	dumpLevel  int32 // -1 if unknown
	split      bool
	start, end uint64 // page frames in this file of a split set
	vmcoreinfo region
	notes      region
}

// A subField is a field of struct kdump_sub_header.
type subField struct {
	since int32 // header version that brought it
	off   int
	set   func(h *kdumpHeader, v uint64)
}

// subFields lists the sub-header's fields; those with a later version override
// those with an earlier one.
var subFields = [...]subField{
	{0, 0, func(h *kdumpHeader, v uint64) { h.physBase = v }},
	{1, 8, func(h *kdumpHeader, v uint64) { h.dumpLevel = int32(v) }},
	{2, 12, func(h *kdumpHeader, v uint64) { h.split = uint32(v) != 0 }},
	{2, 16, func(h *kdumpHeader, v uint64) { h.start = v }},
	{2, 24, func(h *kdumpHeader, v uint64) { h.end = v }},
	{3, 32, func(h *kdumpHeader, v uint64) { h.vmcoreinfo.off = int64(v) }},
	{3, 40, func(h *kdumpHeader, v uint64) { h.vmcoreinfo.size = int64(v) }},
	{4, 48, func(h *kdumpHeader, v uint64) { h.notes.off = int64(v) }},
	{4, 56, func(h *kdumpHeader, v uint64) { h.notes.size = int64(v) }},
	{6, 80, func(h *kdumpHeader, v uint64) { h.start = v }},
	{6, 88, func(h *kdumpHeader, v uint64) { h.end = v }},
	{6, 96, func(h *kdumpHeader, v uint64) { h.npfn = v }},
}

// readKdumpHeader reads and checks both headers.
func readKdumpHeader(in *input) (*kdumpHeader, error) {
	b := make([]byte, mainHeaderSize)
	if err := in.readAt(b, 0, "kdump header"); err != nil {
		return nil, err
	}
	h := &kdumpHeader{diskdump: bytes.HasPrefix(b, []byte(diskdumpMagic)), dumpLevel: -1}
	le := binary.LittleEndian
	h.version = int32(le.Uint32(b[8:]))
	h.uts = parseUtsname(b[12:])
	if m := h.uts.Machine; m != "" && m != "x86_64" {
		return nil, &ArchError{File: in.name, Machine: m}
	}
	if sec := le.Uint64(b[408:]); sec != 0 && sec <= math.MaxUint32 {
		h.time = time.Unix(int64(sec), int64(le.Uint64(b[416:])%1e6)*1000).UTC()
	}
	h.status = le.Uint32(b[424:])
	if size := int32(le.Uint32(b[428:])); size != pageSize {
		return nil, in.errorAt(428, "block size", fmt.Errorf("%w: %d, should be %d on x86_64", errRange, size, pageSize))
	}
	if h.version < 0 || h.version > 255 {
		return nil, in.errorAt(8, "header version", fmt.Errorf("%w: %d", errRange, h.version))
	}
	h.subBlocks = int64(int32(le.Uint32(b[432:])))
	h.bitmapBlocks = int64(le.Uint32(b[436:]))
	h.npfn = uint64(le.Uint32(b[440:]))
	h.cpus = int32(le.Uint32(b[460:]))
	if err := h.readSub(in); err != nil {
		return nil, err
	}
	return h, h.check(in)
}

// readSub reads the sub-header, as much of it as its version has.
func (h *kdumpHeader) readSub(in *input) error {
	if h.diskdump {
		return nil
	}
	b := make([]byte, subHeaderSize)
	if err := in.readAt(b, pageSize, "kdump sub-header"); err != nil {
		return err
	}
	for _, f := range subFields {
		if h.version >= f.since {
			f.set(h, binary.LittleEndian.Uint64(b[f.off:]))
		}
	}
	return nil
}

// check holds the numbers of the headers against the size of the file.
func (h *kdumpHeader) check(in *input) error {
	if h.subBlocks < 0 || !in.has(0, (1+h.subBlocks)*pageSize) {
		return in.errorAt(432, "sub-header size", fmt.Errorf("%w: %d blocks", errRange, h.subBlocks))
	}
	if h.npfn > maxPFN {
		return in.errorAt(440, "number of page frames", fmt.Errorf("%w: %d", errRange, h.npfn))
	}
	if need := bitmapBlocks(h.npfn); h.bitmapBlocks < need {
		return in.errorAt(436, "bitmap size", fmt.Errorf("%w: %d blocks do not hold %d page frames", errRange, h.bitmapBlocks, h.npfn))
	}
	// A part without pages ends with the last byte used of its bitmaps.
	last, size := h.lastBitmap()
	if off, n := h.bitmapAt(), last-h.bitmapAt()+size; !in.has(off, n) {
		return in.errorAt(off, "bitmap", endsBefore(in, off+n))
	}
	if h.split && (h.start > h.end || h.end > maxPFN) {
		return in.errorAt(pageSize+16, "page frames of this split file", fmt.Errorf("%w: %d to %d", errRange, h.start, h.end))
	}
	return nil
}

// endsBefore says that the file is too short to hold what ends at end.
func endsBefore(in *input, end int64) error {
	if in.size < end {
		return io.ErrUnexpectedEOF
	}
	return errors.New("larger than the file")
}

// bitmapBlocks returns the size in blocks of one bitmap of n page frames.
func bitmapBlocks(n uint64) int64 {
	return int64((n + 8*pageSize - 1) / (8 * pageSize))
}

// bitmapAt returns the offset of the bitmaps.
func (h *kdumpHeader) bitmapAt() int64 { return (1 + h.subBlocks) * pageSize }

// descAt returns the offset of the page descriptors.
func (h *kdumpHeader) descAt() int64 { return h.bitmapAt() + h.bitmapBlocks*pageSize }

// bitmaps returns the bitmap of existing page frames and that of dumped ones.
// They are one and the same where the writer had nothing to exclude and made
// one only.
func (h *kdumpHeader) bitmaps(in *input) (exist, dumped *bitmap) {
	off := h.bitmapAt()
	last, size := h.lastBitmap()
	dumped = newBitmap(in, last, size, h.npfn)
	if last == off {
		return dumped, dumped
	}
	return newBitmap(in, off, size, h.npfn), dumped
}

// lastBitmap returns the offset of the last bitmap and the bytes of it that
// hold bits.
func (h *kdumpHeader) lastBitmap() (off, size int64) {
	off, size = h.bitmapAt(), int64((h.npfn+7)/8)
	if h.bitmapBlocks < 2*bitmapBlocks(h.npfn) {
		return off, size
	}
	return off + h.bitmapBlocks*pageSize/2, size
}

// parseUtsname decodes struct new_utsname.
func parseUtsname(b []byte) Utsname {
	field := func(i int) string {
		s, _, _ := bytes.Cut(b[i*utsFieldSize:(i+1)*utsFieldSize], []byte{0})
		return string(s)
	}
	return Utsname{field(0), field(1), field(2), field(3), field(4), field(5)}
}
