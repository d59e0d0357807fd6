// Package disasm lists machine code as it stands in the target's memory, with
// symbols and, for BPF programs, source lines.
package disasm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// Options say what is listed and how.
type Options struct {
	Len   int  // bytes; 0 is a whole function, or 64 at an address inside one
	Intel bool // Intel syntax; else AT&T
}

// defaultLen is how much is listed from an address that begins no function.
const defaultLen = 64

// maxLen bounds a listing: no function comes near.
const maxLen = 16 << 20

// Code is a range of code to be listed.
type Code struct {
	Name  string
	Start uint64
	Len   int
	owner *bpf.Owner
}

// A Listing is disassembled code.
type Listing struct {
	Name  string      `json:"name"`
	Addr  mem.Addr    `json:"addr"`
	Kind  kernel.Kind `json:"kind,omitempty"`
	Lines []Line      `json:"lines"`
	Err   string      `json:"error,omitempty"` // what could not be read
}

// A Line is one instruction.
type Line struct {
	Addr   mem.Addr      `json:"addr"`
	Offset mem.Addr      `json:"offset"` // into the function
	Bytes  string        `json:"bytes"`
	Text   string        `json:"text"`
	Source *bpf.Location `json:"source,omitempty"` // where a new source line begins
}

// A NotFoundError says that there is no BPF program or function of a name.
type NotFoundError struct {
	What string // a sentence
}

// Error returns the sentence.
func (e *NotFoundError) Error() string { return e.What }

// Find returns the code that what names: a symbol, a number, prog:ID,
// prog:ID/SUBPROG or tramp:ADDR. A program without a subprogram stands for all
// its functions.
func Find(k *kernel.Kernel, what string, o Options) ([]Code, error) {
	if id, ok := strings.CutPrefix(what, "prog:"); ok {
		return findProgram(k, id)
	}
	if addr, ok := strings.CutPrefix(what, "tramp:"); ok {
		what = addr
	}
	addr, err := strconv.ParseUint(what, 0, 64)
	if err != nil {
		s, err := k.Find(what)
		if err != nil {
			return nil, err
		}
		return []Code{{Name: s.String(), Start: s.Addr, Len: length(o, s, 0)}}, nil
	}
	s, off, ok := k.Symbolize(addr)
	if !ok {
		return []Code{{Name: fmt.Sprintf("%#x", addr), Start: addr, Len: length(o, kernel.Symbol{}, 1)}}, nil
	}
	return []Code{{Name: k.FormatAddr(addr), Start: addr, Len: length(o, s, off)}}, nil
}

func length(o Options, s kernel.Symbol, off uint64) int {
	switch {
	case o.Len > 0:
		return min(o.Len, maxLen)
	case off == 0 && s.Size > 0:
		return int(min(s.Size, maxLen))
	}
	return defaultLen
}

func findProgram(k *kernel.Kernel, arg string) ([]Code, error) {
	idText, sub, one := strings.Cut(arg, "/")
	id, err := strconv.Atoi(idText)
	if err != nil {
		return nil, &NotFoundError{fmt.Sprintf("prog:%s: %q is no program id", arg, idText)}
	}
	progs, err := bpf.Programs(k)
	for _, p := range progs {
		if p.ID != id {
			continue
		}
		var out []Code
		for i, s := range p.Subprogs {
			if one && s.Name != sub && strconv.Itoa(i) != sub {
				continue
			}
			out = append(out, Code{Name: s.Name, Start: uint64(s.Addr), Len: min(s.Len, maxLen), owner: &bpf.Owner{Prog: p, Subprog: i}})
		}
		if len(out) == 0 {
			return nil, &NotFoundError{fmt.Sprintf("program %d has no function %q; it has %s", id, sub, names(p))}
		}
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("there is no BPF program with id %d among the %d that could be read: %w", id, len(progs), err)
	}
	return nil, &NotFoundError{fmt.Sprintf("there is no BPF program with id %d", id)}
}

func names(p *bpf.Program) string {
	var out []string
	for _, s := range p.Subprogs {
		out = append(out, s.Name)
	}
	return strings.Join(out, ", ")
}

// Disassemble lists code. Bytes that are no instruction are listed as (bad);
// memory that cannot be read ends the listing with a reason.
func Disassemble(k *kernel.Kernel, c Code, o Options) (Listing, error) {
	l := Listing{Name: c.Name, Addr: mem.Addr(c.Start), Lines: []Line{}}
	code := make([]byte, c.Len)
	if err := k.Mem().ReadMem(code, c.Start); err != nil {
		var f *mem.Fault
		if !errors.As(err, &f) || f.Addr <= c.Start {
			return l, err
		}
		code, l.Err = code[:f.Addr-c.Start], err.Error()
	}
	base := c.Start
	if s, off, ok := k.Symbolize(c.Start); ok {
		l.Kind, base = s.Kind, c.Start-off
	}
	if c.owner == nil && l.Kind == kernel.KindBPF {
		if owner, ok := bpf.OwnerOf(k, c.Start); ok {
			c.owner = &owner
		}
	}
	lines := new(bpf.Lines)
	if c.owner != nil {
		var err error
		if lines, err = c.owner.Lines(k); err != nil {
			l.Err = fmt.Sprintf("no source lines: %v", err)
			lines = new(bpf.Lines)
		}
	}
	symbol := func(addr uint64) (string, uint64, bool) {
		s, off, ok := k.Symbolize(addr)
		return s.String(), off, ok
	}
	var in x86.Inst
	var last bpf.Location
	for off := 0; off < len(code); off += max(in.Len, 1) {
		at := c.Start + uint64(off)
		_ = in.Decode(code[off:], at) // leaves a (bad) of one byte
		line := Line{Addr: mem.Addr(at), Offset: mem.Addr(at - base), Bytes: fmt.Sprintf("% x", in.Bytes())}
		if o.Intel {
			line.Text = string(in.AppendIntel(nil, symbol))
		} else {
			line.Text = string(in.AppendGNU(nil, symbol))
		}
		if loc, ok := lines.At(at); ok && (loc.Line != last.Line || loc.File != last.File) {
			last = loc
			line.Source = &loc
		}
		l.Lines = append(l.Lines, line)
	}
	return l, nil
}
