package bpfview

import (
	"context"
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
// never do, what both of the last two have is returned, with a
// [*ChangedError].
func settled[T any](ctx context.Context, k *kernel.Kernel, what string, read func(*kernel.Kernel) ([]T, error)) ([]T, error) {
	k.Refresh()
	last, lastErr := read(k)
	agreed, changed := last, 0
	for range maxReadings - 1 {
		if ctx.Err() != nil {
			return agreed, ctx.Err()
		}
		k.Refresh()
		now, err := read(k)
		agreed = common(last, now)
		changed = max(len(last), len(now)) - len(agreed)
		if changed == 0 && fmt.Sprint(err) == fmt.Sprint(lastErr) {
			return now, err
		}
		last, lastErr = now, err
	}
	return agreed, &ChangedError{what, max(changed, 1)}
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
