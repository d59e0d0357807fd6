//go:build linux

package bpfsys_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfsys"
)

// churn makes and frees objects until the test ends. Their names tell what they
// must be: a program race_N has N+2 instructions and its map, a map race_N has
// values of N bytes. Each is pinned for a while, and held by links.
func churn(t *testing.T, pins string) *atomic.Int64 {
	t.Helper()
	stop := make(chan bool)
	var wg sync.WaitGroup
	var made atomic.Int64
	for w := range 3 {
		wg.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				// One has links, too, which take the kernel far longer.
				n, linked := 1+i%50, w == 0
				if err := churnOnce(n, filepath.Join(pins, fmt.Sprint(w)), linked); err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
			}
		})
	}
	t.Cleanup(func() { close(stop); wg.Wait() })
	return &made
}

func churnOnce(n int, pin string, linked bool) error {
	name := fmt.Sprintf("race_%d", n)
	m, err := ebpf.NewMap(arraySpec(name, uint32(n)))
	if err != nil {
		return err
	}
	defer m.Close()
	spec := filterSpec(name, ebpf.SkLookup, n)
	spec.AttachType = ebpf.AttachSkLookup
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	defer p.Close()
	if m.Pin(pin) == nil {
		defer os.Remove(pin)
	}
	if !linked {
		return nil
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	l, err := link.AttachNetNs(int(ns.Fd()), p)
	if err != nil {
		return err
	}
	return l.Close()
}

// raceSize is the number in a name of churn's, 0 in others.
func raceSize(name string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(name, "race_"))
	return n
}

// TestRunningKernelRaces: objects that come and go give no error and are never
// mistaken for each other.
func TestRunningKernelRaces(t *testing.T) {
	mayAsk(t)
	pins := mountAt(t, "bpf")
	stays, linkID := steer(t)
	made := churn(t, pins)
	ctx := t.Context()
	seen := 0
	programs := func() error {
		h, err := bpfsys.Programs()
		defer func() { h.Close() }()
		for _, p := range h.Objects {
			if n := raceSize(p.Name); n > 0 {
				seen++
				if p.XlatedLen != 8*(n+2) || p.Type != "sk_lookup" || p.Memory == 0 {
					return fmt.Errorf("not %s: %+v", p.Name, p)
				}
				code, err := bpfsys.CodeOf(h, p.ID)
				if err != nil {
					return err
				}
				if len(code.Insns) != p.XlatedLen || len(code.Funcs[0].Text) != p.JitedLen {
					return fmt.Errorf("not the code of %s: %d and %d bytes", p.Name, len(code.Insns), len(code.Funcs[0].Text))
				}
			}
		}
		return err
	}
	maps := func() error {
		h, err := bpfsys.Maps()
		defer func() { h.Close() }()
		for _, m := range h.Objects {
			if n := raceSize(m.Name); n > 0 {
				seen++
				if m.ValueSize != uint32(n) || m.Type != "array" {
					return fmt.Errorf("not %s: %+v", m.Name, m)
				}
				entries := 0
				for e, err := range bpfsys.Entries(h, m.ID) {
					if err != nil {
						return err
					}
					if len(e.Value) != n {
						return fmt.Errorf("a value of %d bytes in %s", len(e.Value), m.Name)
					}
					entries++
				}
				if entries != 3 {
					return fmt.Errorf("%d entries in %s", entries, m.Name)
				}
			}
		}
		return err
	}
	links := func() error {
		h, err := bpfsys.Links()
		defer func() { h.Close() }()
		for _, l := range h.Objects {
			if l.Type != "netns" {
				continue
			}
			seen++
			// The link holds its program.
			p, err := bpfsys.Programs(l.ProgID)
			if err != nil {
				return err
			}
			defer p.Close()
			if l.Attach != "sk_lookup" || p.Objects[0].Type != "sk_lookup" {
				return fmt.Errorf("%+v is of %+v", l, p.Objects[0])
			}
		}
		return errors.Join(err, bpfsys.CompleteLinks(ctx, h.Objects))
	}
	byID := func() error {
		// The next id may be there or not; nothing else is an error.
		h, err := bpfsys.Programs()
		defer func() { h.Close() }()
		if err != nil || len(h.Objects) == 0 {
			return err
		}
		one, err := bpfsys.Programs(h.Objects[len(h.Objects)-1].ID + 1)
		one.Close()
		seen++
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	pinned := func() error {
		all, err := bpfsys.Pins(ctx)
		for id, paths := range all["map"] {
			seen += len(paths)
			if id <= 0 {
				return fmt.Errorf("a pinned map of id %d", id)
			}
		}
		return err
	}
	for _, f := range []struct {
		name string
		n    int
		run  func() error
	}{
		{"Programs", 1000, programs},
		{"Maps", 1000, maps},
		{"Links", 1000, links},
		{"ById", 1000, byID},
		{"BTFs", 1000, func() error { h, err := bpfsys.BTFs(); h.Close(); seen++; return err }},
		{"Pins", 1000, pinned},
		{"Holders", 200, func() error { _, err := bpfsys.Holders(ctx); seen++; return err }},
		{"Attachments", 200, func() error {
			all, err := bpfsys.Attachments(ctx)
			seen++
			for _, a := range all {
				if a.ProgID == stays {
					return fmt.Errorf("link %d is behind %+v", linkID, a)
				}
			}
			return err
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			seen = 0
			before := made.Load()
			for i := range f.n {
				if err := f.run(); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
			}
			qt.Check(t, qt.IsTrue(seen > 0))
			t.Logf("%d came and went meanwhile; met %d times", made.Load()-before, seen)
		})
	}
}

func BenchmarkAttachments(b *testing.B) {
	mayAsk(b)
	for b.Loop() {
		_, err := bpfsys.Attachments(b.Context())
		qt.Assert(b, qt.IsNil(err))
	}
}
