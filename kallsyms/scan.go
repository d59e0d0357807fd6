package kallsyms

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// Sizes of what [Scan] holds of memory at a time, and how far it looks.
const (
	indexBlock = 1 << 20
	namesBlock = 64 << 10
	indexSize  = 512      // kallsyms_token_index: 256 words of 16 bits
	namesReach = 48 << 20 // from kallsyms_token_table back to kallsyms_num_syms
)

// A layout says where the addresses are, relative to the other parts. The parts
// are written in a fixed order, each aligned, by scripts/kallsyms.c.
type layout struct {
	align uint64 // of every part: 8 before 7.0, 4 where no part holds pointers
	locs  func(l Locations, n, align uint64) Locations
}

var layouts = []layout{
	// Since 7.0 (a081b5789255): num_syms, names, markers, token_table,
	// token_index, offsets, seqs_of_names. It goes before the next one, whose
	// alignment could skip the first offset of such a table.
	{4, offsetsBehind},
	// Since 6.4 (404bad70fcf7): the same with relative_base behind offsets.
	{8, offsetsBehind},
	// Since 4.6 (2213e9a66bb8): offsets, relative_base, num_syms, names,
	// markers, seqs_of_names (6.2, 60443c88f3a8), token_table, token_index.
	{8, offsetsBefore},
	// Without CONFIG_KALLSYMS_BASE_RELATIVE: addresses, num_syms, the same.
	{8, addressesBefore},
}

func offsetsBehind(l Locations, n, align uint64) Locations {
	l.Offsets = alignUp(l.TokenIndex+indexSize, align)
	if align == 8 {
		l.RelativeBase = alignUp(l.Offsets+4*n, align)
	}
	return l
}

func offsetsBefore(l Locations, n, align uint64) Locations {
	l.RelativeBase = l.NumSyms - 8
	l.Offsets = l.RelativeBase - alignUp(4*n, align)
	return l
}

func addressesBefore(l Locations, n, _ uint64) Locations {
	l.Addresses = l.NumSyms - 8*n
	return l
}

func alignUp(a, align uint64) uint64 { return (a + align - 1) &^ (align - 1) }

// Scan finds the parts of the table by their form in the kernel's virtual
// memory from start to end, for kernels whose VMCOREINFO does not name them
// (before 6.0). The kernel's read-only data must be inside: from _stext, 64 MB
// are enough. Memory that cannot be read is passed over. If nothing is found,
// the error wraps [ErrNotFound], and the first fault met if there was one.
func Scan(m mem.Reader, start, end uint64) (Locations, error) {
	s := scanner{m: m, start: start}
	for addr := start &^ 7; addr < end; {
		n := min(indexBlock, end-addr)
		block := s.read(addr, n)
		if len(block) == 0 {
			next := (addr | 0xfff) + 1
			if next < addr {
				break
			}
			addr = next
			continue
		}
		for off := 0; off+indexSize <= len(block); off += 4 {
			if !looksLikeIndex(block[off:]) {
				continue
			}
			if loc, ok := s.tables(addr+uint64(off), block[off:]); ok {
				return loc, nil
			}
		}
		// The next block overlaps by what an index could have of this one.
		step := uint64(len(block))
		if step > indexSize {
			step = (step - indexSize + 4) &^ 3
		}
		if addr+step < addr {
			break
		}
		addr += step
	}
	err := fmt.Errorf("%w in %#x to %#x", ErrNotFound, start, end)
	if s.fault != nil {
		err = errors.Join(err, s.fault)
	}
	return Locations{}, err
}

// A scanner holds what the steps of one Scan share.
type scanner struct {
	m     mem.Reader
	start uint64
	fault error // the first
	buf   []byte
}

// read returns the memory at addr as far as it can be read, in a buffer that
// the next read uses again.
func (s *scanner) read(addr, n uint64) []byte {
	if uint64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	b := s.buf[:n]
	if err := s.m.ReadMem(b, addr); err != nil {
		if s.fault == nil {
			s.fault = err
		}
		return b[:validBefore(err, addr, len(b))]
	}
	return b
}

// looksLikeIndex reports whether b starts with a kallsyms_token_index: 256
// ascending offsets from 0, where the ten digits, which every kernel uses in
// names and so never replaces by tokens, take two bytes each.
func looksLikeIndex(b []byte) bool {
	if b[0] != 0 || b[1] != 0 || b[3] != 0 || b[2] == 0 {
		return false
	}
	last := uint16(0)
	for i := 1; i < 256; i++ {
		v := binary.LittleEndian.Uint16(b[2*i:])
		if v <= last || v-last > maxToken {
			return false
		}
		if i > '0' && i <= '9'+1 && v-last != 2 {
			return false
		}
		last = v
	}
	return true
}

// tables derives everything from a candidate for kallsyms_token_index.
func (s *scanner) tables(addr uint64, index []byte) (Locations, bool) {
	index = bytes.Clone(index[:indexSize]) // it lies in the buffer that reads use
	loc := Locations{TokenIndex: addr}
	last := uint64(binary.LittleEndian.Uint16(index[indexSize-2:]))
	if addr < last+maxToken {
		return loc, false
	}
	// The table ends right before the index, but for alignment; the length
	// of its last token is unknown.
	low := (addr - last - maxToken) &^ 3
	text := bytes.Clone(s.read(low, addr-low))
	if uint64(len(text)) != addr-low {
		return loc, false
	}
	for off := uint64(0); off+last < uint64(len(text)); off += 4 {
		if !isTokenTable(text[off:], index) {
			continue
		}
		loc.TokenTable = low + off
		tok, err := loadTokens(s.m, loc)
		if err != nil {
			continue
		}
		if found, ok := s.names(loc, tok); ok {
			return found, true
		}
	}
	return loc, false
}

// isTokenTable reports whether text is the token table that index describes.
func isTokenTable(text, index []byte) bool {
	for i := range 256 {
		at := binary.LittleEndian.Uint16(index[2*i:])
		if i > 0 && text[at-1] != 0 {
			return false
		}
		if i >= '0' && i <= '9' && text[at] != byte(i) {
			return false
		}
		if text[at] == 0 && i > 0 && i < 255 && binary.LittleEndian.Uint16(index[2*i+2:]) != at+1 {
			return false
		}
	}
	rest := text[binary.LittleEndian.Uint16(index[indexSize-2:]):]
	n := bytes.IndexByte(rest, 0)
	return n >= 0 && len(rest)-n <= 8 // nothing but padding follows
}

// names looks backward from the token table for kallsyms_num_syms with
// kallsyms_names behind it.
func (s *scanner) names(loc Locations, tok *tokens) (Locations, bool) {
	low := s.start
	if loc.TokenTable > namesReach {
		low = max(low, loc.TokenTable-namesReach)
	}
	for end := loc.TokenTable; end > low; {
		from := max(low, end-min(end, namesBlock))
		// 16 bytes more than the block: the first look at a candidate.
		block := bytes.Clone(s.read(from, end-from+16))
		for off := (len(block) - 16) &^ 3; off >= 0; off -= 4 {
			loc.NumSyms = from + uint64(off)
			if found, ok := s.count(loc, tok, block[off:]); ok {
				return found, true
			}
		}
		end = from
	}
	return loc, false
}

// count decides whether b is kallsyms_num_syms, at loc.NumSyms.
func (s *scanner) count(loc Locations, tok *tokens, b []byte) (Locations, bool) {
	n := binary.LittleEndian.Uint32(b)
	if n < 2 || n > maxSyms {
		return loc, false
	}
	for _, size := range []uint64{8, 4} {
		if size == 8 && (loc.NumSyms%8 != 0 || binary.LittleEndian.Uint32(b[4:]) != 0) {
			continue
		}
		if b[size] == 0 || !typed(tok, b[size+1]) {
			continue
		}
		loc.Names = loc.NumSyms + size
		if !s.isNames(loc.Names, int(n), tok) {
			continue
		}
		for _, l := range layouts {
			full := l.locs(loc, uint64(n), l.align)
			if _, err := Load(s.m, full, Anchor{}); err == nil {
				return full, true
			}
		}
	}
	return loc, false
}

// isNames reports whether n compressed names are at addr, with
// kallsyms_markers behind them.
func (s *scanner) isNames(addr uint64, n int, tok *tokens) bool {
	st := stream{m: s.m, addr: addr}
	end, marks, _, err := walkNames(&st, n, true, func(name []byte) bool { return typed(tok, name[0]) })
	if err != nil {
		return false
	}
	want := uint32(0) // the second marker, where there are two
	if n > 256 {
		want = marks[256/stride]
	}
	for _, m := range []struct{ align, width uint64 }{
		{4, 4}, // since 7.0
		{8, 4}, // since 4.20 (80ffbaa5b1bd)
		{8, 8},
	} {
		at := int(alignUp(addr+uint64(end), m.align) - addr)
		if !st.need(at+int(m.width)+4) || binary.LittleEndian.Uint32(st.buf[at:]) != 0 {
			continue
		}
		if n <= 256 || binary.LittleEndian.Uint32(st.buf[at+int(m.width):]) == want {
			return true
		}
	}
	return false
}

// typed reports whether token b can start a name: with a type letter.
func typed(tok *tokens, b byte) bool {
	text := tok.get(b)
	if len(text) == 0 {
		return false
	}
	c := text[0] | 0x20
	return c >= 'a' && c <= 'z' || text[0] == '?'
}
