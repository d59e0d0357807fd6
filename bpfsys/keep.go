//go:build linux

package bpfsys

import (
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/kernel"
)

// keepBatch is how many descriptors are open at most: so few that the process's
// table, of 64 at first, need not grow. For that the kernel waits for all CPUs
// in a process with threads (expand_fdtable), which takes longer than to
// describe hundreds of objects.
const keepBatch = 16

// A keeper keeps files from being freed. The first few are open; the others lie
// in messages on their way from one socket to another (unix(7), SCM_RIGHTS),
// which nobody receives. So there can be more than the process may have
// descriptors.
type keeper struct {
	open    []int
	sockets []int
	full    bool // no message can be sent: descriptors stay open
}

// add takes a descriptor over. It may be closed when add returns.
func (k *keeper) add(fd int) {
	if k.open = append(k.open, fd); len(k.open)%keepBatch != 0 || k.full {
		return
	}
	for try := 0; !k.send(); try++ {
		// The first socket, or the last one is full.
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil || try > 0 {
			k.full = true
			return
		}
		k.sockets = append(k.sockets, pair[0], pair[1])
	}
	for _, fd := range k.open {
		unix.Close(fd)
	}
	k.open = k.open[:0]
}

// send puts what is open into a message.
func (k *keeper) send() bool {
	if len(k.sockets) == 0 {
		return false
	}
	to := k.sockets[len(k.sockets)-1]
	return unix.Sendmsg(to, []byte{0}, unix.UnixRights(k.open...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == nil
}

// close lets go of all.
func (k *keeper) close() error {
	var errs kernel.Errors
	for _, fd := range append(k.open, k.sockets...) {
		errs.Add(unix.Close(fd))
	}
	*k = keeper{}
	return errs.Err()
}
