package rerun

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/vmcore"
)

var kernels = []string{"5.10", "6.1", "6.12", "7.2"}

// opened are the kernels of scenes: what was read of them is kept from test to test.
var opened sync.Map

// open opens the dump of a scene.
func open(t testing.TB, scene string) *kernel.Kernel {
	t.Helper()
	if k, ok := opened.Load(scene); ok {
		return k.(*kernel.Kernel)
	}
	core, err := vmcore.Open(dumptest.Get(t, scene+".kdump"))
	qt.Assert(t, qt.IsNil(err))
	k, err := kernel.FromSource(context.Background(), core)
	qt.Assert(t, qt.IsNil(err))
	opened.Store(scene, k)
	return k
}

// session opens a session on a scene.
func session(t testing.TB, scene string) *Session {
	t.Helper()
	return sessionOf(t, open(t, scene))
}

func sessionOf(t testing.TB, k *kernel.Kernel) *Session {
	t.Helper()
	s, err := New(k, Options{CPU: -1, Limits: emulate.Options{Steps: 50e6, Time: time.Minute}})
	qt.Assert(t, qt.IsNil(err))
	return s
}

// call runs a call.
func call1(t testing.TB, s *Session, text string) (*Emulation, *Result) {
	t.Helper()
	target, err := s.Parse(context.Background(), text)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", text))
	r, err := s.Run(context.Background(), target, nil)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", text))
	return s.Emulation(target, r), r
}

// outcome is what a run is told by in the tables below: its answer, or how it ended.
func outcome(e *Emulation) string {
	if e.Stop != nil {
		return e.Outcome + ": " + e.Stop.Text
	}
	return e.Text
}

// has says whether a stub was used and what it said of itself.
func has(e *Emulation, name, why string) bool {
	for _, u := range e.Stubs {
		if u.Name == name && u.Why == why {
			return true
		}
	}
	return false
}

func perKernel(t *testing.T, scene string, f func(t *testing.T, s *Session)) {
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			f(t, session(t, fmt.Sprintf("%s-%s", scene, version)))
		})
	}
}
