//go:build linux

package bpfsys

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// A PermissionError says what the caller may not do and what would permit it.
// It wraps [fs.ErrPermission].
type PermissionError struct {
	Op         string // what was refused: "bpf(BPF_PROG_GET_NEXT_ID)"
	Capability string // what it takes: "CAP_SYS_ADMIN"
	Err        error  // the kernel's answer
}

// Error names the operation and the capability.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("%s: %v: needs %s", e.Op, e.Err, e.Capability)
}

// Unwrap returns the kernel's answer and [fs.ErrPermission].
func (e *PermissionError) Unwrap() []error { return []error{fs.ErrPermission, e.Err} }

// An UnsupportedError says that the kernel lacks an operation. It wraps
// [errors.ErrUnsupported].
type UnsupportedError struct {
	Op   string // what it lacks: "bpf(BPF_LINK_GET_NEXT_ID)"
	Need string // what would have it: "Linux 5.8 (a3b80e107894)"
	Err  error  // the kernel's answer; nil if it was not asked
}

// Error names the operation and what would have it.
func (e *UnsupportedError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: needs %s", e.Op, e.Need)
	}
	return fmt.Sprintf("%s: %v: needs %s", e.Op, e.Err, e.Need)
}

// Unwrap returns the kernel's answer and [errors.ErrUnsupported].
func (e *UnsupportedError) Unwrap() []error {
	if e.Err == nil {
		return []error{errors.ErrUnsupported}
	}
	return []error{errors.ErrUnsupported, e.Err}
}

// A NotFoundError says that there is no object of an id (any more). It wraps
// [fs.ErrNotExist].
type NotFoundError struct {
	Kind string // prog, map, link, btf
	ID   int
}

// Error names the object.
func (e *NotFoundError) Error() string { return fmt.Sprintf("no BPF %s with id %d", e.Kind, e.ID) }

// Unwrap returns [fs.ErrNotExist].
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// A LimitError says that the process may not have the few descriptors that it
// takes to look at objects. It wraps EMFILE or ENFILE.
type LimitError struct {
	Kind  string
	Held  int    // objects held
	Limit uint64 // descriptors that the process may have
	Err   error
}

// Error says how many objects are held and what the limit is.
func (e *LimitError) Error() string {
	return fmt.Sprintf("only %d BPF %ss could be held: %v; the limit is %d descriptors (RLIMIT_NOFILE)", e.Held, e.Kind, e.Err, e.Limit)
}

// Unwrap returns the kernel's answer.
func (e *LimitError) Unwrap() error { return e.Err }

// enotsupp is the kernel's internal ENOTSUPP, which BPF lets out to user space
// (include/linux/errno.h).
const enotsupp = unix.Errno(524)

// unsupported: a command, map operation or attach type that the kernel does
// not know gives one of these.
func unsupported(err error) bool {
	for _, e := range []error{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, enotsupp} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// classify types the refusals that every use of a command can meet.
func classify(c command, err error) error {
	op := "bpf(" + commands[c].name + ")"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return &PermissionError{op, commands[c].capability, err}
	case errors.Is(err, unix.ENOSYS):
		return &UnsupportedError{op, "a kernel with CONFIG_BPF_SYSCALL", err}
	case errors.Is(err, unix.EINVAL) && commands[c].since != "":
		return &UnsupportedError{op, commands[c].since, err}
	}
	return fmt.Errorf("%s: %w", op, err)
}
