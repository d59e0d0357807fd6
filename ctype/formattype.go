package ctype

import (
	"fmt"
	"strings"
)

const (
	cacheline = 64      // bytes; x86-64
	maxLines  = 20000   // printed of one type or value
	maxVisits = 1 << 17 // members looked at in one type or value
	column    = 56      // where offset comments begin
)

// FormatType prints the definition of a type as C, with the offset and size in
// bytes of every member behind it (of a bitfield "offset: bit size"), holes,
// padding and cache lines. Anonymous members are printed inside their record.
func FormatType(t *Type) string {
	p := &typePrinter{line: -1}
	switch t.kind {
	case Struct, Union:
		p.record(t, 0, 0, maxDepth)
		p.printf(0, ";\n")
	case Enum, Enum64:
		p.enum(t, 0)
		p.printf(0, ";\n")
	case Typedef:
		p.typedef(t)
	case Func:
		p.printf(0, "%s;\n", Declare(t.Elem(), t.name))
	default:
		p.printf(0, "%s;\n", Declare(t, t.varName()))
	}
	return p.out.String()
}

func (t *Type) varName() string {
	if t.kind == Var {
		return t.name
	}
	return ""
}

type typePrinter struct {
	out   strings.Builder
	lines int
	line  int // last cache line whose start has been marked
}

func (p *typePrinter) printf(indent int, format string, args ...any) {
	if p.lines++; p.lines > maxLines {
		return
	}
	for range indent {
		p.out.WriteByte('\t')
	}
	fmt.Fprintf(&p.out, format, args...)
}

// typedef prints the typedef and what it names, unless that is plain.
func (p *typePrinter) typedef(t *Type) {
	target := t.Strip()
	switch expand := kinds(Struct, Union, Enum, Enum64).has(target.kind); {
	case expand && target.name == "":
		p.printf(0, "typedef ")
		if target.IsRecord() {
			p.record(target, 0, 0, maxDepth)
		} else {
			p.enum(target, 0)
		}
		p.printf(0, " %s;\n", t.name)
	case expand:
		p.printf(0, "typedef %s;\n\n%s", Declare(t.Elem(), t.name), FormatType(target))
	default:
		p.printf(0, "typedef %s;\n", Declare(t.Elem(), t.name))
	}
}

func (p *typePrinter) enum(t *Type, indent int) {
	p.printf(0, "%s {\n", strings.TrimSuffix(t.String(), " {...}"))
	width := 0
	for _, e := range t.Enumerators() {
		width = max(width, len(e.Name))
	}
	width = min(width, 64)
	for _, e := range t.Enumerators() {
		v := fmt.Sprint(e.Value)
		if t.flag {
			v = fmt.Sprint(int64(e.Value))
		} else if e.Value > 1<<31 {
			v = fmt.Sprintf("%#x", e.Value)
		}
		p.printf(indent+1, "%-*s = %s,\n", width, e.Name, v)
	}
	p.printf(indent, "}")
}

// gaps counts what a struct's members do not use.
type gaps struct {
	end           uint64 // bits: where the members so far end
	unit          uint64 // bits: where the last bitfield's storage ends
	holes, bytes  uint64
	bits          uint64 // of bit holes
	sum, fieldSum uint64 // bytes of members, bits of bitfields
}

// record prints a struct or union whose first byte is at base, a byte offset
// in the outermost record. The first line is not indented: it may follow
// "typedef".
func (p *typePrinter) record(t *Type, base uint64, indent, depth int) {
	p.printf(0, "%s {\n", strings.TrimSuffix(t.String(), " {...}"))
	var g gaps
	for i := range t.Members() {
		m := &t.Members()[i]
		if p.lines > maxLines {
			break
		}
		if t.kind == Struct {
			bits, bytes := g.before(m)
			p.hole(bits, bytes, indent+1)
		}
		p.cacheline(base+uint64(m.Offset)/8, indent+1)
		p.member(m, base, indent+1, depth)
		g.add(m)
	}
	if indent == 0 {
		p.summary(t, &g)
	}
	p.printf(indent, "}")
}

// before returns the hole between the members so far and m: bits left over in
// a bitfield's storage, and whole bytes.
func (g *gaps) before(m *Member) (bits, bytes uint64) {
	start := uint64(m.Offset)
	if start <= g.end {
		return 0, 0
	}
	if stop := min(g.unit, start); stop > g.end {
		bits = stop - g.end
	}
	rest := start - g.end - bits
	bits += rest % 8
	if bits != 0 {
		g.bits += bits
	}
	if bytes = rest / 8; bytes != 0 {
		g.holes++
		g.bytes += bytes
	}
	return bits, bytes
}

func (g *gaps) add(m *Member) {
	start, bits := uint64(m.Offset), uint64(m.BitSize)
	if bits == 0 {
		n, _ := m.Type.Size() // what has no size takes no room
		bits = uint64(n) * 8
		g.sum += uint64(n)
		g.unit = 0
	} else {
		base, size := m.storage()
		// A run of bitfields may share the storage of its widest.
		g.unit = max(g.unit, base*8+size*8)
		g.fieldSum += bits
	}
	g.end = max(g.end, start+bits)
}

// storage returns the byte offset and size of the object of the declared type
// that holds a bitfield, as the psABI lays it out.
func (m *Member) storage() (offset, size uint64) {
	n, err := m.Type.Size()
	if err != nil || n == 0 {
		n = 1
	}
	size = uint64(n)
	return uint64(m.Offset) / 8 / size * size, size
}

func (p *typePrinter) hole(bits, bytes uint64, indent int) {
	if bits == 0 && bytes == 0 {
		return
	}
	p.printf(0, "\n")
	if bits != 0 {
		p.printf(indent, "/* XXX %d %s hole */\n", bits, plural(bits, "bit"))
	}
	if bytes != 0 {
		p.printf(indent, "/* XXX %d %s hole */\n", bytes, plural(bytes, "byte"))
	}
	p.printf(0, "\n")
}

func plural(n uint64, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func (p *typePrinter) cacheline(offset uint64, indent int) {
	line := int(offset / cacheline)
	if p.line < 0 {
		p.line = line // no mark before the first member
	}
	if line <= p.line {
		return
	}
	p.line = line
	ago := ""
	if n := offset % cacheline; n != 0 {
		ago = fmt.Sprintf(" was %d %s ago", n, plural(n, "byte"))
	}
	p.printf(indent, "/* --- cache line %d (byte %d)%s --- */\n", line, line*cacheline, ago)
}

func (p *typePrinter) member(m *Member, base uint64, indent, depth int) {
	where := m.comment(base)
	quals, dims, inner := m.Type.arrays()
	anonymous := inner.name == "" && depth > 0
	switch {
	case anonymous && kinds(Struct, Union).has(inner.kind):
		p.printf(indent, "%s", quals)
		p.record(inner, base+uint64(m.Offset)/8, indent, depth-1)
	case anonymous && kinds(Enum, Enum64).has(inner.kind):
		p.printf(indent, "%s", quals)
		p.enum(inner, indent)
	default:
		decl := Declare(m.Type, m.Name)
		if m.BitSize != 0 {
			decl += fmt.Sprintf(":%d", m.BitSize)
		}
		p.printf(indent, "%-*s %s\n", column-8*indent, decl+";", where)
		return
	}
	decl := "}"
	if m.Name != "" {
		decl += " " + m.Name + dims
	}
	if m.BitSize != 0 {
		decl += fmt.Sprintf(":%d", m.BitSize)
	}
	decl += ";"
	p.printf(0, "%-*s %s\n", column-8*indent-1, decl[1:], where)
}

// comment is where the member lies: "/* offset size */" or "/* offset: bit size */".
func (m *Member) comment(base uint64) string {
	if m.BitSize != 0 {
		off, size := m.storage()
		return fmt.Sprintf("/* %5d:%2d %2d */", base+off, uint64(m.Offset)-off*8, size)
	}
	size := "?"
	if n, err := m.Type.Size(); err == nil {
		size = fmt.Sprint(n)
	}
	return fmt.Sprintf("/* %5d %5s */", base+uint64(m.Offset)/8, size)
}

// arrays splits a type into qualifiers, "const ", array dimensions, "[2][3]",
// and the element. Typedefs are not looked through.
func (t *Type) arrays() (quals, dims string, inner *Type) {
	for range maxHops {
		switch t.kind {
		case Array:
			dims += fmt.Sprintf("[%d]", t.nelems)
		case Const, Volatile:
			quals += t.kind.String() + " "
		case TypeTag:
		default:
			return quals, dims, t
		}
		t = t.Elem()
	}
	return quals, dims, t
}

func (p *typePrinter) summary(t *Type, g *gaps) {
	size := uint64(t.size)
	p.printf(0, "\n")
	p.printf(1, "/* size: %d, cache lines: %d, members: %d */\n", size, (size+cacheline-1)/cacheline, len(t.Members()))
	if t.kind == Struct {
		if g.holes != 0 {
			p.printf(1, "/* members: %d bytes, holes: %d, in them: %d bytes */\n", g.sum+g.fieldSum/8, g.holes, g.bytes)
		}
		if g.bits != 0 {
			p.printf(1, "/* bits in holes between bitfields: %d */\n", g.bits)
		}
		used := max(g.end, min(g.unit, size*8))
		if whole := (used + 7) / 8; whole < size {
			p.printf(1, "/* padding: %d bytes */\n", size-whole)
		}
		if used > g.end {
			p.printf(1, "/* bit padding: %d bits */\n", used-g.end)
		}
	}
	if n := size % cacheline; n != 0 {
		p.printf(1, "/* last cache line: %d bytes */\n", n)
	}
}
