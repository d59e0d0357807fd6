package rerun

import (
	"fmt"
	"strconv"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// Width cuts a register to the width of a type.
func Width(t *ctype.Type, v uint64) uint64 {
	if t == nil {
		return v
	}
	if t.IsBool() {
		return v & 0xff
	}
	size, err := t.Size()
	if err != nil || size <= 0 || size >= 8 {
		return v
	}
	return v & (1<<(8*uint(size)) - 1)
}

// valueText says what a value is by its type: "-22 (-EINVAL)", "true", "NULL",
// "&init_task", "PIDTYPE_PID". Text that a char * points at is read from m.
func (s *Session) valueText(m mem.Reader, t *ctype.Type, v uint64) string {
	if t == nil {
		return fmt.Sprintf("0x%x", v)
	}
	v = Width(t, v)
	switch strip := t.Strip(); {
	case strip.Kind() == ctype.Void:
		return ""
	case t.IsBool():
		return strconv.FormatBool(v != 0)
	case strip.Kind() == ctype.Enum || strip.Kind() == ctype.Enum64:
		for _, e := range strip.Enumerators() {
			if Width(t, e.Value) == v {
				return e.Name
			}
		}
		return strconv.FormatUint(v, 10)
	case t.IsInteger():
		return s.integerText(t, v)
	case strip.Kind() == ctype.Pointer, strip.Kind() == ctype.Array:
		return s.pointerText(m, strip.Elem(), v)
	}
	return fmt.Sprintf("0x%x", v)
}

func (s *Session) integerText(t *ctype.Type, v uint64) string {
	size, err := t.Size()
	if err != nil || size <= 0 || size > 8 {
		return fmt.Sprintf("0x%x", v)
	}
	shift := uint(64 - 8*size)
	signed := int64(v<<shift) >> shift
	if t.IsSigned() {
		if name := ctype.ErrorName(signed); name != "" {
			return fmt.Sprintf("%d (%s)", signed, name)
		}
		return strconv.FormatInt(signed, 10)
	}
	const small = 1 << 16 // beyond it numbers tend to be sets of bits and addresses
	if v < small {
		return strconv.FormatUint(v, 10)
	}
	if name := ctype.ErrorName(signed); name != "" && size == 8 {
		return fmt.Sprintf("0x%x (%s)", v, name)
	}
	if v>>63 == 1 { // an address, or a mask
		return s.pointerText(nil, ctype.Builtin("void"), v)
	}
	return fmt.Sprintf("%d (0x%x)", v, v)
}

func (s *Session) pointerText(m mem.Reader, to *ctype.Type, v uint64) string {
	const shown = 64
	switch {
	case v == 0:
		return "NULL"
	case ctype.ErrorName(int64(v)) != "":
		return fmt.Sprintf("ERR_PTR(%d) (%s)", int64(v), ctype.ErrorName(int64(v)))
	case to.IsChar():
		if text, err := mem.CString(m, v, shown+1); err == nil && printable(text) {
			if len(text) > shown {
				return strconv.Quote(text[:shown]) + "..."
			}
			return strconv.Quote(text)
		}
	}
	if name, ok := s.dataName(v); ok {
		return fmt.Sprintf("0x%x (%s)", v, name)
	}
	if _, _, ok := s.k.Symbolize(v); ok { // of BPF
		return fmt.Sprintf("0x%x (%s)", v, s.Name(v))
	}
	return fmt.Sprintf("0x%x", v)
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}
