package bpfview

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/ksleuth/ksleuth/kernel"
)

// A ChangedError says that some things came, went or changed while they were
// read, and are left out.
type ChangedError struct {
	What string // in the plural
	N    int
}

// Error says how many.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%d %s came, went or changed while they were read: left out", e.N, e.What)
}

// maxReadings bounds the readings of what others change meanwhile.
const maxReadings = 8

// settled reads a list of the running kernel's until two readings agree, in
// their errors as well: then it was so at the moment between them. Where they
// never do, what both of the last two have is returned, errors included, with a
// [*ChangedError] if anything is left out.
func settled[T any](ctx context.Context, k *kernel.Kernel, what string, read func(*kernel.Kernel) ([]T, error)) ([]T, error) {
	k.Refresh()
	last, lastErr := read(k)
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		k.Refresh()
		now, err := read(k)
		both, bothErr := common(last, now), commonErrors(lastErr, err)
		changed := max(len(last), len(now)) - len(both)
		if changed == 0 && fmt.Sprint(err) == fmt.Sprint(lastErr) {
			return now, err
		}
		if n == maxReadings {
			if changed > 0 {
				bothErr = errors.Join(bothErr, &ChangedError{what, changed})
			}
			return both, bothErr
		}
		last, lastErr = now, err
	}
}

// commonErrors returns the parts of b that a has, too: what else one of two
// readings met comes of the change between them.
func commonErrors(a, b error) error {
	had := make(map[string]bool)
	for _, e := range kernel.Unjoin(a) {
		had[e.Error()] = true
	}
	var out []error
	for _, e := range kernel.Unjoin(b) {
		if had[e.Error()] {
			out = append(out, e)
		}
	}
	return errors.Join(out...)
}

// common returns the elements of b that a has, too.
func common[T any](a, b []T) []T {
	var out []T
	for i, x := range b {
		// Nearly always the lists agree.
		if i < len(a) && reflect.DeepEqual(a[i], x) {
			out = append(out, x)
			continue
		}
		for _, y := range a {
			if reflect.DeepEqual(x, y) {
				out = append(out, x)
				break
			}
		}
	}
	return out
}
