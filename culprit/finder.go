// Package culprit finds, by running code of a crashed kernel again offline, what made a
// register wrong: the store that overwrote it where it had been saved, or the
// field that it was loaded from.
//
// Nothing is claimed that a run does not show: it has to come to the very fault
// of the dump, at the same instruction, stack pointer and address.
package culprit

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/x86"
)

// A Finder looks for what made registers wrong.
type Finder struct {
	*rerun.Session
	k    *kernel.Kernel
	view mem.Reader
}

// New returns a finder that runs code in a session. The session must remember
// what it ran: see [emulate.Options].
func New(s *rerun.Session) *Finder { return &Finder{s, s.Kernel(), s.View()} }

// instAt decodes the instruction at addr.
func (s *Finder) instAt(addr uint64) (in x86.Inst, ok bool) {
	in, err := x86.DecodeAt(s.view, addr)
	return in, err == nil
}

// callAt returns the address of the call that returns to ret, or ret.
func (s *Finder) callAt(ret uint64) uint64 {
	for _, n := range []uint64{5, 2, 3, 6, 7} {
		if in, ok := s.instAt(ret - n); ok && uint64(in.Len) == n && calls(&in) {
			return ret - n
		}
	}
	return ret
}

// stopText says why a run ended; where memory was missing, what of it.
func stopText(s *emulate.Stop) string {
	var f *mem.Fault
	switch {
	case errors.As(s.Err, &f):
		return fmt.Sprintf("memory at 0x%x is %s, at 0x%x", f.Addr, f.Cause, s.RIP)
	case s.Err != nil:
		return s.Err.Error()
	}
	return string(s.Outcome)
}
