package knownbug_test

import (
	"regexp"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/knownbug"
)

func TestBugs(t *testing.T) {
	seen := make(map[string]bool)
	for _, b := range knownbug.Bugs() {
		qt.Check(t, qt.IsFalse(seen[b.ID]), qt.Commentf("%s twice", b.ID))
		seen[b.ID] = true
		qt.Check(t, qt.Matches(b.Fix, "[0-9a-f]{12}"), qt.Commentf(b.ID))
		qt.Check(t, qt.IsTrue(len(b.Fixed) > 0), qt.Commentf(b.ID))
		for _, r := range b.Fixed {
			qt.Check(t, qt.IsTrue(regexp.MustCompile(`^\d+\.\d+(\.\d+)?$`).MatchString(r)), qt.Commentf("%s %s", b.ID, r))
		}
		got, ok := knownbug.Get(b.ID)
		qt.Check(t, qt.IsTrue(ok))
		qt.Check(t, qt.DeepEquals(got, b))
	}
	_, ok := knownbug.Get("unheard-of")
	qt.Check(t, qt.IsFalse(ok))
}

func TestString(t *testing.T) {
	b, _ := knownbug.Get(knownbug.TailCallTrampoline)
	qt.Assert(t, qt.Equals(b.String(), "known as tailcall-trampoline: trampolines do not hand on the tail-call count of the function they hang on; this kernel has it; fixed by 2b5dcb31a19a (6.7, 6.5.12, 6.1.72)"))
}
