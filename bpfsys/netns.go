//go:build linux

package bpfsys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A netns is a network namespace that can be entered.
type netns struct {
	ino uint64
	fd  int
	own bool // of this process
}

// maxNetns bounds the namespaces looked into; each costs a descriptor.
const maxNetns = 4096

// openNetns finds the network namespaces of the processes, those that they have
// descriptors of, among fds, and those mounted somewhere ("ip netns add").
// Close them with closeNetns.
func openNetns(ctx context.Context, fds []procFD) ([]netns, error) {
	own, err := openNS("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	own.own = true
	all, seen := []netns{own}, map[uint64]bool{own.ino: true}
	add := func(path string) {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || seen[st.Ino] || len(all) == maxNetns {
			return
		}
		if n, err := openNS(path); err == nil && !seen[n.ino] {
			seen[n.ino] = true
			all = append(all, n)
		}
	}
	pids, err := processes()
	if err != nil {
		return all, err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		add("/proc/" + strconv.Itoa(pid) + "/ns/net")
	}
	for _, f := range fds {
		if f.kind == netnsFD && !seen[uint64(f.id)] {
			add(fmt.Sprintf("/proc/%d/fd/%d", f.pid, f.fd))
		}
	}
	mounts, err := places(ctx, "nsfs")
	for _, m := range mounts {
		add(m.path)
	}
	return all, err
}

// openNS opens a network namespace; what else is mounted is refused.
func openNS(path string) (netns, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return netns{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return netns{}, err
	}
	if typ, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		unix.Close(fd)
		return netns{}, fmt.Errorf("%s is no network namespace", path)
	}
	return netns{ino: st.Ino, fd: fd}, nil
}

func closeNetns(all []netns) {
	for _, n := range all {
		unix.Close(n.fd)
	}
}

// do calls fn on a thread that is in the namespace.
func (n netns) do(fn func() error) error {
	if n.own {
		return fn()
	}
	done := make(chan error)
	go n.enter(fn, done)
	return <-done
}

// enter locks the goroutine to its thread and does not unlock it: the thread
// ends with the goroutine, so that nothing else ever runs in the namespace. All
// but the first thread: that one stays, and is what /proc/self shows.
func (n netns) enter(fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// As long as this one is locked to it the other gets another thread.
		inner := make(chan error)
		go n.enter(fn, inner)
		done <- <-inner
		runtime.UnlockOSThread()
		return
	}
	err := unix.Setns(n.fd, unix.CLONE_NEWNET)
	switch {
	case errors.Is(err, unix.EPERM):
		err = &PermissionError{fmt.Sprintf("entering network namespace %d", n.ino), "CAP_SYS_ADMIN", err}
	case err != nil:
		err = fmt.Errorf("entering network namespace %d: %w", n.ino, err)
	default:
		err = fn()
	}
	done <- err
}
