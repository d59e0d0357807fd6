package render

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/trace"
)

// A callTree is one root with its lines, which are aligned when all are there.
type callTree struct {
	p      *Printer
	indent string // below the root's time
	lines  []traceLine
}

// A traceLine is a line of a tree: what was called, and in columns what came
// back, how long it took and a remark; or just text.
type traceLine struct {
	left, ret, took, remark string
	under                   string // stands in front of what does not fit on the line
	text                    string // instead of the columns
	call                    *trace.Call
}

// deepest is how far calls are indented; below it stands how deep they are.
const deepest = 12

// An item is something in a call: another call, or a tail call from code that
// is not on the call's own line.
type item struct {
	step  trace.Step
	leads []trace.TailCall // of a call: what took its place before all else
}

// items are what is told below a call. The programs that took its place before
// anything else happened stand on its own line, if it is not the root.
func (t *callTree) items(c *trace.Call, root bool) []item {
	var out []item
	leading := !root
	for _, s := range c.Steps() {
		if leading && s.Tail != nil && len(s.Tail.From) == 0 {
			continue
		}
		leading = false
		it := item{step: s}
		if s.Call != nil {
			it.leads = leads(s.Call)
		}
		out = append(out, it)
	}
	return out
}

// leads are the programs that took a call's place before anything else
// happened in it.
func leads(c *trace.Call) []trace.TailCall {
	var out []trace.TailCall
	for _, s := range c.Steps() {
		if s.Tail == nil || len(s.Tail.From) > 0 {
			break
		}
		out = append(out, *s.Tail)
	}
	return out
}

func (t *callTree) add(left string, l traceLine) {
	l.left = left
	t.lines = append(t.lines, l)
}

// root adds the lines of a call and of all in it.
func (t *callTree) root(head string, c *trace.Call) {
	p := t.p
	name, subject := p.called(c, Width-displayWidth(head))
	line := head + name
	fits := displayWidth(line)+2+displayWidth(subject) <= Width
	if fits && subject != "" {
		line += "  " + p.Dim(subject)
	}
	t.lines = append(t.lines, traceLine{text: line})
	if !fits {
		t.lines = append(t.lines, traceLine{text: t.indent + p.Dim("│  "+subject)})
	}
	t.details(c, "│  ")
	for _, it := range t.items(c, true) {
		t.item(it, "", false, 1, 1)
	}
	end := "└─"
	for _, s := range []string{p.returned(c), took(c)} {
		if s != "" {
			end += " " + s + " "
		}
	}
	if p.returned(c) == "" {
		end = strings.Replace(end, "└─", "└─ returned", 1)
	}
	words, text := p.remark(c)
	line = t.indent + strings.TrimRight(end, " ")
	switch {
	case words == "":
	case displayWidth(line)+3+displayWidth(words) <= Width:
		line += "   " + p.note(words, c)
	default:
		text = append([]sentence{{text: words}}, text...)
	}
	t.lines = append(t.lines, traceLine{text: line})
	t.sentences(text, "   ")
}

// sentences adds text below a line.
func (t *callTree) sentences(text []sentence, prefix string) {
	for _, l := range t.p.sentences(text, Width-displayWidth(t.indent+prefix)) {
		t.lines = append(t.lines, traceLine{text: t.indent + t.p.Dim(prefix) + l})
	}
}

// details adds what was asked for and the stack of a call.
func (t *callTree) details(c *trace.Call, prefix string) {
	for _, l := range append(t.p.shown(c), stackLines(t.p, c)...) {
		t.lines = append(t.lines, traceLine{text: t.indent + t.p.Dim(prefix) + l})
	}
}

// item adds the lines of something in a call. prefix draws the calls around it,
// level of which are drawn and depth there are.
func (t *callTree) item(it item, prefix string, last bool, level, depth int) {
	p := t.p
	branch, below := "├─ ", "│  "
	if last {
		branch, below = "└─ ", "   "
	}
	deep := ""
	if depth > level {
		deep = fmt.Sprintf("%d: ", depth)
	}
	at := t.indent + p.Dim(prefix+branch+deep)
	if s := it.step.Tail; s != nil {
		remark := ""
		if len(s.From) > 0 {
			remark = "not traced"
		} else {
			at += "→ "
		}
		t.add(at+tailName(p, s, true)+p.Dim(" (tail call)"), traceLine{remark: remark, under: t.indent + p.Dim(prefix+below)})
		return
	}
	c := it.step.Call
	under := prefix + below
	if level == deepest {
		under = prefix
		level--
	}
	tails := tailNames(p, it.leads)
	room := Width - displayWidth(at) - displayWidth(tails)
	words, text := p.remark(c)
	t.add(at+p.callName(c, true, room)+tails, traceLine{
		ret: p.returned(c), took: took(c), remark: words, call: c, under: t.indent + p.Dim(under),
	})
	t.details(c, under+"  ")
	t.sentences(text, under+"  ")
	if n, inner := t.repeated(c); n >= foldFrom {
		t.lines = append(t.lines, traceLine{text: t.indent + p.Dim(under+fmt.Sprintf("⋮  the same %d times more, each in the one before", n))})
		c, depth = inner, depth+n
	}
	items := t.items(c, false)
	for i, k := range items {
		t.item(k, under, i == len(items)-1, level+1, depth+1)
	}
}

// foldFrom is from how many calls on, each the only one in the one before, that
// look the same but for their time, they are not written.
const foldFrom = 4

// repeated counts the calls below c that look like it, and returns the last.
func (t *callTree) repeated(c *trace.Call) (int, *trace.Call) {
	look := func(c *trace.Call) string {
		words, text := t.p.remark(c)
		return fmt.Sprint(t.p.callName(c, true, Width), tailNames(t.p, leads(c)), t.p.returned(c), words, text, t.p.shown(c), len(c.Stack))
	}
	n, want := 0, look(c)
	for {
		items := t.items(c, false)
		if len(items) != 1 || items[0].step.Call == nil || look(items[0].step.Call) != want {
			return n, c
		}
		n, c = n+1, items[0].step.Call
	}
}

// write aligns the columns and writes the lines. The returns stand behind the
// longest name that leaves room for them; longer names push theirs on.
func (t *callTree) write() {
	const retMost = 22
	left, ret, took := 0, 0, 0
	for _, l := range t.lines {
		if w := displayWidth(l.ret); w <= retMost {
			ret = max(ret, w)
		}
		took = max(took, displayWidth(l.took))
	}
	for _, l := range t.lines {
		if w := displayWidth(l.left); w <= Width-4-ret-took {
			left = max(left, w)
		}
	}
	for _, l := range t.lines {
		if l.text != "" {
			t.p.Line(l.text)
			continue
		}
		t.line(l, left, ret, took)
	}
}

// line writes one line in columns. What does not fit goes to a line of its own.
func (t *callTree) line(l traceLine, left, ret, took int) {
	columns := ""
	if l.ret != "" || l.took != "" {
		columns = "  " + pad(l.ret, ret)
		if took > 0 {
			columns += "  " + strings.Repeat(" ", took-displayWidth(l.took)) + l.took
		}
		columns = strings.TrimRight(columns, " ")
	}
	line := l.left
	if l.ret == "" && l.took == "" && l.remark != "" || columns != "" {
		line = pad(line, left)
	}
	if displayWidth(line)+displayWidth(columns) > Width {
		t.p.Line(strings.TrimRight(line, " "))
		line = pad(l.under, left)
	}
	line += columns
	if l.remark != "" && displayWidth(line)+2+displayWidth(l.remark) <= Width {
		line, l.remark = line+"  "+t.p.note(l.remark, l.call), ""
	}
	t.p.Line(strings.TrimRight(line, " "))
	if l.remark != "" && l.remark != refusedWords {
		for _, r := range Wrap(l.remark, Width-displayWidth(l.under)-2) {
			t.p.Line(l.under + "  " + t.p.note(r, l.call))
		}
	}
}
