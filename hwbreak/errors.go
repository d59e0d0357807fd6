package hwbreak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An ExhaustedError says that the breakpoints of a CPU are in use. It wraps
// ENOSPC.
type ExhaustedError struct {
	Addr uint64
	CPU  int // -1: of the thread, on whichever CPU
	Err  error
}

// Error says where there is none left and who may hold them.
func (e *ExhaustedError) Error() string {
	where := "every CPU"
	if e.CPU >= 0 {
		where = fmt.Sprintf("CPU %d", e.CPU)
	}
	return fmt.Sprintf("no hardware breakpoint is left on %s for %#x: %v; debuggers (ptrace), perf and other tracers share the few there are", where, e.Addr, e.Err)
}

// Unwrap returns the kernel's answer.
func (e *ExhaustedError) Unwrap() error { return e.Err }

// A PermissionError says that the caller may not set a breakpoint. It wraps
// [fs.ErrPermission].
type PermissionError struct {
	Need string // what it takes
	Err  error  // the kernel's answer
}

// Error says what it takes.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("hardware breakpoint: perf_event_open: %v: needs %s", e.Err, e.Need)
}

// Unwrap returns the kernel's answer and [fs.ErrPermission].
func (e *PermissionError) Unwrap() []error { return []error{fs.ErrPermission, e.Err} }

// An AddressError says that the kernel has no breakpoint at an address. It
// wraps EINVAL.
type AddressError struct {
	Addr uint64
	Err  error
}

// Error says why that can be.
func (e *AddressError) Error() string {
	return fmt.Sprintf("no breakpoint at %#x: %v: the kernel forbids them in code that handles breakpoints and exceptions itself (not kprobe-able)", e.Addr, e.Err)
}

// Unwrap returns the kernel's answer.
func (e *AddressError) Unwrap() error { return e.Err }

// An UnsupportedError says that there are no breakpoints to be had: the kernel
// or the machine has none. It wraps [errors.ErrUnsupported].
type UnsupportedError struct {
	Why string
	Err error // the kernel's answer; nil if it was willing
}

// Error says what there is not.
func (e *UnsupportedError) Error() string {
	if e.Err == nil {
		return "no hardware breakpoints: " + e.Why
	}
	return fmt.Sprintf("no hardware breakpoints: %s: %v", e.Why, e.Err)
}

// Unwrap returns the kernel's answer and [errors.ErrUnsupported].
func (e *UnsupportedError) Unwrap() []error {
	if e.Err == nil {
		return []error{errors.ErrUnsupported}
	}
	return []error{errors.ErrUnsupported, e.Err}
}

// classify types what perf_event_open answers.
func classify(err error, addr uint64, tid, cpu int) error {
	switch {
	case errors.Is(err, unix.ENOSPC): // reserve_bp_slot
		return &ExhaustedError{Addr: addr, CPU: cpu, Err: unwrap(err)}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return &PermissionError{Need: need(addr), Err: unwrap(err)}
	case errors.Is(err, unix.ENODEV):
		return &UnsupportedError{Why: fmt.Sprintf("CPU %d is not online", cpu), Err: unwrap(err)}
	case errors.Is(err, unix.ENOENT):
		return &UnsupportedError{Why: "the kernel has no perf events of breakpoints (CONFIG_HAVE_HW_BREAKPOINT)", Err: unwrap(err)}
	case errors.Is(err, unix.ENOSYS):
		return &UnsupportedError{Why: "the kernel has no perf events (CONFIG_PERF_EVENTS)", Err: unwrap(err)}
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("there is no thread %d: %w", tid, fs.ErrNotExist)
	case errors.Is(err, unix.EINVAL) && isKernel(addr): // within_kprobe_blacklist
		return &AddressError{Addr: addr, Err: unwrap(err)}
	}
	return fmt.Errorf("hardware breakpoint at %#x: %w", addr, err)
}

// unwrap leaves out the name of the system call.
func unwrap(err error) error {
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Err
	}
	return err
}

// need says what permits a breakpoint. Lockdown does not forbid them: it
// forbids samples of registers only (b0c8fdc7fdb7, 5.4).
func need(addr uint64) string {
	const paranoid = "/proc/sys/kernel/perf_event_paranoid"
	if isKernel(addr) {
		return "CAP_SYS_ADMIN in the first user namespace" // hw_breakpoint_parse
	}
	text, err := os.ReadFile(paranoid)
	if err != nil {
		return "CAP_PERFMON (CAP_SYS_ADMIN before 5.8)"
	}
	return fmt.Sprintf("CAP_PERFMON (CAP_SYS_ADMIN before 5.8), as kernel.perf_event_paranoid is %s", strings.TrimSpace(string(text)))
}
