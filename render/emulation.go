package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/rerun"
)

// EmulationOptions say what else is shown of a run.
type EmulationOptions struct {
	Writes bool   // every change of memory, not only how many
	Again  string // the command line that ran it, without options, for what to do next
}

// Emulation writes what a run offline came to: the answer, what decided it, and
// how far it is to be trusted.
func (p *Printer) Emulation(e *rerun.Emulation, o EmulationOptions) {
	p.traceLines(e)
	p.Line(p.outcome(e))
	for _, s := range e.Set {
		p.Bullet(fmt.Sprintf("with %s set to %s (was %s)", nameOf(s), s.New, s.Old))
	}
	for _, a := range e.Args {
		if a.After != "" {
			p.Paragraph("AFTER", cmp.Or(a.Name, a.Expr)+": "+a.After)
		}
	}
	p.emulationStop(e)
	p.reasons(e)
	p.hits(e.Watch)
	p.uses(e.Stubs)
	p.changes(e.Writes, o)
	p.emulationNext(e, o)
}

// outcome is the first line: the call and what came of it.
func (p *Printer) outcome(e *rerun.Emulation) string {
	call := p.Name(Clean(callText(e)))
	steps := p.Dim(fmt.Sprintf("   (%s)", count64(e.Insns, "instruction")))
	switch e.Outcome {
	case "returned":
		if e.Type == "void" {
			return call + p.Label(" returns") + steps
		}
		s := call + p.Label(" = "+Clean(returned(e)))
		return s + steps
	case "watched":
		return call + p.Label(": stopped at a write to what is watched") + steps
	case "loop":
		return call + p.Bad(": never returns") + steps
	case "limit":
		return call + p.Bad(": did not return") + steps
	}
	return call + p.Bad(": ended by a "+map[string]string{
		"fault": "fault", "trap": "trap", "unsupported": "instruction that cannot be executed", "stopped": "stop",
	}[e.Outcome]) + steps
}

// returned words the return value.
func returned(e *rerun.Emulation) string {
	if e.Text == "" {
		return e.Return.String()
	}
	return e.Text
}

// callText is the call with the values of its arguments.
func callText(e *rerun.Emulation) string {
	var args []string
	for _, a := range e.Args {
		v := a.Value.String()
		if a.Text != "" {
			v = a.Text
		}
		if a.Name != "" {
			v = a.Name + "=" + v
		}
		args = append(args, v)
	}
	return e.Function + "(" + strings.Join(args, ", ") + ")"
}

func (p *Printer) emulationStop(e *rerun.Emulation) {
	if e.Stop == nil {
		return
	}
	p.Paragraph("END", e.Stop.Text)
	p.place(e.Stop.Place)
	if len(e.Stop.Calls) > 1 {
		p.Bullet("in " + strings.Join(e.Stop.Calls, ", called by "))
	}
}

// place writes an instruction on a line of its own.
func (p *Printer) place(at rerun.Place) {
	if at.Symbol == "" && at.Insn == "" {
		return
	}
	s := at.Symbol
	if s == "" {
		s = at.Addr.String()
	}
	if at.Source != "" {
		s += " (" + at.Source + ")"
	}
	p.Line(strings.Repeat(" ", labelWidth+4) + p.Dim(Clean(s+"  "+at.Insn)))
}

func (p *Printer) reasons(e *rerun.Emulation) {
	label := "WHY"
	for _, r := range e.Why {
		text := r.Text
		if r.Count > 1 {
			text += fmt.Sprintf("   (%d times)", r.Count)
		}
		p.item(label, text)
		p.place(r.Place)
		label = ""
	}
	if e.WhyGap != "" && (len(e.Why) > 0 || e.Outcome == "returned" && e.Type != "void") {
		p.item(label, e.WhyGap)
	}
}

// item writes a point, the first of its section with the section's label.
func (p *Printer) item(label, text string) {
	if label == "" {
		p.Bullet(text)
		return
	}
	for i, line := range Wrap(Clean(text), Width-labelWidth-2) {
		margin, mark := strings.Repeat(" ", labelWidth), "  "
		if i == 0 {
			margin, mark = p.Label(pad(label, labelWidth)), "· "
		}
		p.Line(margin + p.Dim(mark) + line)
	}
}

func (p *Printer) hits(hits []rerun.Hit) {
	label := "WATCH"
	for _, h := range hits {
		text := fmt.Sprintf("%s = %s", h.To, h.Value)
		if h.Name != "" {
			text = fmt.Sprintf("%s = %s, at %s", h.Name, h.Value, h.To)
		}
		text += fmt.Sprintf(", %s, instruction %d", count(len(h.Bytes)/2, "byte"), h.Step)
		if len(h.Calls) > 0 {
			text += ", in " + strings.Join(h.Calls, ", called by ")
		}
		p.item(label, text)
		p.place(h.Place)
		label = ""
	}
}

// uses says what did not run.
func (p *Printer) uses(uses []rerun.Use) {
	label := "STUBS"
	for _, u := range uses {
		text := fmt.Sprintf("%s: %s", u.Name, u.Why)
		if u.Count > 1 {
			text += fmt.Sprintf(" (%d times, first from %s)", u.Count, u.From)
		} else if u.From != "" {
			text += fmt.Sprintf(" (from %s)", u.From)
		}
		p.item(label, text)
		label = ""
	}
}

// shownChanges is how many changes are shown without being asked for.
const shownChanges = 6

func (p *Printer) changes(writes []rerun.Change, o EmulationOptions) {
	if !o.Writes {
		writes = slices.DeleteFunc(slices.Clone(writes), func(c rerun.Change) bool { return c.Stack })
	}
	if len(writes) == 0 {
		return
	}
	label := "WROTE"
	for i, w := range writes {
		if i == shownChanges && !o.Writes {
			p.Bullet(fmt.Sprintf("and %s more", count(len(writes)-i, "place")))
			break
		}
		text := fmt.Sprintf("%s: %s -> %s", nameOf(w), shortHex(w.Old), shortHex(w.New))
		if w.Old == w.New {
			text = fmt.Sprintf("%s: %s, as it was", nameOf(w), shortHex(w.New))
		}
		if w.By != nil && w.By.Symbol != "" {
			text += "   by " + w.By.Symbol
		}
		p.item(label, text)
		label = ""
	}
	p.Line(strings.Repeat(" ", labelWidth) + p.Dim("(to a copy: the target's memory is as it was)"))
}

func nameOf(c rerun.Change) string {
	if c.Name != "" {
		return fmt.Sprintf("%s (%s)", c.Name, c.Addr)
	}
	return c.Addr.String()
}

// shortHex cuts a long run of hexadecimal bytes.
func shortHex(s string) string {
	const most = 32
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func (p *Printer) traceLines(e *rerun.Emulation) {
	if len(e.Trace) == 0 {
		return
	}
	width := 0
	for _, l := range e.Trace {
		width = max(width, min(len(l.Symbol), 40))
	}
	for _, l := range e.Trace {
		text := l.Text
		if l.Kind == "insn" {
			text = strings.TrimSuffix(pad(l.Insn, 36)+"  "+l.Text, "  ")
		}
		text = strings.Repeat("  ", min(l.Depth, 20)) + Clean(text)
		p.Line(strings.TrimRight(fmt.Sprintf("%8d  %s  %s", l.Step, p.Dim(pad(Clean(l.Symbol), width)), text), " "))
	}
	if e.TraceGap > 0 {
		p.Line(p.Dim(fmt.Sprintf("          and %s more", count64(e.TraceGap, "line"))))
	}
	p.Line("")
}

func (p *Printer) emulationNext(e *rerun.Emulation, o EmulationOptions) {
	if o.Again == "" {
		return
	}
	steps := []nextStep{}
	if len(e.Trace) == 0 {
		steps = append(steps, nextStep{"emulate " + o.Again + " --trace loads", "everything it read and wrote"})
	}
	if e.Addr != 0 && e.Function != "" {
		steps = append(steps, nextStep{"disasm " + disasmName(e), "the code"})
	}
	if len(steps) > 0 {
		p.next(steps)
	}
}

// disasmName names the code that ran for disasm.
func disasmName(e *rerun.Emulation) string {
	if what, _, ok := strings.Cut(e.Call, "("); ok && strings.HasPrefix(what, "prog:") {
		return what
	}
	if name, id, ok := strings.Cut(e.Function, " (prog "); ok {
		return "prog:" + strings.TrimSuffix(id, ")") + "/" + name
	}
	if strings.ContainsAny(e.Function, " []") {
		return e.Addr.String()
	}
	return e.Function
}

func count64(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
