package kallsyms

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

var stext = Anchor{"_stext", textBase}

// names, addresses and types only: what an encoder is given.
func plain(t *Table) []Symbol {
	var out []Symbol
	for s := range t.All() {
		s.Size = 0
		out = append(out, s)
	}
	return out
}

func TestLoadVersions(t *testing.T) {
	for name, im := range versions {
		t.Run(name, func(t *testing.T) {
			syms := sample(700, im.percpu)
			m, loc := im.build(syms)
			tab, err := Load(m, loc, stext)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(tab.Encoding(), im.enc))
			qt.Check(t, qt.DeepEquals(plain(tab), syms))
			qt.Check(t, qt.Equals(tab.Len(), len(syms)))

			found, err := Scan(m, imageBase, imageBase+uint64(len(m.Data)))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(found, loc))
		})
	}
}

func TestLoadSmall(t *testing.T) {
	for n := range 5 {
		syms := append([]Symbol{{"_stext", textBase, 'T', 0}}, sample(10, false)[10:]...)[:min(n+1, 3)]
		m, loc := versions["7.2 place-relative"].build(syms)
		tab, err := Load(m, loc, stext)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(plain(tab), syms))
	}
}

// Before 6.1 a length of 128 and more took one byte.
func TestLoadNarrowLength(t *testing.T) {
	im := versions["5.10 relative"]
	syms := append(sample(20, false)[:20], Symbol{strings.Repeat("x", 199), textBase + 0x9000, 'T', 0}, Symbol{"_end", textBase + 0x9100, 'T', 0})
	m, loc := im.build(syms)
	// 200 is c8 01 on two bytes; drop the second and move the rest up.
	at := slices.Index(m.Data, 0xc8)
	for m.Data[at+1] != 1 || m.Data[at+2] != 'T' {
		at += 1 + slices.Index(m.Data[at+1:], 0xc8)
	}
	end := int(loc.TokenTable - imageBase)
	copy(m.Data[at+1:end], m.Data[at+2:end])
	tab, err := Load(m, loc, stext)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(plain(tab), syms))
}

func TestLoadErrors(t *testing.T) {
	im := versions["6.12 absolute-percpu"]
	syms := sample(700, true)
	good, loc := im.build(syms)
	tests := []struct {
		name   string
		damage func(data []byte, loc *Locations, check *Anchor)
		want   string // a pattern
	}{
		{"no names", func(_ []byte, l *Locations, _ *Anchor) { l.Names = 0 }, `kallsyms_names: its address is not known`},
		{"no offsets", func(_ []byte, l *Locations, _ *Anchor) { l.Offsets = 0 }, `kallsyms_offsets: its address is not known`},
		{"count 0", func(d []byte, l *Locations, _ *Anchor) { clear(d[l.NumSyms-imageBase:][:4]) }, `kallsyms_num_syms at .*: 0 symbols.*`},
		{"count huge", func(d []byte, l *Locations, _ *Anchor) { d[l.NumSyms-imageBase+3] = 0x7f }, `kallsyms_num_syms at .*: 21307071.. symbols.*`},
		{"count too large", func(d []byte, l *Locations, _ *Anchor) { d[l.NumSyms-imageBase+2] = 0x30 }, `kallsyms_names.*`},
		{"names unmapped", func(_ []byte, l *Locations, _ *Anchor) { l.Names = 0x1000 }, `kallsyms_names: virtual address 0x1000: not mapped`},
		{"empty name", func(d []byte, l *Locations, _ *Anchor) { d[l.Names-imageBase] = 0 }, `kallsyms_names at 0x.*: symbol 0: empty name`},
		{"anchor moved", func(_ []byte, _ *Locations, a *Anchor) { a.Addr += 0x1000 }, `kallsyms_offsets at .*: no known encoding gives ascending addresses with _stext at 0xffffffff81001000`},
		{"anchor unknown", func(_ []byte, _ *Locations, a *Anchor) { a.Name = "nobody" }, `kallsyms_names at .*: no symbol nobody`},
		{"offset damaged", func(d []byte, l *Locations, _ *Anchor) { d[l.Offsets-imageBase+403] ^= 0x40 }, `kallsyms_offsets at .*`},
		{"tokens cut", func(d []byte, l *Locations, _ *Anchor) { l.TokenTable = imageBase + uint64(len(d)) - 8 }, `kallsyms_token_table: virtual address .*`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := mem.Snapshot{Base: good.Base, Data: slices.Clone(good.Data)}
			l, a := loc, stext
			tt.damage(m.Data, &l, &a)
			_, err := Load(m, l, a)
			qt.Assert(t, qt.ErrorMatches(err, tt.want))
			var format *FormatError
			qt.Check(t, qt.IsTrue(errors.As(err, &format) || mem.CauseOf(err) != 0))
		})
	}
}

func TestLocationsFrom(t *testing.T) {
	loc, ok := LocationsFrom(func(name string) (uint64, bool) { return uint64(len(name)), name != "kallsyms_addresses" })
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(loc, Locations{17, 14, 20, 20, 16, 22, 0}))
	_, ok = LocationsFrom(func(string) (uint64, bool) { return 0, false })
	qt.Check(t, qt.IsFalse(ok))
}

func TestScanNothing(t *testing.T) {
	m := mem.Snapshot{Base: imageBase, Data: make([]byte, 3<<20)}
	_, err := Scan(m, imageBase, imageBase+2<<20)
	qt.Check(t, qt.ErrorIs(err, ErrNotFound))
	qt.Check(t, qt.Equals(mem.CauseOf(err), 0))
	_, err = Scan(m, imageBase-0x3000, imageBase+0x1000)
	qt.Check(t, qt.ErrorIs(err, ErrNotFound))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Unmapped))
	_, err = Scan(m, ^uint64(0)-0x1800, ^uint64(0)) // the end of the address space
	qt.Check(t, qt.ErrorIs(err, ErrNotFound))
}

// load builds and loads syms, which must be in the order of addresses.
func load(t testing.TB, syms ...Symbol) *Table {
	t.Helper()
	m, loc := versions["6.12 absolute-percpu"].build(syms)
	tab, err := Load(m, loc, Anchor{syms[2].Name, syms[2].Addr})
	qt.Assert(t, qt.IsNil(err))
	return tab
}

func TestAt(t *testing.T) {
	const x = textBase
	tab := load(t,
		Symbol{"fixed_percpu_data", 0, 'D', 0}, Symbol{"__per_cpu_end", 0x30000, 'D', 0},
		Symbol{"_stext", x, 'T', 0}, Symbol{"startup_64", x, 'T', 0}, Symbol{"_text", x, 'T', 0},
		Symbol{"__pfx_foo", x + 0x10, 'T', 0},
		Symbol{"__noinstr_text_start", x + 0x20, 'T', 0}, Symbol{"foo", x + 0x20, 't', 0},
		Symbol{"__bar", x + 0x40, 'T', 0}, Symbol{"bar", x + 0x40, 't', 0}, Symbol{"bar_weak", x + 0x40, 'W', 0},
		Symbol{"__qux", x + 0x50, 'T', 0}, Symbol{"qux", x + 0x50, 'T', 0},
		Symbol{"part.0", x + 0x60, 't', 0}, Symbol{"part", x + 0x60, 't', 0}, Symbol{"z", x + 0x60, 't', 0},
		Symbol{"_end", x + 0x70, 'B', 0})
	tests := []struct {
		addr uint64
		name string
		off  uint64
		size uint64
	}{
		{x, "startup_64", 0, 16},
		{x + 15, "startup_64", 15, 16},
		{x + 0x1f, "__pfx_foo", 15, 16},
		{x + 0x2f, "foo", 15, 32},
		{x + 0x40, "__bar", 0, 16},
		{x + 0x50, "qux", 0, 16},
		{x + 0x60, "part", 0, 16},
		{x + 0x70, "_end", 0, 0},
		{x + 0x71, "", 0, 0},
		{x - 1, "", 0, 0},
		{0x20, "", 0, 0},
		{^uint64(0), "", 0, 0},
	}
	for _, tt := range tests {
		s, off, ok := tab.At(tt.addr)
		qt.Check(t, qt.Equals(ok, tt.name != ""), qt.Commentf("%#x", tt.addr))
		qt.Check(t, qt.Equals(s.Name, tt.name), qt.Commentf("%#x", tt.addr))
		qt.Check(t, qt.Equals(off, tt.off), qt.Commentf("%#x", tt.addr))
		qt.Check(t, qt.Equals(s.Size, tt.size), qt.Commentf("%#x", tt.addr))
	}
	// The gap between per-CPU offsets and the kernel is nobody's size.
	s, ok := tab.Lookup("__per_cpu_end")
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(s, Symbol{"__per_cpu_end", 0x30000, 'D', 0}))
}

func TestLookupAndFind(t *testing.T) {
	const x = textBase
	tab := load(t,
		Symbol{"a", x, 'T', 0}, Symbol{"init", x + 1, 't', 0}, Symbol{"init", x + 2, 'T', 0},
		Symbol{"init", x + 3, 'T', 0}, Symbol{"do_sys_open", x + 4, 'T', 0}, Symbol{"do_sys", x + 5, 'T', 0})
	got := tab.LookupAll("init", "a", "do_sys", "nothing", "", "do_sys_")
	qt.Check(t, qt.DeepEquals(got, map[string]Symbol{
		"init": {"init", x + 2, 'T', 1}, "a": {"a", x, 'T', 1}, "do_sys": {"do_sys", x + 5, 'T', 0},
	}))
	for pattern, want := range map[string][]uint64{
		"init": {x + 1, x + 2, x + 3}, "do_*": {x + 4, x + 5}, "?": {x}, "*sys*": {x + 4, x + 5}, "none": nil, "": nil,
	} {
		seq, err := tab.Find(pattern)
		qt.Assert(t, qt.IsNil(err))
		var addrs []uint64
		for s := range seq {
			addrs = append(addrs, s.Addr)
		}
		qt.Check(t, qt.DeepEquals(addrs, want), qt.Commentf("%s", pattern))
	}
	_, err := tab.Find("[")
	qt.Check(t, qt.ErrorIs(err, path.ErrBadPattern))
	for range tab.All() {
		break // an early stop must not go on
	}
}

func FuzzLoad(f *testing.F) {
	for _, im := range versions {
		m, loc := im.build(sample(40, im.percpu))
		rel := func(a uint64) uint16 { return uint16(a - imageBase) }
		f.Add(m.Data[3000:], rel(loc.NumSyms)-3000, rel(loc.Names)-3000, rel(loc.TokenTable)-3000, rel(loc.TokenIndex)-3000, rel(loc.Offsets)-3000, rel(loc.RelativeBase)-3000)
	}
	f.Fuzz(func(t *testing.T, data []byte, num, names, table, index, offsets, base uint16) {
		m := mem.Snapshot{Base: imageBase, Data: data}
		loc := Locations{
			NumSyms: imageBase + uint64(num), Names: imageBase + uint64(names), TokenTable: imageBase + uint64(table),
			TokenIndex: imageBase + uint64(index), Offsets: imageBase + uint64(offsets), RelativeBase: imageBase + uint64(base),
		}
		tab, err := Load(m, loc, Anchor{})
		if err == nil {
			n, last := 0, uint64(0)
			for s := range tab.All() {
				if n++; s.Addr < last {
					t.Fatalf("%#x after %#x", s.Addr, last)
				}
				last = s.Addr
				if len(s.Name) > maxName {
					t.Fatalf("name of %d bytes", len(s.Name))
				}
			}
			if n != tab.Len() {
				t.Fatalf("%d symbols of %d", n, tab.Len())
			}
			tab.At(last)
			tab.Suggest("do_sys_thing")
		}
		if _, err := Scan(m, imageBase, imageBase+uint64(len(data))); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	})
}
