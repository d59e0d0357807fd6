//go:build linux

package bpfsys

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A procFD is a descriptor of interest that a process has.
type procFD struct {
	kind string // prog, map, link, btf; perf, netns
	id   int    // of the object; of a namespace the inode number; 0 for perf
	pid  int
	comm string
	fd   int
}

const perfFD, netnsFD = "perf", "netns"

// netnsLink begins the name of a network namespace's file.
const netnsLink = "net:["

// anonInodes are the names that the kernel gives the files (bpf_prog_new_fd and
// the like; both of links are in use), with the kind that fdinfo will tell.
var anonInodes = map[string]string{
	"anon_inode:bpf-prog": "prog", "anon_inode:bpf-map": "map", "anon_inode:bpf-link": "link",
	"anon_inode:bpf_link": "link", "anon_inode:btf": "btf", "anon_inode:[perf_event]": perfFD,
}

// scanFDs finds the descriptors of BPF objects, perf events and network
// namespaces that the processes have: all, or those of some kinds. Processes that end meanwhile are left
// out.
// With a [PermissionError], which says that some processes do not show their
// descriptors, comes what was read.
func scanFDs(ctx context.Context, kinds ...string) ([]procFD, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	workers := min(runtime.GOMAXPROCS(0), 4, len(pids))
	found, denied := make([][]procFD, workers), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			s := fdScanner{kinds: kinds, dirents: make([]byte, 16<<10)}
			for i := w; i < len(pids) && ctx.Err() == nil; i += workers {
				s.scan(pids[i])
			}
			found[w], denied[w] = s.found, s.denied
		})
	}
	wg.Wait()
	all := slices.Concat(found...)
	if err := ctx.Err(); err != nil {
		return all, err
	}
	for _, err := range denied {
		if err != nil {
			return all, &PermissionError{"reading /proc/PID/fd of other users' processes", "CAP_SYS_PTRACE", err}
		}
	}
	return all, nil
}

// processes lists the processes.
func processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// fdScanner looks through the descriptors of one process after the other.
type fdScanner struct {
	kinds   []string // nil for all
	dirents []byte
	names   []string
	link    [64]byte
	found   []procFD
	denied  error
}

// scan keeps the process's directory open: once the process is gone everything
// in it fails, and a process that gets its number is not mistaken for it.
func (s *fdScanner) scan(pid int) {
	path := "/proc/" + strconv.Itoa(pid)
	proc, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(proc)
	dir, err := unix.Openat(proc, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			s.denied = err
		}
		return
	}
	defer unix.Close(dir)
	var comm string
	var infos *fdinfo
	defer func() { infos.close() }()
	for {
		n, err := unix.ReadDirent(dir, s.dirents)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		_, _, s.names = unix.ParseDirent(s.dirents[:n], -1, s.names[:0])
		for _, name := range s.names {
			n, err := unix.Readlinkat(dir, name, s.link[:])
			if err != nil {
				continue
			}
			fd, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if ino, ok := bytes.CutPrefix(s.link[:n], []byte(netnsLink)); ok && s.wants(netnsFD) {
				ino, _ := strconv.Atoi(string(bytes.TrimSuffix(ino, []byte("]"))))
				s.found = append(s.found, procFD{pid: pid, fd: fd, kind: netnsFD, id: ino})
				continue
			}
			kind := anonInodes[string(s.link[:n])]
			if kind == "" || !s.wants(kind) {
				continue
			}
			if infos == nil {
				if infos, err = openFDInfoAt(proc, "fdinfo"); err != nil {
					return
				}
				comm = readComm(proc)
			}
			o := procFD{pid: pid, comm: comm, fd: fd, kind: kind}
			if kind != perfFD {
				text, err := infos.read(name)
				if err != nil {
					continue
				}
				if o.kind, o.id = objectOf(text); o.kind == "" {
					continue
				}
			}
			s.found = append(s.found, o)
		}
	}
}

func (s *fdScanner) wants(kind string) bool {
	return len(s.kinds) == 0 || slices.Contains(s.kinds, kind)
}

// objectOf tells by its fdinfo what a descriptor stands for. That of a link has
// the ids of its program and its map, too.
func objectOf(text fields) (string, int) {
	for _, kind := range [...]string{"link", "map", "prog", "btf"} {
		if _, ok := text.get(kind + "_id"); ok {
			return kind, int(text.uint(kind + "_id"))
		}
	}
	return "", 0
}

func readComm(proc int) string {
	fd, err := unix.Openat(proc, "comm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var buf [64]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil || n < 0 {
		return ""
	}
	return string(bytes.TrimSuffix(buf[:n], []byte("\n")))
}
