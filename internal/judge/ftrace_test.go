package judge

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
)

// A codeListing is the part of disasm's JSON that is looked at here.
type codeListing struct {
	Lines []struct{ Note string }
}

func disassembled(t *testing.T, g *bpfGuest, args ...string) []codeListing {
	t.Helper()
	out := g.ksleuth(cli.StatusOK, append([]string{"-o", "json", "disasm"}, args...)...)
	dec := json.NewDecoder(strings.NewReader(out))
	var all []codeListing
	for dec.More() {
		var r record[codeListing]
		qt.Assert(t, qt.IsNil(dec.Decode(&r)))
		all = append(all, r.Data)
	}
	return all
}

// TestTracedFunctions holds what disasm says of ftrace at the functions that
// something traces, and at one that nothing does, against the kernel's own list.
func TestTracedFunctions(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := bootBPF(t, kernel, "zoo")
			traced := make(map[string]bool)
			for line := range strings.Lines(g.file("/sys/kernel/tracing/enabled_functions")) {
				if f := strings.Fields(line); len(f) > 1 && !strings.Contains(line, "->") && !strings.HasPrefix(line, "\t") {
					traced[f[0]] = true
				}
			}
			qt.Assert(t, qt.IsTrue(len(traced) > 3))
			const untraced = "schedule"
			qt.Assert(t, qt.IsFalse(traced[untraced]))
			traced[untraced] = false
			for _, fn := range slices.Sorted(maps.Keys(traced)) {
				l := disassembled(t, g, fn)[0]
				note := ""
				for _, line := range l.Lines[:min(2, len(l.Lines))] {
					note += line.Note
				}
				c := qt.Commentf("%s: %q", fn, note)
				qt.Check(t, qt.IsTrue(strings.Contains(note, "ftrace: ")), c)
				qt.Check(t, qt.Equals(!strings.Contains(note, "no tracer"), traced[fn]), c)
			}
			t.Logf("%d functions", len(traced))
		})
	}
}
