package orc

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

const (
	textBase  = 0xffffffff81000000
	tableBase = 0xffffffff82000000
)

// A row is an entry in its normal form with the code it is for.
type row struct {
	pc uint64
	e  Entry
}

func call(sp Rule, bp Rule) Entry { return Entry{SP: sp, BP: bp, Type: Call} }

func at(base Reg, off int16) Rule     { return Rule{base, Direct, off} }
func pushed(base Reg, off int16) Rule { return Rule{base, Indirect, off} }

// The flags below are those of objtool's entries, seen in kernels or worked out
// from arch/x86/include/asm/orc_types.h of each version.
var entries = []struct {
	e     Entry
	sp    int16
	bp    int16
	flags [4]uint16 // by layout
}{
	{Entry{Type: Undefined}, 0, 0, [4]uint16{0, 0, 0, 0}},
	{Entry{Type: EndOfStack}, 0, 0, [4]uint16{0x400, 0x800, 0x100, 0x100}},
	{call(at(SP, 8), Rule{}), 8, 0, [4]uint16{0x05, 0x05, 0x205, 0x203}},
	{call(at(SP, 16), pushed(PrevSP, -16)), 16, -16, [4]uint16{0x15, 0x15, 0x215, 0x283}},
	{call(at(BP, 16), pushed(PrevSP, -16)), 16, -16, [4]uint16{0x14, 0x14, 0x214, 0x284}},
	{call(at(R10, 0), pushed(BP, 0)), 0, 0, [4]uint16{0x46, 0x46, 0x246, 0x246}},
	{call(at(R13, 0), Rule{}), 0, 0, [4]uint16{0x07, 0x07, 0x207, 0x207}},
	{call(pushed(BP, -8), pushed(BP, 0)), -8, 0, [4]uint16{0x48, 0x48, 0x248, 0x24a}},
	{call(Rule{SP, Through, 8}, Rule{}), 8, 0, [4]uint16{0x09, 0x09, 0x209, 0x209}},
	{Entry{SP: at(SP, 0), Type: Regs, Signal: true}, 0, 0, [4]uint16{0x105, 0x505, 0xb05, 0xb03}},
	{Entry{SP: at(SP, -120), Type: RegsPartial, Signal: true}, -120, 0, [4]uint16{0x205, 0x605, 0xc05, 0xc03}},
	{Entry{SP: at(DX, 8), Type: RegsPartial, Signal: true}, 8, 0, [4]uint16{0x202, 0x602, 0xc02, 0xc02}},
	{Entry{SP: at(DI, 0), Type: Regs, Signal: true}, 0, 0, [4]uint16{0x103, 0x503, 0xb03, 0xb05}},
	{Entry{SP: pushed(SP, 0), Type: Regs, Signal: true}, 0, 0, [4]uint16{0x109, 0x509, 0xb09, 0xb09}},
}

// encode is the inverse of decode, by the table above.
func encode(t testing.TB, l int, e Entry) []byte {
	for _, known := range entries {
		k := known.e
		k.SP.Offset, k.BP.Offset = e.SP.Offset, e.BP.Offset
		if k == e {
			b := binary.LittleEndian.AppendUint16(nil, uint16(e.SP.Offset))
			b = binary.LittleEndian.AppendUint16(b, uint16(e.BP.Offset))
			return binary.LittleEndian.AppendUint16(b, known.flags[l])
		}
	}
	t.Fatalf("no flags for %v", e)
	return nil
}

// build writes a table of layout l, with its header in front, at tableBase.
func build(t testing.TB, l int, rows []row) (mem.Snapshot, Locations) {
	loc := Locations{Header: tableBase, IP: tableBase + headerSize}
	data := slices.Clone(layouts[l].hash[:])
	for i, r := range rows {
		data = binary.LittleEndian.AppendUint32(data, uint32(r.pc-(loc.IP+4*uint64(i))))
	}
	loc.IPEnd = tableBase + uint64(len(data))
	loc.Unwind = loc.IPEnd
	for _, r := range rows {
		data = append(data, encode(t, l, r.e)...)
	}
	loc.UnwindEnd = tableBase + uint64(len(data))
	return mem.Snapshot{Base: tableBase, Data: data}, loc
}

// sample makes the table of n functions of 64 bytes, every entry of the table
// above among them, with a hole after each 100th.
func sample(n int) []row {
	var rows []row
	pc := uint64(textBase)
	for i := range n {
		rows = append(rows,
			row{pc, call(at(SP, 8), Rule{})},
			row{pc + 1, call(at(SP, 16), pushed(PrevSP, -16))},
			row{pc + 4, call(at(BP, 16), pushed(PrevSP, -16))},
			row{pc + 63, call(at(SP, 8), Rule{})})
		pc += 64
		if i%100 == 99 {
			rows = append(rows, row{pc, Entry{Type: Undefined}}) // ends a section
			pc += 64 * uint64(i%3)
			rows = append(rows, row{pc, entries[i/100%len(entries)].e})
			pc += 16
		}
	}
	return append(rows, row{pc, Entry{Type: Undefined}})
}

func TestDecode(t *testing.T) {
	for l := range layouts {
		for _, tt := range entries {
			b := encode(t, l, tt.e)
			e, why := layouts[l].decode([entrySize]byte(b))
			qt.Check(t, qt.Equals(why, misfit{}), qt.Commentf("%s: %v", layouts[l].since, tt.e))
			qt.Check(t, qt.Equals(e, tt.e), qt.Commentf("%s", layouts[l].since))
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		since string
		flags uint16
		want  string
	}{
		{"4.14", 0x805, "unknown flags in 0x805"},
		{"4.14", 0x405, "end of stack with a stack pointer in 0x405"},
		{"4.14", 0x305, "unknown register or type in 0x305"},
		{"4.14", 0x00b, "unknown register or type in 0xb"},
		{"4.14", 0x001, "no stack pointer in 0x1"},
		{"4.14", 0x025, "no rule for rbp in 0x25"},
		{"4.14", 0x085, "no rule for rbp in 0x85"},
		{"6.3", 0x400, "no caller, but a stack pointer or signal in 0x400"},
		{"6.3", 0x1005, "unknown flags in 0x1005"},
		{"6.4", 0x005, "no caller, but a stack pointer or signal in 0x5"},
		{"6.4", 0x505, "unknown register or type in 0x505"},
		{"6.4", 0x200, "no stack pointer in 0x200"},
		{"7.1", 0x20b, "unknown register or type in 0x20b"},
		{"7.1", 0x213, "no rule for rbp in 0x213"},
	} {
		i := slices.IndexFunc(layouts, func(l layout) bool { return l.since == tt.since })
		_, why := layouts[i].decode([entrySize]byte{4: byte(tt.flags), 5: byte(tt.flags >> 8)})
		qt.Check(t, qt.Equals(why.String(), tt.want), qt.Commentf("%s", tt.since))
	}
}

func TestFind(t *testing.T) {
	rows := sample(1500)
	for l := range layouts {
		m, loc := build(t, l, rows)
		if l == 0 {
			loc.Header = 0
		}
		tab, err := Load(m, loc)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(tab.Layout(), layouts[l].since))
		qt.Check(t, qt.Equals(tab.Len(), len(rows)))
		for i, r := range rows[:len(rows)-1] {
			next := rows[i+1].pc
			if next == r.pc {
				continue // hidden by the next
			}
			for _, pc := range []uint64{r.pc, next - 1} {
				e, ok, err := tab.Find(pc)
				qt.Assert(t, qt.IsNil(err))
				if !ok || e != r.e {
					t.Fatalf("%s: Find(%#x) = %v, %t, want %v", tab.Layout(), pc, e, ok, r.e)
				}
			}
		}
		for _, pc := range []uint64{0, textBase - 1, rows[len(rows)-1].pc, ^uint64(0)} {
			_, ok, err := tab.Find(pc)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.IsFalse(ok), qt.Commentf("%#x", pc))
		}
	}
}

// Small tables, every one of which is searched in one window.
func TestFindSmall(t *testing.T) {
	kernel, loc := build(t, 3, sample(1500))
	tab, err := Load(kernel, loc)
	qt.Assert(t, qt.IsNil(err))
	for n := range 130 {
		var rows []row
		for i := range n {
			rows = append(rows, row{textBase + uint64(i)*2, call(at(SP, int16(i)*8), Rule{})})
		}
		m, loc := build(t, 3, rows)
		tab := &Table{m: m, layout: tab.layout}
		mod, err := tab.Module(uint32(n), loc.IP, loc.Unwind)
		qt.Assert(t, qt.IsNil(err))
		for i := range n {
			for d := range uint64(2) {
				e, ok, err := mod.Find(rows[i].pc + d)
				if err != nil || !ok || e != rows[i].e {
					t.Fatalf("%d entries: Find of %d = %v, %t, %v", n, i, e, ok, err)
				}
			}
		}
		_, ok, err := mod.Find(textBase - 1)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(ok))
	}
	_, err = tab.Module(1<<30, tableBase, tableBase)
	qt.Check(t, qt.ErrorMatches(err, `num_orcs at .*: 1073741824 entries.*`))
}

func TestGuessLayout(t *testing.T) {
	for l := range layouts {
		m, loc := build(t, l, sample(1500))
		loc.Header = 0
		tab, err := Load(m, loc)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", layouts[l].since))
		qt.Check(t, qt.Equals(tab.Layout(), layouts[l].since))
	}
	// Nothing but calls: 4.14 and 6.3 say the same.
	m, loc := build(t, 0, sample(99))
	_, err := Load(m, loc)
	qt.Check(t, qt.ErrorMatches(err, `.orc_unwind at .*: the entries fit no known layout, or more than one`))
	// A hash of a layout yet to come does not stop a table that still fits.
	m, loc = build(t, 3, sample(1500))
	m.Data[3]++
	tab, err := Load(m, loc)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(tab.Layout(), "7.1"))
}

func TestErrors(t *testing.T) {
	good, loc := build(t, 3, sample(1500))
	var format *FormatError
	for _, tt := range []struct {
		change func(*Locations)
		want   string
	}{
		{func(l *Locations) { l.IPEnd = l.IP - 4 }, `.orc_unwind_ip at .*: ends at .*`},
		{func(l *Locations) { l.IPEnd = l.IP + 6 }, `.orc_unwind_ip at .*`},
		{func(l *Locations) { l.IPEnd = l.IP + 1<<40 }, `.orc_unwind_ip at .*`},
		{func(l *Locations) { l.UnwindEnd += 6 }, `.orc_unwind at .*: \d+ bytes for \d+ addresses`},
		{func(l *Locations) { *l = Locations{} }, `.orc_unwind_ip at 0x0: ends at 0x0`},
	} {
		l := loc
		tt.change(&l)
		_, err := Load(good, l)
		qt.Check(t, qt.ErrorMatches(err, tt.want))
		qt.Check(t, qt.IsTrue(errors.As(err, &format)))
	}
	l := loc
	l.Header = 0x1000
	_, err := Load(good, l)
	qt.Check(t, qt.ErrorMatches(err, `.orc_header: virtual address 0x1000: not mapped`))

	tab, err := Load(good, loc)
	qt.Assert(t, qt.IsNil(err))
	tab.m = mem.Snapshot{Base: tableBase, Data: good.Data[:loc.Unwind-tableBase+600]}
	_, _, err = tab.Find(textBase + 64*1000)
	qt.Check(t, qt.ErrorMatches(err, `.orc_unwind: virtual address .*: not mapped`))
	tab.m = mem.Snapshot{Base: tableBase, Data: good.Data[:1000]}
	_, _, err = tab.Find(textBase)
	qt.Check(t, qt.ErrorMatches(err, `.orc_unwind_ip: virtual address .*: not mapped`))
	bad := slices.Clone(good.Data)
	bad[loc.Unwind-tableBase+5] = 0x70
	tab.m = mem.Snapshot{Base: tableBase, Data: bad}
	_, _, err = tab.Find(textBase)
	qt.Check(t, qt.ErrorMatches(err, `.orc_unwind at .*: unknown flags in 0x7003`))
}

func TestString(t *testing.T) {
	for _, tt := range []struct {
		e    Entry
		want string
	}{
		{Entry{}, "undefined"},
		{Entry{Type: EndOfStack}, "end of stack"},
		{call(at(SP, 8), Rule{}), "call sp=rsp+8 bp=none"},
		{call(at(BP, 16), pushed(PrevSP, -16)), "call sp=rbp+16 bp=[prev_sp-16]"},
		{call(Rule{SP, Through, 8}, Rule{}), "call sp=[rsp]+8 bp=none"},
		{Entry{SP: at(SP, -120), Type: RegsPartial, Signal: true}, "partial regs sp=rsp-120 bp=none signal"},
	} {
		qt.Check(t, qt.Equals(tt.e.String(), tt.want))
	}
	qt.Check(t, qt.Equals(Reg(99).String()+Type(99).String(), "reg99type 99"))
}

func TestLocationsFrom(t *testing.T) {
	loc, ok := LocationsFrom(func(name string) (uint64, bool) { return uint64(len(name)), name != "__start_orc_header" })
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(loc, Locations{21, 20, 18, 17, 18}))
	_, ok = LocationsFrom(func(name string) (uint64, bool) { return 1, name != "__stop_orc_unwind" })
	qt.Check(t, qt.IsFalse(ok))
}

func FuzzLoad(f *testing.F) {
	for l := range layouts {
		m, loc := build(f, l, sample(30))
		f.Add(m.Data, uint16(loc.IPEnd-tableBase), uint16(loc.Unwind-tableBase), true, uint32(70))
		f.Add(m.Data, uint16(loc.IPEnd-tableBase), uint16(loc.Unwind-tableBase), false, uint32(700))
	}
	f.Fuzz(func(t *testing.T, data []byte, ipEnd, unwind uint16, header bool, pc uint32) {
		m := mem.Snapshot{Base: tableBase, Data: data}
		loc := Locations{IP: tableBase + headerSize, IPEnd: tableBase + uint64(ipEnd), Unwind: tableBase + uint64(unwind)}
		loc.UnwindEnd = loc.Unwind + (loc.IPEnd-loc.IP)/4*6
		if header {
			loc.Header = tableBase
		}
		tab, err := Load(m, loc)
		if err != nil {
			return
		}
		e, ok, err := tab.Find(textBase + uint64(pc))
		if ok && err != nil {
			t.Fatalf("%v with %v", e, err)
		}
		if ok && e.Type == Call && e.SP.Base == None {
			t.Fatalf("%#v", e)
		}
		_ = e.String()
	})
}

func BenchmarkFind(b *testing.B) {
	m, loc := build(b, 3, sample(50000))
	tab, err := Load(m, loc)
	qt.Assert(b, qt.IsNil(err))
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		tab.Find(textBase + i*9973%(50000*64))
	}
}
