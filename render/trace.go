package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/trace"
)

// TraceOptions say how calls are written.
type TraceOptions struct {
	Flat bool           // a line for each call
	Zone *time.Location // of the times; nil is the local one
}

// TraceCall writes a call with those made in it: as a tree, or as lines.
func (p *Printer) TraceCall(c *trace.Call, o TraceOptions) {
	head := p.Dim(traceStamp(c, o)) + "  "
	if o.Flat || len(c.Calls)+len(c.Tail) == 0 {
		p.flatCall(c, head)
		for _, k := range c.Calls {
			p.TraceCall(k, o)
		}
		return
	}
	t := callTree{p: p, indent: strings.Repeat(" ", displayWidth(head))}
	t.root(head, c)
	t.write()
}

// traceStamp is where and when a call began.
func traceStamp(c *trace.Call, o TraceOptions) string {
	at := time.Unix(0, c.Time)
	if o.Zone != nil {
		at = at.In(o.Zone)
	}
	return fmt.Sprintf("cpu%d %s", c.CPU, at.Format("15:04:05.000"))
}

// traceSubject is what a call was about: its packet, or else who made it.
func traceSubject(c *trace.Call) string {
	if c.Packet != nil && c.Packet.Text != "" {
		return Clean(c.Packet.Text)
	}
	if c.Comm == "" {
		return ""
	}
	return Clean(fmt.Sprintf("%s %d", c.Comm, c.PID))
}

// callName is a function with its arguments, in at most so many columns; inner
// leaves out a context that the call around it has as well.
func (p *Printer) callName(c *trace.Call, inner bool, most int) string {
	name := Clean(c.Function)
	tail := ""
	switch {
	case c.Stub != nil:
		tail = name
		name = Clean(c.Stub.Name)
		if c.Prog != nil {
			tail += fmt.Sprintf(" (freplace, id %d)", c.Prog.ID)
		}
	case c.Module != "":
		name = Clean(c.Module) + ":" + name
	}
	if c.Kind == "tracepoint" {
		tail = "(tracepoint)"
	}
	var args []string
	for _, a := range c.Args {
		context := strings.HasPrefix(a.Text, "{")
		switch {
		case context && inner:
		case context:
			args = append(args, Clean(a.Name+a.Text))
		default:
			args = append(args, Clean(a.Name+"="+a.Text))
		}
	}
	out := p.Name(name)
	if len(args) > 0 || !inner || c.Kind == "function" {
		out += "(" + fitting(args, most-displayWidth(name)-displayWidth(tail)-2) + ")"
	}
	switch {
	case c.Stub != nil:
		out += " → " + p.Name(tail)
	case tail != "":
		out += " " + p.Dim(tail)
	}
	return out
}

// fitting joins arguments, as many as there is room for: none is cut in the
// middle but a first one that is too long alone.
func fitting(args []string, room int) string {
	out := ""
	for i, a := range args {
		switch {
		case i == 0:
			out = cut(a, max(room-3*min(len(args)-1, 1), 20))
		case displayWidth(out)+2+displayWidth(a)+3*min(len(args)-1-i, 1) > room:
			return out + ", …"
		default:
			out += ", " + a
		}
	}
	return out
}

// returned is what came back, or that nothing did yet.
func (p *Printer) returned(c *trace.Call) string {
	switch {
	case c.Unfinished && c.Duration != nil:
		return p.Bad("... not returned after " + TraceDuration(*c.Duration))
	case c.Unfinished:
		return p.Bad("... not returned")
	case c.Jumped:
		return p.Dim("entered by a tail call")
	case c.Return == nil:
		return ""
	case c.Return.Odd || c.Refused != nil:
		return p.Bad("= " + Clean(c.Return.Text))
	}
	return "= " + Clean(c.Return.Text)
}

// took is how long a call that has returned took.
func took(c *trace.Call) string {
	if c.Unfinished || c.Duration == nil {
		return ""
	}
	return TraceDuration(*c.Duration)
}

// A sentence stands below the line of a call.
type sentence struct {
	mark string // in front of its first line
	text string
	bad  bool
}

// refusedWords mark a call below which the whole sentence stands.
const refusedWords = "tail call refused"

// remark is what else is to be said of a call: in a few words, and in
// sentences.
func (p *Printer) remark(c *trace.Call) (words string, text []sentence) {
	var parts []string
	if c.Refused != nil {
		parts = append(parts, refusedWords)
		text = append(text, sentence{text: c.Refused.Text, bad: true})
		for _, e := range c.Refused.Evidence {
			text = append(text, sentence{mark: "· ", text: e})
		}
	}
	if r := c.Return; r != nil && r.Meaning != "" {
		if r.Odd && r.Meaning != trace.NoAction {
			text = append(text, sentence{text: r.Text + " is " + r.Meaning, bad: true})
		} else {
			parts = append(parts, r.Meaning)
		}
	}
	if c.TailNote != "" {
		parts = append(parts, c.TailNote)
	}
	if c.Orphan {
		parts = append(parts, "its caller is not told")
	}
	if c.Missing > 0 {
		parts = append(parts, count(c.Missing, "call")+" in it told apart")
	}
	return Clean(strings.Join(parts, ", ")), text
}

// note writes a remark.
func (p *Printer) note(words string, c *trace.Call) string {
	if c != nil && c.Refused != nil {
		return p.Bad(words)
	}
	return p.Dim(words)
}

// sentences are the lines of sentences, so many columns wide.
func (p *Printer) sentences(text []sentence, width int) (out []string) {
	for _, s := range text {
		for i, l := range Wrap(Clean(s.text), width-displayWidth(s.mark)) {
			if s.bad {
				l = p.Bad(l)
			}
			mark := s.mark
			if i > 0 {
				mark = strings.Repeat(" ", displayWidth(mark))
			}
			out = append(out, p.Dim(mark)+l)
		}
	}
	return out
}

// flatCall writes a call on one line, and below it what there is no room for.
func (p *Printer) flatCall(c *trace.Call, head string) {
	rest := ""
	for _, s := range []string{p.returned(c), took(c)} {
		if s != "" {
			rest += "  " + s
		}
	}
	name, subject := p.called(c, Width-displayWidth(head)-displayWidth(rest))
	line := head + name + rest
	var below []string
	more := func(text, styled string) {
		if text != "" && len(below) == 0 && displayWidth(line)+2+displayWidth(text) <= Width {
			line += "  " + styled
		} else if text != "" {
			below = append(below, styled)
		}
	}
	more(subject, p.Dim(subject))
	shown := p.shown(c)
	if len(shown) == 1 {
		more(shown[0], shown[0])
		shown = nil
	}
	indent := strings.Repeat(" ", displayWidth(head)+2)
	words, text := p.remark(c)
	if words != "" && displayWidth(words) > Width-len(indent) {
		text, words = append([]sentence{{text: words}}, text...), ""
	}
	more(words, p.note(words, c))
	p.Line(line)
	for _, l := range slices.Concat(below, shown, p.sentences(text, Width-len(indent)), stackLines(p, c)) {
		p.Line(indent + l)
	}
}

// called is a call with its arguments, and what it was about, in so many
// columns. Where both do not fit it is without what it was about.
func (p *Printer) called(c *trace.Call, room int) (name, subject string) {
	subject = traceSubject(c)
	name = p.callName(c, false, room-displayWidth(subject)-2)
	if displayWidth(name)+2+displayWidth(subject) > room || strings.Contains(name, "…") {
		name = p.callName(c, false, room)
	}
	return name, subject
}

// shown are the values that were asked for, short ones together.
func (p *Printer) shown(c *trace.Call) []string {
	var out []string
	line := ""
	for _, v := range c.Shown {
		text := Clean(v.Expr + " = " + v.Text)
		if v.Error != "" {
			text = Clean(v.Expr) + " = " + p.Bad("<"+Clean(v.Error)+">")
		}
		if strings.Contains(text, "\n") {
			if line != "" {
				out = append(out, line)
				line = ""
			}
			out = append(out, strings.Split(text, "\n")...)
			continue
		}
		switch {
		case line == "":
			line = text
		case displayWidth(line)+displayWidth(text) > 56:
			out = append(out, line)
			line = text
		default:
			line += ", " + text
		}
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}

func stackLines(p *Printer, c *trace.Call) []string {
	var out []string
	for _, f := range c.Stack {
		s := f.Addr.String()
		if f.Symbol != "" {
			s = Clean(f.Symbol) + "+0x" + strconv.FormatUint(f.Offset, 16)
		}
		out = append(out, p.Dim("from "+s))
	}
	return out
}

// tailNames are programs that were entered one from the other, in the place of
// what was called: " → prog_array[3] xdp_mod (tail call)".
func tailNames(p *Printer, tails []trace.TailCall) string {
	const shown = 3
	var b strings.Builder
	for i, t := range tails {
		if n := len(tails); n > shown && i == shown-1 {
			fmt.Fprintf(&b, " → … %d more", n-shown)
		}
		if n := len(tails); n > shown && i >= shown-1 && i < n-1 {
			continue
		}
		b.WriteString(" → " + tailName(p, &tails[i], t.From != nil))
	}
	switch len(tails) {
	case 0:
	case 1:
		if !tails[0].Certain {
			b.WriteString(p.Dim(" (tail call, not watched)"))
			break
		}
		b.WriteString(p.Dim(" (tail call)"))
	default:
		b.WriteString(p.Dim(fmt.Sprintf(" (%d tail calls)", len(tails))))
	}
	return b.String()
}

// tailName is a program that was entered, and which element of which array
// leads to it; from says who jumped as well.
func tailName(p *Printer, t *trace.TailCall, from bool) string {
	name := p.Name(Clean(cmp.Or(t.Prog.Name, "program "+strconv.Itoa(t.Prog.ID))))
	array := Clean(t.Map)
	if array == "" && t.MapID != 0 {
		array = "map " + strconv.Itoa(t.MapID)
	}
	if array != "" {
		slot := "[]"
		if t.Index >= 0 {
			slot = "[" + strconv.Itoa(t.Index) + "]"
		}
		name = array + slot + " " + name
	}
	if from && len(t.From) > 0 {
		name = p.Name(Clean(strings.Join(t.From, " or "))) + " → " + name
	}
	return name
}

// TraceDuration writes nanoseconds in the unit that fits them.
func TraceDuration(ns uint64) string {
	switch {
	case ns < 1000:
		return fmt.Sprintf("%d ns", ns)
	case ns < 999_950:
		return fmt.Sprintf("%.1f µs", float64(ns)/1e3)
	case ns < 999_950_000:
		return fmt.Sprintf("%.1f ms", float64(ns)/1e6)
	case ns < 60_000_000_000:
		return fmt.Sprintf("%.1f s", float64(ns)/1e9)
	}
	return Duration(time.Duration(min(ns, 1<<62)))
}
