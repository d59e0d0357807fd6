package jit

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/x86"
)

func hex(v uint64) string { return "0x" + strconv.FormatUint(v, 16) }

// A code is decoded machine code with the text of its instructions.
type code struct {
	addr  uint64
	insts []x86.Inst
	text  []string // nothing named, so that patterns match
	opts  Options
}

// decode decodes code from its beginning. It stops where bytes are no
// instruction; ok tells that it came to the end.
func decode(b []byte, addr uint64, o Options) (c *code, ok bool) {
	c = &code{addr: addr, opts: o}
	b = b[:min(len(b), maxCode)]
	var buf []byte
	for off := 0; off < len(b); {
		in, err := x86.Decode(b[off:], addr+uint64(off))
		if err != nil || in.Len == 0 {
			return c, false
		}
		buf = in.AppendGNU(buf[:0], nil)
		c.insts = append(c.insts, in)
		c.text = append(c.text, string(buf))
		off += in.Len
	}
	return c, true
}

// off returns the offset of an instruction, or of the end.
func (c *code) off(i int) int {
	if i < len(c.insts) {
		return int(c.insts[i].Addr - c.addr)
	}
	if len(c.insts) == 0 {
		return 0
	}
	last := &c.insts[len(c.insts)-1]
	return int(last.Addr-c.addr) + last.Len
}

// at returns the address of an instruction.
func (c *code) at(i int) uint64 { return c.addr + uint64(c.off(i)) }

// show formats an instruction with where it is, as evidence: the symbol and the
// offset, and the symbol it calls.
func (c *code) show(i int) string {
	in := &c.insts[i]
	where := hex(in.Addr)
	if c.opts.Sym != nil {
		if name, off, ok := c.opts.Sym(in.Addr); ok {
			where = name + "+" + hex(off)
		}
	}
	if to, ok := in.Target(); ok {
		return where + "  " + in.Op.String() + " " + c.sym(to)
	}
	return where + "  " + string(in.AppendGNU(nil, c.opts.Sym))
}

// nops are the nops that the JIT has the kernel choose for the processor
// (arch/x86/include/asm/nops.h; before 5.13 ideal_nops had four sets).
var nops = map[string][][]byte{
	"NOP5": {{0x0f, 0x1f, 0x44, 0, 0}, {0x66, 0x66, 0x66, 0x66, 0x90}, {0x3e, 0x8d, 0x74, 0x26, 0}, {0x3e, 0x8d, 0x44, 0x20, 0}},
	"NOP3": {{0x0f, 0x1f, 0x00}},
	"NOP2": {{0x66, 0x90}},
	"IBHF": {{0xf3, 0x48, 0x0f, 0x1e, 0xf8}},
}

// insn matches instruction i.
func (c *code) insn(m *match, pattern string, i int) bool {
	if i >= len(c.insts) {
		return false
	}
	if forms, ok := nops[pattern]; ok {
		for _, f := range forms {
			if bytes.Equal(c.insts[i].Bytes(), f) {
				return true
			}
		}
		return false
	}
	if pattern == "ARENA" {
		return strings.Contains(c.text[i], ",%r12,1)")
	}
	had := len(m.caps)
	if m.insn(pattern, c.text[i]) {
		return true
	}
	m.caps = m.caps[:had]
	return false
}

// seq matches a pattern of instructions from instruction i on and returns how
// many they are.
func (c *code) seq(m *match, pattern string, i int) (n int, ok bool) {
	start := i
	for pattern != "" {
		var p string
		p, pattern, _ = strings.Cut(pattern, "; ")
		switch {
		case p[0] == '@':
			if !m.bind(p[1:], hex(c.at(i))) {
				return 0, false
			}
		case p[0] == '?':
			if c.insn(m, p[1:], i) {
				i++
			}
		case p[0] == '*':
			for c.insn(m, p[1:], i) {
				i++
			}
		case c.insn(m, p, i):
			i++
		default:
			return 0, false
		}
	}
	return i - start, true
}

// sym names an address: "foo", "foo+0x5" or, if it has no name, its number.
func (c *code) sym(addr uint64) string {
	if c.opts.Sym != nil {
		if name, off, ok := c.opts.Sym(addr); ok && name != "" {
			if off == 0 {
				return name
			}
			return name + "+" + hex(off)
		}
	}
	return hex(addr)
}

// symbol returns the name of what begins at addr, or "".
func (c *code) symbol(addr uint64) string {
	if c.opts.Sym != nil {
		if name, off, ok := c.opts.Sym(addr); ok && off == 0 {
			return name
		}
	}
	return ""
}
