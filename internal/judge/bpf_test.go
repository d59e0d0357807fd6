package judge

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/vm"
)

// TestBPFObjects holds what ksleuth says of the BPF objects of a running
// kernel against what bpftool says, field by field, and against what ksleuth
// says of a dump of the same guest.
func TestBPFObjects(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := bootBPF(t, kernel, "zoo")
			list := g.file("/objects.txt")
			logLeftOut(t, list)
			_, jited, _ := g.run(guestScene, "jited")
			live := g.live()
			t.Run("progs", func(t *testing.T) { g.compare(t, &live, "prog", progRules, live.progs) })
			t.Run("maps", func(t *testing.T) { g.compare(t, &live, "map", mapRules, live.maps) })
			t.Run("links", func(t *testing.T) {
				g.compare(t, &live, "link", linkRules, live.links)
				compareFunctions(t, listed(t, g.bpftool("link", "show")), live.links)
			})
			t.Run("net", func(t *testing.T) { g.net(t, &live) })
			t.Run("cgroups", func(t *testing.T) { g.cgroups(t, &live) })
			t.Run("perf", func(t *testing.T) { g.perf(t, &live) })
			t.Run("attached", func(t *testing.T) { attached(t, &live, list) })
			t.Run("trampolines", func(t *testing.T) { sceneTrampolines(t, &live, list) })
			t.Run("entries", func(t *testing.T) { g.entries(t, &live) })
			t.Run("code", func(t *testing.T) { g.liveCode(t, &live, jited) })

			dump := filepath.Join(t.TempDir(), "bpf.elf")
			qt.Assert(t, qt.IsNil(g.DumpMemory(dump, vm.DumpELF)))
			onDump := func(args ...string) string {
				status, out, errs := run(t, append([]string{"-t", dump, "-o", "json"}, args...)...)
				noErrors(t, cli.Status(status), out, errs)
				return out
			}
			dumped := lookAt(t, onDump)
			t.Run("dump", func(t *testing.T) { compareDump(t, &live, &dumped) })
			t.Run("dump attached", func(t *testing.T) { attached(t, &dumped, list) })
			t.Run("dump trampolines", func(t *testing.T) {
				sceneTrampolines(t, &dumped, list)
				trampolineCalls(t, &dumped, onDump)
			})
			t.Run("dump code", func(t *testing.T) { g.code(t, &live, jited, onDump) })
		})
	}
}

// logLeftOut shows what the kernel cannot have.
func logLeftOut(t *testing.T, list string) {
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, "left out: ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// dumpExceptions are the fields in which live and dump may differ.
var dumpExceptions = map[string]string{
	"pinned": "paths are found by walking file systems, on the running kernel only",
}

// compareDump holds all that was said of the running kernel against what is
// said of its dump.
func compareDump(t *testing.T, live, dump *look) {
	for _, part := range []struct {
		name       string
		live, dump map[string]object
	}{
		{"prog", live.progs, dump.progs}, {"map", live.maps, dump.maps}, {"link", live.links, dump.links},
		{"attachment", live.attachments, dump.attachments}, {"trampoline", live.trampolines, dump.trampolines},
	} {
		fields := 0
		for key := range union(part.live, part.dump) {
			l, d := part.live[key], part.dump[key]
			if l == nil || d == nil {
				t.Errorf("%s %s: live %v, dump %v", part.name, key, l, d)
				continue
			}
			for field := range union(l, d) {
				if dumpExceptions[field] != "" {
					continue
				}
				fields++
				if a, b := fmt.Sprint(l[field]), fmt.Sprint(d[field]); a != b {
					t.Errorf("%s %s: %s is %s live, %s in the dump", part.name, key, field, a, b)
				}
			}
		}
		t.Logf("%d %ss, %d fields compared", len(part.live), part.name, fields)
	}
	elements := 0
	for id := range union(live.entries, dump.entries) {
		var a, b []string
		for _, e := range live.entries[id] {
			a = append(a, fmt.Sprint(e))
		}
		for _, e := range dump.entries[id] {
			b = append(b, fmt.Sprint(e))
		}
		slices.Sort(a)
		slices.Sort(b)
		elements += len(a)
		if !slices.Equal(a, b) {
			t.Errorf("map %s %s: live\n%s\ndump\n%s", id, text(live.maps[id]["type"]), strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
	t.Logf("%d elements of maps compared; left out: %v", elements, slices.Sorted(maps.Keys(dumpExceptions)))
}
