package render

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/mem"
)

// ListingOptions say what of a listing is shown.
type ListingOptions struct {
	Arrows bool // jumps inside of it, drawn at the left
	Bytes  bool // addresses and machine code
}

// Listing writes disassembled code.
func (p *Printer) Listing(l disasm.Listing, o ListingOptions) {
	p.Line(p.Label(Clean(l.Name)) + p.Dim(fmt.Sprintf("  at %s", l.Addr)))
	w := newListingWriter(p, l, o)
	for i := range l.Lines {
		w.gaps(i)
		w.line(i)
	}
	w.gaps(len(l.Lines))
	w.notes()
	for _, r := range w.rows {
		p.Line(strings.TrimRight(r.text, " "))
	}
	if l.Padding > 0 {
		p.Line(p.Dim(fmt.Sprintf("       %d bytes of padding follow", l.Padding)))
	}
	err := l.Err
	if len(l.Gaps) > 0 { // it begins with the first, which stands in its place
		err = strings.TrimPrefix(strings.TrimPrefix(err, l.Gaps[0].Why), "; ")
	}
	if err != "" {
		for i, line := range Wrap(Clean("not read: "+err), Width-2) {
			if i == 0 {
				line = p.Bad("not read:") + strings.TrimPrefix(line, "not read:")
			} else {
				line = "  " + line
			}
			p.Line(line)
		}
	}
}

// A listingRow is a line of text of a listing.
type listingRow struct {
	text  string // styled
	width int
	line  int // what it belongs to
}

type listingWriter struct {
	p      *Printer
	l      disasm.Listing
	o      ListingOptions
	arrows *arrows
	rows   []listingRow
	main   []int // the row of each line
	gap    int   // the next gap
	prefix int   // columns in front of the instruction
	column int   // where notes begin; 0 if they have rows of their own
}

const (
	offsetWidth  = 6
	addressWidth = 16
	maxBytes     = 3*9 - 1 // columns; of longer instructions the text stands further right
	widestText   = 46      // what is wider makes its note stand below
	leastNote    = 30      // columns a note needs beside the code
)

func newListingWriter(p *Printer, l disasm.Listing, o ListingOptions) *listingWriter {
	w := &listingWriter{p: p, l: l, o: o, arrows: &arrows{}}
	if o.Arrows {
		w.arrows = newArrows(l)
	}
	w.prefix = displayWidth(w.head(0, w.arrows.above(0)))
	widest := 0
	for i := range l.Lines {
		if n := displayWidth(w.instruction(i)); n <= widestText {
			widest = max(widest, n)
		}
	}
	if at := w.prefix + widest + 2; at+leastNote <= Width {
		w.column = at
	}
	return w
}

// head is what stands in front of an instruction; -1 is no line.
func (w *listingWriter) head(i int, arrows string) string {
	offset, addr, code := "", "", ""
	if i >= 0 && i < len(w.l.Lines) {
		line := w.l.Lines[i]
		offset, addr, code = "+"+line.Offset.String(), fmt.Sprintf("%x", uint64(line.Addr)), line.Bytes
	}
	s := fmt.Sprintf("%*s ", offsetWidth, offset)
	if w.o.Bytes {
		s += " " + w.p.Dim(pad(addr, addressWidth)) + " "
	}
	if arrows != "" {
		s += w.p.Dim(arrows) + " "
	} else {
		s += " "
	}
	if w.o.Bytes {
		s += pad(code, maxBytes) + "  "
	}
	return s
}

// line writes an instruction and what stands above it.
func (w *listingWriter) line(i int) {
	line := w.l.Lines[i]
	if s := line.Source; s != nil {
		w.above(i, w.p.Name(Clean(fmt.Sprintf("; %s:%d  %s", s.File, s.Line, s.Text))))
	}
	for _, in := range line.Xlated {
		w.above(i, w.p.Dim(Clean(fmt.Sprintf("%4d: %s", in.Index, in.Text))))
	}
	w.main = append(w.main, len(w.rows))
	w.add(i, w.head(i, w.arrows.line(i))+w.instruction(i))
}

// above writes a row above an instruction. Where arrows pass it stands behind
// them.
func (w *listingWriter) above(i int, text string) {
	arrows := w.arrows.above(i)
	if strings.TrimSpace(arrows) == "" {
		w.add(i, text)
		return
	}
	at := offsetWidth + 1
	if w.o.Bytes {
		at += 1 + addressWidth + 1
	}
	w.add(i, pad("", at)+w.p.Dim(arrows)+" "+text)
}

func (w *listingWriter) add(i int, text string) {
	w.rows = append(w.rows, listingRow{text, displayWidth(text), i})
}

// gaps writes what is missing in front of line i.
func (w *listingWriter) gaps(i int) {
	for ; w.gap < len(w.l.Gaps); w.gap++ {
		g := w.l.Gaps[w.gap]
		if i < len(w.l.Lines) && g.Addr > w.l.Lines[i].Addr {
			return
		}
		w.add(max(i-1, 0), w.p.Bad("not read: ")+Clean(fmt.Sprintf("%d bytes at %s: %s", g.Len, g.Addr, g.Why)))
	}
}

// instruction is the text of an instruction, with names instead of addresses:
// an offset for what lies in this listing.
func (w *listingWriter) instruction(i int) string {
	line := w.l.Lines[i]
	text := line.Text
	if line.Target != 0 {
		if at := strings.Index(text, line.Target.String()); at >= 0 {
			text = text[:at] + w.place(line, text[at:])
		}
	}
	if code, comment, ok := strings.Cut(text, " # "); ok {
		refs := strings.Split(comment, ", ")
		for i, r := range refs {
			refs[i] = bareName(r)
		}
		text = code + w.p.Dim("  # "+strings.Join(refs, ", "))
	}
	return Clean(text)
}

// place names the target of a jump or call, which text begins with.
func (w *listingWriter) place(line disasm.Line, text string) string {
	last := len(w.l.Lines) - 1
	base := line.Addr - line.Offset
	if line.Target >= w.l.Lines[0].Addr && line.Target <= w.l.Lines[last].Addr && line.Flow != "call" {
		_, rest, _ := strings.Cut(text, ">")
		return "+" + mem.Addr(line.Target-base).String() + rest
	}
	return bareName(text)
}

// bareName makes "0xffffffff81000000 <name>" the name alone.
func bareName(s string) string {
	addr, rest, ok := strings.Cut(s, " <")
	if !ok || !strings.HasPrefix(addr, "0x") || strings.Contains(addr, " ") {
		return s
	}
	i := strings.LastIndexByte(rest, '>')
	if i < 0 {
		return s
	}
	return rest[:i] + rest[i+1:]
}

// notes puts the notes beside the rows, or below them.
func (w *listingWriter) notes() {
	rows := make([]listingRow, 0, len(w.rows))
	next := 0 // row not yet copied
	for i := 0; i < len(w.l.Lines); i++ {
		if w.l.Lines[i].Note == "" {
			continue
		}
		last := w.span(i)
		from, to := w.main[i], w.main[last]
		rows = append(rows, w.rows[next:from]...)
		rows = append(rows, w.annotate(w.rows[from:to+1], last, w.l.Lines[i].Note)...)
		next, i = to+1, last
	}
	w.rows = append(rows, w.rows[next:]...)
}

// span returns the last line that the note at line i is about.
func (w *listingWriter) span(i int) int {
	end := uint64(w.l.Lines[i].Addr) + uint64(w.l.Lines[i].NoteLen)
	last := i
	for last+1 < len(w.l.Lines) && uint64(w.l.Lines[last+1].Addr) < end && w.l.Lines[last+1].Note == "" {
		last++
	}
	return last
}

// annotate writes a note beside rows, which end with that of line last.
func (w *listingWriter) annotate(rows []listingRow, last int, note string) []listingRow {
	const lead = 2 // columns of what leads to the code
	column := w.column
	if column == 0 {
		column = w.below(rows, lead+displayWidth(Clean(note)))
	}
	text := Wrap(Clean(note), Width-column-lead)
	var out []listingRow
	var places []int // rows with room for the note
	for _, r := range rows {
		out = append(out, r)
		if r.width+1 < column {
			places = append(places, len(out)-1)
		}
	}
	for len(places) < len(text) {
		out = append(out, w.extra(last))
		places = append(places, len(out)-1)
	}
	for n, at := range places {
		mark := bracket(n, len(places))
		body := ""
		if n < len(text) {
			body = text[n]
		}
		r := &out[at]
		r.text += strings.Repeat(" ", column-r.width) + w.p.Dim(mark+body)
		r.width = column + lead + displayWidth(body)
	}
	return out
}

// below returns the column of a note of n columns where there is none for all:
// behind the only row if it fits there, else below it, so far to the right that
// it fits in a row.
func (w *listingWriter) below(rows []listingRow, n int) int {
	if at := rows[0].width + 2; len(rows) == 1 && at+n <= Width {
		return at
	}
	least := w.prefix
	if w.o.Bytes {
		least -= maxBytes + 2
	}
	return max(least, min(w.prefix+2, Width-n))
}

// extra is an empty row below a line.
func (w *listingWriter) extra(line int) listingRow {
	text := strings.TrimRight(w.head(-1, w.arrows.above(line+1)), " ")
	return listingRow{text, displayWidth(text), line}
}

// bracket joins the rows of a note.
func bracket(n, of int) string {
	switch {
	case of == 1:
		return "; "
	case n == 0:
		return "┐ "
	case n == of-1:
		return "┘ "
	}
	return "│ "
}
