package render

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/disasm"
)

func listing(l disasm.Listing, o ListingOptions) string {
	var b strings.Builder
	NewPrinter(&b, Options{}).Listing(l, o)
	return "\n" + b.String()
}

// TestListing: everything a listing can have.
func TestListing(t *testing.T) {
	l := disasm.Listing{
		Name: "f", Addr: 0xffffffff81000000,
		Lines: []disasm.Line{
			{Addr: 0xffffffff81000000, Offset: 0, Bytes: "85 c0", Text: "test %eax,%eax", Note: "a note on two instructions that is too long for one line, and even for two", NoteLen: 4,
				Source: &bpf.Location{File: "a.c", Line: 3, Text: "if (x)"}, Xlated: []disasm.Insn{{Index: 7, Text: "(95) exit"}}},
			{Addr: 0xffffffff81000002, Offset: 2, Bytes: "74 05", Text: "je 0xffffffff8100000e <f+0xe>", Flow: "branch", Target: 0xffffffff8100000e},
			{Addr: 0xffffffff81000004, Offset: 4, Bytes: "48 8b 05 01 00 00 00", Text: "mov 0x1(%rip),%rax # 0xffffffff8100000c <name>", Note: "short", NoteLen: 7},
			{Addr: 0xffffffff8100000b, Offset: 0xb, Bytes: "e8 01 02 03 04", Text: "call 0xffffffff85000000 <g [mod]>", Flow: "call", Target: 0xffffffff85000000,
				Source: &bpf.Location{File: "a.c", Line: 4, Text: "g();"}},
			{Addr: 0xffffffff8100000e, Offset: 0xe, Bytes: "c3", Text: "ret", Flow: "return"},
		},
		Padding: 40,
		Gaps:    []disasm.Gap{{Addr: 0xffffffff81001000, Len: 16, Why: "not mapped"}},
		Err:     "not mapped",
	}
	qt.Check(t, qt.Equals(listing(l, ListingOptions{Arrows: true}), `
f  at 0xffffffff81000000
; a.c:3  if (x)
   7: (95) exit
  +0x0    test %eax,%eax              ┐ a note on two instructions that is too long for one line,
  +0x2 ╭─ je +0xe                     ┘ and even for two
  +0x4 │  mov 0x1(%rip),%rax  # name  ; short
       │  ; a.c:4  g();
  +0xb │  call g [mod]
  +0xe ╰► ret
not read: 16 bytes at 0xffffffff81001000: not mapped
       40 bytes of padding follow
`))
	qt.Check(t, qt.Equals(listing(l, ListingOptions{Bytes: true}), `
f  at 0xffffffff81000000
; a.c:3  if (x)
   7: (95) exit
  +0x0  ffffffff81000000  85 c0                       test %eax,%eax
  +0x2  ffffffff81000002  74 05                       je +0xe
                          ┐ a note on two instructions that is too long for one line, and even for
                          ┘ two
  +0x4  ffffffff81000004  48 8b 05 01 00 00 00        mov 0x1(%rip),%rax  # name  ; short
; a.c:4  g();
  +0xb  ffffffff8100000b  e8 01 02 03 04              call g [mod]
  +0xe  ffffffff8100000e  c3                          ret
not read: 16 bytes at 0xffffffff81001000: not mapped
       40 bytes of padding follow
`))
	l.Err = "not mapped; no source lines: damaged"
	qt.Check(t, qt.StringContains(listing(l, ListingOptions{}), "\nnot read: no source lines: damaged\n"))
}
