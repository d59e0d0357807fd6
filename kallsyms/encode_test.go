package kallsyms

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
)

// An image says how to write a table as scripts/kallsyms.c of some version
// does.
type image struct {
	enc      string // see encodings
	behind   bool   // offsets behind the token index: since 6.4
	align    int
	markSize int
	seqs     bool
	percpu   bool // symbols below the kernel half
}

const (
	imageBase = 0xffffffff82000000
	textBase  = 0xffffffff81000000
)

// versions are the combinations that kernels have had.
var versions = map[string]image{
	"4.19 absolute":        {enc: "absolute", align: 8, markSize: 8},
	"5.10 relative":        {enc: "relative", align: 8, markSize: 4},
	"5.10 absolute-percpu": {enc: "absolute-percpu", align: 8, markSize: 4, percpu: true},
	"6.2 absolute-percpu":  {enc: "absolute-percpu", align: 8, markSize: 4, percpu: true, seqs: true},
	"6.12 absolute-percpu": {enc: "absolute-percpu", align: 8, markSize: 4, percpu: true, seqs: true, behind: true},
	"6.16 relative":        {enc: "relative", align: 8, markSize: 4, seqs: true, behind: true},
	"7.2 place-relative":   {enc: "place-relative", align: 4, markSize: 4, seqs: true, behind: true},
}

// sample makes n symbols in the order of addresses, some with aliases.
func sample(n int, percpu bool) []Symbol {
	var out []Symbol
	if percpu {
		out = append(out, Symbol{"fixed_percpu_data", 0, 'A', 0}, Symbol{"cpu_number", 0x20, 'D', 0})
	}
	out = append(out, Symbol{"_text", textBase, 'T', 0}, Symbol{"startup_64", textBase, 'T', 0}, Symbol{"_stext", textBase, 'T', 0})
	for i := len(out); i < n; i++ {
		out = append(out, Symbol{fmt.Sprintf("do_sys_thing_%d", i), textBase + 64*uint64(i), "Tt"[i%2], 0})
	}
	long := out[len(out)-1]
	out = append(out, Symbol{"_etext", long.Addr, 'T', 0})
	long.Name = "_R" + strings.Repeat("very_long_rust_name_", 20)
	return append(out, long, Symbol{"_end", long.Addr + 0x1000, 'B', 0})
}

// tokenTexts are the tokens for codes that no name uses; all others stand for
// themselves.
var tokenTexts = map[byte]string{1: "do_", 2: "sys_", 3: "Tdo_sys_", 4: "thing", 0xff: "tdo_"}

func compress(s string) []byte {
	var out []byte
	for len(s) > 0 {
		best, code := 1, s[0]
		for c, text := range tokenTexts {
			if strings.HasPrefix(s, text) && len(text) > best {
				best, code = len(text), c
			}
		}
		out, s = append(out, code), s[best:]
	}
	return out
}

// A builder appends parts to memory at imageBase.
type builder struct {
	buf   []byte
	align int
}

func (b *builder) part(data []byte) (addr uint64) {
	for len(b.buf)%b.align != 0 {
		b.buf = append(b.buf, 0)
	}
	addr = imageBase + uint64(len(b.buf))
	b.buf = append(b.buf, data...)
	return addr
}

// build writes the table of syms. The result has some unrelated bytes at both
// ends.
func (im image) build(syms []Symbol) (mem.Snapshot, Locations) {
	b := &builder{align: im.align}
	for i := range 4096 {
		b.buf = append(b.buf, byte(i*7))
	}
	var loc Locations
	if !im.behind {
		im.addrs(b, &loc, syms)
	}
	loc.NumSyms = b.part(binary.LittleEndian.AppendUint32(nil, uint32(len(syms))))
	names, marks := im.names(syms)
	loc.Names = b.part(names)
	b.part(marks)
	if im.seqs && !im.behind {
		b.part(make([]byte, 3*len(syms)))
	}
	table, index := im.tokens()
	loc.TokenTable = b.part(table)
	loc.TokenIndex = b.part(index)
	if im.behind {
		im.addrs(b, &loc, syms)
		b.part(slices.Repeat([]byte{0, 0x81, 0xff}, len(syms)))
	}
	b.buf = append(b.buf, make([]byte, 1000)...)
	return mem.Snapshot{Base: imageBase, Data: b.buf}, loc
}

func (im image) names(syms []Symbol) (names, marks []byte) {
	for i, s := range syms {
		if i%256 == 0 {
			marks = append(marks, binary.LittleEndian.AppendUint64(nil, uint64(len(names)))[:im.markSize]...)
		}
		c := compress(string(s.Type) + s.Name)
		if len(c) < 0x80 {
			names = append(names, byte(len(c)))
		} else {
			names = append(names, byte(len(c))|0x80, byte(len(c)>>7))
		}
		names = append(names, c...)
	}
	return names, marks
}

func (im image) tokens() (table, index []byte) {
	for i := range 256 {
		index = binary.LittleEndian.AppendUint16(index, uint16(len(table)))
		switch text, ok := tokenTexts[byte(i)]; {
		case ok:
			table = append(table, text...)
		case i > ' ' && i < 0x7f:
			table = append(table, byte(i))
		}
		table = append(table, 0)
	}
	return table, index
}

func (im image) addrs(b *builder, loc *Locations, syms []Symbol) {
	place := b.part(nil)
	var data []byte
	for i, s := range syms {
		var v uint64
		switch im.enc {
		case "absolute":
			data = binary.LittleEndian.AppendUint64(data, s.Addr)
			continue
		case "relative":
			v = s.Addr - textBase
		case "absolute-percpu":
			if v = s.Addr; s.Addr >= kernelHalf {
				v = textBase - 1 - s.Addr
			}
		case "place-relative":
			v = s.Addr - (place + 4*uint64(i))
		}
		data = binary.LittleEndian.AppendUint32(data, uint32(v))
	}
	b.part(data)
	switch im.enc {
	case "absolute":
		loc.Addresses = place
	case "place-relative":
		loc.Offsets = place
	default:
		loc.Offsets = place
		loc.RelativeBase = b.part(binary.LittleEndian.AppendUint64(nil, textBase))
	}
}
