package kernel

import (
	"errors"
	"fmt"
)

// Errors collects what could not be read on a walk over many objects. Of a
// damaged dump that can be all of them: the first few say enough, and many in a
// row that the walk has gone astray.
type Errors struct {
	errs []error
	more int
}

const (
	keptErrors = 32
	maxErrors  = 1024
)

// Add takes in an error, unless it is nil.
func (e *Errors) Add(err error) {
	switch {
	case err == nil:
	case len(e.errs) < keptErrors:
		e.errs = append(e.errs, err)
	default:
		e.more++
	}
}

// TooMany says that the walk should be given up.
func (e *Errors) TooMany() bool { return len(e.errs)+e.more >= maxErrors }

// Err returns the errors joined, or nil.
func (e *Errors) Err() error {
	switch {
	case e.TooMany():
		return errors.Join(append(e.errs[:len(e.errs):len(e.errs)], fmt.Errorf("given up after %d such errors", maxErrors))...)
	case e.more > 0:
		return errors.Join(append(e.errs[:len(e.errs):len(e.errs)], fmt.Errorf("and %d more", e.more))...)
	}
	return errors.Join(e.errs...)
}

// Unjoin takes joined errors apart. A sentence of its own that wraps several
// errors is one.
func Unjoin(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, Unjoin(e)...)
	}
	return out
}
