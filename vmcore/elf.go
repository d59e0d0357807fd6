package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ksleuth/ksleuth/mem"
)

// What of ELF a core file uses; see elf(5).
const (
	elfMagic     = "\x7fELF"
	elfHeader    = 64 // Elf64_Ehdr
	elfProgram   = 56 // Elf64_Phdr
	elfClass64   = 2
	elfLSB       = 1
	etCore       = 4
	emX86        = 3
	emX8664      = 62
	ptLoad       = 1
	ptNote       = 4
	pnXnum       = 0xffff // the number is in sh_info of section 0
	noPhys       = math.MaxUint64
	elfShInfoOff = 44
)

// A Segment is a PT_LOAD program header of an ELF core.
type Segment struct {
	Virt     uint64 // virtual address; 0 where the writer did not know it (QEMU without paging)
	Phys     uint64 // physical address, if HasPhys
	HasPhys  bool
	Offset   int64  // in the file
	FileSize uint64 // bytes in the file
	MemSize  uint64 // bytes of memory; those beyond FileSize were left out
}

// An elfCore is a dump in the form of an ELF core file.
type elfCore struct {
	in       *input
	segments []Segment
	notes    []region
	phys     []span // by physical address
	virt     []span // by virtual address
	problems []error
}

// openELF reads the program headers.
func openELF(in *input, head []byte) (*elfCore, error) {
	if err := checkELF(in, head); err != nil {
		return nil, err
	}
	e := &elfCore{in: in}
	le := binary.LittleEndian
	phoff, entry, n := int64(le.Uint64(head[32:])), le.Uint16(head[54:]), uint64(le.Uint16(head[56:]))
	if entry != elfProgram {
		return nil, in.errorAt(54, "program header size", fmt.Errorf("%w: %d", errRange, entry))
	}
	if n == pnXnum {
		var b [4]byte
		shoff := int64(le.Uint64(head[40:]))
		if shoff <= 0 || shoff > math.MaxInt64-elfHeader {
			return nil, in.errorAt(40, "section headers", fmt.Errorf("%w: %#x", errRange, shoff))
		}
		if err := in.readAt(b[:], shoff+elfShInfoOff, "number of program headers"); err != nil {
			return nil, err
		}
		n = uint64(le.Uint32(b[:]))
	}
	if err := e.readSegments(phoff, n); err != nil {
		return nil, err
	}
	e.dropFalsePhys()
	e.index()
	e.checkSize()
	return e, nil
}

// checkELF tells a core of x86-64 from everything else that is ELF.
func checkELF(in *input, head []byte) error {
	if len(head) < elfHeader {
		return in.errorAt(int64(len(head)), "ELF header", io.ErrUnexpectedEOF)
	}
	if head[5] != elfLSB {
		return &ArchError{in.name, "a big-endian machine"}
	}
	typ, machine := binary.LittleEndian.Uint16(head[16:]), binary.LittleEndian.Uint16(head[18:])
	switch {
	case typ != etCore:
		return &NotDumpError{in.name, "an ELF file, but no core: an executable, a module or vmlinux"}
	case machine == emX86:
		return &ArchError{in.name, "a 32-bit x86"}
	case machine != emX8664:
		return &ArchError{in.name, fmt.Sprintf("ELF machine %d", machine)}
	case head[4] != elfClass64:
		return &ArchError{in.name, "a 32-bit x86"}
	}
	return nil
}

// readSegments reads n program headers in pieces, so that a count that the
// file does not back costs nothing. What comes before the end of a truncated
// file is kept.
func (e *elfCore) readSegments(off int64, n uint64) error {
	const piece = 1024
	for i := uint64(0); i < n; i += piece {
		b := make([]byte, min(n-i, piece)*elfProgram)
		at := off + int64(i)*elfProgram
		got, err := e.in.readSome(b, at)
		for p := b[:got]; len(p) >= elfProgram; p = p[elfProgram:] {
			e.addSegment(p, at+int64(got-len(p)))
		}
		if got < len(b) {
			err := e.in.errorAt(at+int64(got), "program header", err)
			if len(e.segments) == 0 {
				return err
			}
			e.problems = append(e.problems, err)
			break
		}
	}
	if len(e.segments) == 0 {
		return e.in.errorAt(off, "program headers", errors.New("no memory in this core"))
	}
	return nil
}

// addSegment takes in one program header.
func (e *elfCore) addSegment(b []byte, at int64) {
	le := binary.LittleEndian
	off := int64(le.Uint64(b[8:]))
	s := Segment{Virt: le.Uint64(b[16:]), Phys: le.Uint64(b[24:]), Offset: off,
		FileSize: le.Uint64(b[32:]), MemSize: le.Uint64(b[40:])}
	switch le.Uint32(b) {
	case ptNote:
		e.notes = append(e.notes, region{off, int64(min(s.FileSize, math.MaxInt64))})
	case ptLoad:
		s.MemSize = max(s.MemSize, s.FileSize)
		s.HasPhys = s.Phys != noPhys
		if s.FileSize > 0 && (off < 0 || s.FileSize > math.MaxInt64 || off+int64(s.FileSize) < off) ||
			s.HasPhys && s.Phys+s.MemSize < s.Phys {
			e.problems = append(e.problems, e.in.errorAt(at, "program header", errRange))
			return
		}
		e.segments = append(e.segments, s)
	}
}

// dropFalsePhys drops physical addresses that are none: /proc/kcore filled in
// zeros before 4.11 (464920104bf7), and -1 for vmalloc since.
func (e *elfCore) dropFalsePhys() {
	if len(e.segments) < 2 {
		return
	}
	for _, s := range e.segments {
		if s.HasPhys && s.Phys != 0 {
			return
		}
	}
	for i := range e.segments {
		e.segments[i].HasPhys = false
	}
	e.problems = append(e.problems, e.in.errorAt(0, "program headers", errors.New("no physical addresses")))
}

// index builds the spans. Memory that one segment left out may be in another.
func (e *elfCore) index() {
	for _, s := range e.segments {
		if s.HasPhys {
			e.phys = append(e.phys, span{s.Phys + s.FileSize, s.Phys + s.MemSize, noFile})
		}
	}
	for _, s := range e.segments {
		if s.HasPhys {
			e.phys = append(e.phys, span{s.Phys, s.Phys + s.FileSize, s.Offset})
		}
		if s.Virt != 0 && s.Virt+s.FileSize >= s.Virt {
			e.virt = append(e.virt, span{s.Virt, s.Virt + s.FileSize, s.Offset})
		}
	}
	e.phys, e.virt = resolve(e.phys), resolve(e.virt)
}

// checkSize notes the first segment that the file does not hold whole.
func (e *elfCore) checkSize() {
	if e.in.size < 0 {
		return
	}
	for _, s := range e.segments {
		if s.FileSize > 0 && s.Offset+int64(s.FileSize) > e.in.size {
			e.problems = append(e.problems, e.in.errorAt(e.in.size,
				fmt.Sprintf("segment of physical address %#x", s.Phys), io.ErrUnexpectedEOF))
			return
		}
	}
}

// read fills p from one of the span tables.
func (e *elfCore) read(p []byte, addr uint64, spans []span, space mem.Space) error {
	for i := find(spans, addr); len(p) > 0; i++ {
		if i == len(spans) || spans[i].start > addr {
			return &mem.Fault{Space: space, Addr: addr, Cause: mem.Unmapped}
		}
		s := spans[i].from(addr)
		if s.file == noFile {
			return &mem.Fault{Space: space, Addr: addr, Cause: mem.Excluded,
				Err: e.in.errorAt(0, "program headers", errors.New("memory without file content"))}
		}
		n := int(min(uint64(len(p)), s.end-addr))
		got, err := e.in.readSome(p[:n], s.file)
		if got < n {
			err := e.in.errorAt(s.file+int64(got), "memory", err)
			return &mem.Fault{Space: space, Addr: addr + uint64(got), Cause: causeOf(err), Err: err}
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// page fills dst with a page frame; the error is a *mem.Fault.
func (e *elfCore) page(dst []byte, pfn uint64) error {
	return e.read(dst, pfn<<pageShift, e.phys, mem.Physical)
}

// bulk fills p straight from the file.
func (e *elfCore) bulk(p []byte, addr uint64) error {
	return e.read(p, addr, e.phys, mem.Physical)
}

// warnings says what is wrong with the file.
func (e *elfCore) warnings() []error { return e.problems }

// ranges returns the physical memory that exists.
func (e *elfCore) ranges() ([]Range, error) {
	var out []Range
	for _, s := range e.phys {
		if n := len(out); n > 0 && out[n-1].End == s.start {
			out[n-1].End = s.end
		} else {
			out = append(out, Range{s.start, s.end})
		}
	}
	return out, nil
}

// stored returns the physical memory that has content in the file.
func (e *elfCore) stored() ([]Range, error) {
	var out []Range
	for _, s := range e.phys {
		end := s.end
		if e.in.size >= 0 {
			end = min(end, s.start+uint64(max(e.in.size-s.file, 0)))
		}
		if s.file != noFile && end > s.start {
			out = append(out, Range{s.start, end})
		}
	}
	return out, nil
}

// noteRegions returns the PT_NOTE segments.
func (e *elfCore) noteRegions() []noteRegion {
	out := make([]noteRegion, len(e.notes))
	for i, r := range e.notes {
		out[i] = noteRegion{e.in, r, false}
	}
	return out
}

// An elfVirtual reads by the virtual addresses of the program headers.
type elfVirtual struct{ e *elfCore }

// ReadMem implements [mem.Reader].
func (v elfVirtual) ReadMem(p []byte, addr uint64) error {
	return v.e.read(p, addr, v.e.virt, mem.Virtual)
}

// splitELF reports that ELF cores do not come as split sets.
func splitELF(inputs []*input) error {
	names := make([]string, len(inputs))
	for i, in := range inputs {
		names[i] = in.name
	}
	return inputs[0].errorAt(0, "split set", fmt.Errorf("an ELF core is not split, but %d files were given: %q", len(names), names))
}

// isELF reports whether head starts an ELF file.
func isELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elfMagic)) }
