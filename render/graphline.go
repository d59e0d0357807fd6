package render

import (
	"strings"
)

// A span is text of one style. Lines break at its blanks.
type span struct {
	text  string
	style func(string) string
}

func plain(s string) span                 { return span{s, func(s string) string { return s }} }
func (t treePrinter) dim(s string) span   { return span{s, t.Dim} }
func (t treePrinter) named(s string) span { return span{s, t.Name} }

// words writes words over as many lines as they need, of which the first
// begins with first and the others with rest.
func (t treePrinter) words(first, rest string, head, details []span) {
	l := treeLine{t: t, rest: pad(rest, displayWidth(first)+2)}
	l.begin(first)
	for i, s := range append(head, details...) {
		gap := 1
		if i == len(head) && i > 0 {
			gap = 2
		}
		for w := range strings.FieldsSeq(s.text) {
			l.put(strings.ReplaceAll(w, "\u00a0", " "), s.style, gap)
			gap = 1
		}
	}
	l.end()
}

// treeLine is a line being filled.
type treeLine struct {
	t     treePrinter
	rest  string // what the lines after it begin with
	text  strings.Builder
	width int
	empty bool
}

func (l *treeLine) begin(s string) {
	l.text.Reset()
	l.text.WriteString(l.t.Dim(s))
	l.width, l.empty = displayWidth(s), true
}

func (l *treeLine) end() { l.t.Line(strings.TrimRight(l.text.String(), " ")) }

func (l *treeLine) put(w string, style func(string) string, gap int) {
	n := displayWidth(w)
	if !l.empty && l.width+gap+n > Width {
		l.end()
		l.begin(l.rest)
	}
	if l.empty {
		gap = 0
	}
	if room := Width - l.width - gap; n > room {
		w = cutWord(w, room)
		n = displayWidth(w)
	}
	l.text.WriteString(strings.Repeat(" ", gap) + style(w))
	l.width += gap + n
	l.empty = false
}

// cutWord shortens a word that is longer than the line.
func cutWord(s string, width int) string {
	out := ""
	for _, r := range s {
		if displayWidth(out+string(r)) > width-1 {
			break
		}
		out += string(r)
	}
	return out + "…"
}
