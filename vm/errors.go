package vm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

var (
	// ErrNoQEMU says that QEMU is not installed.
	ErrNoQEMU = errors.New("QEMU is not installed")
	// ErrNotStatic says that a program cannot be a guest's init.
	ErrNotStatic = errors.New("not a static program (build it with CGO_ENABLED=0)")
	// ErrExited says that QEMU ended: the guest powered off, or its kernel
	// panicked and rebooted.
	ErrExited = errors.New("the guest is off")
	// ErrClosed says that the guest was closed by the host.
	ErrClosed = errors.New("the guest was closed")
)

// A GuestError is the failure of a guest: it died, hung or broke the protocol.
type GuestError struct {
	Doing   string // what was waited for
	Err     error  // why it did not happen
	Console string // the last lines of the guest's console
}

// Error says what went wrong and shows the end of the console.
func (e *GuestError) Error() string {
	s := e.Doing + ": " + e.Err.Error()
	if e.Console == "" {
		return s + " (the guest's console is empty)"
	}
	return s + "; the guest's console ends with:\n  " + strings.ReplaceAll(e.Console, "\n", "\n  ")
}

// Unwrap returns the cause: a context's, [ErrExited], [ErrClosed] or a broken
// connection.
func (e *GuestError) Unwrap() error { return e.Err }

// An ExitError is the status of a guest's process that did not succeed.
type ExitError struct {
	Code   int            // exit status, -1 if a signal ended the process
	Signal syscall.Signal // 0 if the process exited
}

// Error gives the status in words.
func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// A RequestError says why the guest's init could not do what was asked.
type RequestError struct {
	Request string
	Reason  string
}

// Error quotes the guest.
func (e *RequestError) Error() string { return e.Request + " in the guest: " + e.Reason }
