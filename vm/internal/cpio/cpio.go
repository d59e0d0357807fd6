// Package cpio writes archives in the "newc" format, the one the kernel
// unpacks as its initramfs (Documentation/driver-api/early-userspace/
// buffer-format.rst).
package cpio

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// File type bits of the mode field (S_IFMT).
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
	modeChar    = 0o020000
)

// A Writer writes one archive. Parent directories are created as needed, and
// times and owners are zero, so that equal contents give equal bytes. The
// first error is kept and returned by Close.
type Writer struct {
	w    io.Writer
	pos  int64
	ino  uint32
	dirs map[string]bool
	err  error
}

// NewWriter returns a writer of an archive to w. The caller must Close it.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, dirs: make(map[string]bool)}
}

// Dir adds a directory and its parents.
func (w *Writer) Dir(name string) {
	name = clean(name)
	if name == "" || w.dirs[name] {
		return
	}
	w.dirs[name] = true
	w.Dir(path.Dir(name))
	w.entry(name, modeDir|0o755, 0, 0, 0, nil)
}

// File adds a regular file of the size bytes that r yields.
func (w *Writer) File(name string, perm fs.FileMode, size int64, r io.Reader) {
	if size < 0 || size > math.MaxUint32 {
		w.fail(fmt.Errorf("%s: %d bytes do not fit a cpio archive", name, size))
		return
	}
	w.Dir(path.Dir(clean(name)))
	w.entry(clean(name), modeRegular|uint32(perm.Perm()), uint32(size), 0, 0, r)
}

// Symlink adds a symbolic link to target.
func (w *Writer) Symlink(name, target string) {
	w.Dir(path.Dir(clean(name)))
	w.entry(clean(name), modeSymlink|0o777, uint32(len(target)), 0, 0, strings.NewReader(target))
}

// CharDevice adds a character device node.
func (w *Writer) CharDevice(name string, perm fs.FileMode, major, minor uint32) {
	w.Dir(path.Dir(clean(name)))
	w.entry(clean(name), modeChar|uint32(perm.Perm()), 0, major, minor, nil)
}

// Close writes the trailer and returns the first error of all calls.
func (w *Writer) Close() error {
	w.entry("TRAILER!!!", 0, 0, 0, 0, nil)
	return w.err
}

// clean makes a name relative to the root of the archive; the root is "".
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func (w *Writer) entry(name string, mode, size, major, minor uint32, r io.Reader) {
	if w.err != nil {
		return
	}
	w.ino++
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor,
	// devminor, rdevmajor, rdevminor, namesize, check
	fields := [...]uint32{w.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, uint32(len(name) + 1), 0}
	header := "070701"
	for _, f := range fields {
		header += fmt.Sprintf("%08x", f)
	}
	w.write([]byte(header + name + "\x00"))
	w.pad()
	if r != nil && w.err == nil {
		n, err := io.Copy(w.w, io.LimitReader(r, int64(size)))
		w.pos += n
		if err == nil && n < int64(size) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			w.fail(fmt.Errorf("%s: %w", name, err))
		}
	}
	w.pad()
}

// pad aligns to 4 bytes, as the kernel expects after a name and after data.
func (w *Writer) pad() {
	w.write(make([]byte, (4-w.pos%4)%4))
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.pos += int64(n)
	w.fail(err)
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
