package render

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
)

// Symbol writes a symbol and the offset of the asked address into it.
func (p *Printer) Symbol(s kernel.Symbol, off uint64) {
	name := s.Name
	if off != 0 {
		name = fmt.Sprintf("%s+%#x", name, off)
	}
	if s.Module != "" {
		name += " [" + s.Module + "]"
	}
	p.Line(fmt.Sprintf("0x%016x %8d  %-10s %s", s.Addr+off, s.Size, s.Kind, Clean(name)))
}

// HexDump writes memory, eight bytes a word, with the characters beside and
// the symbols of what points into the kernel.
func (p *Printer) HexDump(b []byte, addr uint64, name func(uint64) string) {
	for len(b) > 0 {
		row := b[:min(16, len(b))]
		var words, text, notes strings.Builder
		for i := 0; i < len(row); i += 8 {
			word := row[i:min(i+8, len(row))]
			v := uint64(0)
			for j := len(word) - 1; j >= 0; j-- {
				v = v<<8 | uint64(word[j])
			}
			fmt.Fprintf(&words, "  %0*x", 2*len(word), v)
			if v>>47 == 1<<17-1 && len(word) == 8 {
				if s := name(v); !strings.HasPrefix(s, "0x") {
					notes.WriteString("  " + s)
				}
			}
		}
		for _, c := range row {
			if c < 0x20 || c > 0x7e {
				c = '.'
			}
			text.WriteByte(c)
		}
		line := fmt.Sprintf("%016x%-36s  %-16s%s", addr, words.String(), text.String(), p.Dim(Clean(notes.String())))
		p.Line(strings.TrimRight(line, " "))
		b, addr = b[len(row):], addr+uint64(len(row))
	}
}
