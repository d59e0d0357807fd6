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

// everywhere is a target that has memory at every address, all zero.
type everywhere struct{}

func (everywhere) ReadMem(b []byte, addr uint64) error {
	clear(b)
	return nil
}

// encodings returns the instructions of testdata/encodings.txt.
func encodings(t testing.TB) (out []x86.Inst) {
	data, err := os.ReadFile("testdata/encodings.txt")
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		code, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[:31]), " ", ""))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", line))
		in, err := x86.Decode(code, codeAt)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", line))
		out = append(out, in)
	}
	return out
}

// TestAccesses: what a uop says of its memory accesses, for the history, is what
// its exec does.
func TestAccesses(t *testing.T) {
	all := encodings(t)
	for _, f := range kernelForms(t) {
		all = append(all, f.Insts[0])
	}
	const untouched = 0x1234567
	r := rand.New(rand.NewPCG(3, 4))
	m := New(NewMemory(everywhere{}), Options{})
	executed := 0
	for i := range all {
		in := &all[i]
		m.insts = append(m.insts[:0], *in)
		u := m.translate(in)
		for range 4 {
			for k := range m.GP {
				m.GP[k] = r.Uint64() &^ 15
			}
			m.GP[RCX] = r.Uint64N(20)
			m.read, m.wrote, m.n, m.cur, m.stop = untouched, untouched, 0, &u, nil
			if !u.exec(m, &u) || m.n == noAccess {
				continue
			}
			executed++
			read, wrote := m.read != untouched, m.wrote != untouched
			where := qt.Commentf("%s (% x): read %v, wrote %v", in, in.Bytes(), read, wrote)
			if m.n != 0 { // it was repeated: that sets both, and uop.acc says which count
				qt.Check(t, qt.IsTrue(read && wrote), where)
				continue
			}
			qt.Check(t, qt.Equals(u.acc&accWrite != 0, wrote), where)
			qt.Check(t, qt.Equals(u.acc&accRead != 0, read && !(wrote && m.read == m.wrote)), where)
		}
		m.Mem = m.Mem.Fork()
	}
	qt.Check(t, qt.IsTrue(executed > 5000), qt.Commentf("%d", executed))
}
