package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Status is the exit status of ksleuth.
type Status int

// The exit statuses.
const (
	StatusOK          Status = 0
	StatusFault       Status = 1 // the thing examined is at fault: crashed, rejected, affected
	StatusUsage       Status = 2 // the command line is wrong
	StatusDenied      Status = 3 // not permitted
	StatusUnsupported Status = 4 // this kernel lacks what is needed
	StatusDamaged     Status = 5 // the dump is damaged or incomplete
)

// statusError gives an error the exit status it stands for.
type statusError struct {
	status Status
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// errAnswered ends a command whose answer already said what is wrong.
var errAnswered = errors.New("answered")

func usage(err error) error { return &statusError{StatusUsage, err} }

// statusOf returns the exit status that an error stands for. Errors that say
// nothing about themselves come from cobra: they are about usage.
func statusOf(err error) Status {
	var se *statusError
	var format *vmcore.FormatError
	var arch *vmcore.ArchError
	switch {
	case errors.As(err, &se):
		return se.status
	case errors.Is(err, fs.ErrPermission), mem.CauseOf(err) == mem.Denied:
		return StatusDenied
	case errors.As(err, &format), errors.As(err, &arch), errors.Is(err, vmcore.ErrNotDump), mem.CauseOf(err) != 0:
		return StatusDamaged
	}
	return StatusUsage
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
