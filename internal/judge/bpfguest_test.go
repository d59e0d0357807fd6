package judge

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vm"
)

// A bpfGuest is a guest full of BPF objects, in which bpftool runs as well.
type bpfGuest struct{ *liveGuest }

// Paths in the guest.
const (
	guestScene   = "/bpfscene" // of internal/bpfscene
	guestRounds  = "/rounds"   // of internal/bpfrounds
	guestBpftool = "/bpftool"  // directory of the program and its libraries
)

// bpftoolDir returns the directory of bpftool and its libraries.
func bpftoolDir(t testing.TB) string {
	t.Helper()
	cache, err := vm.CacheDir()
	qt.Assert(t, qt.IsNil(err))
	dir := filepath.Join(cache, "bpftool")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("KSLEUTH_REQUIRE_VM") == "1" {
			t.Fatalf("%v: run scripts/kernels --bpftool", err)
		}
		t.Skipf("%v: run scripts/kernels --bpftool", err)
	}
	return dir
}

// bootBPF boots a kernel and sets a scene of internal/bpfscene, if any.
func bootBPF(t testing.TB, kernel string, scene ...string) *bpfGuest {
	t.Helper()
	tools := bpftoolDir(t)
	files := map[string]string{guestBpftool: tools}
	for path, pkg := range map[string]string{guestScene: "bpfscene", guestRounds: "bpfrounds"} {
		file, err := dumptest.Build(pkg)
		qt.Assert(t, qt.IsNil(err))
		files[path] = file
	}
	g := &bpfGuest{bootLive(t, kernel, func(c *vm.Config) {
		for path, file := range c.Files {
			files[path] = file
		}
		c.Files, c.Modules, c.Cmdline = files, dumptest.BPFModules, dumptest.WithLSM
	})}
	if len(scene) > 0 {
		g.start(guestScene, scene...)
	}
	return g
}

// bpftool runs bpftool in the guest and returns its JSON. On a kernel where a
// command fails, its answer has the error.
func (g *bpfGuest) bpftool(args ...string) string {
	g.t.Helper()
	args = append([]string{"--library-path", guestBpftool, guestBpftool + "/bpftool", "-j", "-f"}, args...)
	_, out, errs := g.run(guestBpftool+"/ld-linux-x86-64.so.2", args...)
	qt.Assert(g.t, qt.Equals(errs, ""))
	return out
}

// An object is a JSON object, with its numbers as they were written.
type object map[string]any

// listed parses bpftool's list of objects.
func listed(t testing.TB, text string) []object {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var all []object
	qt.Assert(t, qt.IsNil(dec.Decode(&all)), qt.Commentf("%.500s", text))
	return all
}

// typed parses the lines of ksleuth's JSON that are of a type.
func typed(t testing.TB, text, typ string) []object {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var all []object
	for dec.More() {
		var r record[object]
		qt.Assert(t, qt.IsNil(dec.Decode(&r)))
		if r.Type == typ {
			all = append(all, r.Data)
		}
	}
	return all
}

// byID makes a list a map.
func byID(t testing.TB, all []object) map[string]object {
	t.Helper()
	out := map[string]object{}
	for _, o := range all {
		id := text(o["id"])
		qt.Assert(t, qt.IsNil(out[id]), qt.Commentf("two objects have the id %s", id))
		out[id] = o
	}
	return out
}

// at returns a part of an object by a path such as "targets.0.name", or nil.
func (o object) at(path string) any {
	var v any = map[string]any(o)
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// text is a canonical form of a value: a list is sorted, and what is empty,
// zero or false is the same as what is not there.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if !v {
			return ""
		}
		return "true"
	case json.Number:
		if v == "0" {
			return ""
		}
		return v.String()
	case string:
		return v
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, text(x))
		}
		slices.Sort(parts)
		return strings.Join(parts, " ")
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// decimal is the decimal form of one of our hexadecimal addresses.
func decimal(v any) string {
	n, err := strconv.ParseUint(text(v), 0, 64)
	if err != nil || n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// A look is what ksleuth says of the BPF objects of a kernel.
type look struct {
	progs, maps, links, attachments, trampolines map[string]object
	entries                                      map[string][]object // by map id
}

// lookAt runs the commands; run runs ksleuth with arguments.
func lookAt(t testing.TB, run func(args ...string) string) look {
	t.Helper()
	links, maps := run("links"), run("maps", "--entries")
	l := look{
		progs: byID(t, typed(t, run("progs"), "prog")),
		maps:  byID(t, typed(t, maps, "map")),
		links: byID(t, typed(t, links, "link")),

		attachments: map[string]object{}, trampolines: map[string]object{}, entries: map[string][]object{},
	}
	for _, a := range typed(t, links, "attachment") {
		key := attachmentKey(a)
		for l.attachments[key] != nil {
			key += "+" // another just like it
		}
		l.attachments[key] = a
	}
	for _, tr := range typed(t, run("trampolines"), "trampoline") {
		l.trampolines[text(tr["kind"])+" "+text(tr["name"])+" "+text(tr["key"])] = tr
	}
	for _, e := range typed(t, maps, "map_entry") {
		id := text(e["map_id"])
		l.entries[id] = append(l.entries[id], e)
	}
	return l
}

// noErrors fails the test for each error line of an answer.
func noErrors(t testing.TB, status cli.Status, out, errs string) {
	t.Helper()
	failed := typed(t, out, "error")
	for _, e := range failed {
		t.Errorf("%v", e["message"])
	}
	if len(failed) == 0 {
		qt.Check(t, qt.Equals(status, cli.StatusOK), qt.Commentf("%s", errs))
	}
}

// attachmentKey names an attachment, for attachments have no id.
func attachmentKey(a object) string {
	var parts []string
	for _, p := range []string{"kind", "prog_id", "attach_type", "target.kind", "target.name", "target.ifindex", "target.netns_ino", "target.map_id", "target.value", "target.offset", "target.return", "prio", "handle", "chain"} {
		parts = append(parts, text(a.at(p)))
	}
	return strings.Join(parts, " ")
}

// live looks at the kernel that the guest runs.
func (g *bpfGuest) live() look {
	return lookAt(g.t, func(args ...string) string {
		g.t.Helper()
		status, out, errs := g.run(guestKsleuth, append([]string{"-o", "json"}, args...)...)
		noErrors(g.t, status, out, errs)
		return out
	})
}
