package bpfview

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// TestFill: what memory does not have comes from bpf(2), and nothing else.
func TestFill(t *testing.T) {
	no := false
	dst := bpf.Program{ID: 7, Name: "a_name_in_full_length", TailCall: &no, Subprogs: []bpf.Subprog{{Name: "f"}}}
	src := bpf.Program{ID: 7, Name: "a_name_in_full", Memory: 4096, Subprogs: []bpf.Subprog{{Name: "g"}}}
	fill(&dst, &src)
	qt.Check(t, qt.Equals(dst.Name, "a_name_in_full_length"))
	qt.Check(t, qt.Equals(dst.Memory, 4096))
	qt.Check(t, qt.Equals(*dst.TailCall, false))
	qt.Check(t, qt.Equals(dst.Subprogs[0].Name, "f"))
}

// TestSettled: readings are repeated until two agree, and else what agrees is
// kept.
func TestSettled(t *testing.T) {
	k := example.Kernel(t)
	torn := func(n int) error { return fmt.Errorf("torn at %d", n) }
	lasting := errors.New("unreadable")
	for _, test := range []struct {
		name     string
		readings func(n int) ([]string, error) // the n-th, from 0
		want     []string
		err      string
		times    int
	}{
		{"still", func(int) ([]string, error) { return []string{"a", "b"}, nil }, []string{"a", "b"}, "", 2},
		{"comes to rest", func(n int) ([]string, error) { return []string{"a", fmt.Sprint(min(n, 3))}, nil }, []string{"a", "3"}, "", 5},
		{"never", func(n int) ([]string, error) { return []string{"a", fmt.Sprint(n)}, nil }, []string{"a"}, "1 things came, went or changed while they were read: left out", maxReadings + 1},
		{"torn once", func(n int) ([]string, error) {
			if n == 0 {
				return nil, torn(0)
			}
			return []string{"a"}, nil
		}, []string{"a"}, "", 3},
		{"torn elsewhere each time", func(n int) ([]string, error) { return []string{"a"}, torn(n) }, []string{"a"}, "", maxReadings + 1},
		{"unreadable", func(int) ([]string, error) { return []string{"a"}, lasting }, []string{"a"}, "unreadable", 2},
		{"unreadable and torn", func(n int) ([]string, error) { return []string{"a"}, errors.Join(torn(n), lasting) }, []string{"a"}, "unreadable", maxReadings + 1},
		{"order", func(n int) ([]string, error) {
			if n%2 == 0 {
				return []string{"a", "b"}, nil
			}
			return []string{"b", "a"}, nil
		}, []string{"b", "a"}, "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			got, err := settled(t.Context(), k, "things", func(*kernel.Kernel) ([]string, error) {
				n++
				return test.readings(n - 1)
			})
			qt.Check(t, qt.DeepEquals(got, test.want))
			qt.Check(t, qt.Equals(n, test.times))
			if test.err == "" {
				qt.Check(t, qt.IsNil(err))
			} else {
				qt.Check(t, qt.ErrorMatches(err, test.err))
			}
		})
	}
}

func TestSettledEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := settled(ctx, example.Kernel(t), "things", func(*kernel.Kernel) ([]string, error) { return nil, nil })
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
}

// TestDump: of a dump everything comes from memory, users included.
func TestDump(t *testing.T) {
	s := Source{Kernel: example.Kernel(t), Users: true}
	inv, err := s.Inventory(t.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(inv.Programs, 7))
	qt.Check(t, qt.HasLen(inv.Maps, 3))
	qt.Check(t, qt.HasLen(inv.Links, 3))
	qt.Check(t, qt.HasLen(inv.Trampolines, 2))
	qt.Check(t, qt.HasLen(inv.Attachments, 0))
	for _, p := range inv.Programs {
		qt.Check(t, qt.DeepEquals(p.Holders, []bpf.Holder{{PID: 89, Comm: "guest"}}))
	}
	qt.Check(t, qt.DeepEquals(inv.Maps[2].ProgIDs, []int{2, 3, 4, 5, 7}))
	qt.Assert(t, qt.HasLen(inv.Entries[3], 2))
	qt.Check(t, qt.Equals(inv.Entries[3][1].Object.String(), "prog 4 sched_cls drop_marked"))

	_, err = s.Maps(t.Context(), 3, 99)
	var gone *bpfsys.NotFoundError
	qt.Assert(t, qt.ErrorAs(err, &gone))
	qt.Check(t, qt.Equals(*gone, bpfsys.NotFoundError{Kind: "map", ID: 99}))
}

func TestNoMemory(t *testing.T) {
	_, err := Source{Running: true}.Trampolines(t.Context())
	qt.Check(t, qt.ErrorIs(err, ErrNoMemory))
}
