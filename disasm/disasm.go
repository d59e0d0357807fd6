// Package disasm lists machine code as it stands in the target's memory, with
// what its operands name, what the kernel has rewritten in it and, for BPF
// programs, source lines and BPF instructions.
package disasm

import (
	"fmt"
	"strings"
	"sync"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// Options say what is listed and how.
type Options struct {
	Len     int  // bytes; 0 is a whole function, or 64 at an address inside one
	Intel   bool // Intel syntax; else AT&T
	Explain bool // notes on what generated code does
	Xlated  bool // BPF instructions beside the code that was made from them
}

// A Listing is disassembled code.
type Listing struct {
	Name  string      `json:"name"`
	Addr  mem.Addr    `json:"addr"`
	Kind  kernel.Kind `json:"kind,omitempty"`
	Lines []Line      `json:"lines"`
	// Padding is the number of bytes behind the last line that only fill up
	// the memory the code was given.
	Padding int    `json:"padding,omitempty"`
	Gaps    []Gap  `json:"gaps,omitempty"`
	Err     string `json:"error,omitempty"` // what could not be read
	// Missing is why a part of the code could not be read, or nil.
	Missing error `json:"-"`
}

// A Line is one instruction.
type Line struct {
	Addr   mem.Addr      `json:"addr"`
	Offset mem.Addr      `json:"offset"` // into the function
	Bytes  string        `json:"bytes"`
	Text   string        `json:"text"`
	Flow   string        `json:"flow,omitempty"`   // where control goes: jump, branch, call, return, trap; "" if on
	Target mem.Addr      `json:"target,omitzero"`  // of a direct jump, branch or call
	Source *bpf.Location `json:"source,omitempty"` // where a new source line begins
	Xlated []Insn        `json:"xlated,omitempty"` // the BPF instructions that the code from here on was made from
	// Note says what the kernel has put here, and what generated code is
	// for. It is about NoteLen bytes, this instruction and others behind it.
	Note    string `json:"note,omitempty"`
	NoteLen int    `json:"note_len,omitempty"`
}

// A Gap is a range inside a listing that cannot be read.
type Gap struct {
	Addr mem.Addr `json:"addr"`
	Len  int      `json:"len"`
	Why  string   `json:"why"`
}

// flows names the classes of control flow in JSON.
var flows = [...]string{
	x86.FlowJump: "jump", x86.FlowIndirectJump: "jump", x86.FlowCondJump: "branch",
	x86.FlowCall: "call", x86.FlowIndirectCall: "call", x86.FlowRet: "return",
	x86.FlowTrap: "trap", x86.FlowHalt: "",
}

// A Disassembler lists code of one kernel. What it needs to know of the kernel
// it reads once, when first needed. It is safe for concurrent use.
type Disassembler struct {
	k       *kernel.Kernel // nil where its memory cannot be read
	syms    Symbols
	handed  *Handed // in place of memory
	percpu  func() []kernel.Symbol
	values  func() []mapRange
	symbols func() map[string]kernel.Symbol
	records func() ([]recordPage, error)

	trampolines func() []*bpf.Trampoline
}

// New returns a disassembler of a kernel's code.
func New(k *kernel.Kernel) *Disassembler {
	d := &Disassembler{k: k, syms: k}
	d.percpu = sync.OnceValue(k.PerCPUSymbols)
	d.values = sync.OnceValue(d.mapRanges)
	d.symbols = sync.OnceValue(func() map[string]kernel.Symbol { return k.LookupAll(tableSymbols...) })
	d.trampolines = sync.OnceValue(func() []*bpf.Trampoline {
		out, _ := bpf.Trampolines(k) // one that cannot be read is not described
		return out
	})
	d.records = sync.OnceValues(d.ftracePages)
	return d
}

// Disassemble lists code. Bytes that are no instruction are listed as (bad).
// Memory that cannot be read is left out and named in the listing, which says
// so by [Listing.Missing]; if none of it can be read, that is an error.
func (d *Disassembler) Disassemble(c Code, o Options) (Listing, error) {
	l := Listing{Name: c.Name, Addr: mem.Addr(c.Start), Lines: []Line{}}
	parts, gaps, err := d.bytes(c)
	if len(parts) == 0 {
		return l, err
	}
	l.Missing = err
	w := writer{d: d, o: o, code: c, list: &l, base: c.Start}
	if s, off, ok := d.syms.Symbolize(c.Start); c.handed != nil {
		l.Kind = kernel.KindBPF
	} else if ok {
		l.Kind, w.base = s.Kind, c.Start-off
	}
	if len(gaps) > 0 {
		l.Gaps, l.Err = gaps, gaps[0].Why
	}
	if o.Len == 0 {
		parts, l.Padding = trimPadding(parts, l.Kind)
	}
	w.source()
	w.sites = d.sitesIn(c.Start, c.Start+uint64(c.Len), w.fail)
	for _, p := range parts {
		w.part(p)
	}
	w.xlated()
	w.explain(parts)
	return l, nil
}

// A writer writes one listing.
type writer struct {
	d     *Disassembler
	o     Options
	code  Code
	list  *Listing
	base  uint64 // of the function
	lines lineTable
	last  bpf.Location
	sites map[uint64]site
	in    x86.Inst
	buf   []byte
}

// fail notes what could not be read; the listing goes on without it.
func (w *writer) fail(what string, err error) {
	if err == nil {
		return
	}
	if w.list.Err != "" {
		w.list.Err += "; "
	}
	w.list.Err += fmt.Sprintf("%s: %v", what, err)
}

// source finds the line table of a BPF program.
func (w *writer) source() {
	if w.code.handed != nil {
		w.lines = w.code.handed.lines
		return
	}
	if w.code.owner == nil && w.list.Kind == kernel.KindBPF {
		if owner, ok := bpf.OwnerOf(w.d.k, w.code.Start); ok {
			w.code.owner = &owner
		}
	}
	w.lines = new(bpf.Lines)
	if w.code.owner == nil {
		return
	}
	lines, err := w.code.owner.Lines(w.d.k)
	if err != nil {
		w.fail("no source lines", err)
		return
	}
	w.lines = lines
}

// part lists a range of memory without gaps.
func (w *writer) part(p part) {
	in := &w.in
	for off := 0; off < len(p.code); off += max(in.Len, 1) {
		at := p.addr + uint64(off)
		_ = in.Decode(p.code[off:], at) // leaves a (bad) of one byte
		line := Line{
			Addr: mem.Addr(at), Offset: mem.Addr(at - w.base), Bytes: fmt.Sprintf("% x", in.Bytes()),
			Text: w.text(), Flow: flows[in.Flow()],
		}
		if t, ok := in.Target(); ok {
			line.Target = mem.Addr(t)
		}
		if s, ok := w.sites[at]; ok {
			line.note(s.describe(w.d, in, p.code[off+in.Len:]), in.Len)
		} else {
			line.note(w.d.thunkNote(in, p.code[off+in.Len:]), in.Len)
		}
		if loc, ok := w.lines.At(at); ok && (loc.Line != w.last.Line || loc.File != w.last.File) {
			w.last = loc
			line.Source = &loc
		}
		w.list.Lines = append(w.list.Lines, line)
	}
}

// note adds a note on n bytes.
func (l *Line) note(text string, n int) {
	if text == "" {
		return
	}
	if l.Note != "" {
		text = l.Note + "; " + text
	}
	l.Note, l.NoteLen = text, max(l.NoteLen, n)
}

// text formats the instruction with what its operands name.
func (w *writer) text() string {
	if w.o.Intel {
		w.buf = w.in.AppendIntel(w.buf[:0], w.symbol)
	} else {
		w.buf = w.in.AppendGNU(w.buf[:0], w.symbol)
	}
	refs := w.refs()
	if len(refs) == 0 {
		return string(w.buf)
	}
	sep := " # "
	if strings.Contains(string(w.buf), " # ") {
		sep = ", "
	}
	return string(w.buf) + sep + strings.Join(refs, ", ")
}
