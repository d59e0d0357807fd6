package jit_test

import (
	"debug/elf"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// checkNotes checks what holds of all notes: they are in order, do not overlap,
// cover whole instructions and fit beside them.
func checkNotes(t testing.TB, code []byte, addr uint64, notes []jit.Note) {
	t.Helper()
	starts := map[int]bool{len(code): true}
	for off := 0; off < len(code); {
		in, err := x86.Decode(code[off:], addr+uint64(off))
		if err != nil {
			starts[off] = true // where decoding ended
			break
		}
		starts[off] = true
		off += in.Len
	}
	end := 0
	for _, n := range notes {
		qt.Assert(t, qt.IsTrue(n.Len > 0 && n.Off >= end), qt.Commentf("%+v after %#x", n, end))
		end = n.Off + n.Len
		qt.Assert(t, qt.IsTrue(starts[n.Off] && starts[end]), qt.Commentf("%+v is not of whole instructions", n))
		qt.Assert(t, qt.IsTrue(n.Text != "" && !strings.ContainsAny(n.Text, "{}\n")), qt.Commentf("%+v", n))
	}
}

func TestNotes(t *testing.T) {
	const columns = 90 // names of programs and maps can be long
	for _, x := range fixtures(t, "*/*") {
		notes := jit.Explain(x.code, x.addr, x.options())
		checkNotes(t, x.code, x.addr, notes)
		for _, n := range notes {
			if !strings.Contains(n.Text, "bpf_prog_") {
				qt.Check(t, qt.IsTrue(utf8.RuneCountInString(n.Text) <= columns), qt.Commentf("%s: %s", x.path, n.Text))
			}
		}
	}
}

// TestWithoutNames: without symbols and map names what the code itself tells is
// still told, and nothing else.
func TestWithoutNames(t *testing.T) {
	for _, x := range fixtures(t, "*/*") {
		notes := jit.Explain(x.code, x.addr, jit.Options{Kind: x.kind})
		checkNotes(t, x.code, x.addr, notes)
		qt.Check(t, qt.Not(qt.HasLen(notes, 0)), qt.Commentf("%s", x.path))
		named := jit.Explain(x.code, x.addr, x.options())
		covered := map[int]bool{}
		for _, n := range named {
			for i := range n.Len {
				covered[n.Off+i] = true
			}
		}
		for _, n := range notes {
			qt.Check(t, qt.IsTrue(covered[n.Off]), qt.Commentf("%s: %+v only without names", x.path, n))
		}
	}
}

// TestAnywhere: the notes do not depend on where the code lies.
func TestAnywhere(t *testing.T) {
	for _, x := range fixtures(t, "*/caseD-*") {
		a := jit.Explain(x.code, 0x1000, jit.Options{Kind: x.kind})
		b := jit.Explain(x.code, 0xffffffffc0a00000, jit.Options{Kind: x.kind})
		qt.Check(t, qt.HasLen(a, len(b)), qt.Commentf("%s", x.path))
	}
}

var allKinds = []jit.Kind{jit.Program, jit.Subprogram, jit.ExceptionCallback, jit.Trampoline, jit.StructOps, jit.Dispatcher}

// TestOtherCode: code that no JIT compiler wrote gets no note, be it said to be
// of any kind: functions of the kernel, and those of this test, which are
// Go's.
func TestOtherCode(t *testing.T) {
	n := 0
	check := func(name string, code []byte, addr uint64) {
		n++
		for _, kind := range allKinds {
			notes := jit.Explain(code, addr, jit.Options{Kind: kind})
			qt.Check(t, qt.HasLen(notes, 0), qt.Commentf("%s as kind %d: %v", name, kind, notes))
		}
		_, err := jit.ReadTrampoline(code, addr, jit.Options{})
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s is no trampoline", name))
	}
	k := example.Kernel(t)
	generated, err := k.BPFText()
	qt.Assert(t, qt.IsNil(err))
	symbols, err := k.Match("*bpf*")
	qt.Assert(t, qt.IsNil(err))
	for _, s := range symbols {
		code, err := mem.Bytes(k.Mem(), s.Addr, int(min(s.Size, 1<<14)))
		ours := slices.ContainsFunc(generated, func(g kernel.BPFText) bool { return g.Start == s.Addr })
		if err == nil && s.Size > 0 && !ours {
			check(s.Name, code, s.Addr)
		}
	}
	qt.Check(t, qt.IsTrue(n > 0))
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	f, err := elf.Open(exe)
	if err != nil || f.Machine != elf.EM_X86_64 {
		t.Logf("this test's own code is not looked at: %v", err)
		return
	}
	defer f.Close()
	text := f.Section(".text")
	code, err := text.Data()
	qt.Assert(t, qt.IsNil(err))
	const piece = 512
	for off := 0; off+piece <= len(code); off += 32 * piece {
		check("Go code", code[off:off+piece], text.Addr+uint64(off))
	}
}

// TestMutated: with one instruction that is not what the kernel writes, the
// idiom it is in has no note; the others keep theirs.
func TestMutated(t *testing.T) {
	for _, x := range fixtures(t, "*/caseA-stub") {
		whole := jit.Explain(x.code, x.addr, x.options())
		for off := 0; off < len(x.code); {
			in, err := x86.Decode(x.code[off:], x.addr+uint64(off))
			qt.Assert(t, qt.IsNil(err))
			changed := *x
			changed.code = append([]byte(nil), x.code...)
			for i := range in.Len {
				changed.code[off+i] = 0xf8 // clc, which no program has
			}
			notes := jit.Explain(changed.code, changed.addr, changed.options())
			checkNotes(t, changed.code, changed.addr, notes)
			qt.Check(t, qt.IsTrue(len(notes) <= len(whole)))
			for _, n := range notes {
				qt.Check(t, qt.IsFalse(n.Off <= off && off < n.Off+n.Len), qt.Commentf("%s: clc at %#x is noted: %+v", x.path, off, n))
			}
			off += in.Len
		}
	}
}
