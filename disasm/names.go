package disasm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// symbol names what the decoder prints as an address: the target of a jump or
// call, or memory relative to the instruction pointer.
func (w *writer) symbol(addr uint64) (string, uint64, bool) {
	if m, _, _, ok := w.in.MemOperand(); ok && m.Seg == x86asm.GS {
		return w.d.perCPU(addr)
	}
	return w.d.name(addr)
}

// name names an address of the kernel: a symbol, or memory of a BPF map.
func (d *Disassembler) name(addr uint64) (string, uint64, bool) {
	s, off, ok := d.syms.Symbolize(addr)
	if !ok {
		name, ok := d.mapAt(addr)
		return name, 0, ok
	}
	return trueName(s, off), off, true
}

// trueName is the name of a symbol. Thunks have several at one address: the
// first also that of their array, and all another for code that runs at boot.
func trueName(s kernel.Symbol, off uint64) string {
	if name := strings.TrimPrefix(s.Name, "__pi_"); strings.HasPrefix(name, thunkPrefix) {
		s.Name = name
		if base, ok := strings.CutSuffix(name, "_thunk_array"); ok && off == 0 {
			s.Name = base + "_thunk_rax"
		}
	}
	return s.String()
}

// refs names the operands that are kernel addresses and are printed as bare
// numbers: memory without a base register, tables, and constants.
func (w *writer) refs() []string {
	var refs []string
	for _, a := range w.in.Args[:w.in.NArgs] {
		addr, ok := uint64(a.Val), false
		var name string
		var off uint64
		switch {
		case a.Kind == x86.KindImm && a.Size == 8 && addr>>63 == 1:
			if name, off, ok = w.d.name(addr); off != 0 {
				if text, isText := w.d.stringAt(addr); isText {
					refs = append(refs, text)
					continue
				}
			}
		case a.Kind != x86.KindMem, a.Reg == x86asm.RIP, a.Reg == x86asm.EIP, a.Seg == x86asm.FS:
		case a.Seg == x86asm.GS && a.Reg == 0 && a.Index == 0:
			name, off, ok = w.d.perCPU(addr)
		case a.Seg == 0 && a.Val < -1<<20: // no offset into a struct
			name, off, ok = w.d.name(addr)
		}
		if ok {
			refs = append(refs, fmt.Sprintf("%#x <%s>", addr, plus(name, off)))
		}
	}
	return refs
}

// stringAt returns the constant string at an address, quoted. Strings have no
// symbols of their own.
func (d *Disassembler) stringAt(addr uint64) (string, bool) {
	const least, most, limit = 3, 40, 512
	if d.k == nil {
		return "", false
	}
	m, err := d.k.Walk(addr)
	if err != nil || m.Writable || m.Exec {
		return "", false
	}
	s, err := mem.CString(d.k.Mem(), addr, limit)
	if err != nil || len(s) < least || len(s) == limit {
		return "", false
	}
	// The kernel marks the level of a message (include/linux/kern_levels.h).
	if s[0] == 1 {
		s = s[2:]
	}
	if strings.ContainsFunc(strings.TrimRight(s, "\n"), func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' || r > '~' }) {
		return "", false
	}
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s), true
}

func plus(name string, off uint64) string {
	if off == 0 {
		return name
	}
	return fmt.Sprintf("%s+%#x", name, off)
}

// perCPU names an address relative to the per-CPU area of whichever CPU runs
// the code.
func (d *Disassembler) perCPU(addr uint64) (string, uint64, bool) {
	s, off, ok := kernel.Symbol{}, uint64(0), false
	if addr>>63 == 1 {
		s, off, ok = d.syms.Symbolize(addr)
	} else if syms := d.percpu(); len(syms) > 0 {
		i, found := slices.BinarySearchFunc(syms, addr, func(s kernel.Symbol, a uint64) int { return cmp.Compare(s.Addr, a) })
		if !found {
			i--
		}
		// The last symbol ends the area.
		if ok = i >= 0 && addr < syms[len(syms)-1].Addr; ok {
			s, off = syms[i], addr-syms[i].Addr
		}
	}
	if !ok {
		return "", 0, false
	}
	path, rest := "", off
	types, err := d.types()
	for _, name := range d.aliases(s) {
		if err != nil {
			break
		}
		// A variable, or one that has the name of its type.
		t, err := types.Lookup("var " + name)
		if err == nil {
			t = t.Elem()
		} else if t, err = types.Struct(name); err != nil {
			continue
		}
		s.Name = name
		path, rest = memberAt(t, off, 0)
		break
	}
	return s.String() + path, rest, true
}

// aliases returns the names of the per-CPU variable at the address of s.
func (d *Disassembler) aliases(s kernel.Symbol) []string {
	names := []string{s.Name}
	for _, p := range d.percpu() {
		if p.Addr > s.Addr {
			break
		}
		if p.Addr == s.Addr && p.Name != s.Name {
			names = append(names, p.Name)
		}
	}
	return names
}

const maxNesting = 8

// memberAt returns the path from an object of type t to the member at an
// offset, and the offset into that.
func memberAt(t *ctype.Type, off uint64, depth int) (string, uint64) {
	t = t.Strip()
	if t.Kind() == ctype.Array && depth < maxNesting {
		n, err := t.Elem().Size()
		if err != nil || n == 0 || off/uint64(n) >= uint64(t.Len()) {
			return "", off
		}
		path, rest := memberAt(t.Elem(), off%uint64(n), depth+1)
		return fmt.Sprintf("[%d]", off/uint64(n)) + path, rest
	}
	for _, m := range t.Members() {
		n, err := m.Type.Size()
		start := uint64(m.Offset / 8)
		if err != nil || m.BitSize != 0 || off < start || off >= start+uint64(n) || depth == maxNesting {
			continue
		}
		path, rest := memberAt(m.Type, off-start, depth+1)
		if m.Name != "" {
			path = "." + m.Name + path
		}
		return path, rest
	}
	return "", off
}

// A mapRange is memory of a BPF map that code refers to: the map itself, or the
// values of an array.
type mapRange struct {
	start, end uint64
	m          *bpf.Object
	elem       uint64 // size of a value; 0 of the map itself
}

// mapRanges returns the ranges of all maps, by address. Of a map that cannot be
// read, nothing is named.
func (d *Disassembler) mapRanges() []mapRange {
	idr, err := d.k.Addr("map_idr")
	if err != nil {
		return nil
	}
	var out []mapRange
	for e, err := range d.k.XArray(idr) { // struct idr begins with its xarray
		if err != nil {
			break
		}
		m, err := bpf.ObjectOf(d.k, "bpf_map_fops", e.Entry)
		if err != nil {
			continue
		}
		out = append(out, mapRange{e.Entry, e.Entry + 1, m, 0})
		if m.Type != "array" {
			continue
		}
		o := d.k.Object("bpf_array", e.Entry)
		start, size := o.At("value"), o.Uint("elem_size")
		if n := size * o.Uint("map.max_entries"); o.Err() == nil && size != 0 && start+n > start {
			out = append(out, mapRange{start, start + n, m, size})
		}
	}
	slices.SortFunc(out, func(a, b mapRange) int { return cmp.Compare(a.start, b.start) })
	return out
}

func (d *Disassembler) mapRangeAt(addr uint64) (mapRange, bool) {
	if addr>>63 == 0 {
		return mapRange{}, false
	}
	all := d.values()
	i, found := slices.BinarySearchFunc(all, addr, func(r mapRange, a uint64) int { return cmp.Compare(r.start, a) })
	if !found {
		i--
	}
	if i < 0 || addr >= all[i].end {
		return mapRange{}, false
	}
	return all[i], true
}

// mapAt names an address in a BPF map: "map 5 packets", "map 7 .rodata[0]+0x10".
func (d *Disassembler) mapAt(addr uint64) (string, bool) {
	r, ok := d.mapRangeAt(addr)
	if !ok {
		return "", false
	}
	name := strings.TrimSpace(fmt.Sprintf("map %d %s", r.m.ID, r.m.Name))
	if r.elem == 0 {
		return name, true
	}
	off := addr - r.start
	return plus(fmt.Sprintf("%s[%d]", name, off/r.elem), off%r.elem), true
}
