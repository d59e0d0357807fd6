package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/guard"
	"github.com/ksleuth/ksleuth/trace"
)

// A TracePlanRow is a function that would be observed, or why it is not.
type TracePlanRow struct {
	Function  string
	Kind      string
	Mechanism string // "" if it is not observed
	Note      string // why it is not, or what else is to be known
}

// TracePlan writes what would be observed, and how.
func (p *Printer) TracePlan(rows []TracePlanRow) {
	width := [3]int{len("FUNCTION"), len("KIND"), len("MECHANISM")}
	cells := make([][3]string, len(rows))
	for i, r := range rows {
		cells[i] = [3]string{short(Clean(r.Function), 44), Clean(r.Kind), cmp.Or(Clean(r.Mechanism), "none")}
		for j, c := range cells[i] {
			width[j] = max(width[j], displayWidth(c))
		}
	}
	p.Line(p.Label(strings.TrimRight(pad("FUNCTION", width[0])+"  "+pad("KIND", width[1])+"  "+"MECHANISM", " ")))
	observed := 0
	for i, r := range rows {
		c := cells[i]
		mechanism := pad(c[2], width[2])
		if r.Mechanism == "" {
			mechanism = p.Bad(mechanism)
		} else {
			observed++
		}
		line := p.Name(pad(c[0], width[0])) + "  " + pad(c[1], width[1]) + "  " + mechanism
		note := Clean(r.Note)
		if room := Width - displayWidth(line) - 2; note != "" && displayWidth(note) <= room {
			line, note = line+"  "+note, ""
		}
		p.Line(strings.TrimRight(line, " "))
		if note != "" {
			for _, l := range Wrap(note, Width-4) {
				p.Line("    " + l)
			}
		}
	}
	p.Line(p.Dim(fmt.Sprintf("%d of %s would be observed", observed, count(len(rows), "function"))))
}

// TraceCounts writes how often functions were called, the most frequent first;
// what one function returned stands together.
func (p *Printer) TraceCounts(rows []trace.CountRow) {
	total := make(map[[3]string]uint64)
	var all uint64
	key := func(r trace.CountRow) [3]string { return [3]string{r.Kind, r.Module, r.Function} }
	for _, r := range rows {
		total[key(r)] += r.Count
		all += r.Count
	}
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b trace.CountRow) int {
		return cmp.Or(cmp.Compare(total[key(b)], total[key(a)]), cmp.Compare(countName(a), countName(b)), cmp.Compare(b.Count, a.Count))
	})
	cells := make([][]string, 0, len(rows))
	for _, r := range rows {
		cells = append(cells, []string{countName(r), returnText(r.Return), thousands(r.Count), share(r.Count, all)})
	}
	p.table([]column{{title: "FUNCTION", most: 48}, {title: "RETURNED", most: 28}, {title: "CALLS", right: true}, {title: "SHARE", right: true}}, cells)
}

func countName(r trace.CountRow) string {
	if r.Module != "" {
		return r.Module + ":" + r.Function
	}
	return r.Function
}

func returnText(r *trace.Return) string {
	switch {
	case r == nil:
		return ""
	case r.Odd:
		return r.Text + " (no action)"
	}
	return r.Text
}

func share(n, all uint64) string {
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%%", 100*float64(n)/float64(all))
}

// thousands writes a number in groups of three digits.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// TraceHistogram writes how often an expression had values of each range.
func (p *Printer) TraceHistogram(h trace.Histogram) {
	name := countName(trace.CountRow{Function: h.Function, Module: h.Module})
	if h.Return != nil {
		name += " = " + returnText(h.Return)
	}
	p.Line(p.Name(Clean(name)) + "  " + p.Label(Clean(h.Expr)))
	var most uint64
	rangeWidth, countWidth := 0, 0
	for _, b := range h.Buckets {
		most = max(most, b.Count)
		rangeWidth = max(rangeWidth, len(b.RangeText()))
		countWidth = max(countWidth, len(thousands(b.Count)))
	}
	for _, b := range h.Buckets {
		line := pad(b.RangeText(), rangeWidth) + "  " + strings.Repeat(" ", countWidth-len(thousands(b.Count))) + thousands(b.Count)
		p.Line(strings.TrimRight(line+"  "+p.Good(bar(b.Count, most, Width-rangeWidth-countWidth-4)), " "))
	}
}

// bar is n of most in so many columns, to the eighth of one.
func bar(n, most uint64, columns int) string {
	if most == 0 || columns <= 0 {
		return ""
	}
	eighths := int(float64(n) / float64(most) * float64(8*columns))
	if n > 0 {
		eighths = max(eighths, 1)
	}
	s := strings.Repeat("█", eighths/8)
	if r := eighths % 8; r > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[r-1])
	}
	return s
}

// GuardWarnings writes what is to be known before functions are observed;
// forced: what is dangerous is done all the same. What holds of several
// functions alike is said once.
func (p *Printer) GuardWarnings(ws []guard.Warning, forced bool) {
	type group struct {
		guard.Warning
		names []string
	}
	var groups []*group
	for _, w := range ws {
		i := slices.IndexFunc(groups, func(g *group) bool {
			return g.ID == w.ID && g.Severity == w.Severity && g.Title == w.Title && g.Remedy == w.Remedy
		})
		if i < 0 {
			groups = append(groups, &group{w, []string{w.Function}})
			continue
		}
		groups[i].names = append(groups[i].names, w.Function)
	}
	for _, g := range groups {
		p.guardWarning(g.Warning, g.names, forced)
	}
}

// guardHeads begin a warning, by how severe it is.
var guardHeads = map[guard.Severity]string{
	guard.Refuse: "refusing to attach to %s: ",
	guard.Unable: "cannot attach to %s: ",
	guard.Unseen: "not all calls of %s are seen: ",
	guard.Costly: "%s: ",
}

func (p *Printer) guardWarning(w guard.Warning, names []string, forced bool) {
	head := cmp.Or(guardHeads[w.Severity], "%s: ")
	if forced && w.Severity == guard.Refuse {
		head = "attaching to %s all the same: "
	}
	title := fmt.Sprintf(head, namesText(names)) + Clean(w.Title)
	for _, l := range Wrap(strings.TrimSuffix(title, ".")+".", Width) {
		if w.Severity == guard.Refuse || w.Severity == guard.Unable {
			l = p.Bad(l)
		}
		p.Line(l)
	}
	p.guardEvidence(w.Evidence)
	remedy := w.Remedy
	if w.Severity == guard.Refuse && !forced {
		remedy = strings.TrimPrefix(remedy+"; --force attaches all the same", "; ")
	}
	if remedy != "" {
		for _, l := range Wrap(Clean(remedy), Width-2) {
			p.Line("  " + p.Dim(l))
		}
	}
}

// namesText names functions, not too many.
func namesText(names []string) string {
	const shown = 4
	if len(names) > shown {
		return Clean(strings.Join(names[:shown-1], ", ")) + fmt.Sprintf(" and %d more", len(names)-shown+1)
	}
	return Clean(strings.Join(names, ", "))
}

// guardEvidence writes points, and the instructions that some are about below
// the point in front of them.
func (p *Printer) guardEvidence(es []finding.Evidence) {
	at, insn := 0, 0
	for _, e := range es {
		if e.Insn != "" {
			at = max(at, displayWidth(Clean(cmp.Or(e.Symbol, e.Addr.String()))))
			insn = max(insn, min(displayWidth(Clean(e.Insn)), 34))
		}
	}
	for _, e := range es {
		if e.Insn == "" {
			p.point(e.Text)
			continue
		}
		line := "    " + pad(Clean(cmp.Or(e.Symbol, e.Addr.String())), at) + "  " + pad(Clean(e.Insn), insn)
		text := Clean(e.Text)
		if text != "" && displayWidth(line)+3+displayWidth(text) <= Width {
			p.Line(line + "   " + text)
			continue
		}
		if text != "" {
			p.point(text)
		}
		p.Line(strings.TrimRight(line, " "))
	}
}

func (p *Printer) point(text string) {
	for _, l := range p.sentences([]sentence{{mark: "· ", text: text}}, Width-2) {
		p.Line("  " + l)
	}
}

// TracedInstead says what is observed although other functions are not.
func (p *Printer) TracedInstead(names []string) {
	text := "traced without it: " + strings.Join(names, ", ")
	if len(names) == 0 {
		text = "nothing is left to trace"
	}
	for i, l := range Wrap(Clean(text), Width-2) {
		if i > 0 {
			l = "  " + l
		}
		p.Line(l)
	}
}

// TraceLost says how many events were lost, by CPU.
func (p *Printer) TraceLost(perCPU map[int]uint64) {
	var total uint64
	var cpus []int
	for cpu, n := range perCPU {
		if n > 0 {
			total += n
			cpus = append(cpus, cpu)
		}
	}
	if total == 0 {
		return
	}
	slices.Sort(cpus)
	var parts []string
	for i, cpu := range cpus {
		const shown = 8
		if i == shown && len(cpus) > shown {
			parts = append(parts, fmt.Sprintf("%d more CPUs", len(cpus)-shown))
			break
		}
		parts = append(parts, fmt.Sprintf("cpu%d %s", cpu, thousands(perCPU[cpu])))
	}
	noun := "events"
	if total == 1 {
		noun = "event"
	}
	for i, l := range Wrap(fmt.Sprintf("lost %s %s: %s. A larger --buffer keeps more, a filter needs less.", thousands(total), noun, strings.Join(parts, ", ")), Width-2) {
		if i > 0 {
			l = "  " + l
		}
		p.Line(p.Bad(l))
	}
}

// A TraceSummary is what an observation came to.
type TraceSummary struct {
	Calls   uint64        // that were told or counted
	Elapsed time.Duration // of the observation
	// Cost is what observing adds to a call, in nanoseconds; 0 if not known.
	Cost float64
	// Odd and Refused count calls with values that are no action, and with
	// tail calls that were refused.
	Odd, Refused uint64
}

// TraceEnd writes the last line.
func (p *Printer) TraceEnd(s TraceSummary) {
	noun := "calls"
	if s.Calls == 1 {
		noun = "call"
	}
	line := fmt.Sprintf("%s %s in %s", thousands(s.Calls), noun, Duration(s.Elapsed))
	if s.Cost > 0 {
		line += fmt.Sprintf(", observing cost %s a call", TraceDuration(uint64(s.Cost+0.5)))
	}
	var bad []string
	if s.Odd > 0 {
		bad = append(bad, thousands(s.Odd)+" returned what is no action")
	}
	if s.Refused > 0 {
		bad = append(bad, count64(s.Refused, "tail call")+" refused")
	}
	p.Line(p.Dim(line))
	if len(bad) > 0 {
		p.Line(p.Bad(strings.Join(bad, ", ")))
	}
}
