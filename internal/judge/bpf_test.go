package judge

import (
	"testing"
)

// TestBPFObjects holds what ksleuth says of the BPF objects of a running
// kernel against what bpftool says, field by field, and against what ksleuth
// says of a dump of the same guest.
func TestBPFObjects(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootBPF(t, kernel, "zoo")
			live := g.live()
			t.Run("progs", func(t *testing.T) { compare(t, &live, progRules, listed(t, g.bpftool("prog", "show")), live.progs) })
			t.Run("maps", func(t *testing.T) { compare(t, &live, mapRules, listed(t, g.bpftool("map", "show")), live.maps) })
			t.Run("links", func(t *testing.T) {
				theirs := listed(t, g.bpftool("link", "show"))
				compare(t, &live, linkRules, theirs, live.links)
			})
		})
	}
}
