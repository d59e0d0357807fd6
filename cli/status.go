package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/culprit"
	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/live"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/rerun"
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
	StatusDamaged     Status = 5 // something could not be read: the dump is damaged or incomplete
)

// statusInterrupted is what shells give for a program that Ctrl-C ended.
const statusInterrupted Status = 130

// statusError gives an error the exit status it stands for.
type statusError struct {
	status Status
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func usage(err error) error { return &statusError{StatusUsage, err} }

// statusOf is [statusOf] for this target: a running kernel is not damaged, and
// what it has no symbol for it lacks.
func (a *app) statusOf(err error) Status {
	status := statusOf(err)
	var symbol *kernel.NoSymbolError
	if a.live != nil && status == StatusDamaged && errors.As(err, &symbol) {
		return StatusUnsupported
	}
	return status
}

// statusOf returns the exit status that an error stands for. What a person got
// wrong says so: a file that cannot be opened, or by [usage] and [asked]. Any
// other error is of the dump, which does not hold what a sound one would.
func statusOf(err error) Status {
	var se *statusError
	var file *fs.PathError
	switch {
	case errors.As(err, &se):
		return se.status
	case errors.Is(err, context.Canceled):
		return statusInterrupted
	case errors.Is(err, live.ErrUnsupported), errors.Is(err, errors.ErrUnsupported):
		return StatusUnsupported
	case errors.Is(err, live.ErrDenied), errors.Is(err, fs.ErrPermission), mem.CauseOf(err) == mem.Denied:
		return StatusDenied
	case errors.As(err, &file) && mem.CauseOf(err) == 0:
		return StatusUsage
	}
	return StatusDamaged
}

// asked marks the error of a search for what the command line names, or of an
// expression on it, as one of usage; unless the search met damage, for then
// what was asked for may have been there.
func asked(err error) error {
	var symbol *kernel.NoSymbolError
	var syntax *cexpr.SyntaxError
	var eval *cexpr.EvalError
	var parse *ctype.ParseError
	var code *disasm.NotFoundError
	var damaged *ctype.FormatError
	var call *rerun.CallError
	var set *rerun.SetError
	var watch *rerun.WatchError
	var frame *culprit.FrameError
	switch {
	case mem.CauseOf(err) != 0, errors.As(err, &damaged):
		return err
	case errors.Is(err, ctype.ErrNotFound), errors.Is(err, report.ErrNoCrash), errors.As(err, &code), errors.As(err, &symbol),
		errors.As(err, &syntax), errors.As(err, &eval), errors.As(err, &parse),
		errors.As(err, &call), errors.As(err, &set), errors.As(err, &watch), errors.As(err, &frame):
		return usage(err)
	}
	return err
}

// noTask marks the error of a search for a pid that no task has. Where tasks
// could not be read it is another one.
func noTask(err error) error {
	var task *kobj.NoTaskError
	if errors.As(err, &task) {
		return usage(err)
	}
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
