package render

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/report"
)

// Report writes a crash report: the answer first, then what it stands on.
func (p *Printer) Report(r *report.Report) {
	p.reportHead(r)
	p.Line("")
	p.reportAnswer(r)
	if len(r.Frames) > 0 || r.StackEnd != "" {
		p.Line("")
		p.Frames(r.Frames, r.StackEnd)
	}
	p.reportNext(r)
	p.code(r)
	p.registers(r.Registers)
	p.reportSystem(r)
	p.reportLog(r.Log)
	if len(r.Unread) > 0 {
		p.Heading("NOT READ")
		for _, u := range r.Unread {
			p.Bullet(u)
		}
	}
}

func (p *Printer) reportHead(r *report.Report) {
	s := r.System
	head := fmt.Sprintf("Linux %s, %s, up %s", Clean(s.Release), count(s.CPUs, "CPU"), Duration(s.Uptime))
	switch {
	case r.Panic != "":
		head += fmt.Sprintf(": panic %q", r.Panic)
	case r.Task != nil:
		head += ": crashed"
	default:
		head += ": no panic"
	}
	state := "complete"
	if !s.Complete {
		state = "incomplete"
	}
	tail := Clean(s.Dump) + ", " + state
	if gap := Width - displayWidth(head) - displayWidth(tail); gap > 1 {
		p.Line(p.Label(head) + strings.Repeat(" ", gap) + p.Dim(tail))
		return
	}
	p.Line(p.Label(head))
	p.Line(p.Dim(tail))
}

func (p *Printer) reportAnswer(r *report.Report) {
	p.Paragraph("WHAT", what(r))
	if c := r.Cause; c != nil && (len(c.Evidence) > 0 || r.Fault == nil) {
		if r.Fault == nil || c.Text != r.Fault.Text { // else WHAT has said it
			p.Paragraph("WHY", c.Text)
		}
		for _, e := range c.Evidence {
			p.evidence(e)
		}
		p.Bullet("certainty: " + string(c.Certainty))
		if r.Missing != "" {
			p.Bullet("open: " + r.Missing)
		}
	}
	if t := r.Task; t != nil {
		who := fmt.Sprintf("%s, pid %d, CPU %d", t.Comm, t.PID, t.CPU)
		if t.Syscall != "" {
			who += ", in " + t.Syscall
		}
		p.Paragraph("WHO", who)
	}
}

// evidence writes one thing that was read, and the instruction it is about on
// a line of its own.
func (p *Printer) evidence(e finding.Evidence) {
	insn := fmt.Sprintf("%s: %s", cmp.Or(e.Symbol, e.Addr.String()), e.Insn)
	switch {
	case e.Insn == "":
		p.Bullet(e.Text)
	case e.Text == "":
		p.Bullet(insn)
	default:
		p.Bullet(e.Text)
		p.Line(strings.Repeat(" ", labelWidth+4) + Clean(insn))
	}
}

// what is the first sentence: the code that failed and how.
func what(r *report.Report) string {
	if len(r.Frames) == 0 {
		if r.Task != nil {
			return "The kernel panicked; the stack of the CPU that did could not be read."
		}
		if r.Headline != "" {
			return fmt.Sprintf("This kernel had not panicked when the dump was taken, but its log holds: %s", r.Headline)
		}
		return "This kernel had not panicked when the dump was taken."
	}
	top := r.Frames[0]
	subject := top.Symbol + "()"
	switch {
	case top.BPF != nil:
		subject = fmt.Sprintf("BPF program %s (%s, id %d, tag %s)", top.BPF.Name, top.BPF.Type, top.BPF.ID, top.BPF.Tag)
	case top.Kind == kernel.KindModule:
		subject = fmt.Sprintf("%s() of module %s", top.Symbol, top.Module)
	case top.Symbol == "":
		subject = "The kernel"
	}
	if r.Fault == nil {
		return fmt.Sprintf("%s panicked: %s", subject, r.Panic)
	}
	return fmt.Sprintf("%s: %s", subject, r.Fault.Text)
}

func (p *Printer) reportNext(r *report.Report) {
	if r.Task == nil {
		p.next([]nextStep{{"bt all", "every task's stack"}})
		return
	}
	var steps []nextStep
	if r.Overwrite != nil && r.StackEnd == "" && len(r.Frames) > 1 && r.Frames[0].Kind != kernel.KindKernel {
		steps = append(steps, nextStep{"emulate --frame 0 --watch " + r.Overwrite.Register, "see the store happen"})
	}
	for _, f := range r.Frames {
		if f.BPF != nil && f.BPF.ID != 0 {
			steps = append(steps, nextStep{fmt.Sprintf("disasm prog:%d", f.BPF.ID), "the program's code"})
			break
		}
	}
	p.next(append(steps,
		nextStep{fmt.Sprintf("bt %d", r.Task.PID), "the whole stack, with what the panic did"},
		nextStep{"log", "the kernel's log"}))
}

func (p *Printer) code(r *report.Report) {
	if len(r.Code) == 0 {
		return
	}
	p.Heading("CODE")
	if f := r.Frames[0]; f.BPF != nil && f.BPF.Insn >= 0 {
		p.Line(p.Name(Clean(fmt.Sprintf("; %s, from BPF instruction %d: %s", f.BPF.Location(), f.BPF.Insn, f.BPF.Source))))
	}
	for _, in := range r.Code {
		mark := "   "
		if in.Here {
			mark = p.Bad("=> ")
		}
		p.Printf("%s%x  %s\n", mark, uint64(in.Addr), Clean(in.Text))
		if in.Here && in.Note != "" {
			p.Line("   " + strings.Repeat(" ", 18) + p.Bad("^ "+Clean(in.Note)))
		}
	}
}

func (p *Printer) registers(regs []report.Register) {
	if len(regs) == 0 {
		return
	}
	p.Heading("REGISTERS")
	for i := 0; i < len(regs); i += 2 {
		line := p.register(regs[i])
		if i+1 < len(regs) {
			line = pad(line, Width/2) + p.register(regs[i+1])
		}
		p.Line(strings.TrimRight(line, " "))
	}
}

func (p *Printer) register(r report.Register) string {
	return fmt.Sprintf("%-6s %016x  %s", r.Name, uint64(r.Value), p.Dim(Clean(cut(r.Note, 24))))
}

// cut shortens s to n columns.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func (p *Printer) reportSystem(r *report.Report) {
	p.Heading("SYSTEM")
	s := r.System
	if s.Version != "" {
		p.Paragraph("", fmt.Sprintf("Linux %s %s on %s", s.Release, s.Version, s.Hostname))
	}
	taint := "not tainted"
	if s.Taint != "" {
		taint = fmt.Sprintf("tainted %s (%s)", s.Taint, strings.Join(s.TaintWhy, "; "))
	}
	p.Paragraph("", taint)
	modules := "no modules"
	if len(s.Modules) > 0 {
		modules = count(len(s.Modules), "module") + ": " + strings.Join(s.Modules, " ")
	}
	p.Paragraph("", modules)
	if r.Fingerprint != "" {
		p.Paragraph("", "fingerprint "+r.Fingerprint)
	}
}

// reportLog shows the end of the log up to the oops: the kernel's own register
// and stack listing behind it is what the report says better.
func (p *Printer) reportLog(log []kobj.LogRecord) {
	if len(log) == 0 {
		return
	}
	p.Heading("LOG")
	p.Log(log, false)
}

// Duration writes a time as a person would say it.
func Duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
