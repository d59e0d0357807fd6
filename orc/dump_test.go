package orc

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/dumptest/kimage"
)

// eachDump runs test on the tables of every kernel.
func eachDump(t *testing.T, test func(t *testing.T, m *kimage.Memory, tab *Table, syms []dumptest.Symbol)) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			m := kimage.Open(t, scene)
			syms := dumptest.Kallsyms(t, scene)
			loc, ok := LocationsFrom(func(name string) (uint64, bool) {
				i := slices.IndexFunc(syms, func(s dumptest.Symbol) bool { return s.Name == name })
				if i < 0 {
					return 0, false
				}
				return syms[i].Addr, true
			})
			qt.Assert(t, qt.IsTrue(ok))
			tab, err := Load(m, loc)
			qt.Assert(t, qt.IsNil(err))
			// The entries alone must tell what the header tells.
			loc.Header = 0
			guess, err := Load(m, loc)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(guess.Layout(), tab.Layout()))
			test(t, m, tab, syms)
		})
	}
}

// Every entry of the table must decode, and nearly every function must start
// with the stack as a call leaves it.
func TestDumps(t *testing.T) {
	eachDump(t, func(t *testing.T, m *kimage.Memory, tab *Table, syms []dumptest.Symbol) {
		count := map[Type]int{}
		for i := range tab.Len() {
			e, err := tab.entry(i)
			qt.Assert(t, qt.IsNil(err))
			count[e.Type]++
		}
		t.Logf("layout %s: %v", tab.Layout(), count)

		entry := Entry{SP: Rule{SP, Direct, 8}, Type: Call}
		functions, other := 0, 0
		etext := uint64(0)
		for _, s := range syms {
			if s.Name == "_etext" {
				etext = s.Addr
			}
		}
		for i, s := range syms {
			if s.Type|0x20 != 't' || s.Addr < m.Text() || s.Addr >= etext ||
				strings.HasPrefix(s.Name, "__pfx_") || strings.Contains(s.Name, ".cold") {
				continue
			}
			e, ok, err := tab.Find(s.Addr)
			if err != nil || !ok {
				t.Fatalf("Find(%s) = %v, %t, %v", s.Name, e, ok, err)
			}
			functions++
			if e != entry {
				other++
				if i%50 == 0 {
					t.Logf("%s: %v", s.Name, e)
				}
			}
			if i%50 == 0 { // somewhere inside, too
				if e, ok, err := tab.Find(s.Addr + (syms[i+1].Addr-s.Addr)/2); err != nil || !ok {
					t.Fatalf("Find(%s + half) = %v, %t, %v", s.Name, e, ok, err)
				}
			}
		}
		t.Logf("%d of %d functions do not start with a plain call entry", other, functions)
		qt.Check(t, qt.IsTrue(functions > 20000))
		qt.Check(t, qt.IsTrue(other*50 < functions))
		_, ok, err := tab.Find(0xffffffffc0001000) // module space
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(ok))
	})
}
