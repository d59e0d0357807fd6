// Package vmcore reads and writes crash dumps of x86-64 Linux kernels.
//
// It reads kdump-compressed files of all versions, whole, split or flattened,
// and ELF cores (a copy of /proc/vmcore, QEMU's dump-guest-memory, /proc/kcore),
// flattened or not. A [Core] is a [mem.Reader] over physical memory; a page
// that the dump does not have is a fault that says why, never zeros.
//
// Formats: makedumpfile (diskdump_mod.h, makedumpfile.h), crash (diskdump.c),
// QEMU (dump/dump.c, target/i386/arch_dump.c), elf(5).
package vmcore

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ksleuth/ksleuth/mem"
)

// DefaultCacheBytes is the size of the page cache unless [Options] say
// otherwise.
const DefaultCacheBytes = 4 << 20

// maxRanges bounds the answer of [Core.Ranges].
const maxRanges = 1 << 20

// A Range is physical memory from Start up to but not including End, in bytes.
type Range struct{ Start, End uint64 }

// Options change how a dump is read. The zero value is what [Open] uses.
type Options struct {
	// CacheBytes bounds the cache of pages; 0 means [DefaultCacheBytes],
	// negative none. Live memory (/proc/kcore) is never cached.
	CacheBytes int
}

// A source is a dump format.
type source interface {
	page(dst []byte, pfn uint64) error // fills a whole page; the error is a *mem.Fault
	noteRegions() []noteRegion
	ranges() ([]Range, error) // what exists
	stored() ([]Range, error) // what may be in the files, for a search
	warnings() []error
}

// A Core is an open crash dump. It implements [mem.Reader] over physical
// memory and is safe for concurrent use.
type Core struct {
	inputs []*input
	src    source
	elf    *elfCore // src, if it is one
	kdump  *kdump   // src, if it is one
	cache  *pageCache
	live   bool

	notesOnce sync.Once
	parsed    *notes

	infoOnce sync.Once
	info     VMCoreInfo
	infoErr  error
}

var _ mem.Reader = (*Core)(nil)

// Open opens a dump. Several paths are the files of one split dump (makedumpfile
// --split), in any order. The error is that of the file system, or an
// [ErrNotDump], [*ArchError] or [*FormatError].
func Open(paths ...string) (*Core, error) { return Options{}.Open(paths...) }

// New reads a dump from files that are already open, and stay the caller's.
func New(files ...File) (*Core, error) { return Options{}.New(files...) }

// Open is [Open] with options.
func (o Options) Open(paths ...string) (*Core, error) {
	inputs := make([]*input, 0, len(paths))
	for _, path := range paths {
		in, err := openPath(path)
		if err != nil {
			closeAll(inputs)
			return nil, err
		}
		inputs = append(inputs, in)
	}
	c, err := o.open(inputs)
	if err != nil {
		closeAll(inputs)
	}
	return c, err
}

// New is [New] with options.
func (o Options) New(files ...File) (*Core, error) {
	inputs := make([]*input, 0, len(files))
	for _, f := range files {
		in, err := newInput(f)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	return o.open(inputs)
}

// open tells the format and opens it.
func (o Options) open(inputs []*input) (*Core, error) {
	if len(inputs) == 0 {
		return nil, errors.New("no dump file given")
	}
	c := &Core{inputs: inputs, live: inputs[0].live}
	head, err := inputs[0].head()
	if err != nil {
		return nil, err
	}
	switch {
	case isKdump(head):
		err = checkSet(inputs)
		if err == nil {
			c.kdump, err = openKdump(inputs)
			c.src = c.kdump
		}
	case isELF(head):
		if len(inputs) > 1 {
			return nil, splitELF(inputs)
		}
		c.elf, err = openELF(inputs[0], head)
		c.src = c.elf
	case inputs[0].flat != nil && inputs[0].flat.err != nil:
		return nil, inputs[0].flat.err
	default:
		return nil, inputs[0].notDump(head)
	}
	if err != nil {
		return nil, err
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if !c.live {
		c.cache = newPageCache(o.CacheBytes)
	}
	return c, nil
}

// isKdump reports whether head starts a kdump-compressed file.
func isKdump(head []byte) bool {
	return bytes.HasPrefix(head, []byte(kdumpMagic)) || bytes.HasPrefix(head, []byte(diskdumpMagic))
}

// checkSet makes sure that the other files of a split set are of its format.
func checkSet(inputs []*input) error {
	for _, in := range inputs[1:] {
		head, err := in.head()
		if err != nil {
			return err
		}
		if !isKdump(head) {
			return in.notDump(head)
		}
	}
	return nil
}

// Close closes the files that [Open] opened. Reads must have ended.
func (c *Core) Close() error { return closeAll(c.inputs) }

func closeAll(inputs []*input) error {
	var errs []error
	for _, in := range inputs {
		errs = append(errs, in.close())
	}
	return errors.Join(errs...)
}

// ReadMem implements [mem.Reader] over physical memory. Whole pages go straight
// into p; parts of pages come through the cache.
func (c *Core) ReadMem(p []byte, addr uint64) error {
	if c.elf != nil && (c.cache == nil || len(p) >= pageSize) {
		return c.elf.bulk(p, addr)
	}
	for len(p) > 0 {
		pfn, off := addr>>pageShift, int(addr%pageSize)
		n := min(len(p), pageSize-off)
		if err := c.readIn(p[:n], pfn, off); err != nil {
			return err
		}
		p, addr = p[n:], addr+uint64(n)
		if addr == 0 && len(p) > 0 {
			return fault(0, mem.Unmapped, errRange)
		}
	}
	return nil
}

// readIn reads within one page.
func (c *Core) readIn(p []byte, pfn uint64, off int) error {
	if c.cache != nil && c.cache.get(p, pfn, off) {
		return nil
	}
	if len(p) == pageSize {
		return c.src.page(p, pfn)
	}
	if c.cache == nil {
		page := new([pageSize]byte)
		if err := c.src.page(page[:], pfn); err != nil {
			return c.within(err, p, pfn, off)
		}
		copy(p, page[off:])
		return nil
	}
	page := c.cache.buffer()
	if err := c.src.page(page[:], pfn); err != nil {
		err = c.within(err, p, pfn, off)
		c.cache.drop(page)
		return err
	}
	copy(p, page[off:])
	c.cache.put(pfn, page)
	return nil
}

// within turns the error for a page into that for a read inside it: an ELF
// core can hold a part of a page, and a fault's address is that of the first
// byte that was asked for and is not there.
func (c *Core) within(err error, p []byte, pfn uint64, off int) error {
	addr := pfn<<pageShift + uint64(off)
	if c.elf != nil {
		return c.elf.bulk(p, addr)
	}
	var f *mem.Fault
	if errors.As(err, &f) {
		f.Addr = addr
	}
	return err
}

// Virtual returns memory by the virtual addresses of the program headers, which
// /proc/kcore and kdump's ELF cores have; nil if the dump has none.
func (c *Core) Virtual() mem.Reader {
	if c.elf == nil || len(c.elf.virt) == 0 {
		return nil
	}
	return elfVirtual{c.elf}
}

// Segments returns the PT_LOAD program headers of an ELF core; none of a kdump.
func (c *Core) Segments() []Segment {
	if c.elf == nil {
		return nil
	}
	return append([]Segment(nil), c.elf.segments...)
}

// Ranges returns the physical memory the machine had, in order, whether or not
// the dump holds all of it. With an error it is what could be told.
func (c *Core) Ranges() ([]Range, error) { return c.src.ranges() }

// StoredRanges returns the physical memory that a search should look at: what
// the files hold, and perhaps a little around it. A damaged header can claim
// any amount of memory to exist; this is bounded by the size of the files.
func (c *Core) StoredRanges() ([]Range, error) { return c.src.stored() }

// Live reports whether the files are a running kernel's memory, so that two
// reads can differ.
func (c *Core) Live() bool { return c.live }

// Warnings returns what is wrong with the files: truncated, marked incomplete,
// damaged lists, missing parts of a split set. What it names will be missed by
// reads; the rest can be trusted.
func (c *Core) Warnings() []error {
	var out []error
	for _, in := range c.inputs {
		if in.flat != nil && in.flat.err != nil {
			out = append(out, in.flat.err)
		}
	}
	out = append(out, c.src.warnings()...)
	return append(out, c.loadNotes().problems...)
}

// A Header is what a kdump-compressed file's headers say. An ELF core has none
// of it.
type Header struct {
	Version int // of the header
	Utsname Utsname
	Time    time.Time // of the crash; zero if unknown
	// PhysBase is where the kernel is, relative to its link address, as the
	// header has it. QEMU (7.2) puts nonsense there: it takes VMCOREINFO's
	// decimal NUMBER(phys_base) for hexadecimal. Prefer [Core.VMCoreInfo].
	PhysBase   int64
	PageFrames uint64 // one more than the highest
	DumpLevel  int    // makedumpfile -d; -1 if unknown
	CPUs       int
	Incomplete bool // the writer ran out of space
}

// Header returns what the headers say; ok is false for an ELF core.
func (c *Core) Header() (h Header, ok bool) {
	if c.kdump == nil {
		return Header{}, false
	}
	k := c.kdump.files[0].kdumpHeader
	return Header{Version: int(k.version), Utsname: k.uts, Time: k.time, PhysBase: int64(k.physBase), PageFrames: k.npfn,
		DumpLevel: int(k.dumpLevel), CPUs: int(k.cpus), Incomplete: k.status&flagIncomplete != 0}, true
}

// Format names the format in words: "flattened kdump-compressed v6, zlib",
// "ELF core (QEMU)".
func (c *Core) Format() string {
	var s string
	if c.inputs[0].flat != nil {
		s = "flattened "
	}
	if c.elf != nil {
		return s + "ELF core (" + c.origin() + ")"
	}
	h := c.kdump.files[0].kdumpHeader
	kind := "kdump-compressed"
	if h.diskdump {
		kind = "diskdump"
	}
	s += fmt.Sprintf("%s v%d, %s", kind, h.version, codecName(h.status))
	if n := len(c.inputs); n > 1 {
		s += fmt.Sprintf(", split in %d files", n)
	} else if h.split {
		s += ", one file of a split set"
	}
	return s
}

// origin names who wrote an ELF core, by its notes.
func (c *Core) origin() string {
	n := c.loadNotes()
	switch {
	case n.kcore:
		return "/proc/kcore"
	case len(n.cpus) > 0 && n.cpus[0].QEMU != nil:
		return "QEMU"
	case n.vmcoreinfo != "":
		return "kdump"
	}
	return "unknown writer"
}
