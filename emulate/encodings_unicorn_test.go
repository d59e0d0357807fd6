//go:build unicorn

package emulate

import (
	"encoding/hex"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

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
	data, err := os.ReadFile("testdata/encodings.txt")
	qt.Assert(t, qt.IsNil(err))
	judged := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		code, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[:31]), " ", ""))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", line))
		in, err := x86.Decode(code, 0)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", line))
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
