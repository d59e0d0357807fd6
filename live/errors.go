package live

import (
	"errors"
	"strings"
)

// The two kinds of reason for which memory cannot be read.
var (
	ErrDenied      = errors.New("not permitted")
	ErrUnsupported = errors.New("this kernel lacks what is needed")
)

// An Error says why the memory of the running kernel cannot be read. It is an
// [ErrDenied] if any way is there and was refused, else an [ErrUnsupported].
type Error struct {
	Ways []Refusal // one for each way, in the order in which they were tried
}

// A Refusal says why one way to memory is closed.
type Refusal struct {
	Way    Way
	Name   string // in words: "/proc/kcore"
	Class  error  // ErrDenied or ErrUnsupported
	Err    error  // what failed and why
	Enable string // what would open the way, or ""
}

// Error names the way, why it is closed and what would open it.
func (r *Refusal) Error() string {
	s := r.Err.Error()
	if r.Name != "" {
		s = r.Name + ": " + s
	}
	if r.Enable != "" {
		s += "; " + r.Enable
	}
	return s
}

// Unwrap returns the class and the cause.
func (r *Refusal) Unwrap() []error { return []error{r.Class, r.Err} }

// Error says of each way why it is closed, in one line.
func (e *Error) Error() string {
	ways := make([]string, len(e.Ways))
	for i := range e.Ways {
		ways[i] = e.Ways[i].Error()
	}
	return "the running kernel's memory cannot be read: " + strings.Join(ways, ". ")
}

// Is tells the class.
func (e *Error) Is(target error) bool { return target == e.class() }

func (e *Error) class() error {
	for _, w := range e.Ways {
		if w.Class == ErrDenied {
			return ErrDenied
		}
	}
	return ErrUnsupported
}
