package rerun

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// Place names an instruction of the target.
func (s *Session) Place(addr uint64) Place {
	p := Place{Addr: mem.Addr(addr), Symbol: s.Name(addr)}
	if sym, _, ok := s.k.Symbolize(addr); ok && sym.Kind == kernel.KindBPF {
		if c := s.bpfAt(sym.Addr); c.ok && c.lines != nil {
			if loc, ok := c.lines.At(addr); ok {
				p.Source = fmt.Sprintf("%s:%d", loc.File, loc.Line)
			}
		}
	}
	if in, err := x86.DecodeAt(s.view, addr); err == nil {
		p.Insn = s.insnText(&in)
	}
	return p
}

// insnText formats an instruction, where it goes by name.
func (s *Session) insnText(in *x86.Inst) string {
	text := string(in.AppendGNU(nil, s.symbolOf))
	if t, ok := in.Target(); ok {
		mnemonic, _, _ := strings.Cut(text, " ")
		return mnemonic + " " + s.Name(t)
	}
	return text
}

// Name returns "function+0xoffset", a BPF function by the name in its source.
func (s *Session) Name(addr uint64) string {
	sym, off, ok := s.k.Symbolize(addr)
	if !ok || sym.Kind != kernel.KindBPF {
		return s.k.FormatAddr(addr)
	}
	c := s.bpfAt(sym.Addr)
	if !c.ok {
		return s.k.FormatAddr(addr)
	}
	name := c.Prog.Subprogs[c.Subprog].Name
	if off != 0 {
		name += fmt.Sprintf("+0x%x", off)
	}
	return name
}

// calls names the functions that a machine is in, innermost first.
func (s *Session) calls(m *emulate.Machine) []string {
	out := []string{}
	for i := len(m.Frames) - 1; i >= 0; i-- {
		const most = 64 // of a recursion without end the innermost say enough
		if len(out) == most {
			return append(out, fmt.Sprintf("... %d more", i+1))
		}
		out = append(out, s.Name(m.Frames[i].Entry))
	}
	return out
}

// symbolOf names an address for the text of an instruction.
func (s *Session) symbolOf(addr uint64) (name string, off uint64, ok bool) {
	sym, off, ok := s.k.Symbolize(addr)
	return sym.Name, off, ok
}
