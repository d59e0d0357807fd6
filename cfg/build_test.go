package cfg_test

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/x86"
)

var update = flag.Bool("update", false, "write what testdata expects")

// TestFunctions holds the graphs of kernel functions against testdata, where a
// person has read them.
func TestFunctions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Not(qt.HasLen(files, 0)))
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			qt.Assert(t, qt.IsNil(err))
			entry, code, head := parse(t, string(raw))
			g, err := cfg.Build(code, entry, cfg.Options{})
			qt.Assert(t, qt.IsNil(err))
			got := head + show(g)
			if *update {
				qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(got), 0o644)))
			}
			qt.Check(t, qt.Equals(got, string(raw)))
		})
	}
}

// parse reads the lines of a file that give the function.
func parse(t *testing.T, raw string) (entry uint64, code []byte, head string) {
	t.Helper()
	for line := range strings.Lines(raw) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch word {
		case "#":
		case "entry":
			entry, err = strconv.ParseUint(rest, 0, 64)
		case "code":
			var b []byte
			b, err = hex.DecodeString(rest)
			code = append(code, b...)
		default:
			return entry, code, head
		}
		qt.Assert(t, qt.IsNil(err))
		head += line
	}
	return entry, code, head
}

// show writes a graph. Addresses are offsets from the entry.
func show(g *cfg.Graph) string {
	var w strings.Builder
	idom, ipdom := g.Dominators(), g.PostDominators()
	for i, b := range g.Blocks {
		fmt.Fprintf(&w, "\nblock %d: from %v to %v", i, b.Preds, b.Succs)
		w.WriteString(ends(b))
		fmt.Fprintf(&w, "; dominator %d, post-dominator %d; controlled by %s\n", idom[i], ipdom[i], offsets(g, g.Controls(b.Start)))
		code := g.Code(i)
		for off := 0; off < len(code); {
			in, _ := x86.Decode(code[off:], b.Start+uint64(off))
			fmt.Fprintf(&w, "  +%#-5x %s\n", in.Addr-g.Entry, in.AppendGNU(nil, func(addr uint64) (string, uint64, bool) {
				return "entry", addr - g.Entry, addr-g.Entry < 1<<20
			}))
			off += in.Len
		}
	}
	for i, l := range g.Loops() {
		fmt.Fprintf(&w, "\nloop %d: head %d, blocks %v, latches %s, exits %v, in loop %d\n", i, l.Head, l.Blocks, offsets(g, l.Latches), l.Exits, l.Parent)
	}
	return w.String()
}

func offsets(g *cfg.Graph, addrs []uint64) string {
	var out []string
	for _, a := range addrs {
		out = append(out, fmt.Sprintf("+%#x", a-g.Entry))
	}
	return "[" + strings.Join(out, " ") + "]"
}

// TestEnds: what ends a block, and what the options change of it.
func TestEnds(t *testing.T) {
	const entry, cold, abort = 0x1000, 0x2000, 0x3000
	isAbort := func(a uint64) bool { return a == abort }
	for _, test := range []struct {
		name string
		code string
		o    cfg.Options
		want string // start-end of each block with where it goes
	}{
		{"ret", "90c3", cfg.Options{}, "0-2 exit"},
		{"over the end", "9090", cfg.Options{}, "0-2 exit"},
		{"call at the end", "e8f71f0000", cfg.Options{}, "0-5 no-return"},
		{"call", "e8fb1f0000c3", cfg.Options{}, "0-6 exit"},
		{"call that does not return", "e8fb1f0000c3", cfg.Options{NoReturn: isAbort}, "0-5 no-return"},
		{"jump to what does not return", "e9fb1f0000", cfg.Options{NoReturn: isAbort}, "0-5 no-return"},
		{"branch to what does not return", "0f85fa1f0000c3", cfg.Options{NoReturn: isAbort}, "0-6 to 6; 6-7 exit"},
		{"tail jump", "e9fb0f0000", cfg.Options{}, "0-5 exit"},
		{"to a part", "e9fb0f0000", cfg.Options{Parts: []cfg.Part{{Addr: cold, Code: []byte{0xc3}}}}, "0-5 to 1000; 1000-1001 exit"},
		{"branch out", "0f85fa0f0000c3", cfg.Options{}, "0-6 to 6 exit; 6-7 exit"},
		{"branch", "750190c3", cfg.Options{}, "0-2 to 2 3; 2-3 to 3; 3-4 exit"},
		{"branch to behind itself", "7500c3", cfg.Options{}, "0-2 to 2; 2-3 exit"},
		{"dead code", "eb0190c3", cfg.Options{}, "0-2 to 3; 3-4 exit"},
		{"into an instruction", "7501b8c3909090c3", cfg.Options{}, "0-2 to 2 3; 2-8 exit; 3-4 exit"},
		{"two streams that meet", "7501b090c3", cfg.Options{}, "0-2 to 2 3; 2-4 to 4; 3-4 to 4; 4-5 exit"},
		{"self", "ebfe", cfg.Options{}, "0-2 to 0"},
		{"hlt", "f4c3", cfg.Options{}, "0-2 exit"},
		{"ud2", "0f0bc3", cfg.Options{}, "0-2 no-return"},
		{"warning", "0f0bc3", cfg.Options{Warn: func(a uint64) bool { return a == entry }}, "0-3 exit"},
		{"int3", "ccc3", cfg.Options{}, "0-1 no-return"},
		{"int", "cd80c3", cfg.Options{}, "0-3 exit"},
		{"no instruction", "9006c3", cfg.Options{}, "0-2 no-return"},
		{"cut off", "90b800", cfg.Options{}, "0-2 no-return"},
		{"indirect jump", "ffe0c3", cfg.Options{}, "0-2 unknown"},
		{"jump table", "ffe0c390c3", cfg.Options{Targets: func(*x86.Inst) []uint64 { return []uint64{entry + 2, entry + 3, entry + 2} }}, "0-2 to 2 3; 2-3 exit; 3-5 exit"},
		{"fixup", "488b07c331c0c3", cfg.Options{Fixup: func(a uint64) (uint64, bool) { return entry + 4, a == entry }}, "0-3 to 3 4; 3-4 exit; 4-7 exit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, err := hex.DecodeString(test.code)
			qt.Assert(t, qt.IsNil(err))
			g, err := cfg.Build(code, entry, test.o)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(brief(g), test.want))
		})
	}
}

func ends(b cfg.Block) (s string) {
	for _, f := range []struct {
		is   bool
		word string
	}{{b.Exit, " exit"}, {b.NoReturn, " no-return"}, {b.Unknown, " unknown"}} {
		if f.is {
			s += f.word
		}
	}
	return s
}

func brief(g *cfg.Graph) string {
	var out []string
	for _, b := range g.Blocks {
		s := fmt.Sprintf("%x-%x", b.Start-g.Entry, b.End-g.Entry)
		for i, to := range b.Succs {
			if i == 0 {
				s += " to"
			}
			s += fmt.Sprintf(" %x", g.Blocks[to].Start-g.Entry)
		}
		out = append(out, s+ends(b))
	}
	return strings.Join(out, "; ")
}

// TestBounds: what Build refuses.
func TestBounds(t *testing.T) {
	_, err := cfg.Build(nil, 0x1000, cfg.Options{})
	qt.Check(t, qt.ErrorMatches(err, "control flow of the function at 0x1000: no code"))
	_, err = cfg.Build(make([]byte, 11), 0x1000, cfg.Options{Limit: 10})
	qt.Check(t, qt.IsTrue(errors.Is(err, cfg.ErrLimit)))
	_, err = cfg.Build(make([]byte, 10), 0x1000, cfg.Options{Parts: []cfg.Part{{Addr: 0x1009, Code: []byte{0xc3}}}})
	qt.Check(t, qt.ErrorMatches(err, ".*parts at 0x1000 and 0x1009 overlap"))
	_, err = cfg.Build(make([]byte, 10), ^uint64(0)-3, cfg.Options{})
	qt.Check(t, qt.ErrorMatches(err, ".*over the end of the address space"))
}

// TestDeep: much code, of nothing but branches, in the shapes
// that make for the longest walks.
func TestDeep(t *testing.T) {
	const n = cfg.DefaultLimit / 4
	for name, jump := range map[string][]byte{"on": {0x75, 0x00}, "back": {0x75, 0xfc}, "far": {0x75, 0x7e}} {
		t.Run(name, func(t *testing.T) {
			code := slices.Repeat(jump, n/2)
			g, err := cfg.Build(code, 0x1000, cfg.Options{})
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(g.Blocks, n/2))
			g.Dominators()
			g.Controls(0x1000 + n/2)
			for _, l := range g.Loops() {
				qt.Assert(t, qt.IsTrue(l.Depth < 32))
			}
		})
	}
}

// FuzzBuild: any bytes make a graph whose parts fit together.
func FuzzBuild(f *testing.F) {
	for _, s := range []string{"750190c3", "7501b090c3", "ebfe", "ffe0c3", "75fce2fa0f0bc3", "7501b8c3909090c3"} {
		b, _ := hex.DecodeString(s)
		f.Add(b, uint16(0))
	}
	f.Fuzz(func(t *testing.T, code []byte, cut uint16) {
		const entry = 0x1000
		main, rest := code[:min(len(code), 1+int(cut))], code[min(len(code), 1+int(cut)):]
		g, err := cfg.Build(main, entry, cfg.Options{Parts: []cfg.Part{{Addr: entry + uint64(len(main)) + 2, Code: rest}}})
		if err != nil {
			return
		}
		for i, b := range g.Blocks {
			qt.Assert(t, qt.IsTrue(b.Start <= b.Last && b.Last < b.End))
			at, ok := g.BlockAt(b.Start)
			qt.Assert(t, qt.IsTrue(ok))
			qt.Assert(t, qt.Equals(at, i))
			_, ok = g.BlockAt(b.Last)
			qt.Assert(t, qt.IsTrue(ok))
			qt.Assert(t, qt.IsTrue(len(b.Succs) > 0 || b.Exit || b.NoReturn || b.Unknown))
			for _, s := range b.Succs {
				qt.Assert(t, qt.SliceContains(g.Blocks[s].Preds, i))
			}
			qt.Assert(t, qt.IsTrue(g.Dominates(0, i) || g.Blocks[0].Start != entry))
			g.Controls(b.Last)
		}
		g.PostDominators()
		for i, l := range g.Loops() {
			qt.Assert(t, qt.IsTrue(l.Parent == -1 || l.Parent > i))
			qt.Assert(t, qt.SliceContains(l.Blocks, l.Head))
		}
	})
}
