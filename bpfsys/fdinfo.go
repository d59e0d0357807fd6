//go:build linux

package bpfsys

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// fdinfo reads /proc/PID/fdinfo/FD, where the kernel says of an object what
// bpf(2) does not. It is not safe for concurrent use.
type fdinfo struct {
	dir  int
	path string
	buf  []byte
}

// openFDInfo opens that of this process. Close it.
func openFDInfo() (*fdinfo, error) {
	raiseLimit()
	f, err := openFDInfoAt(unix.AT_FDCWD, "/proc/self/fdinfo")
	if err != nil {
		err = &os.PathError{Op: "open", Path: "/proc/self/fdinfo", Err: err}
	}
	return f, err
}

func openFDInfoAt(at int, path string) (*fdinfo, error) {
	dir, err := unix.Openat(at, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &fdinfo{dir: dir, path: path, buf: make([]byte, 4096)}, nil
}

func (f *fdinfo) close() {
	if f != nil {
		unix.Close(f.dir)
	}
}

// read returns the text about a descriptor, good until the next call.
func (f *fdinfo) read(n string) (fields, error) {
	fd, err := unix.Openat(f.dir, n, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", f.path, n, err)
	}
	defer unix.Close(fd)
	used := 0
	for {
		got, err := unix.Read(fd, f.buf[used:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", f.path, n, err)
		}
		// The kernel prints it as one record: a read gives all that fits.
		if used += got; used < len(f.buf) || used >= maxFDInfo {
			return fields(f.buf[:used]), nil
		}
		f.buf = append(f.buf, make([]byte, len(f.buf))...)
	}
}

func (f *fdinfo) readFD(fd int) (fields, error) { return f.read(strconv.Itoa(fd)) }

// maxFDInfo bounds what is read of one descriptor: a link to 2^20 functions
// prints a line for each.
const maxFDInfo = 64 << 20

// fields is text of lines "key:\tvalue".
type fields []byte

// get returns the value of the first line with a key.
func (t fields) get(key string) (string, bool) {
	for line := range bytes.Lines(t) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok && len(rest) > 0 && rest[0] == ':' {
			return string(bytes.TrimSpace(rest[1:])), true
		}
	}
	return "", false
}

// uint is get for a number, 0 if there is none.
func (t fields) uint(key string) uint64 {
	s, _ := t.get(key)
	v, _ := strconv.ParseUint(s, 0, 64)
	return v
}
