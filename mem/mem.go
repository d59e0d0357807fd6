// Package mem is the one memory interface of ksleuth: dumps, live kernels,
// overlays and page-table walkers all implement [Reader], and a read that
// cannot be served says why with a [Fault].
package mem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A Reader gives access to one address space of a target, physical or virtual.
//
// ReadMem fills p with the memory at addr. It returns nil only if all of p was
// filled; otherwise the error is, or wraps, a [*Fault] whose Addr is the first
// address that could not be read, and the bytes of p before that address are
// valid. Implementations are safe for concurrent use.
type Reader interface {
	ReadMem(p []byte, addr uint64) error
}

// A Cause says why memory could not be read.
type Cause uint8

// The causes a read can fail for.
const (
	Unmapped  Cause = iota + 1 // no page table entry, or no such physical memory
	Excluded                   // the dump's writer left the page out (makedumpfile -d)
	Truncated                  // the dump ends before the page
	Damaged                    // the file contradicts itself: bad offset, bad compressed data
	Denied                     // the kernel or the file system refused the read
	IO                         // the underlying file returned an error
)

var causes = [...]string{
	Unmapped:  "not mapped",
	Excluded:  "excluded from the dump",
	Truncated: "missing: the dump is incomplete",
	Damaged:   "damaged in the dump",
	Denied:    "not permitted",
	IO:        "read error",
}

// String returns the cause in words, fit for the end of a sentence.
func (c Cause) String() string {
	if int(c) < len(causes) && causes[c] != "" {
		return causes[c]
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// A Space names the address space of a [Fault].
type Space uint8

// The address spaces.
const (
	Virtual Space = iota
	Physical
)

// String returns "virtual" or "physical".
func (s Space) String() string {
	if s == Physical {
		return "physical"
	}
	return "virtual"
}

// A Fault is the error of a read that could not be served.
type Fault struct {
	Space Space
	Addr  uint64 // first address that could not be read
	Cause Cause
	Err   error // what lies below: file and offset, page-table level; may be nil
}

// Error says which address could not be read and why.
func (f *Fault) Error() string {
	s := fmt.Sprintf("%s address %#x: %s", f.Space, f.Addr, f.Cause)
	if f.Err != nil {
		s += " (" + f.Err.Error() + ")"
	}
	return s
}

// Unwrap returns what lies below the fault.
func (f *Fault) Unwrap() error { return f.Err }

// CauseOf returns the cause of the outermost [Fault] in err's chain, or 0.
func CauseOf(err error) Cause {
	var f *Fault
	if errors.As(err, &f) {
		return f.Cause
	}
	return 0
}

// U8 reads one byte.
func U8(r Reader, addr uint64) (uint8, error) {
	var b [1]byte
	err := r.ReadMem(b[:], addr)
	return b[0], err
}

// U16 reads a little-endian 16-bit word.
func U16(r Reader, addr uint64) (uint16, error) {
	var b [2]byte
	err := r.ReadMem(b[:], addr)
	return binary.LittleEndian.Uint16(b[:]), err
}

// U32 reads a little-endian 32-bit word.
func U32(r Reader, addr uint64) (uint32, error) {
	var b [4]byte
	err := r.ReadMem(b[:], addr)
	return binary.LittleEndian.Uint32(b[:]), err
}

// U64 reads a little-endian 64-bit word.
func U64(r Reader, addr uint64) (uint64, error) {
	var b [8]byte
	err := r.ReadMem(b[:], addr)
	return binary.LittleEndian.Uint64(b[:]), err
}

// Bytes reads n bytes. It allocates n bytes before reading, so n must come
// from the program or be checked against a limit by the caller.
func Bytes(r Reader, addr uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := r.ReadMem(b, addr); err != nil {
		return nil, err
	}
	return b, nil
}

// CString reads a NUL-terminated string of at most limit bytes. A string
// without a NUL within limit bytes is returned cut at limit. What was read
// before a fault is returned with the fault.
func CString(r Reader, addr uint64, limit int) (string, error) {
	var out []byte
	for len(out) < limit {
		// Up to the next 64-byte boundary: a chunk never crosses a page,
		// so a string at the end of readable memory is still read whole.
		n := min(64-int(addr%64), limit-len(out))
		chunk := make([]byte, n)
		err := r.ReadMem(chunk, addr)
		if err != nil {
			var f *Fault
			if !errors.As(err, &f) || f.Addr-addr > uint64(n) {
				return string(out), err
			}
			chunk = chunk[:f.Addr-addr]
		}
		if i := bytes.IndexByte(chunk, 0); i >= 0 {
			return string(append(out, chunk[:i]...)), nil
		}
		if out = append(out, chunk...); err != nil {
			return string(out), err
		}
		addr += uint64(n)
	}
	return string(out), nil
}

// A ReaderAt adapts a [Reader] to [io.ReaderAt] for the window of memory that
// starts at Base: offset 0 of the ReaderAt is address Base.
type ReaderAt struct {
	Mem  Reader
	Base uint64
}

// ReadAt implements [io.ReaderAt].
func (r ReaderAt) ReadAt(p []byte, off int64) (int, error) {
	addr := r.Base + uint64(off)
	if err := r.Mem.ReadMem(p, addr); err != nil {
		var f *Fault
		if errors.As(err, &f) && f.Addr-addr < uint64(len(p)) {
			return int(f.Addr - addr), err
		}
		return 0, err
	}
	return len(p), nil
}

// A Snapshot is a Reader over a few bytes held in memory, at address Base. It
// serves registers, tests and snapshots.
type Snapshot struct {
	Base uint64
	Data []byte
}

// ReadMem implements [Reader].
func (w Snapshot) ReadMem(p []byte, addr uint64) error {
	off := addr - w.Base
	if addr < w.Base || off >= uint64(len(w.Data)) {
		return &Fault{Addr: addr, Cause: Unmapped}
	}
	if n := copy(p, w.Data[off:]); n < len(p) {
		return &Fault{Addr: addr + uint64(n), Cause: Unmapped}
	}
	return nil
}
