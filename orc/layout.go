package orc

import (
	"encoding/binary"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

const headerSize = 20

// A layout is one form of struct orc_entry: s16 sp_offset, s16 bp_offset, and
// 16 bits of flags, from the lowest: 4 bits of sp_reg, 4 bits of bp_reg, and
// what the fields below say.
type layout struct {
	since    string
	hash     [headerSize]byte // ORC_HASH; zero where kernels had none
	regs     []base           // by number
	typeMask uint16           // of the type, from bit 8
	types    []Type           // by number
	signal   uint16           // the signal bit; 0: implied by the type
	end      uint16           // the end bit; 0: there are types instead
}

// A base is what a register number stands for.
type base struct {
	reg   Reg
	deref Deref
}

var oldRegs = []base{
	0: {None, Direct},
	1: {PrevSP, Direct},
	2: {DX, Direct},
	3: {DI, Direct},
	4: {BP, Direct},
	5: {SP, Direct},
	6: {R10, Direct},
	7: {R13, Direct},
	8: {BP, Indirect},
	9: {SP, Through},
}

var layouts = []layout{
	{
		// ee9f8fce9964. The end bit came in 4.18; it was 0 before.
		since: "4.14", regs: oldRegs,
		typeMask: 3, types: []Type{Call, Regs, RegsPartial}, end: 1 << 10,
	},
	{
		// ffb1b4a41016 put the signal bit in front of the end bit.
		since:    "6.3",
		hash:     [...]byte{0xdb, 0x84, 0xae, 0xd4, 0x10, 0x3b, 0x31, 0xdd, 0x51, 0xe0, 0x17, 0xf8, 0xf7, 0x97, 0x83, 0xca, 0x98, 0x5c, 0x2c, 0x51},
		regs:     oldRegs,
		typeMask: 3, types: []Type{Call, Regs, RegsPartial}, signal: 1 << 10, end: 1 << 11,
	},
	{
		// fb799447ae29 made "undefined" and "end of stack" types.
		since:    "6.4",
		hash:     [...]byte{0xfe, 0x5d, 0x32, 0xbf, 0x58, 0x1b, 0xd6, 0x3b, 0x2c, 0xa9, 0xa5, 0xc6, 0x5b, 0xa5, 0xa6, 0x25, 0xea, 0xb3, 0xfe, 0x24},
		regs:     oldRegs,
		typeMask: 7, types: []Type{Undefined, EndOfStack, Call, Regs, RegsPartial}, signal: 1 << 11,
	},
	{
		// 1735858caa4b renumbered the registers.
		since: "7.1",
		hash:  [...]byte{0x13, 0x7c, 0x36, 0xad, 0x76, 0x27, 0xc4, 0xdd, 0x55, 0x93, 0x21, 0x76, 0xbb, 0x0e, 0xcd, 0xbd, 0x50, 0x41, 0xfc, 0x82},
		regs: []base{
			0:  {None, Direct},
			1:  {AX, Direct},
			2:  {DX, Direct},
			3:  {SP, Direct},
			4:  {BP, Direct},
			5:  {DI, Direct},
			6:  {R10, Direct},
			7:  {R13, Direct},
			8:  {PrevSP, Direct},
			9:  {SP, Through},
			10: {BP, Indirect},
		},
		typeMask: 7, types: []Type{Undefined, EndOfStack, Call, Regs, RegsPartial}, signal: 1 << 11,
	},
}

// A misfit says why an entry is none that objtool writes. It is worded when it
// is shown: guessing a layout meets thousands.
type misfit struct {
	why   string
	flags uint16
}

// String says why, with the flags.
func (m misfit) String() string { return fmt.Sprintf("%s in %#x", m.why, m.flags) }

// decode turns the six bytes of an entry into the common form. If the entry is
// none that objtool writes, why says so.
func (l *layout) decode(b [entrySize]byte) (e Entry, why misfit) {
	spOffset := int16(binary.LittleEndian.Uint16(b[0:]))
	bpOffset := int16(binary.LittleEndian.Uint16(b[2:]))
	flags := binary.LittleEndian.Uint16(b[4:])
	if flags&^(0xff|l.typeMask<<8|l.signal|l.end) != 0 {
		return e, misfit{"unknown flags", flags}
	}
	sp, okSP := l.base(flags & 0xf)
	bp, okBP := l.base(flags >> 4 & 0xf)
	typ := int(flags >> 8 & l.typeMask)
	if !okSP || !okBP || typ >= len(l.types) {
		return e, misfit{"unknown register or type", flags}
	}
	e.Type = l.types[typ]
	e.Signal = flags&l.signal != 0
	if l.end != 0 { // "undefined" and "end of stack" are no types yet
		end := flags&l.end != 0
		switch {
		case sp.reg == None && end:
			e.Type = EndOfStack
		case sp.reg == None:
			e.Type = Undefined
		case end:
			return e, misfit{"end of stack with a stack pointer", flags}
		}
	}
	if l.signal == 0 {
		// Before the signal bit, the unwinder took every frame that left
		// registers as interrupted.
		e.Signal = e.Type == Regs || e.Type == RegsPartial
	}
	if e.Type == Undefined || e.Type == EndOfStack {
		if sp.reg != None || e.Signal {
			return e, misfit{"no caller, but a stack pointer or signal", flags}
		}
		return Entry{Type: e.Type}, misfit{}
	}
	switch {
	case sp.reg == None || sp.reg == PrevSP:
		return e, misfit{"no stack pointer", flags}
	case bp.reg != None && bp.reg != PrevSP && bp.reg != BP || bp.deref != Direct:
		return e, misfit{"no rule for rbp", flags}
	}
	if sp.deref == Through && e.Type != Call {
		// Until 87ccc826bf1c (5.12) the offset was added before reading the
		// word. Only entry code used that, and only for registers; since
		// then only stack switches use it, and only for calls.
		sp.deref = Indirect
	}
	e.SP = Rule{sp.reg, sp.deref, spOffset}
	if bp.reg != None {
		e.BP = Rule{bp.reg, Indirect, bpOffset} // the value was pushed
	}
	return e, misfit{}
}

func (l *layout) base(n uint16) (base, bool) {
	if int(n) >= len(l.regs) {
		return base{}, false
	}
	return l.regs[n], true
}

// findLayout returns the layout that the hash at header names, or that fits the
// entries of t if header is 0 or the hash is unknown.
func findLayout(t *Table, header uint64) (*layout, error) {
	if header != 0 {
		var hash [headerSize]byte
		if err := t.m.ReadMem(hash[:], header); err != nil {
			return nil, fmt.Errorf(".orc_header: %w", err)
		}
		for i := range layouts {
			if hash == layouts[i].hash && hash != [headerSize]byte{} {
				return &layouts[i], nil
			}
		}
	}
	// Kernels of 6.3 and 6.4 have no header before 6.3.10, and RHEL 9 has the
	// layout of 6.4 in a 5.14 without header. So the entries decide, not the
	// version. A few dozen blocks do, nearly always.
	for _, blocks := range []int{32, t.n/blockLen + 1} {
		l, err := guessLayout(t, blocks)
		if l != nil || err != nil {
			return l, err
		}
	}
	return nil, &FormatError{".orc_unwind", t.unwind, "the entries fit no known layout, or more than one"}
}

// blockLen is how many entries are read at a time to guess the layout.
const blockLen = 512

// guessLayout decodes some blocks of entries, spread over the table, with every
// layout. It returns the layout that is contradicted least, if just one is, it
// is nearly never, and most entries are ordinary under it.
func guessLayout(t *Table, blocks int) (*layout, error) {
	broken, calls := make([]int, len(layouts)), make([]int, len(layouts))
	total := 0
	step := max(t.n/blocks, blockLen)
	for first := 0; first < t.n; first += step {
		n := min(blockLen, t.n-first)
		b, err := mem.Bytes(t.m, t.unwind+uint64(first)*entrySize, n*entrySize)
		if err != nil {
			return nil, fmt.Errorf(".orc_unwind: %w", err)
		}
		total += n
		for ; len(b) > 0; b = b[entrySize:] {
			for i := range layouts {
				e, why := layouts[i].decode([entrySize]byte(b))
				if why != (misfit{}) {
					broken[i]++
				} else if e.Type == Call && (e.SP.Base == SP || e.SP.Base == BP) || e.Type == Undefined {
					calls[i]++
				}
			}
		}
	}
	var fit *layout
	best := total/100 + 1
	for i := range layouts {
		switch {
		case broken[i] > best || calls[i] < total/2:
		case broken[i] == best:
			fit = nil
		default:
			fit, best = &layouts[i], broken[i]
		}
	}
	return fit, nil
}
