//go:build unicorn

package emulate

import (
	"math/rand/v2"
	"testing"

	"github.com/ksleuth/ksleuth/x86"
)

// misjudged are operations that the QEMU in Unicorn does wrong, or not at all.
// TestOps has results of a processor.
var misjudged = map[x86.Op]string{
	x86.PDEP: "the operands are swapped", x86.PEXT: "the operands are swapped",
	x86.BEXTR: "bits are lost where the length is more than the operand's", x86.BZHI: "see correct",
	x86.BLSI: "CF is the wrong way round", x86.MOVBE: noModel,
}

// TestEncodingsUnicorn executes what kernel text contains seldom or never.
func TestEncodingsUnicorn(t *testing.T) {
	j := newJudge(t)
	j.r = rand.New(rand.NewPCG(1, 2))
	j.fill()
	judged := 0
	for _, in := range encodings(t) {
		if unjudged(&in) != "" || misjudged[in.Op] != "" {
			continue
		}
		judged++
		if n, first := j.encoding(t, &in, rounds(t)); n > 0 {
			t.Errorf("%s: %d times\n  %s", in.String(), n, first)
		}
	}
	t.Logf("%d encodings", judged)
}
