package kallsyms

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/ksleuth/ksleuth/mem"
)

// kernelHalf is the lowest address of the upper half of the address space.
// Below it a symbol's "address" is an offset into the per-CPU area.
const kernelHalf = 1 << 63

// An encoding is one way the kernel has stored addresses.
type encoding struct {
	name  string
	width int // bytes a symbol
	base  bool
	addr  func(raw, base, place uint64) uint64
}

// Which encoding a kernel uses depends on version and configuration, so all
// are tried and the addresses decide. raw is sign-extended, place is where it
// is stored.
var encodings = []encoding{
	// Since 7.0 (a081b5789255) offsets count from the place they are stored at.
	{"place-relative", 4, false, func(raw, _, place uint64) uint64 { return place + raw }},
	// From 4.6 (2213e9a66bb8) to 6.15 (01157ddc58dc), where the per-CPU
	// section is linked at 0, as on x86-64 with SMP: not negative, an
	// absolute value; negative, an offset from the base counted down from -1.
	{"absolute-percpu", 4, true, func(raw, base, _ uint64) uint64 {
		if int64(raw) >= 0 {
			return raw
		}
		return base - 1 - raw
	}},
	// From 4.6 (2213e9a66bb8) to 7.0: unsigned offset from the base, which is
	// relocated at boot together with the kernel.
	{"relative", 4, true, func(raw, base, _ uint64) uint64 { return base + uint64(uint32(raw)) }},
	// Until 6.11 (64e166099b69) with CONFIG_KALLSYMS_BASE_RELATIVE off.
	{"absolute", 8, false, func(raw, _, _ uint64) uint64 { return raw }},
}

// loadAddrs reads the words the addresses are stored in and finds the encoding
// that satisfies the anchor.
func (t *Table) loadAddrs(m mem.Reader, loc Locations, n int, check Anchor) error {
	known, err := t.expect(check, loc)
	if err != nil {
		return err
	}
	var base uint64
	if loc.RelativeBase != 0 {
		if base, err = mem.U64(m, loc.RelativeBase); err != nil {
			return fmt.Errorf("kallsyms_relative_base: %w", err)
		}
	}
	part, addr, width := "kallsyms_offsets", loc.Offsets, 4
	if addr == 0 {
		part, addr, width = "kallsyms_addresses", loc.Addresses, 8
	}
	raw, err := readWords(m, addr, n, width)
	if err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	for _, enc := range encodings {
		if enc.width != width || enc.base && loc.RelativeBase == 0 {
			continue
		}
		if t.decode(enc, raw, base, addr, known) {
			return nil
		}
	}
	return &FormatError{part, addr, "no known encoding gives ascending addresses with " + known.String()}
}

// An expectation is what is known of the address of one symbol.
type expectation struct {
	name     string
	indices  []int // of the symbols of that name, one of which must be there
	min, max uint64
}

func (e expectation) String() string {
	if e.min == e.max {
		return fmt.Sprintf("%s at %#x", e.name, e.min)
	}
	return fmt.Sprintf("%s in %#x to %#x", e.name, e.min, e.max)
}

// expect turns the anchor into what it means for this table.
func (t *Table) expect(check Anchor, loc Locations) (expectation, error) {
	e := expectation{name: check.Name, min: check.Addr, max: check.Addr}
	if check.Name == "" {
		const imageSize = 1 << 30 // KERNEL_IMAGE_SIZE
		e = expectation{name: "_etext", min: loc.NumSyms - min(loc.NumSyms, imageSize), max: loc.NumSyms}
	}
	m := newMatcher(t, e.name)
	off := 0
	for i := 0; off < len(t.names); i++ {
		var name []byte
		name, off = t.next(off)
		if m.match(name) >= 0 {
			e.indices = append(e.indices, i)
		}
	}
	if e.indices == nil {
		return e, &FormatError{"kallsyms_names", loc.Names, "no symbol " + e.name}
	}
	return e, nil
}

// decode turns raw into addresses, keeping them if they ascend and are what is
// expected.
func (t *Table) decode(enc encoding, raw []byte, base, place uint64, known expectation) bool {
	at := func(i int) uint64 {
		if enc.width == 8 {
			return binary.LittleEndian.Uint64(raw[8*i:])
		}
		word := uint64(int64(int32(binary.LittleEndian.Uint32(raw[4*i:]))))
		return enc.addr(word, base, place+4*uint64(i))
	}
	if !slices.ContainsFunc(known.indices, func(i int) bool { a := at(i); return a >= known.min && a <= known.max }) {
		return false
	}
	addrs := make([]uint64, len(raw)/enc.width)
	last := uint64(0)
	for i := range addrs {
		a := at(i)
		if a < last {
			return false
		}
		addrs[i], last = a, a
	}
	t.addrs, t.enc = addrs, enc.name
	t.kernel = sort.Search(len(addrs), func(i int) bool { return addrs[i] >= kernelHalf })
	return true
}

// readWords reads n words of the given width, allocating only as far as the
// memory is there.
func readWords(m mem.Reader, addr uint64, n, width int) ([]byte, error) {
	s := stream{m: m, addr: addr}
	if n*width < 4<<20 {
		s.buf = make([]byte, 0, n*width)
	}
	if !s.need(n * width) {
		return nil, s.err
	}
	return s.buf[:n*width], nil
}
