// Package render words plain data for people: text, aligned and in colour
// where it helps the eye. It computes nothing.
package render

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
)

// Width is the number of columns that text is fitted into.
const Width = 100

// Options say how to print.
type Options struct {
	Color bool
	// Target is what stands in printed commands behind the program's name to
	// name the target, such as "-t vmcore".
	Target string
}

// A Printer writes text. Write errors stick in the writer it is given: a
// [bufio.Writer] reports them when it is flushed.
type Printer struct {
	w    io.Writer
	opts Options
}

// NewPrinter returns a printer to w.
func NewPrinter(w io.Writer, opts Options) *Printer { return &Printer{w, opts} }

// Printf writes formatted text.
func (p *Printer) Printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// Line writes a line.
func (p *Printer) Line(s string) { io.WriteString(p.w, s+"\n") }

// The roles that text can have; each is a style.
var (
	styleLabel = lipgloss.NewStyle().Bold(true)
	styleDim   = lipgloss.NewStyle().Faint(true)
	styleBad   = lipgloss.NewStyle().Foreground(lipgloss.Red)
	styleGood  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	styleName  = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
)

func (p *Printer) style(st lipgloss.Style, s string) string {
	if !p.opts.Color || strings.TrimSpace(s) == "" {
		return s
	}
	return st.Render(s)
}

// Label, Dim, Bad, Good and Name give text its role.
func (p *Printer) Label(s string) string { return p.style(styleLabel, s) }

// Dim is for what stands back.
func (p *Printer) Dim(s string) string { return p.style(styleDim, s) }

// Bad is for what is wrong.
func (p *Printer) Bad(s string) string { return p.style(styleBad, s) }

// Good is for what is right.
func (p *Printer) Good(s string) string { return p.style(styleGood, s) }

// Name is for names of programs and functions.
func (p *Printer) Name(s string) string { return p.style(styleName, s) }

// Command returns a ksleuth command line about the same target.
func (p *Printer) Command(args string) string {
	if p.opts.Target == "" {
		return "ksleuth " + args
	}
	return "ksleuth " + p.opts.Target + " " + args
}

// labelWidth is the width of the margin that holds the labels of paragraphs.
const labelWidth = 6

// Paragraph writes text with a label in the margin, wrapped to the width.
func (p *Printer) Paragraph(label, text string) {
	for i, line := range Wrap(Clean(text), Width-labelWidth) {
		if i > 0 {
			label = ""
		}
		p.Line(p.Label(pad(label, labelWidth)) + line)
	}
}

// Bullet writes a point below a paragraph.
func (p *Printer) Bullet(text string) {
	for i, line := range Wrap(Clean(text), Width-labelWidth-2) {
		mark := "  "
		if i == 0 {
			mark = "· "
		}
		p.Line(strings.Repeat(" ", labelWidth) + p.Dim(mark) + line)
	}
}

// A nextStep is a command to go on with, and what it shows.
type nextStep struct{ args, shows string }

// next writes commands to copy: a command is never broken across lines.
func (p *Printer) next(steps []nextStep) {
	width := 0
	for _, s := range steps {
		width = max(width, displayWidth(p.Command(s.args)))
	}
	p.Line("")
	label := "NEXT"
	for _, s := range steps {
		line := p.Label(pad(label, labelWidth)) + pad(p.Command(s.args), width)
		label = ""
		if labelWidth+width+4+displayWidth(s.shows) <= Width {
			p.Line(line + "    " + p.Dim(s.shows))
			continue
		}
		p.Line(strings.TrimRight(line, " "))
		p.Line(strings.Repeat(" ", labelWidth+4) + p.Dim(s.shows))
	}
}

// Heading writes the title of a section after an empty line.
func (p *Printer) Heading(s string) { p.Line("\n" + p.Label(s)) }

// displayWidth returns how many columns text takes. Most of it is ASCII, which
// needs no look at graphemes.
func displayWidth(s string) int {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return lipgloss.Width(s)
		}
	}
	return len(s)
}

// pad fills s up to n columns.
func pad(s string, n int) string {
	if w := displayWidth(s); w < n {
		return s + strings.Repeat(" ", n-w)
	}
	return s
}

// Wrap breaks text into lines of at most width columns, at blanks. Runs of
// blanks inside a line stay; a word longer than a line has a line of its own.
// A non-breaking space holds words together and comes out as a blank.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case line == "":
			line = word
		case displayWidth(line)+1+displayWidth(word) > width:
			lines = append(lines, unglue(line))
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, unglue(line))
}

func unglue(line string) string {
	return strings.ReplaceAll(strings.TrimRight(line, " "), "\u00a0", " ")
}

// Clean makes a string of the target's memory safe to print: control
// characters, which a terminal would obey, become visible.
func Clean(s string) string {
	if !strings.ContainsFunc(s, unsafe) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || unsafe(r) {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unsafe(r rune) bool { return r != '\t' && r != '\n' && unicode.IsControl(r) }
