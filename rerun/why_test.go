package rerun

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// why runs a call and words what decided it.
func why(t *testing.T, k *kernel.Kernel, call string) string {
	t.Helper()
	s, err := New(k, Options{CPU: 0, Limits: emulate.Options{History: 1 << 20}})
	qt.Assert(t, qt.IsNil(err))
	ctx := context.Background()
	target, err := s.Parse(ctx, call)
	qt.Assert(t, qt.IsNil(err))
	r, err := s.Run(ctx, target, nil)
	qt.Assert(t, qt.IsNil(err))
	reasons, gap, err := s.Why(target, r, func(o emulate.Observer) error {
		_, err := s.Run(ctx, target, func(m *emulate.Machine) { m.Observer = o })
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	var out strings.Builder
	for _, r := range reasons {
		fmt.Fprintf(&out, "%s at %s: %s", r.Kind, r.Symbol, r.Text)
		if r.Count > 0 {
			fmt.Fprintf(&out, "  (%d times)", r.Count)
		}
		out.WriteByte('\n')
	}
	if gap != "" {
		fmt.Fprintf(&out, "left: %s\n", gap)
	}
	e := s.Emulation(target, r)
	fmt.Fprintf(&out, "%s %s\n", e.Outcome, e.Text)
	return out.String()
}

func TestScratchWhy(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	k := example.KernelOf(t, os.Getenv("SCRATCH"))
	fmt.Println(why(t, k, os.Getenv("CALL")))
}
