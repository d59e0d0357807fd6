package render

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
)

// Trampolines writes trampolines and other images as a table.
func (p *Printer) Trampolines(ts []*bpf.Trampoline) {
	if len(ts) == 0 {
		p.Line("no BPF trampolines")
		return
	}
	rows := make([][]string, len(ts))
	for i, t := range ts {
		image := t.Image.String()
		if t.Image == 0 {
			image = "none"
		}
		size := ""
		if t.Size > 0 {
			size = fmt.Sprintf("%d B", t.Size)
		}
		rows[i] = []string{image, size, t.Kind, hangsOn(t), tramProgs(t), keptCount(t)}
	}
	p.table([]column{
		{title: "IMAGE"}, {title: "SIZE", right: true}, {title: "KIND"}, {title: "ON", most: 27}, {title: "RUNS", most: 24}, {title: "COUNT"},
	}, rows)
}

// hangsOn names the function that an image is called for.
func hangsOn(t *bpf.Trampoline) string {
	on := t.Target.String()
	if t.Target.Kind == bpf.TargetStructOps {
		on = t.Target.Name
	}
	if t.Member != "" {
		on += "." + t.Member
	}
	return on
}

// tramProgs lists programs in order: "fentry 7 see_lo, fexit 8 ret_lo".
func tramProgs(t *bpf.Trampoline) string {
	var out []string
	when := ""
	for _, g := range t.Progs {
		s := strings.TrimSpace(fmt.Sprintf("%d %s", g.ID, g.Name))
		if g.ID == 0 {
			s = g.Name
		}
		if g.When != when {
			when = g.When
			s = when + " " + s
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func keptCount(t *bpf.Trampoline) string {
	switch {
	case t.KeepsTailCalls == nil:
		return ""
	case *t.KeepsTailCalls:
		return "kept"
	}
	return "lost"
}

// Trampoline writes one trampoline with all that is known of it.
func (p *Printer) Trampoline(t *bpf.Trampoline) {
	what := t.Kind
	if t.Image == 0 {
		what += ", without code of its own"
	}
	if t.Size > 0 {
		what += fmt.Sprintf(", %d bytes", t.Size)
	}
	name := "trampoline"
	if t.Image != 0 {
		name = "tramp:" + t.Image.String()
	}
	p.Line(p.Label(name) + "  " + strings.TrimSpace(Clean(t.Name)+"  "+what))
	on := hangsOn(t)
	if t.Target.Addr != 0 && on != t.Target.Addr.String() {
		on += ", at " + t.Target.Addr.String()
	}
	p.field("on", on)
	for i, g := range t.Progs {
		label, order := "", ""
		if i == 0 {
			label = "runs"
		}
		if t.Kind == "trampoline" && g.When != "replace" {
			order = fmt.Sprintf("%d. ", i+1-replacing(t.Progs[:i]))
		}
		line := pad(order+g.When, 15)
		if g.ID != 0 {
			line += fmt.Sprintf("prog %d ", g.ID)
		}
		line += p.Name(Clean(g.Name))
		if g.Cookie != 0 {
			line += p.Dim(fmt.Sprintf("  cookie %#x", g.Cookie))
		}
		p.Line(p.Dim(pad(label, fieldWidth)) + line)
	}
	switch {
	case t.Call != 0:
		p.field("calls", "the function itself, at "+t.Call.String())
	case t.Original:
		p.field("calls", "the function itself")
	}
	p.field("flags", strings.Join(t.Flags, ", "))
	if k := t.KeepsTailCalls; k != nil {
		style, text := p.Good, "the count is kept"
		if !*k {
			style, text = p.Bad, "the count is lost: tail calls of the function go wrong"
		}
		p.Line(p.Dim(pad("tail calls", fieldWidth)) + style(text))
		for _, e := range t.Evidence {
			p.Line(strings.Repeat(" ", fieldWidth) + p.Dim("· ") + Clean(e))
		}
	}
	if t.Addr != 0 {
		p.field("struct", "bpf_trampoline at "+t.Addr.String())
	}
	if t.Image != 0 {
		p.next([]nextStep{
			{fmt.Sprintf("disasm --explain tramp:%v", t.Image), "its code"},
			{fmt.Sprintf("graph --from tramp:%v", t.Image), "what it hangs on, and what that runs"},
		})
	}
}

// replacing counts programs that replace the function: they have no place in
// the order.
func replacing(ps []bpf.TrampolineProg) int {
	n := 0
	for _, p := range ps {
		if p.When == "replace" {
			n++
		}
	}
	return n
}
