package rerun

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
)

// A bugTable is an array of struct bug_entry (include/asm-generic/bug.h) and
// where each of its members is.
type bugTable struct {
	start uint64
	raw   []byte
}

const maxBugs = 1 << 18

// bugLayout is struct bug_entry of a kernel. The text of a WARN came with 7.0;
// file and line are there with CONFIG_DEBUG_BUGVERBOSE.
type bugLayout struct {
	size               int
	file, line, format int // -1 where there is none
	flags              int
	// fileBase is what file is relative to: the member itself, or, in older
	// kernels, the entry.
	fileBase int
}

func (s *Session) findBugLayout() (bugLayout, bool) {
	l, ok := s.bugMembers()
	if ts := s.bugs(); ok && l.file >= 0 && len(ts) > 0 {
		l.fileBase = s.relation(ts[0], l)
	}
	return l, ok
}

func (s *Session) bugMembers() (bugLayout, bool) {
	l := bugLayout{size: int(s.k.Sizeof("bug_entry"))}
	at := func(member string) int {
		off, err := s.k.Offset("bug_entry", member)
		if err != nil {
			return -1
		}
		return int(off)
	}
	l.file, l.line, l.format, l.flags = at("file_disp"), at("line"), at("format_disp"), at("flags")
	l.fileBase = l.file
	return l, l.size >= 6 && l.flags >= 0
}

// findBugTables reads the tables of the kernel and its modules.
func (s *Session) findBugTables() []bugTable {
	l, ok := s.bugMembers()
	if !ok {
		return nil
	}
	var out []bugTable
	add := func(start, n uint64) {
		if n == 0 || n > maxBugs {
			return
		}
		if raw, err := mem.Bytes(s.view, start, int(n)*l.size); err == nil {
			out = append(out, bugTable{start, raw})
		}
	}
	syms := s.symbols()
	start, stop := syms["__start___bug_table"].Addr, syms["__stop___bug_table"].Addr
	if stop > start {
		add(start, (stop-start)/uint64(l.size))
	}
	mods, _ := s.k.Modules()
	for _, m := range mods {
		o := s.k.Object("module", m.Addr)
		at, n := o.Ptr("bug_table"), o.Uint("num_bugs")
		if o.Err() == nil {
			add(at, n)
		}
	}
	return out
}

// A bug is a WARN or a BUG in the code.
type bug struct {
	addr    uint64
	warning bool
	file    string // "" if unknown
	line    int
	format  string // of a WARN with a text, since 7.0
	name    string // of the place in the code
}

// where says where in the source it is, or else in the code.
func (b bug) where() string {
	s := b.name
	if b.file != "" {
		s = fmt.Sprintf("%s:%d (%s)", b.file, b.line, b.name)
	}
	if b.format != "" {
		s += fmt.Sprintf(": %q", strings.TrimRight(b.format, "\n"))
	}
	return s
}

// bugAt finds the entry of the instruction at addr.
func (s *Session) bugAt(addr uint64) (bug, bool) {
	l, _ := s.bugLayout()
	for _, t := range s.bugs() {
		for at := 0; at+l.size <= len(t.raw); at += l.size {
			if rel32(t.raw, at, t.start) == addr {
				return s.readBug(t.raw[at:at+l.size], t.start+uint64(at), l), true
			}
		}
	}
	return bug{}, false
}

// rel32 is the address in a word at an offset that is relative to itself.
func rel32(b []byte, at int, base uint64) uint64 {
	return base + uint64(at) + uint64(int64(int32(binary.LittleEndian.Uint32(b[at:]))))
}

// bugEntry reads the struct bug_entry at an address.
func (s *Session) bugEntry(addr uint64) (bug, bool) {
	l, ok := s.bugLayout()
	if !ok {
		return bug{}, false
	}
	for _, t := range s.bugs() {
		if addr >= t.start && addr+uint64(l.size) <= t.start+uint64(len(t.raw)) && (addr-t.start)%uint64(l.size) == 0 {
			at := addr - t.start
			return s.readBug(t.raw[at:at+uint64(l.size)], addr, l), true
		}
	}
	return bug{}, false
}

func (s *Session) readBug(raw []byte, base uint64, l bugLayout) bug {
	const warning = 1 // BUGFLAG_WARNING
	b := bug{addr: rel32(raw, 0, base)}
	b.warning = binary.LittleEndian.Uint16(raw[l.flags:])&warning != 0
	b.name = s.Name(b.addr)
	if l.line >= 0 {
		b.line = int(binary.LittleEndian.Uint16(raw[l.line:]))
	}
	if l.file >= 0 {
		b.file, _ = s.fileName(base+uint64(l.fileBase)+uint64(int64(int32(binary.LittleEndian.Uint32(raw[l.file:])))), false)
	}
	if l.format >= 0 && binary.LittleEndian.Uint32(raw[l.format:]) != 0 {
		b.format, _ = mem.CString(s.view, rel32(raw, l.format, base), 200)
	}
	return b
}

// fileName reads the name of a source file at addr; with whole, only if the
// name begins there. (Linkers let a text that another one ends in be part of it.)
func (s *Session) fileName(addr uint64, whole bool) (string, bool) {
	const most = 200
	if before, err := mem.U8(s.view, addr-1); whole && (err != nil || before != 0) {
		return "", false
	}
	name, err := mem.CString(s.view, addr, most)
	if err != nil || len(name) < 3 || !printable(name) {
		return "", false
	}
	for _, ext := range []string{".c", ".h", ".S", ".rs"} {
		if strings.HasSuffix(name, ext) {
			return name, true
		}
	}
	return "", false
}

// relation finds out what the names of files are relative to: most names begin
// where they are said to.
func (s *Session) relation(t bugTable, l bugLayout) int {
	const enough = 100
	var votes [2]int
	for i := 0; i < enough && (i+1)*l.size <= len(t.raw); i++ {
		disp := uint64(int64(int32(binary.LittleEndian.Uint32(t.raw[i*l.size+l.file:]))))
		at := t.start + uint64(i*l.size) + disp
		for v, from := range [2]int{0, l.file} {
			if _, ok := s.fileName(at+uint64(from), true); ok {
				votes[v]++
			}
		}
	}
	if votes[0] > votes[1] {
		return 0
	}
	return l.file
}
