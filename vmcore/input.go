package vmcore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// A File is one file of a dump.
type File struct {
	Name string // for messages
	R    io.ReaderAt
	Size int64 // in bytes; -1 if unknown
}

// An input is one file of a dump with the flattened form undone.
type input struct {
	name   string
	r      io.ReaderAt
	size   int64     // of the rearranged file; -1 if unknown
	stored int64     // bytes really there, an upper bound for anything sized by a header; -1 if unknown
	flat   *flat     // nil if not flattened
	closer io.Closer // nil if the caller owns the file
	live   bool      // the content changes: /proc/kcore
}

// openPath opens a path of the file system.
func openPath(path string) (*input, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("is a directory")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	file := File{Name: path, R: f, Size: -1}
	live := onProc(f)
	if st.Mode().IsRegular() && !live {
		file.Size = st.Size()
	}
	in, err := newInput(file)
	if err != nil {
		f.Close()
		return nil, err
	}
	in.closer, in.live = f, live
	if live {
		in.r = &oneAtATime{r: in.r}
	}
	return in, nil
}

// oneAtATime lets one read be under way. Before 2e1c0170771e (6.4) all reads
// of an open /proc/kcore went through one buffer, and took each other's bytes.
type oneAtATime struct {
	mu sync.Mutex
	r  io.ReaderAt
}

// ReadAt implements [io.ReaderAt].
func (o *oneAtATime) ReadAt(p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.r.ReadAt(p, off)
}

// newInput looks at the first bytes of a file and indexes it if it is
// flattened.
func newInput(f File) (*input, error) {
	in := &input{name: f.Name, r: f.R, size: f.Size, stored: f.Size}
	head, err := in.head()
	if err != nil {
		return nil, err
	}
	if !isFlat(head) {
		return in, nil
	}
	in.flat = openFlat(f.R, f.Size)
	var fe *FormatError
	if errors.As(in.flat.err, &fe) {
		fe.File = f.Name
	}
	in.r, in.size, in.stored = in.flat, in.flat.size, in.flat.data
	return in, nil
}

// head returns the first bytes of the file, as many as there are.
func (in *input) head() ([]byte, error) {
	head := make([]byte, 1024)
	n, err := in.r.ReadAt(head, 0)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", in.name, err)
	}
	return head[:n], nil
}

// readAt fills p from offset off. The error is a *FormatError that says what
// was to be read.
func (in *input) readAt(p []byte, off int64, what string) error {
	n, err := in.readSome(p, off)
	if n == len(p) {
		return nil
	}
	return in.errorAt(off+int64(n), what, err)
}

// readSome reads up to len(p) bytes; err says why there are fewer, and is
// io.ErrUnexpectedEOF at the end of the file.
func (in *input) readSome(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) < off {
		return 0, errRange
	}
	n, err := in.r.ReadAt(p, off)
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// errorAt makes a *FormatError of this file.
func (in *input) errorAt(off int64, what string, err error) *FormatError {
	return &FormatError{File: in.name, Offset: off, What: what, Err: err}
}

// has reports whether n bytes at off can lie within the file, as far as that
// can be known: n never exceeds what is stored.
func (in *input) has(off, n int64) bool {
	if off < 0 || n < 0 || off+n < off {
		return false
	}
	if in.size >= 0 && off+n > in.size {
		return false
	}
	return in.stored < 0 || n <= in.stored
}

// close closes the file if this package opened it.
func (in *input) close() error {
	if in.closer == nil {
		return nil
	}
	return in.closer.Close()
}

// A magic tells a kind of file by its first bytes.
type magic struct {
	off   int
	bytes string
	found string
}

// otherFiles are the kinds of file that get mistaken for crash dumps.
var otherFiles = [...]magic{
	{0, "\x1f\x8b", "gzip-compressed; decompress it first"},
	{0, "\xfd7zXZ\x00", "xz-compressed; decompress it first"},
	{0, "\x28\xb5\x2f\xfd", "zstd-compressed; decompress it first"},
	{0, "BZh", "bzip2-compressed; decompress it first"},
	{0, "\x04\x22\x4d\x18", "lz4-compressed; decompress it first"},
	{0, "\x89LZO\x00", "lzop-compressed; decompress it first"},
	{0, "PK\x03\x04", "a zip archive; unpack it first"},
	{257, "ustar", "a tar archive; unpack it first"},
	{0, "LUKS\xba\xbe", "a LUKS-encrypted volume; open it with cryptsetup first"},
	{0, "QFI\xfb", "a qcow2 disk image"},
	{0, "QEVM", "a QEMU migration stream; use dump-guest-memory instead"},
	{0, "LibvirtQemudSave", "a libvirt save image; use `virsh dump --memory-only` instead"},
	{0, "LibvirtQemudPart", "an unfinished libvirt save image"},
	{0, "PAGEDU64", "a Windows crash dump"},
	{0, "PAGEDUMP", "a Windows crash dump"},
	{0, "\xed\x8f\x23\x61\x73\x01\x19\xa8", "an LKCD dump"},
	{0, "makedumpfile\x00", "an unknown version of makedumpfile's flattened form"},
	{0x202, "HdrS", "a kernel image, not a dump of its memory"},
}

// notDump says what a file is that has none of our signatures.
func (in *input) notDump(head []byte) error {
	e := &NotDumpError{File: in.name}
	if len(head) == 0 {
		e.Found = "the file is empty"
	}
	for _, m := range otherFiles {
		if len(head) > m.off && bytes.HasPrefix(head[m.off:], []byte(m.bytes)) {
			e.Found = m.found
			break
		}
	}
	return e
}
