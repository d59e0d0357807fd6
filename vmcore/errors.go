package vmcore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ksleuth/ksleuth/mem"
)

// ErrNotDump is what [errors.Is] finds when a file is no crash dump at all.
var ErrNotDump = errors.New("not a crash dump")

// A NotDumpError says what a file is instead of a crash dump. It is an
// [ErrNotDump].
type NotDumpError struct {
	File  string
	Found string // what the file is, with advice: "gzip-compressed; decompress it first"; may be empty
}

// Error names the file and what it is.
func (e *NotDumpError) Error() string {
	s := e.File + ": " + ErrNotDump.Error()
	if e.Found != "" {
		s += ": " + e.Found
	}
	return s
}

// Is reports whether target is [ErrNotDump].
func (e *NotDumpError) Is(target error) bool { return target == ErrNotDump }

// An ArchError reports a crash dump of a machine other than x86-64.
type ArchError struct {
	File    string
	Machine string // as the dump names it: "aarch64", "ELF machine 183"
}

// Error names the file and the machine.
func (e *ArchError) Error() string {
	return fmt.Sprintf("%s: a crash dump of %s; only x86_64 is supported", e.File, e.Machine)
}

// A FormatError says which bytes of a dump file are wrong or missing.
type FormatError struct {
	File   string
	Offset int64  // in the file; in the rearranged file where the dump is flattened
	What   string // what should be there: "page descriptor"
	Err    error  // why it is not: io.ErrUnexpectedEOF if the file ends before; may be nil
}

// Error names file, offset, what should be there, and what is wrong.
func (e *FormatError) Error() string {
	s := fmt.Sprintf("%s: offset %#x: %s", e.File, e.Offset, e.What)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns what is wrong.
func (e *FormatError) Unwrap() error { return e.Err }

// errRange is the cause of offsets that no file can have.
var errRange = errors.New("offset or size out of range")

// causeOf says what a failed read of a dump file means for the memory that was
// to come from there.
func causeOf(err error) mem.Cause {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return mem.Truncated
	case errors.Is(err, fs.ErrPermission):
		return mem.Denied
	case errors.Is(err, errRange):
		return mem.Damaged
	}
	return mem.IO
}

// fault makes the error of a read of physical memory.
func fault(addr uint64, cause mem.Cause, err error) *mem.Fault {
	return &mem.Fault{Space: mem.Physical, Addr: addr, Cause: cause, Err: err}
}
