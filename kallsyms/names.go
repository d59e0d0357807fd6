package kallsyms

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// tokens is the kernel's token table: what each byte of a compressed name
// stands for.
type tokens struct {
	text []byte // the tokens, each followed by a NUL
	at   [256]struct {
		off uint16
		len uint16
	}
}

// get returns the text of token b.
func (k *tokens) get(b byte) []byte {
	e := &k.at[b]
	return k.text[e.off : int(e.off)+int(e.len)]
}

// loadTokens reads kallsyms_token_index and kallsyms_token_table.
func loadTokens(m mem.Reader, loc Locations) (*tokens, error) {
	var index [512]byte
	if err := m.ReadMem(index[:], loc.TokenIndex); err != nil {
		return nil, fmt.Errorf("kallsyms_token_index: %w", err)
	}
	k := new(tokens)
	last := 0
	for i := range k.at {
		k.at[i].off = binary.LittleEndian.Uint16(index[2*i:])
		last = max(last, int(k.at[i].off))
	}
	s := stream{m: m, addr: loc.TokenTable}
	s.need(last + maxToken) // the last token may be shorter than that, and memory end behind it
	k.text = s.buf
	for i := range k.at {
		e := &k.at[i]
		n := -1
		for j := int(e.off); j < len(k.text) && j <= int(e.off)+maxToken; j++ {
			if k.text[j] == 0 {
				n = j - int(e.off)
				break
			}
		}
		switch {
		case n >= 0:
			e.len = uint16(n)
		case s.err != nil:
			return nil, fmt.Errorf("kallsyms_token_table: %w", s.err)
		default:
			return nil, &FormatError{"kallsyms_token_table", loc.TokenTable + uint64(e.off), fmt.Sprintf("token %#x has no end", i)}
		}
	}
	return k, nil
}

// loadNames reads the n compressed names at loc.Names.
func loadNames(m mem.Reader, loc Locations, n int, tok *tokens) (*Table, error) {
	s := stream{m: m, addr: loc.Names}
	s.reserve(loc)
	t := &Table{tokens: *tok, wide: true}
	end, marks, sawWide, err := walkNames(&s, n, true, nil)
	if err != nil && sawWide {
		// Before 73bbb94466fd (6.1) a length was always one byte. One of
		// 128 and more needs a name of 127 characters that did not
		// compress at all, so this is all but theory.
		if end2, marks2, _, err2 := walkNames(&s, n, false, nil); err2 == nil {
			end, marks, err, t.wide = end2, marks2, nil, false
		}
	}
	if err != nil {
		return nil, err
	}
	t.marks = marks
	t.names = s.buf[:end:end]
	if cap(s.buf)-end > 1<<20 {
		t.names = append(make([]byte, 0, end), t.names...)
	}
	return t, nil
}

// walkNames steps over n names. It returns the length of all of them, the
// offset of every stride-th one, and whether a length of 128 or more was seen.
// If accept is not nil, it is asked about every name.
func walkNames(s *stream, n int, wide bool, accept func(name []byte) bool) (end int, marks []uint32, sawWide bool, err error) {
	for i := range n {
		if i%stride == 0 {
			marks = append(marks, uint32(end))
		}
		if !s.need(end + 2) {
			return 0, nil, sawWide, s.fault("kallsyms_names")
		}
		sawWide = sawWide || s.buf[end] >= 0x80
		length, head := nameLen(s.buf[end:], wide)
		bad := ""
		switch {
		case head == 0:
			bad = "length of more than two bytes"
		case length == 0:
			bad = "empty name"
		case end+head+length > maxNames:
			bad = "names too long"
		}
		if bad != "" {
			return 0, nil, sawWide, &FormatError{"kallsyms_names", s.addr + uint64(end), fmt.Sprintf("symbol %d: %s", i, bad)}
		}
		if !s.need(end + head + length) {
			return 0, nil, sawWide, s.fault("kallsyms_names")
		}
		if accept != nil && !accept(s.buf[end+head:end+head+length]) {
			return 0, nil, sawWide, &FormatError{"kallsyms_names", s.addr + uint64(end), fmt.Sprintf("symbol %d: not a symbol", i)}
		}
		end += head + length
	}
	return end, marks, sawWide, nil
}

// nameLen decodes the length in front of a compressed name, and the size of
// that length, 0 if it is malformed. Since 73bbb94466fd (6.1) lengths of 128 and
// more are ULEB128 of two bytes. b has at least one byte.
func nameLen(b []byte, wide bool) (length, head int) {
	if b[0] < 0x80 || !wide {
		return int(b[0]), 1
	}
	if len(b) < 2 || b[1] >= 0x80 {
		return 0, 0
	}
	return int(b[0]&0x7f) | int(b[1])<<7, 2
}

// next returns the compressed name at off and where the next one starts. Load
// has walked all names with the same rules, so off is inside and the name whole.
func (t *Table) next(off int) (name []byte, end int) {
	length, head := nameLen(t.names[off:], t.wide)
	end = off + head + length
	return t.names[off+head : end], end
}

// seek returns where in names symbol i starts.
func (t *Table) seek(i int) int {
	off := int(t.marks[i/stride])
	for range i % stride {
		_, off = t.next(off)
	}
	return off
}

// expand appends the text of a compressed name, type letter first, to dst.
func (t *Table) expand(dst, name []byte) []byte {
	start := len(dst)
	for _, b := range name {
		dst = append(dst, t.tokens.get(b)...)
		if len(dst)-start > maxName {
			return dst[:start+maxName]
		}
	}
	return dst
}

// A stream reads memory forward into one growing buffer, and keeps what could
// be read before the first fault.
type stream struct {
	m    mem.Reader
	addr uint64
	buf  []byte // memory from addr
	err  error  // why buf cannot grow; nil while it can
}

// reserve makes room for the names at once where the part that follows them
// shows how long they can be.
func (s *stream) reserve(loc Locations) {
	room := uint64(0)
	for _, a := range []uint64{loc.TokenTable, loc.TokenIndex, loc.Offsets, loc.Addresses} {
		if a > s.addr && (room == 0 || a-s.addr < room) {
			room = a - s.addr
		}
	}
	if room < 8<<20 {
		s.buf = make([]byte, 0, room)
	}
}

// need reports whether at least n bytes could be read.
func (s *stream) need(n int) bool {
	for len(s.buf) < n && s.err == nil {
		// Small steps first: most streams that Scan starts end soon.
		old := len(s.buf)
		step := max(min(old, 256<<10), 4096)
		if free := cap(s.buf) - old; free >= n-old && free < step {
			step = max(free, 1)
		}
		s.buf = append(s.buf, make([]byte, step)...)
		s.err = s.m.ReadMem(s.buf[old:], s.addr+uint64(old))
		if s.err != nil {
			s.buf = s.buf[:old+validBefore(s.err, s.addr+uint64(old), step)]
		}
	}
	return len(s.buf) >= n
}

// fault names the part that the failed read belongs to.
func (s *stream) fault(part string) error {
	return fmt.Errorf("%s: %w", part, s.err)
}

// validBefore returns how many of n bytes at addr a failed read still filled.
func validBefore(err error, addr uint64, n int) int {
	var f *mem.Fault
	if errors.As(err, &f) && f.Addr-addr < uint64(n) {
		return int(f.Addr - addr)
	}
	return 0
}
