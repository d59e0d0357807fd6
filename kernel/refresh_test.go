package kernel_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// running is a dump that passes for a running kernel. While unloading, its list
// of modules is empty.
type running struct {
	*vmcore.Core
	refreshed int
	head      uint64 // physical address of the list's head
	headVirt  uint64
	unloading atomic.Bool
}

func (r *running) Live() bool { return true }
func (r *running) Refresh()   { r.refreshed++ }

func (r *running) ReadMem(p []byte, addr uint64) error {
	if err := r.Core.ReadMem(p, addr); err != nil {
		return err
	}
	if r.unloading.Load() && addr == r.head && len(p) == 8 {
		for i := range p {
			p[i] = byte(r.headVirt >> (8 * i))
		}
	}
	return nil
}

// TestRefresh sees a change of a running kernel after a refresh, and not before.
func TestRefresh(t *testing.T) {
	src := &running{Core: example.Core(t)}
	k, err := kernel.FromSource(t.Context(), src)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(k.Live()))
	src.headVirt, err = k.Addr("modules")
	qt.Assert(t, qt.IsNil(err))
	m, err := k.Walk(src.headVirt)
	qt.Assert(t, qt.IsNil(err))
	src.head = m.Phys

	count := func() int {
		mods, err := k.Modules()
		qt.Assert(t, qt.IsNil(err))
		return len(mods)
	}
	before := count()
	qt.Assert(t, qt.IsTrue(before > 0))
	src.unloading.Store(true)
	qt.Check(t, qt.Equals(count(), before))
	k.Refresh()
	qt.Check(t, qt.Equals(src.refreshed, 1))
	qt.Check(t, qt.Equals(count(), 0))
	qt.Check(t, qt.Equals(k.FormatAddr(src.headVirt), "modules"))
	src.unloading.Store(false)
	k.Refresh()
	qt.Check(t, qt.Equals(count(), before))
	_, err = mem.U64(k.Mem(), src.headVirt)
	qt.Check(t, qt.IsNil(err))
}

// TestRetry: only a running kernel is read again, and not for ever.
func TestRetry(t *testing.T) {
	failing := func(times int) (read func() error, n *int) {
		n = new(int)
		return func() error {
			if *n++; *n <= times {
				return errors.New("it was changed")
			}
			return nil
		}, n
	}
	dump := example.Kernel(t)
	src := &running{Core: example.Core(t)}
	live, err := kernel.FromSource(t.Context(), src)
	qt.Assert(t, qt.IsNil(err))
	for _, c := range []struct {
		k            *kernel.Kernel
		fails, calls int
		ok           bool
	}{
		{dump, 0, 1, true}, {dump, 1, 1, false},
		{live, 0, 1, true}, {live, 2, 3, true}, {live, 4, 5, true}, {live, 100, 5, false},
	} {
		read, n := failing(c.fails)
		qt.Check(t, qt.Equals(c.k.Retry(read) == nil, c.ok), qt.Commentf("%+v", c))
		qt.Check(t, qt.Equals(*n, c.calls), qt.Commentf("%+v", c))
	}
	qt.Check(t, qt.Equals(src.refreshed, 0+2+4+4))
	dump.Refresh()
	qt.Check(t, qt.IsFalse(dump.Live()))
}
