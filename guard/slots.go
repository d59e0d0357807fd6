package guard

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/tracee"
)

// tailCalled tells of programs that tail calls enter: behind the place where a
// trampoline is called.
func (c *checker) tailCalled() {
	for _, f := range c.funcs {
		if len(f.Slots) == 0 {
			continue
		}
		w := Warning{
			ID: TailCalled, Severity: Unseen,
			Title:  "entered by tail calls through " + slots(f.Slots) + ": its trampoline is not called then; a breakpoint sees it",
			Remedy: "observe it by a hardware breakpoint",
		}
		if p, err := c.prologue(f); err == nil && p.TailCallEntry > 0 {
			w.Evidence = []finding.Evidence{{
				Text: fmt.Sprintf("tail calls enter at %s+%#x, behind its attach point", f.Name, p.TailCallEntry),
				Addr: f.Addr + mem.Addr(p.TailCallEntry), Symbol: fmt.Sprintf("%s+%#x", f.Name, p.TailCallEntry),
			}}
		}
		c.warn(f, w)
	}
}

// slots names the first few places in program arrays.
func slots(list []tracee.Slot) string {
	const show = 4
	var out []string
	for _, s := range list[:min(show, len(list))] {
		out = append(out, fmt.Sprintf("%s[%d]", s.Map, s.Index))
	}
	text := strings.Join(out, ", ")
	if n := len(list) - show; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
