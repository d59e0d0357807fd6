package jit_test

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/x86"
)

var update = flag.Bool("update", false, "write the golden files of this test")

// A fixture is code that a kernel generated, as testdata/KERNEL/NAME.code has
// it, with the names of what it refers to.
type fixture struct {
	path string // without .code
	what string
	kind jit.Kind
	addr uint64
	name string
	syms map[uint64]string // NAME or NAME+OFFSET
	maps map[uint64]string
	code []byte
}

var kinds = map[string]jit.Kind{
	"program": jit.Program, "subprogram": jit.Subprogram, "exception": jit.ExceptionCallback,
	"trampoline": jit.Trampoline, "struct_ops": jit.StructOps, "dispatcher": jit.Dispatcher,
}

// fixtures reads those whose path below testdata matches a pattern.
func fixtures(t testing.TB, pattern string) []*fixture {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern+".code"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Not(qt.HasLen(paths, 0)), qt.Commentf("no fixture %s", pattern))
	var out []*fixture
	for _, p := range paths {
		out = append(out, readFixture(t, p))
	}
	return out
}

func readFixture(t testing.TB, path string) *fixture {
	t.Helper()
	f, err := os.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	x := &fixture{path: strings.TrimSuffix(path, ".code"), syms: map[uint64]string{}, maps: map[uint64]string{}}
	inCode := false
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		switch {
		case inCode:
			b, err := hex.DecodeString(w[0])
			qt.Assert(t, qt.IsNil(err))
			x.code = append(x.code, b...)
		case w[0] == "#":
			x.what = strings.Join(w[1:], " ")
		case w[0] == "kind":
			x.kind = kinds[w[1]]
		case w[0] == "addr":
			x.addr = address(t, w[1])
		case w[0] == "name":
			x.name = w[1]
		case w[0] == "sym":
			x.syms[address(t, w[1])] = w[2]
		case w[0] == "map":
			x.maps[address(t, w[1])] = w[2]
		case w[0] == "code":
			inCode = true
		default:
			t.Fatalf("%s: what is %q?", path, sc.Text())
		}
	}
	qt.Assert(t, qt.IsNil(sc.Err()))
	qt.Assert(t, qt.Not(qt.Equals(x.kind, 0)), qt.Commentf("%s", path))
	return x
}

func address(t testing.TB, s string) uint64 {
	v, err := strconv.ParseUint(s, 0, 64)
	qt.Assert(t, qt.IsNil(err))
	return v
}

// sym is the x86.SymbolFunc of the fixture.
func (x *fixture) sym(addr uint64) (string, uint64, bool) {
	if addr >= x.addr && addr < x.addr+uint64(len(x.code)) {
		return x.name, addr - x.addr, true
	}
	s, ok := x.syms[addr]
	if !ok {
		return "", 0, false
	}
	name, off, _ := strings.Cut(s, "+")
	v, _ := strconv.ParseUint(off, 0, 64)
	return name, v, true
}

func (x *fixture) options() jit.Options {
	return jit.Options{Kind: x.kind, Sym: x.sym, MapAt: func(addr uint64) string {
		if name := x.maps[addr]; name != "" {
			return "map " + name
		}
		return ""
	}}
}

// Addresses differ from one run of a kernel to the next, so the listing has
// none but offsets into the code itself.
func (x *fixture) local(addr uint64) (string, uint64, bool) {
	if addr >= x.addr && addr < x.addr+uint64(len(x.code)) {
		return "", addr - x.addr, true
	}
	return x.sym(addr)
}

// listing writes the code with the notes beside it.
func (x *fixture) listing(notes []jit.Note) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n\n", x.what)
	for off := 0; off < len(x.code); {
		in, err := x86.Decode(x.code[off:], x.addr+uint64(off))
		text := "(bad)"
		if err == nil {
			text = string(in.AppendGNU(nil, x.local))
		}
		bytes := fmt.Sprintf("% x", in.Bytes())
		line := fmt.Sprintf("%+#6x  %-30s  %-44s %s", off, bytes, x.short(text), bracket(notes, off, in.Len))
		out.WriteString(strings.TrimRight(line, " ") + "\n")
		off += in.Len
	}
	out.WriteString(x.facts())
	return out.String()
}

// short leaves out the addresses that have a name: the name is what stays the
// same.
func (x *fixture) short(text string) string {
	if before, name, ok := strings.Cut(text, " <"); ok {
		if i := strings.LastIndexAny(before, " $*,"); i >= 0 {
			text = before[:i+1] + strings.TrimPrefix(strings.TrimSuffix(name, ">"), "+")
		}
	}
	for addr, name := range x.syms {
		text = strings.ReplaceAll(text, fmt.Sprintf("%#x", addr), name)
	}
	for addr, name := range x.maps {
		text = strings.ReplaceAll(text, fmt.Sprintf("%#x", addr), "map:"+name)
	}
	return text
}

// bracket draws a note over the instructions it covers.
func bracket(notes []jit.Note, off, size int) string {
	for _, n := range notes {
		switch {
		case off == n.Off && size == n.Len:
			return "─ " + n.Text
		case off == n.Off:
			return "┌ " + n.Text
		case off > n.Off && off+size == n.Off+n.Len:
			return "└"
		case off > n.Off && off < n.Off+n.Len:
			return "│"
		}
	}
	return ""
}

// facts lists what the structured readers say.
func (x *fixture) facts() string {
	var b strings.Builder
	b.WriteString("\n")
	name := func(addr uint64) string {
		s, off, ok := x.sym(addr)
		switch {
		case addr == 0:
			return "none"
		case !ok:
			return "?"
		case off != 0:
			return fmt.Sprintf("%s+%#x", s, off)
		}
		return s
	}
	switch x.kind {
	case jit.Program, jit.Subprogram, jit.ExceptionCallback:
		p, ok := jit.ReadPrologue(x.code, x.addr)
		if !ok {
			return "\nno prologue\n"
		}
		fmt.Fprintf(&b, "attached: %s %s at %+#x\n", p.Attach.Patch, name(p.Attach.Target), p.Attach.Addr-x.addr)
		fmt.Fprintf(&b, "count: by %v, reset %v, slot %#x\n", p.CountBy, p.Resets, p.CountSlot)
		fmt.Fprintf(&b, "frame: %d bytes, saves %s; private %v, arena %v\n", p.StackSize, strings.Join(p.Saved, " "), p.PrivateStack, p.ArenaBase != 0)
		fmt.Fprintf(&b, "tail calls enter at +%#x; body at +%#x\n", p.TailCallEntry, p.Len)
	case jit.Trampoline, jit.StructOps:
		c, err := jit.ReadTrampoline(x.code, x.addr, x.options())
		if err != nil {
			return fmt.Sprintf("\nerror: %v\n", err)
		}
		fmt.Fprintf(&b, "%d bytes, %d arguments at %#x, enters %v\n", c.Len, c.Args, c.Ctx, c.Enters)
		for _, r := range c.Runs {
			fmt.Fprintf(&b, "runs %s between %s and %s; cookie %#x, after %v, returns %v, skippable %v\n",
				name(r.Prog), name(r.Enter), name(r.Exit), r.Cookie, r.After, r.Returns, r.Skippable)
		}
		fmt.Fprintf(&b, "original: %v %s, return value kept %v, skips its frame %v\n", c.Calls, name(c.Original), c.SavesReturn, c.SkipsFrame)
		keeps := "does not arise"
		if c.KeepsTailCalls != nil {
			keeps = fmt.Sprint(*c.KeepsTailCalls)
		}
		fmt.Fprintf(&b, "keeps the tail-call count: %s\n", keeps)
		for _, e := range c.Evidence {
			fmt.Fprintf(&b, "  %s\n", x.short(e))
		}
	}
	return b.String()
}

// TestGolden compares what is said of the code of real kernels with what a
// person has read and found right.
func TestGolden(t *testing.T) {
	for _, x := range fixtures(t, "*/*") {
		t.Run(strings.TrimPrefix(x.path, "testdata/"), func(t *testing.T) {
			got := x.listing(jit.Explain(x.code, x.addr, x.options()))
			path := x.path + ".txt"
			if *update {
				qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(got), 0o666)))
				return
			}
			want, err := os.ReadFile(path)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(got, string(want)))
		})
	}
}
