package judge

import (
	"cmp"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
)

// defaultRounds is how often each command runs among objects that come and go,
// unless KSLEUTH_ROUNDS says otherwise.
const defaultRounds = "2"

// TestBPFRaces runs every command on BPF objects while such objects are made
// and freed in a loop. None may crash or fail, and none may mix two objects up,
// which the objects' names tell. See internal/bpfrounds.
func TestBPFRaces(t *testing.T) {
	rounds := cmp.Or(os.Getenv("KSLEUTH_ROUNDS"), defaultRounds)
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := bootBPF(t, kernel)
			t.Run("denied", g.denied)
			g.start(guestScene, "churn")
			status, out, errs := g.run(guestRounds, guestKsleuth, rounds)
			for line := range strings.Lines(out) {
				if wrong, ok := strings.CutPrefix(strings.TrimSpace(line), "WRONG: "); ok {
					t.Error(wrong)
				} else {
					t.Log(strings.TrimSpace(line))
				}
			}
			qt.Check(t, qt.Equals(status, cli.StatusOK), qt.Commentf("%.3000s", errs))
			qt.Check(t, qt.IsTrue(strings.Contains(out, " names checked")))
		})
	}
}

// denied runs the commands as a user who may do nothing: each says which
// capability is missing.
func (g *bpfGuest) denied(t *testing.T) {
	for _, command := range []string{"progs", "maps", "links", "trampolines", "graph", "disasm prog:1", "maps 1 --entries"} {
		status, out, errs := g.run(guestTester, append([]string{"nobody", guestKsleuth}, strings.Fields(command)...)...)
		qt.Check(t, qt.Equals(status, cli.StatusDenied), qt.Commentf("%s: %s%s", command, out, errs))
		qt.Check(t, qt.StringContains(errs, "CAP_"), qt.Commentf("%s", command))
	}
}
