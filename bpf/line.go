package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A Location is a place in a BPF program's source.
type Location struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
	Text string `json:"text"` // the source line, without leading blanks
	Insn int    `json:"insn"` // index of the BPF instruction in the program
}

// Lines is the line table of one function: which machine code was generated
// from which source line.
type Lines struct {
	k     *kernel.Kernel
	addrs []uint64 // where the code of each entry begins, ascending
	infos uint64   // address of the struct bpf_line_info of the first
	size  uint64   // of one
	strs  uint64   // address of the strings of the program's BTF
}

const (
	maxLineInfo = 1 << 21
	maxLine     = 1 << 12 // bytes of a file name or source line
)

// Lines returns the line table of the function. A program loaded without line
// info has an empty one.
func (o Owner) Lines(k *kernel.Kernel) (*Lines, error) {
	s := o.Prog.Subprogs[o.Subprog]
	aux := k.Object("bpf_prog_aux", s.aux)
	n, first := aux.Uint("nr_linfo"), aux.Uint("linfo_idx")
	infos, jited, btf := aux.Ptr("linfo"), aux.Ptr("jited_linfo"), aux.Ptr("btf")
	if err := aux.Err(); err != nil {
		return nil, err
	}
	if infos == 0 || jited == 0 || btf == 0 || first >= n {
		return &Lines{}, nil
	}
	if n > maxLineInfo {
		return nil, fmt.Errorf("bpf_prog_aux at 0x%x has %d lines: damaged", s.aux, n)
	}
	// The functions of a program share one table; each has the entries from
	// its linfo_idx on, up to the first whose code is another's.
	raw, err := mem.Bytes(k.Mem(), jited+8*first, int(8*(n-first)))
	if err != nil {
		return nil, fmt.Errorf("jited_linfo of bpf_prog_aux at 0x%x: %w", s.aux, err)
	}
	l := &Lines{k: k, size: k.Sizeof("bpf_line_info")}
	l.infos = infos + first*l.size
	for ; len(raw) > 0; raw = raw[8:] {
		at := binary.LittleEndian.Uint64(raw)
		if at < uint64(s.Addr) || at >= uint64(s.Addr)+uint64(s.Len) || len(l.addrs) > 0 && at < l.addrs[len(l.addrs)-1] {
			break
		}
		l.addrs = append(l.addrs, at)
	}
	o2 := k.Object("btf", btf)
	l.strs = o2.Ptr("strings")
	return l, o2.Err()
}

// At returns the source line that the code at pc was generated from: that of
// the last entry at or before pc.
func (l *Lines) At(pc uint64) (Location, bool) {
	i, found := slices.BinarySearch(l.addrs, pc)
	if !found {
		i--
	}
	if i < 0 {
		return Location{}, false
	}
	// Of several entries for one address the last counts: those before it
	// generated no code.
	for i+1 < len(l.addrs) && l.addrs[i+1] == l.addrs[i] {
		i++
	}
	o := l.entry(i)
	insn := int(o.Uint("insn_off"))
	// Line 0 stands for code that the compiler could not ascribe to a line;
	// it belongs with what comes before it.
	for ; i > 0 && line(o) == 0; i-- {
		o = l.entry(i - 1)
	}
	file, err1 := mem.CString(l.k.Mem(), l.strs+o.Uint("file_name_off"), maxLine)
	text, err2 := mem.CString(l.k.Mem(), l.strs+o.Uint("line_off"), maxLine)
	return Location{
		File: strings.TrimPrefix(file, "./"), Text: strings.TrimSpace(text),
		Line: line(o), Col: int(o.Uint("line_col") & 0x3ff), Insn: insn,
	}, errors.Join(o.Err(), err1, err2) == nil
}

func (l *Lines) entry(i int) *kernel.Object {
	return l.k.Object("bpf_line_info", l.infos+uint64(i)*l.size)
}

// line is BPF_LINE_INFO_LINE_NUM of include/uapi/linux/bpf.h.
func line(o *kernel.Object) int { return int(o.Uint("line_col") >> 10) }
