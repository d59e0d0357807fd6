package ctype

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
)

// FormatOptions say how [FormatValue] and [Value.Plain] print. The zero value
// is fit for use.
type FormatOptions struct {
	Depth     int                      // records inside records that are opened; 0 is 8
	Elements  int                      // elements of an array that are printed; 0 is 64
	Symbolize func(addr uint64) string // names an address, "" if it cannot; may be nil
	Hex       bool                     // print plain integers in hexadecimal
}

func (o FormatOptions) depth() int {
	if o.Depth <= 0 {
		return 8
	}
	return min(o.Depth, maxDepth)
}

func (o FormatOptions) elements() int {
	if o.Elements <= 0 {
		return 64
	}
	return o.Elements
}

// FormatValue prints a value: a record over several lines, a scalar on one.
// Enums are named, char arrays are text, pointers get the symbol they point
// at. A member that cannot be read is "<not mapped>" (or whatever the reason
// is) and does not stop the rest; a value of which nothing can be read is an
// error as well as text.
func FormatValue(v Value, o FormatOptions) (string, error) {
	p := &valuePrinter{o: o}
	if loaded, err := v.Load(); err == nil {
		v = loaded
	}
	if v.typ == nil {
		return "", v.fail(errors.New("no value"))
	}
	p.value(v, 0, o.depth())
	if p.read == 0 && p.err != nil {
		return p.out.String(), p.err
	}
	return p.out.String(), nil
}

type valuePrinter struct {
	o     FormatOptions
	out   strings.Builder
	lines int
	steps int   // members looked at, with those of anonymous records
	read  int   // values that could be read
	err   error // the first that could not
}

func (p *valuePrinter) value(v Value, indent, depth int) {
	switch s := v.types.Complete(v.typ).Strip(); s.kind {
	case Struct, Union:
		p.record(v, s, indent, depth)
	case Array:
		p.array(v, s, indent, depth)
	default:
		text, err := p.o.scalar(v, s)
		p.note(err)
		p.out.WriteString(text)
	}
}

func (p *valuePrinter) note(err error) {
	if err == nil {
		p.read++
	} else if p.err == nil {
		p.err = err
	}
}

func (p *valuePrinter) newline(indent int) bool {
	if p.lines++; p.lines > maxLines {
		return false
	}
	p.out.WriteByte('\n')
	for range indent {
		p.out.WriteByte('\t')
	}
	return true
}

func (p *valuePrinter) record(v Value, s *Type, indent, depth int) {
	if indent == 0 {
		p.out.WriteString("(" + s.String() + ")")
	}
	if depth == 0 {
		p.out.WriteString("{...}")
		return
	}
	p.out.WriteByte('{')
	p.members(v, s, indent, depth, maxDepth)
	if len(s.Members()) > 0 {
		p.newline(indent)
	}
	p.out.WriteByte('}')
}

// members prints the members of a record, those of its anonymous records as
// if they were its own: that is how C names them.
func (p *valuePrinter) members(v Value, s *Type, indent, depth, nest int) {
	for _, m := range s.Members() {
		if p.steps++; p.steps > maxVisits || p.lines > maxLines {
			return
		}
		mv, err := v.at(m.place(), m.Name)
		if m.Name == "" && m.Type.IsRecord() {
			if err == nil && nest > 0 {
				p.members(mv, m.Type.Strip(), indent, depth, nest-1)
			}
			continue
		}
		if m.Name == "" {
			continue // an unnamed bitfield is padding
		}
		if !p.newline(indent + 1) {
			return
		}
		p.out.WriteString("." + m.Name + " = ")
		if err != nil {
			p.note(err)
			p.out.WriteString(unreadable(err))
		} else {
			p.value(mv, indent+1, depth-1)
		}
		p.out.WriteByte(',')
	}
}

func (m *Member) place() Place {
	p := Place{Type: m.Type, Offset: uint64(m.Offset / 8), BitSize: uint8(m.BitSize)}
	if m.BitSize != 0 {
		p.BitOffset = uint8(m.Offset % 8)
	}
	return p
}

// unreadable is what stands for a value that cannot be read.
func unreadable(err error) string {
	if c := mem.CauseOf(err); c != 0 {
		return "<" + c.String() + ">"
	}
	var a *AccessError
	if errors.As(err, &a) {
		err = a.Err
	}
	return "<" + err.Error() + ">"
}

func (p *valuePrinter) array(v Value, s *Type, indent, depth int) {
	text, ok, err := v.text(s)
	if err != nil {
		p.note(err)
		p.out.WriteString(unreadable(err))
		return
	}
	if ok {
		p.note(nil)
		p.out.WriteString(text)
		return
	}
	if err := v.absent(); err != nil {
		p.note(err)
		p.out.WriteString(unreadable(err))
		return
	}
	n, zeros := p.o.shown(v, s)
	multi := s.Elem().IsRecord()
	p.out.WriteByte('{')
	for i := range n {
		if i > 0 && !multi {
			p.out.WriteString(", ")
		}
		if multi && !p.newline(indent+1) {
			return
		}
		e, err := v.Index(int64(i))
		if err != nil {
			p.note(err)
			p.out.WriteString(unreadable(err))
		} else {
			p.value(e, indent+1, depth-1)
		}
		if multi {
			p.out.WriteByte(',')
		}
	}
	sep := ""
	if n > 0 && !multi {
		sep = ", "
	}
	if multi && (n > 0 || zeros > 0) {
		p.newline(indent)
		if rest := int(s.nelems) - n; rest > 0 {
			p.out.WriteByte('\t')
		}
	}
	switch rest := int(s.nelems) - n; {
	case zeros > 0 && zeros == rest:
		fmt.Fprintf(&p.out, "%s<%d x 0>", sep, zeros)
	case rest > 0:
		fmt.Fprintf(&p.out, "%s<%d more>", sep, rest)
	}
	if multi && int(s.nelems) > n {
		p.newline(indent)
	}
	p.out.WriteByte('}')
}

// absent returns why an array cannot be read, if that is so for all of it: it
// begins and ends in one page, and its first byte cannot be read.
func (v Value) absent() error {
	n, err := v.size()
	if err != nil || n == 0 || !v.lvalue || v.data != nil || v.mem == nil {
		return nil
	}
	const page = 4096
	if v.addr/page != (v.addr+uint64(n)-1)/page {
		return nil
	}
	var first [1]byte
	return v.fail(v.mem.ReadMem(first[:], v.addr))
}

// shown returns how many elements to print, and how many behind them are
// known to be zero. A tail of zeroes is not printed.
func (o FormatOptions) shown(v Value, s *Type) (n, zeros int) {
	n = min(int(s.nelems), o.elements())
	size, err := v.types.Sizeof(s.Elem())
	b, berr := v.Bytes()
	if err != nil || berr != nil || size == 0 {
		return n, 0
	}
	used := len(b)
	for used > 0 && b[used-1] == 0 {
		used--
	}
	live := (used + size - 1) / size
	if tail := int(s.nelems) - live; tail > 1 && live <= n {
		return live, tail
	}
	return n, 0
}

// text returns an array of char as a quoted string, if it is one: printable
// up to a NUL, and nothing but zeroes (or anything: C leaves it be) behind.
func (v Value) text(s *Type) (quoted string, ok bool, err error) {
	if !s.Elem().IsChar() || s.nelems == 0 {
		return "", false, nil
	}
	str, err := v.CString()
	if err != nil {
		return "", false, err
	}
	for i := range len(str) {
		if c := str[i]; (c < 0x20 || c > 0x7e) && c != '\n' && c != '\t' {
			return "", false, nil
		}
	}
	return strconv.Quote(str), true, nil
}

// scalar prints anything but a record or array.
func (o FormatOptions) scalar(v Value, s *Type) (string, error) {
	if s.kind == Void {
		return "void", nil
	}
	u, err := v.Uint()
	if err != nil {
		if s.kind == Int || s.kind == Float {
			if b, berr := v.Bytes(); berr == nil { // __int128 and the like
				return littleHex(b), nil
			}
		}
		return unreadable(err), err
	}
	switch s.kind {
	case Pointer, Func, FuncProto:
		return o.pointer(v, s, u), nil
	case Enum, Enum64:
		return enumText(s, u), nil
	}
	switch {
	case s.enc&encBool != 0 && u <= 1:
		return strconv.FormatBool(u != 0), nil
	case o.Hex:
		n, _ := v.size()
		return fmt.Sprintf("%#x", extend(u, uint8(min(n, 8)*8), false)), nil
	case s.enc&encSigned != 0:
		return strconv.FormatInt(int64(u), 10), nil
	case s.IsChar() && u >= 0x20 && u < 0x7f:
		return fmt.Sprintf("%d %q", u, rune(u)), nil
	case kernelPointer(u):
		return fmt.Sprintf("%#x%s", u, o.symbol(u)), nil
	}
	return strconv.FormatUint(u, 10), nil
}

func littleHex(b []byte) string {
	var out strings.Builder
	out.WriteString("0x")
	for i := len(b) - 1; i >= 0; i-- {
		fmt.Fprintf(&out, "%02x", b[i])
	}
	return out.String()
}

// kernelPointer says whether an integer looks like an address of the kernel
// half: canonical, and not a small negative number.
func kernelPointer(u uint64) bool { return u >= 0xff00000000000000 && u < 0xffffffffffff0000 }

func (o FormatOptions) symbol(u uint64) string {
	if o.Symbolize == nil || u == 0 {
		return ""
	}
	if name := o.Symbolize(u); name != "" {
		return " <" + name + ">"
	}
	return ""
}

func (o FormatOptions) pointer(v Value, s *Type, u uint64) string {
	out := fmt.Sprintf("%#x%s", u, o.symbol(u))
	if u != 0 && s.kind == Pointer && s.Elem().IsChar() && v.mem != nil {
		if str, err := v.CString(); err == nil && len(str) < 256 {
			out += " " + strconv.Quote(str)
		}
	}
	return out
}

// enumText names an enum's value: one constant, a combination of flags if all
// constants are single bits, or the number.
func enumText(s *Type, u uint64) string {
	num := strconv.FormatUint(u, 10)
	if s.flag {
		num = strconv.FormatInt(int64(u), 10)
	}
	var flags []string
	rest, bits := u, true
	for _, e := range s.Enumerators() {
		if e.Value == u {
			return e.Name + " (" + num + ")"
		}
		if e.Value&(e.Value-1) != 0 {
			bits = false
		}
		if e.Value != 0 && rest&e.Value == e.Value {
			flags = append(flags, e.Name)
			rest &^= e.Value
		}
	}
	if !bits || flags == nil || rest != 0 {
		return num
	}
	return fmt.Sprintf("%s (%#x)", strings.Join(flags, "|"), u)
}
