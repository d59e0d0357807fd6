package kallsyms

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/dumptest/kimage"
	"github.com/ksleuth/ksleuth/mem"
)

func locations(t testing.TB, m *kimage.Memory) Locations {
	loc, ok := LocationsFrom(m.Info.Symbol)
	if !ok {
		var err error
		loc, err = Scan(m, m.Text(), m.Text()+64<<20)
		qt.Assert(t, qt.IsNil(err))
	}
	return loc
}

// The judge is the kernel: every symbol of /proc/kallsyms, in its order.
func TestDumps(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			m := kimage.Open(t, scene)
			want := dumptest.Kallsyms(t, scene)
			loc := locations(t, m)
			tab, err := Load(m, loc, Anchor{"_stext", m.Text()})
			qt.Assert(t, qt.IsNil(err))
			t.Logf("%d symbols, %s, %d bytes of names", tab.Len(), tab.Encoding(), len(tab.names))
			qt.Assert(t, qt.Equals(tab.Len(), len(want)))
			got := plain(tab)
			for i, w := range want {
				if g := got[i]; g.Name != w.Name || g.Addr != w.Addr || g.Type != w.Type {
					t.Fatalf("symbol %d: %v, want %v", i, g, w)
				}
			}
			// Scanning must find what VMCOREINFO says.
			found, err := Scan(m, m.Text(), m.Text()+64<<20)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(found, loc))
			checkAddresses(t, tab)
			checkNames(t, tab)
		})
	}
}

// Every address leads back to a symbol at that address.
func checkAddresses(t *testing.T, tab *Table) {
	n, renamed, last := 0, 0, uint64(0)
	for s := range tab.All() {
		if s.Addr < kernelHalf || s.Addr == last {
			continue
		}
		n++
		last = s.Addr
		got, off, ok := tab.At(s.Addr)
		if !ok || off != 0 || got.Addr != s.Addr || got.Size != s.Size {
			t.Fatalf("At(%#x) = %v, %d, %t, want %v", s.Addr, got, off, ok, s)
		}
		if s.Size > 1 {
			if end, off, ok := tab.At(s.Addr + s.Size - 1); !ok || off != s.Size-1 || end != got {
				t.Fatalf("At(%#x) = %v, %d, %t, want %v", s.Addr+s.Size-1, end, off, ok, got)
			}
		}
		if got.Name != s.Name {
			renamed++
		}
	}
	t.Logf("%d of %d addresses have a better name than the first", renamed, n)
}

func checkNames(t *testing.T, tab *Table) {
	var names []string
	i := 0
	for s := range tab.All() {
		if i++; i%997 == 0 {
			names = append(names, s.Name)
		}
	}
	all := tab.LookupAll(names...)
	for _, name := range names {
		s, ok := tab.Lookup(name)
		if !ok || s != all[name] || s.Name != name {
			t.Fatalf("Lookup(%s) = %v, %t; LookupAll %v", name, s, ok, all[name])
		}
	}
	qt.Check(t, qt.DeepEquals(tab.Suggest("tcp_sendmgs")[:1], []string{"tcp_sendmsg"}))
	qt.Check(t, qt.DeepEquals(tab.Suggest("qqqqqqqqqqqqqq"), nil))
}

func BenchmarkDump(b *testing.B) {
	for _, scene := range dumptest.Idle {
		image := kimage.Open(b, scene)
		// Read before, so that the decoder alone is measured.
		m := mem.Snapshot{Base: image.Text(), Data: make([]byte, 64<<20)}
		qt.Assert(b, qt.IsNil(image.ReadMem(m.Data, m.Base)))
		loc, anchor := locations(b, image), Anchor{"_stext", image.Text()}
		tab, err := Load(m, loc, anchor)
		qt.Assert(b, qt.IsNil(err))
		var names []string
		for i, s := 0, dumptest.Kallsyms(b, scene); i < 60; i++ {
			names = append(names, s[i*1000].Name)
		}
		for _, bench := range []struct {
			name string
			run  func(i int)
		}{
			{"Load", func(int) { Load(m, loc, anchor) }},
			{"Scan", func(int) { Scan(m, m.Base, m.Base+64<<20) }},
			{"Lookup", func(int) { tab.Lookup("init_task") }},
			{"LookupAll60", func(int) { tab.LookupAll(names...) }},
			{"At", func(i int) { tab.At(m.Base + uint64(i*9973%(16<<20))) }},
			{"Suggest", func(int) { tab.Suggest("tcp_sendmgs") }},
		} {
			b.Run(scene+"/"+bench.name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					bench.run(i)
				}
			})
		}
	}
}

func ExampleLoad() {
	// A table of three symbols, as a 7.2 kernel would hold it.
	m, loc := versions["7.2 place-relative"].build([]Symbol{
		{"_stext", textBase, 'T', 0}, {"do_exit", textBase + 0x40, 'T', 0}, {"_end", textBase + 0x90, 'B', 0},
	})
	t, err := Load(m, loc, Anchor{"_stext", textBase})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, off, _ := t.At(textBase + 0x44)
	fmt.Printf("%s+%#x/%#x\n", s.Name, off, s.Size)
	// Output: do_exit+0x4/0x50
}
