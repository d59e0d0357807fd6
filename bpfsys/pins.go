//go:build linux

package bpfsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/kernel"
)

// Limits on the files looked at.
const (
	maxPinDepth = 64
	maxPins     = 1 << 20
)

// Pins returns the paths that keep BPF objects, by the kind (prog, map, link)
// and the id of the object. It looks through every mounted BPF file system,
// of other mount namespaces by /proc/PID/root. With an error comes what was
// found.
func Pins(ctx context.Context) (map[string]map[int][]string, error) {
	mounts, err := places(ctx, "bpf")
	w := &pinWalk{ctx: ctx, pins: make(map[string]map[int][]string)}
	w.errs.Add(err)
	// Of a place that is covered by another mount only what is on top is seen.
	seen := make(map[string]bool)
	for _, m := range mounts {
		if !seen[m.path] {
			seen[m.path] = true
			w.tree(m.path)
		}
	}
	for _, byID := range w.pins {
		for _, paths := range byID {
			slices.Sort(paths)
		}
	}
	return w.pins, w.errs.Err()
}

type pinWalk struct {
	ctx  context.Context
	pins map[string]map[int][]string
	errs kernel.Errors
	n    int
}

// tree walks what is mounted at path, if it is a BPF file system.
func (w *pinWalk) tree(path string) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.failed(path, err)
		return
	}
	defer unix.Close(dir)
	var on unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(dir, &on), unix.Fstat(dir, &st)); err != nil {
		w.failed(path, err)
		return
	}
	if on.Type == unix.BPF_FS_MAGIC {
		w.dir(dir, path, st.Dev, 0)
	}
}

// failed notes an error, unless the file or the process it was seen by is gone.
func (w *pinWalk) failed(path string, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
	case errors.Is(err, fs.ErrPermission):
		w.errs.Add(&PermissionError{"looking for pinned objects in " + path, "permission to read it", err})
	default:
		w.errs.Add(fmt.Errorf("pinned objects: %s: %w", path, err))
	}
}

// dir walks a directory of a BPF file system, which stays on it: other file
// systems mounted there are left out, and symbolic links not followed.
func (w *pinWalk) dir(fd int, path string, dev uint64, depth int) {
	if depth > maxPinDepth {
		w.errs.Add(fmt.Errorf("pinned objects: %s: more than %d directories deep", path, maxPinDepth))
		return
	}
	buf := make([]byte, 8<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			w.failed(path, err)
			return
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	for _, name := range names {
		if w.n++; w.n > maxPins || w.ctx.Err() != nil || w.errs.TooMany() {
			w.errs.Add(w.ctx.Err())
			return
		}
		at := path + "/" + name
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			w.failed(at, err)
			continue
		}
		if st.Dev != dev {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				w.failed(at, err)
				continue
			}
			w.dir(sub, at, dev, depth+1)
			unix.Close(sub)
		case unix.S_IFREG:
			w.pin(at)
		}
	}
}

// pin notes which object a file keeps.
func (w *pinWalk) pin(path string) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return
	}
	fd, err := call(objGet, &attrObjGet{path: unsafe.Pointer(p)})
	if err != nil {
		w.failed(path, err)
		return
	}
	defer unix.Close(fd)
	kind, id, err := identify(fd)
	if err != nil {
		w.failed(path, err)
		return
	}
	byID := w.pins[kind]
	if byID == nil {
		byID = make(map[int][]string)
		w.pins[kind] = byID
	}
	byID[id] = append(byID[id], path)
}

// inodeKinds are the kinds of objects by the names of their files.
var inodeKinds = map[string]string{
	"anon_inode:bpf-prog": "prog", "anon_inode:bpf-map": "map",
	"anon_inode:bpf-link": "link", "anon_inode:bpf_link": "link",
}

// identify tells what a descriptor of this process stands for.
func identify(fd int) (string, int, error) {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", 0, err
	}
	kind, ok := inodeKinds[name]
	if !ok {
		return "", 0, fmt.Errorf("an object of unknown kind: %s", name)
	}
	// The infos of these begin alike; the kernel copies no more than fits.
	var head struct{ typ, id uint32 }
	if _, err := info(fd, &head); err != nil {
		return "", 0, classify(objInfo, err)
	}
	return kind, int(head.id), nil
}
