package jit

import (
	"strconv"
	"strings"
)

// Idioms are written as the instructions a person reads in a listing: AT&T
// syntax, separated by "; ". In them
//
//	{x}        stands for a number (immediate, displacement or address)
//	{%r}       stands for a register
//	(a|b)      stands for one of several texts
//	NOP5       stands for any nop of 5 bytes, NOP2 and NOP3 likewise
//	@x         is no instruction: x is the address of the next one
//	IBHF       stands for that instruction, a nop by its encoding
//	ARENA      stands for any instruction that addresses memory by r12
//	?insn      may be missing
//	*insn      may be missing or repeated
//
// A name that occurs again stands for the same text again.

// A capture is what a name of a pattern stands for.
type capture struct{ name, text string }

// A match collects the captures of one idiom.
type match struct {
	caps []capture
}

// get returns the text a name stands for.
func (m *match) get(name string) (string, bool) {
	for i := len(m.caps) - 1; i >= 0; i-- {
		if m.caps[i].name == name {
			return m.caps[i].text, true
		}
	}
	return "", false
}

// num returns the number a name stands for, 0 if it stands for none.
func (m *match) num(name string) int64 {
	s, _ := m.get(name)
	return number(s)
}

// addr is num for addresses.
func (m *match) addr(name string) uint64 { return uint64(m.num(name)) }

// has says that a name stands for something: its instruction is there.
func (m *match) has(name string) bool {
	_, ok := m.get(name)
	return ok
}

// number reads a number as the formatter writes it: 0x10, -0x8.
func number(s string) int64 {
	neg := strings.HasPrefix(s, "-")
	v, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimPrefix(s, "-"), "0x"), 16, 64)
	if err != nil {
		return 0
	}
	if neg {
		return -int64(v)
	}
	return int64(v)
}

// number64 is number for addresses.
func number64(s string) uint64 { return uint64(number(s)) }

func decimal(v int64) string { return strconv.FormatInt(v, 10) }

// insn matches one instruction. What was captured stays if it fails; the
// caller cuts it off.
func (m *match) insn(pattern, text string) bool {
	for i := 0; i < len(pattern); {
		switch c := pattern[i]; c {
		case '{':
			end := i + strings.IndexByte(pattern[i:], '}')
			name := pattern[i+1 : end]
			n := tokenLen(text, name[0] == '%')
			if n == 0 || !m.bind(name, text[:n]) {
				return false
			}
			text, i = text[n:], end+1
		case '(':
			end := i + strings.IndexByte(pattern[i:], ')')
			if end < i || !strings.Contains(pattern[i:end], "|") { // a literal (%rax)
				if text == "" || text[0] != '(' {
					return false
				}
				text, i = text[1:], i+1
				continue
			}
			had := len(m.caps)
			for _, alt := range strings.Split(pattern[i+1:end], "|") {
				if m.insn(alt+pattern[end+1:], text) {
					return true
				}
				m.caps = m.caps[:had]
			}
			return false
		default:
			if text == "" || text[0] != c {
				return false
			}
			text, i = text[1:], i+1
		}
	}
	return text == ""
}

// bind captures a text, or compares it with what the name stands for already.
func (m *match) bind(name, text string) bool {
	if old, ok := m.get(name); ok {
		return old == text
	}
	m.caps = append(m.caps, capture{name, text})
	return true
}

// tokenLen returns the length of the register or number that text begins with.
func tokenLen(text string, reg bool) int {
	if text == "" || reg != (text[0] == '%') {
		return 0
	}
	n := 1
	for n < len(text) && (text[n] >= 'a' && text[n] <= 'z' || text[n] >= '0' && text[n] <= '9') {
		n++
	}
	if !reg && !(text[0] >= '0' && text[0] <= '9' || text[0] == '-' && n > 1) {
		return 0
	}
	return n
}
