package unwind

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/x86"
)

var update = flag.Bool("update", false, "write the expected columns of testdata/depth")

// TestDepths holds the depths against code that kernels generated. A file has
// a line for each instruction: its offset, how far rsp stands below the return
// address before it, what is known of rbp (saved: the caller's is on the stack;
// framed: the function's own is set), its bytes, its text. A "-" is code that
// control flow does not reach.
func TestDepths(t *testing.T) {
	files, err := filepath.Glob("testdata/depth/*.txt")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Not(qt.HasLen(files, 0)))
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			qt.Assert(t, qt.IsNil(err))
			f := parseDepths(t, string(raw))
			at := depths(f.code, f.entry)
			got := f.format(at)
			if *update {
				qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(got), 0o644)))
			}
			qt.Check(t, qt.Equals(got, string(raw)))
			f.check(t, at)
		})
	}
}

type depthFile struct {
	comments []string
	entry    uint64
	code     []byte
	lines    []depthLine
}

type depthLine struct {
	off        int
	bytes, txt string
}

func parseDepths(t *testing.T, raw string) depthFile {
	t.Helper()
	var f depthFile
	for line := range strings.Lines(raw) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "# "):
			f.comments = append(f.comments, line)
		case strings.HasPrefix(line, "entry "):
			_, err := fmt.Sscanf(line, "entry 0x%x", &f.entry)
			qt.Assert(t, qt.IsNil(err))
		default:
			head, txt, _ := strings.Cut(line, " # ")
			fields := strings.Fields(head)
			qt.Assert(t, qt.HasLen(fields, 4), qt.Commentf("%q", line))
			b, err := hex.DecodeString(fields[3])
			qt.Assert(t, qt.IsNil(err))
			f.lines = append(f.lines, depthLine{len(f.code), fields[3], txt})
			f.code = append(f.code, b...)
		}
	}
	return f
}

func (f *depthFile) format(at []depth) string {
	var b strings.Builder
	for _, c := range f.comments {
		b.WriteString(c + "\n")
	}
	fmt.Fprintf(&b, "entry %#x\n", f.entry)
	for _, l := range f.lines {
		d, size, frame := at[l.off], "-", "-"
		if d.visited {
			size = fmt.Sprint(d.bytes)
			switch {
			case d.framed:
				frame = "framed"
			case d.saved:
				frame = "saved"
			}
		}
		fmt.Fprintf(&b, "%#-6x %4s %-6s %-24s # %s\n", l.off, size, frame, l.bytes, l.txt)
	}
	return b.String()
}

// check holds the depths against what must be so in any function: at a return
// the return address is on top of the stack and the caller's rbp is back; in
// code that has a frame, rbp is where rsp was when it was set.
func (f *depthFile) check(t *testing.T, at []depth) {
	returns := 0
	for _, l := range f.lines {
		in, err := x86.Decode(f.code[l.off:], f.entry+uint64(l.off))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%#x", l.off))
		d := at[l.off]
		if !d.visited {
			continue
		}
		if in.Flow() == x86.FlowRet {
			returns++
			qt.Check(t, qt.Equals(d, depth{visited: true}), qt.Commentf("ret at %#x", l.off))
		}
		qt.Check(t, qt.IsTrue(d.bytes >= 0 && d.bytes%8 == 0), qt.Commentf("%d at %#x", d.bytes, l.off))
	}
	qt.Check(t, qt.Not(qt.Equals(returns, 0)))
}

// TestDepthAtCall: of a return address, the depth is that before the call.
func TestDepthAtCall(t *testing.T) {
	// push %rbp; mov %rsp,%rbp; sub $0x10,%rsp; call +0 (the last
	// instruction: the callee does not return)
	code := []byte{0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0xe8, 0, 0, 0, 0}
	end := len(code)
	qt.Check(t, qt.Equals(depthAt(code, 0x1000, end, true), depth{}))
	// The lookup address of a frame is one below its return address.
	d := depthAt(code, 0x1000, end-1, false)
	qt.Check(t, qt.Equals(d, depth{bytes: 24, saved: true, framed: true, visited: true}))
	qt.Check(t, qt.Equals(d.cfa(0xff00), uint64(0xff00+24+8)))
	// Before the frame is complete.
	qt.Check(t, qt.Equals(depthAt(code, 0x1000, 1, true), depth{bytes: 8, saved: true, visited: true}))
	// Outside.
	qt.Check(t, qt.Equals(depthAt(code, 0x1000, -1, true), depth{}))
	qt.Check(t, qt.Equals(depthAt(code, 0x1000, 4096, false), depth{}))
}

// FuzzDepths: code can be any bytes.
func FuzzDepths(f *testing.F) {
	f.Add([]byte{0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfe}, 3)
	f.Add([]byte{0xe9, 0xff, 0xff, 0xff, 0x7f, 0xeb, 0x80}, 0)
	f.Fuzz(func(_ *testing.T, code []byte, pc int) {
		const entry = 0xffff_ffff_ffff_fff0 // targets wrap around
		depthAt(code, entry, pc, true)
		depthAt(code, entry, pc, false)
	})
}

// TestDepthOfCompiled: what compiled code does that generated code does not.
func TestDepthOfCompiled(t *testing.T) {
	for _, test := range []struct {
		name string
		code []byte
		want depth // behind it
	}{
		{"push %r15; push %rbp", []byte{0x41, 0x57, 0x55}, depth{bytes: 16, saved: true, slot: 8, visited: true}},
		{"push %r15; push %rbp; mov %rsp,%rbp", []byte{0x41, 0x57, 0x55, 0x48, 0x89, 0xe5}, depth{bytes: 16, saved: true, slot: 8, visited: true}},
		{"sub $0x90,%rsp; pushf", []byte{0x48, 0x81, 0xec, 0x90, 0, 0, 0, 0x9c}, depth{bytes: 0x98, visited: true}},
		{"pushf; pop 0x90(%rsp)", []byte{0x9c, 0x8f, 0x84, 0x24, 0x90, 0, 0, 0}, depth{visited: true}},
		{"pushf; popf", []byte{0x9c, 0x9d}, depth{visited: true}},
		{"and $-16,%rsp", []byte{0x48, 0x83, 0xe4, 0xf0}, depth{lost: true, visited: true}},
		{"mov %rdi,%rsp", []byte{0x48, 0x89, 0xfc}, depth{lost: true, visited: true}},
		{"lea 8(%rdi),%rsp", []byte{0x48, 0x8d, 0x67, 0x08}, depth{lost: true, visited: true}},
		{"push %rbp; mov %rsp,%rbp; and $-16,%rsp; leave", []byte{0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0xc9}, depth{visited: true}},
		{"leave", []byte{0xc9}, depth{lost: true, visited: true}},
	} {
		code := append(test.code, 0x90)
		qt.Check(t, qt.Equals(depthAt(code, 0x1000, len(test.code), true), test.want), qt.Commentf("%s", test.name))
	}
}
