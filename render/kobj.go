package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

// logLine words one record; a message of several lines is indented below its
// time.
func (p *Printer) logLine(rec kobj.LogRecord, caller bool) string {
	stamp := fmt.Sprintf("[%5d.%06d] ", rec.Time/time.Second, rec.Time%time.Second/time.Microsecond)
	if caller {
		stamp += fmt.Sprintf("[%6s] ", rec.CallerID())
	}
	text := Clean(strings.ReplaceAll(rec.Text, "\n", "\n"+strings.Repeat(" ", len(stamp))))
	if rec.Level <= 3 { // error and worse
		text = p.Bad(text)
	}
	return p.Dim(stamp) + text
}

// Log writes the log as dmesg does, on request with who wrote each message.
func (p *Printer) Log(log []kobj.LogRecord, caller bool) {
	for _, rec := range log {
		p.Line(p.logLine(rec, caller))
	}
}

// Tasks writes tasks as a table.
func (p *Printer) Tasks(tasks []kobj.Task) {
	p.Line(p.Label(fmt.Sprintf("%7s %7s %7s S %3s %10s  %s", "PID", "TGID", "PPID", "CPU", "TIME", "COMMAND")))
	for _, t := range tasks {
		p.Line(p.taskLine(t, ""))
	}
}

func (p *Printer) taskLine(t kobj.Task, indent string) string {
	comm := Clean(t.Comm)
	if t.Kernel {
		comm = "[" + comm + "]"
	}
	line := fmt.Sprintf("%7d %7d %7d %s %3d %10s  %s", t.PID, t.TGID, t.PPID, t.State, t.CPU, clock(t.RunTime), indent+comm)
	if t.Running {
		line = p.Good(line)
	}
	return line
}

// clock writes a run time with the precision that fits it.
func clock(d time.Duration) string {
	if d < time.Hour {
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

const maxIndent = 64 // columns by which a task stands in at most

// TaskTree writes tasks below their parents, threads below their process.
func (p *Printer) TaskTree(tasks []kobj.Task) {
	children := make(map[int][]kobj.Task)
	known := make(map[int]bool)
	for _, t := range tasks {
		if t.PID == t.TGID {
			known[t.PID] = true
		}
	}
	var roots []kobj.Task
	for _, t := range tasks {
		switch {
		case t.PID != t.TGID && known[t.TGID]:
			children[t.TGID] = append(children[t.TGID], t)
		case t.PID != 0 && known[t.PPID] && t.PPID != t.PID:
			children[t.PPID] = append(children[t.PPID], t)
		default:
			roots = append(roots, t)
		}
	}
	p.Line(p.Label(fmt.Sprintf("%7s %7s %7s S %3s %10s  %s", "PID", "TGID", "PPID", "CPU", "TIME", "COMMAND")))
	seen := make(map[int]bool) // a damaged dump may have a parent below its child
	var walk func(t kobj.Task, indent string)
	walk = func(t kobj.Task, indent string) {
		p.Line(p.taskLine(t, indent))
		if seen[t.PID] || t.PID != t.TGID {
			return
		}
		seen[t.PID] = true
		for _, c := range children[t.PID] {
			mark := "  "
			if c.PID != c.TGID {
				mark = "· " // a thread
			}
			below := strings.ReplaceAll(indent, "· ", "  ")
			walk(c, below[:min(len(below), maxIndent)]+mark)
		}
	}
	for _, t := range roots {
		walk(t, "")
	}
	for _, t := range tasks { // below each other, and so below no root
		if known[t.PID] && t.PID == t.TGID && !seen[t.PID] {
			walk(t, "")
		}
	}
}

// Files writes the open files of a process; object says what a file is, where
// its path does not.
func (p *Printer) Files(files []kobj.File, object func(kobj.File) string) {
	p.Line(p.Label(fmt.Sprintf("%4s  %-5s %-18s  %s", "FD", "TYPE", "FILE", "PATH")))
	for _, f := range files {
		line := fmt.Sprintf("%4d  %-5s %-18s  %s", f.FD, f.Type, known(uint64(f.Addr)), Clean(f.Path))
		if o := object(f); o != "" {
			line += "  " + p.Name(Clean(o))
		}
		p.Line(line)
	}
}

// Task writes the line above a task's stack.
func (p *Printer) Task(t kobj.Task) {
	what := "asleep, state " + t.State
	switch {
	case t.Running:
		what = "running"
	case t.State == "R":
		what = "runnable"
	}
	line := fmt.Sprintf("  CPU %d, %s", t.CPU, what)
	if t.Addr != 0 {
		line += fmt.Sprintf(", task_struct %s", t.Addr)
	}
	p.Line(p.Label(fmt.Sprintf("pid %d  %s", t.PID, Clean(t.Comm))) + p.Dim(line))
}

// known is an address in a table, "-" where it is not known.
func known(addr uint64) string {
	if addr == 0 {
		return "-"
	}
	return fmt.Sprintf("0x%016x", addr)
}

// Modules writes loaded modules as a table.
func (p *Printer) Modules(mods []*kernel.Module) {
	p.Line(p.Label(fmt.Sprintf("%-18s %9s %5s  %-8s %s", "BASE", "SIZE", "USED", "STATE", "NAME")))
	for _, m := range mods {
		p.Line(fmt.Sprintf("%-18s %9d %5d  %-8s %s", known(m.Base()), m.Size(), m.Refs, m.State, Clean(m.Name)))
	}
}
