//go:build linux

package bpfsys

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// Code is the code of a program, as the kernel hands it out.
type Code struct {
	Insns []byte // BPF instructions (struct bpf_insn) after the verifier's rewrites
	Funcs []Func // the first is the main program
	Lines []Line // source lines, in the order of the instructions; empty without BTF
}

// A Func is the machine code of one function.
type Func struct {
	Name string
	Addr mem.Addr // 0 where the kernel shows no addresses
	Insn int      // index of its first BPF instruction; -1 if that is not known
	Text []byte   // empty if the program is not compiled
}

// A Line is where the code of a source line begins.
type Line struct {
	Addr mem.Addr // of the machine code; 0 as in Func
	bpf.Location
}

// maxCode bounds the code of a program. The verifier takes a million
// instructions of 8 bytes, which rewrites can multiply.
const maxCode = 256 << 20

// CodeOf returns the code of one of the programs that h holds. Without
// CAP_PERFMON or CAP_SYS_ADMIN, or with kernel.kptr_restrict, the kernel leaves
// parts out, and so does Code.
func CodeOf(h *Held[bpf.Program], id int) (*Code, error) {
	fd, err := h.Open(id)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	c, err := readCode(h.Object(id), fd)
	if err != nil {
		err = fmt.Errorf("code of BPF prog %d: %w", id, err)
	}
	return c, err
}

func readCode(p *bpf.Program, fd int) (*Code, error) {
	var n progInfo
	if _, err := info(fd, &n); err != nil {
		return nil, classify(objInfo, err)
	}
	for what, count := range map[string]uint64{
		"code": uint64(n.jitedLen) + uint64(n.xlatedLen), "functions": uint64(n.nrKsyms) + uint64(n.nrLens) + uint64(n.nrFuncs),
		"lines": uint64(n.nrLines) + uint64(n.nrJitedLines),
	} {
		if count > maxCode {
			return nil, fmt.Errorf("%d of %s: more than any program has", count, what)
		}
	}
	c := &Code{Insns: make([]byte, n.xlatedLen)}
	text := make([]byte, n.jitedLen)
	ksyms, lens := make([]uint64, n.nrKsyms), make([]uint32, n.nrLens)
	funcs := make([]funcRecord, n.nrFuncs)
	lines, jited := make([]lineRecord, n.nrLines), make([]uint64, n.nrJitedLines)
	i := progInfo{
		xlatedLen: n.xlatedLen, xlated: first(c.Insns), jitedLen: n.jitedLen, jited: first(text),
		nrKsyms: n.nrKsyms, ksyms: first(ksyms), nrLens: n.nrLens, lens: first(lens),
		nrFuncs: n.nrFuncs, funcs: first(funcs), funcSize: uint32(unsafe.Sizeof(funcRecord{})),
		nrLines: n.nrLines, lines: first(lines), lineSize: uint32(unsafe.Sizeof(lineRecord{})),
		nrJitedLines: n.nrJitedLines, jitedLines: first(jited), jitedLineSize: 8,
	}
	if _, err := info(fd, &i); err != nil {
		return nil, classify(objInfo, err)
	}
	// What it may not show the kernel gives back as NULL, or as no bytes.
	if i.xlated == nil || i.xlatedLen == 0 {
		c.Insns = nil
	}
	if i.jited == nil || i.jitedLen == 0 {
		text = nil
	}
	for j, s := range p.Subprogs {
		f := Func{Name: s.Name, Addr: s.Addr, Insn: -1}
		if j == 0 {
			f.Insn = 0
		}
		if j < len(funcs) {
			f.Insn = int(funcs[j].insn)
		}
		if i.lens != nil && j < len(lens) {
			size := min(int(lens[j]), len(text))
			f.Text, text = text[:size:size], text[size:]
		}
		c.Funcs = append(c.Funcs, f)
	}
	if i.jitedLines == nil {
		clear(jited)
	}
	var err error
	c.Lines, err = sourceLines(p.BTF, lines, jited)
	return c, err
}

// sourceLines resolves the lines of a program by its BTF, whose strings they
// are made of.
func sourceLines(btf int, lines []lineRecord, jited []uint64) ([]Line, error) {
	if len(lines) == 0 || btf == 0 {
		return nil, nil
	}
	types, err := TypesOf(btf)
	if err != nil {
		return nil, err
	}
	out := make([]Line, len(lines))
	for j, l := range lines {
		out[j].Location = location(types, l)
		if j < len(jited) {
			out[j].Addr = mem.Addr(jited[j])
		}
	}
	return out, nil
}

// location: bpf_line_info has the line and the column in one word
// (BPF_LINE_INFO_LINE_NUM and BPF_LINE_INFO_LINE_COL).
func location(types *ctype.Types, l lineRecord) bpf.Location {
	return bpf.Location{
		File: strings.TrimPrefix(types.Text(l.file), "./"), Text: strings.TrimSpace(types.Text(l.line)),
		Line: int(l.lineCol >> 10), Col: int(l.lineCol & 0x3ff), Insn: int(l.insn),
	}
}
