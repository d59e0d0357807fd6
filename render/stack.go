package render

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/stack"
)

// Frames writes the frames of a stack, innermost first, and why it ends early.
func (p *Printer) Frames(frames []stack.Frame, end string) {
	width := 0
	for _, f := range frames {
		width = max(width, displayWidth(frameName(f)))
	}
	width = min(width, 48)
	for i, f := range frames {
		if i > 0 && f.Raw.Regs != nil {
			p.Line(p.Dim("    ── interrupted:"))
		}
		name := pad(frameName(f), width)
		if f.Kind == kernel.KindBPF {
			name = p.Name(name)
		}
		line := fmt.Sprintf("%2d  %s %-10s", i, name, f.Kind)
		if f.BPF != nil {
			line += " " + Clean(bpfNote(f))
		}
		if f.Recovered != "" {
			line += " " + p.Bad("recovered "+Clean(f.Recovered))
		}
		p.Line(strings.TrimRight(line, " "))
	}
	if end != "" {
		p.Line("    " + p.Bad("the stack cannot be followed further: ") + Clean(end))
	}
}

func frameName(f stack.Frame) string {
	switch {
	case f.Symbol == "":
		return Clean(f.PC.String())
	case f.Module != "":
		return Clean(fmt.Sprintf("%s+%#x [%s]", f.Symbol, uint64(f.Offset), f.Module))
	}
	return Clean(fmt.Sprintf("%s+%#x", f.Symbol, uint64(f.Offset)))
}

func bpfNote(f stack.Frame) string {
	var parts []string
	if loc := f.BPF.Location(); loc != "" {
		parts = append(parts, loc)
	}
	if f.BPF.Source != "" {
		parts = append(parts, f.BPF.Source)
	}
	if len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("program %s, id %d, tag %s", f.BPF.Name, f.BPF.ID, f.BPF.Tag))
	}
	return strings.Join(parts, "   ")
}
