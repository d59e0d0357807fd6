package probe

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/tracee"
)

// A PermissionError says that this process may not observe calls. It wraps
// [fs.ErrPermission].
type PermissionError struct {
	Op  string // what was refused
	Err error  // the kernel's answer
}

// Error says what it takes.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("%s: %v: needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN in the first user namespace", e.Op, e.Err)
}

// Unwrap returns the kernel's answer and [fs.ErrPermission].
func (e *PermissionError) Unwrap() []error { return []error{fs.ErrPermission, e.Err} }

// A LockdownError says that the kernel is locked down: BPF may not read its
// memory (kernel_lockdown(7)).
type LockdownError struct{ Err error }

// Error is one sentence.
func (e *LockdownError) Error() string {
	return fmt.Sprintf("the kernel is locked down for confidentiality, so no BPF program may read its memory (%v); boot without lockdown=confidentiality to observe calls", e.Err)
}

// Unwrap returns the kernel's answer and [fs.ErrPermission].
func (e *LockdownError) Unwrap() []error { return []error{fs.ErrPermission, e.Err} }

// An UnsupportedError says what this kernel lacks. It wraps
// [errors.ErrUnsupported].
type UnsupportedError struct {
	What string // what it lacks
	Need string // what has it
	Err  error  // the kernel's answer; may be nil
}

// Error names both.
func (e *UnsupportedError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("this kernel has no %s: needs %s", e.What, e.Need)
	}
	return fmt.Sprintf("this kernel has no %s: needs %s (%v)", e.What, e.Need, e.Err)
}

// Unwrap returns [errors.ErrUnsupported] and the kernel's answer.
func (e *UnsupportedError) Unwrap() []error {
	if e.Err == nil {
		return []error{errors.ErrUnsupported}
	}
	return []error{errors.ErrUnsupported, e.Err}
}

// A MemlockError says that the limit of locked memory is too low for the maps
// and programs (before 5.11, 4cb3d92cf9ea).
type MemlockError struct{ Err error }

// Error says what to do.
func (e *MemlockError) Error() string {
	return fmt.Sprintf("the limit of locked memory is too low for BPF maps: %v: raise it (ulimit -l unlimited), or run as root", e.Err)
}

// Unwrap returns the kernel's answer.
func (e *MemlockError) Unwrap() error { return e.Err }

// A PointError says why a function is not observed.
type PointError struct {
	Point int // index into Config.Points; -1 for what follows packets
	Err   error
}

// Error is the reason.
func (e PointError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e PointError) Unwrap() error { return e.Err }

// A NothingError says that nothing could be attached, and why not.
type NothingError struct{ Points []PointError }

// Error gives the first reason.
func (e *NothingError) Error() string {
	if len(e.Points) == 1 {
		return fmt.Sprintf("nothing could be attached: %v", e.Points[0].Err)
	}
	return fmt.Sprintf("nothing could be attached; the first of %d reasons: %v", len(e.Points), e.Points[0].Err)
}

// Unwrap returns the reasons.
func (e *NothingError) Unwrap() []error {
	out := make([]error, len(e.Points))
	for i, p := range e.Points {
		out[i] = p
	}
	return out
}

// A LoadError says that the verifier refused a program.
type LoadError struct {
	Func string // what was to be observed
	Err  error
	Log  string // the verifier's
}

// Error gives the verifier's last words.
func (e *LoadError) Error() string {
	last := e.Last()
	if last == "" {
		return fmt.Sprintf("load the program for %s: %v", e.Func, e.Err)
	}
	return fmt.Sprintf("load the program for %s: %v: %s", e.Func, e.Err, last)
}

// Last returns the verifier's last words, without its statistics; "" if it said
// nothing.
func (e *LoadError) Last() (last string) {
	for l := range strings.Lines(e.Log) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "processed ") && !strings.HasPrefix(l, "verification time") && !strings.HasPrefix(l, "stack depth") {
			last = l
		}
	}
	return last
}

// Unwrap returns the kernel's answer.
func (e *LoadError) Unwrap() error { return e.Err }

// newLoadError takes the log from its buffer.
func newLoadError(f *tracee.Function, log []byte, err error) *LoadError {
	said, _, _ := bytes.Cut(log, []byte{0})
	return &LoadError{Func: f.String(), Err: err, Log: string(said)}
}

// general makes a typed error of one that has nothing to do with a function;
// nil if it has.
func general(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case lockedDown() && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL)):
		return &LockdownError{err}
	case errors.Is(err, unix.EPERM):
		if !memlockEnough() {
			return &MemlockError{err}
		}
		return &PermissionError{op, err}
	}
	return nil
}

// lockedDown reports whether BPF may not read the kernel's memory.
func lockedDown() bool {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && strings.Contains(string(b), "[confidentiality]")
}

// memlockEnough reports whether the limit of locked memory can be the reason of
// a refusal: it is not, if there is none, or root is asked for anyhow.
func memlockEnough() bool {
	var l unix.Rlimit
	return os.Geteuid() != 0 || unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) != nil || l.Cur == unix.RLIM_INFINITY
}
