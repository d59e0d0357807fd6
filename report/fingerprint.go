package report

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/stack"
)

// fingerprintFrames is how many of the innermost frames tell one bug from
// another: deeper ones say who happened to call.
const fingerprintFrames = 6

// fingerprint returns a short name for the bug that is the same on every boot:
// it is made of the kind of fault and the functions on the stack, without
// addresses, offsets, ids and the suffixes of compiler clones.
func fingerprint(r *Report) string {
	if len(r.Frames) == 0 {
		return ""
	}
	parts := []string{"panic"}
	if r.Fault != nil {
		parts[0] = r.Fault.Kind + " " + r.Fault.Access
	}
	if r.Cause != nil {
		parts = append(parts, r.Cause.Title)
	}
	n := 0
	for _, f := range r.Frames {
		if f.Kind == kernel.KindEntry || f.Symbol == "" || n == fingerprintFrames {
			continue
		}
		parts = append(parts, frameName(f))
		n++
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return fmt.Sprintf("%x", sum[:8])
}

// frameName is what stays the same of a frame from boot to boot. The names of
// trampolines are numbers.
func frameName(f stack.Frame) string {
	switch f.Kind {
	case kernel.KindTrampoline:
		return "trampoline"
	case kernel.KindBPF:
		return "bpf:" + f.Symbol
	}
	return base(f.Symbol)
}
