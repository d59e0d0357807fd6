package rerun

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
)

// pick leaves out what says nothing new, and bounds the rest.
func (w *whyer) pick() ([]Reason, string) {
	facts := w.implied(equalities(w.once()))
	unnamed := 0
	facts = slices.DeleteFunc(facts, func(f fact) bool {
		if !f.known {
			unnamed++
		}
		return !f.known
	})
	room := maxReasons
	if w.last != nil {
		room--
	}
	left := 0
	for i := leastTelling(facts, room); i >= 0; i = leastTelling(facts, room) {
		facts = slices.Delete(facts, i, i+1)
		left++
	}
	if w.last != nil {
		facts = append(facts, *w.last)
	}
	out := []Reason{}
	for _, f := range facts {
		at := w.s.Place(uint64(f.Place.Addr))
		f.Reason.Place = at
		if f.Kind == "value" {
			f.Right = nil
		}
		if f.Count == 1 {
			f.Count = 0
		}
		out = append(out, f.Reason)
	}
	gap := ""
	if left > 0 {
		gap = number(left, "condition") + " less telling left out"
	}
	if unnamed > 0 {
		gap = join(gap, number(unnamed, "condition")+" on values without a name")
	}
	return out, gap
}

// leastTelling returns what is to be left out next, or -1: what has no member's name
// where others have; and, of more than there is room for, checks of pointers,
// then what was decided earliest, in the function that was asked for last.
func leastTelling(facts []fact, room int) int {
	const enough = 3
	raw := func(f fact) bool { return f.cond.Left.Raw() || f.cond.Right.Raw() }
	named := 0
	for _, f := range facts {
		if !raw(f) {
			named++
		}
	}
	if i := slices.IndexFunc(facts, raw); i >= 0 && (named >= enough || len(facts) > room) {
		return i
	}
	if len(facts) <= room {
		return -1
	}
	if i := slices.IndexFunc(facts, func(f fact) bool { return f.guard }); i >= 0 {
		return i
	}
	return max(0, slices.IndexFunc(facts, func(f fact) bool { return f.frame.Parent() != nil }))
}

// once collapses what a loop, or a function called again, decided alike: the last
// time counts.
func (w *whyer) once() []fact {
	type key struct {
		addr mem.Addr
		op   string
		call string // of an indirect call: of several functions each counts
	}
	of := func(f *fact) key {
		k := key{addr: f.Place.Addr, op: f.Op}
		if f.known && f.cond.Left.IsCall() {
			k.call = f.cond.Left.Expr.Name
		}
		return k
	}
	count := map[key]uint64{}
	for i := range w.facts {
		count[of(&w.facts[i])] += w.facts[i].Count
	}
	var out []fact
	done := map[key]bool{}
	texts := map[string]bool{}
	for _, f := range slices.Backward(w.facts) {
		k := of(&f)
		text := fmt.Sprintf("%s in %p", f.Text, f.frame)
		if done[k] || f.known && texts[text] {
			continue
		}
		done[k], texts[text] = true, true
		f.Count = count[k]
		out = append(out, f)
	}
	slices.Reverse(out)
	return out
}

// equalities makes a == b of a >= b and b >= a.
func equalities(facts []fact) []fact {
	var out []fact
	for _, f := range facts {
		merged := false
		for i := range out {
			g := &out[i]
			if !f.known || !g.known || f.frame != g.frame || !(f.Op == ">=" && g.Op == ">=" || f.Op == "<=" && g.Op == "<=") {
				continue
			}
			if f.Left.Name == g.Right.Name && f.Right.Name == g.Left.Name && f.Left.Value == g.Right.Value {
				g.Op = "=="
				g.Text = fmt.Sprintf("%s == %s (%s)", g.Left.Name, g.Right.Name, g.Right.Text)
				merged = true
			}
		}
		if !merged {
			out = append(out, f)
		}
	}
	return out
}

// implied drops the checks of pointers that others tell of: what is behind a
// pointer was read, or it equals another one.
func (w *whyer) implied(facts []fact) []fact {
	return slices.DeleteFunc(facts, func(f fact) bool {
		if !f.guard || f.Left == nil || f.Left.Name == "" {
			return false
		}
		for _, g := range facts {
			if !g.guard && g.known && (g.Left.Value == f.Left.Value || g.Right.Value == f.Left.Value) {
				return true
			}
			if g.guard || !g.known || g.frame != f.frame && g.frame.Func.Name != f.frame.Func.Name {
				continue
			}
			for _, o := range []*Operand{g.Left, g.Right} {
				if o != nil && (o.Name == f.Left.Name || strings.Contains(o.Name, f.Left.Name+"->")) {
					return true
				}
			}
		}
		return w.last != nil && w.last.Left != nil && strings.Contains(w.last.Left.Name, f.Left.Name)
	})
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
