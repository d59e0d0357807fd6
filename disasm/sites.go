package disasm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// A site is an instruction that the kernel itself rewrites while it runs.
type site interface {
	// describe says what stands at the site now, and what it depends on.
	describe(d *Disassembler, in *x86.Inst, next []byte) string
}

// A siteTable is a list of sites that the kernel and each module have. The
// entries of all of them hold the distance from themselves to what they mean:
// static calls from the beginning (9183c3f9ed71, 5.10), jump labels since
// 9ae033aca8d6 (4.19). Lists that are freed once the kernel has booted, of
// alternatives, retpolines and return thunks, are not among them.
type siteTable struct {
	what        string
	entry       string // struct of an entry
	start, stop string // symbols around the kernel's list
	list, count string // members of struct module
	read        func(e entry) (addr uint64, s site)
}

var siteTables = []siteTable{
	{
		what: "static calls", entry: "static_call_site",
		start: "__start_static_call_sites", stop: "__stop_static_call_sites",
		list: "static_call_sites", count: "num_static_call_sites",
		read: func(e entry) (uint64, site) {
			key, flags := e.flagged("key")
			return e.rel("addr"), staticCall{key: key, tail: flags&1 != 0}
		},
	},
	{
		what: "static keys", entry: "jump_entry",
		start: "__start___jump_table", stop: "__stop___jump_table",
		list: "jump_entries", count: "num_jump_entries",
		read: func(e entry) (uint64, site) {
			key, flags := e.flagged("key")
			return e.rel("code"), staticKey{key: key, target: e.rel("target"), likely: flags&1 != 0}
		},
	},
}

// tableSymbols are the symbols that sites need, looked up together.
var tableSymbols = []string{
	"__start_static_call_sites", "__stop_static_call_sites", "__start___jump_table", "__stop___jump_table",
	"ftrace_pages_start", "ftrace_ops_list", "__bpf_call_base",
}

// maxTable bounds a list of sites, in bytes.
const maxTable = 64 << 20

// An entry is one entry of a table of sites.
type entry struct {
	addr    uint64
	raw     []byte
	members map[string]memberPlace
}

type memberPlace struct{ off, size uint64 }

// rel returns what a member means: its own address and its value together.
func (e entry) rel(name string) uint64 {
	m := e.members[name]
	v := uint64(int64(int32(binary.LittleEndian.Uint32(e.raw[m.off:]))))
	if m.size == 8 {
		v = binary.LittleEndian.Uint64(e.raw[m.off:])
	}
	return e.addr + m.off + v
}

// flagged is rel for a member with flags in its low two bits, which are not
// part of the distance.
func (e entry) flagged(name string) (addr, flags uint64) {
	m := e.members[name]
	flags = uint64(e.raw[m.off] & 3)
	return e.rel(name) - flags, flags
}

// sitesIn returns the sites in a range of code. What could not be read is told
// to fail.
func (d *Disassembler) sitesIn(start, end uint64, fail func(string, error)) map[uint64]site {
	out := make(map[uint64]site)
	if d.k == nil {
		return out // BPF code has none
	}
	if s, _, ok := d.k.Symbolize(start); ok && s.Kind != kernel.KindKernel && s.Kind != kernel.KindModule {
		return out
	}
	lists := d.siteLists(start, end, fail)
	for _, l := range lists {
		members, size, err := d.members(l.table)
		if err != nil {
			continue // a kernel without them
		}
		raw, err := l.bytes(d.k, size)
		if err != nil {
			fail("no notes on "+l.table.what, err)
			continue
		}
		for i := uint64(0); i+size <= uint64(len(raw)); i += size {
			addr, s := l.table.read(entry{l.addr + i, raw[i : i+size], members})
			if addr >= start && addr < end {
				out[addr] = s
			}
		}
	}
	d.ftraceSites(start, end, out, fail)
	return out
}

// A siteList is the list of one table that the kernel or a module has.
type siteList struct {
	table siteTable
	addr  uint64
	n     uint64 // entries; 0 where bytes are given
	size  uint64 // in bytes, of all
}

// siteLists returns the lists whose sites may lie in a range.
func (d *Disassembler) siteLists(start, end uint64, fail func(string, error)) []siteList {
	var out []siteList
	if s, _, ok := d.k.Symbolize(start); ok && s.Kind == kernel.KindKernel {
		for _, t := range siteTables {
			first, ok1 := d.symbols()[t.start]
			last, ok2 := d.symbols()[t.stop]
			if ok1 && ok2 && last.Addr > first.Addr {
				out = append(out, siteList{table: t, addr: first.Addr, size: last.Addr - first.Addr})
			}
		}
		return out
	}
	mods, _ := d.k.Modules()
	for _, m := range mods {
		if !slices.ContainsFunc(m.Parts, func(p kernel.Range) bool { return p.Start < end && start < p.End }) {
			continue
		}
		o := d.k.Object("module", m.Addr)
		for _, t := range siteTables {
			if o.Has(t.list) {
				out = append(out, siteList{table: t, addr: o.Ptr(t.list), n: o.Uint(t.count)})
			}
		}
		fail("no notes on sites of module "+m.Name, o.Err())
	}
	return out
}

func (l siteList) bytes(k *kernel.Kernel, size uint64) ([]byte, error) {
	n := l.size
	if n == 0 {
		if l.n > maxTable/size {
			return nil, fmt.Errorf("%d entries: damaged", l.n)
		}
		n = l.n * size
	}
	if n > maxTable {
		return nil, fmt.Errorf("%d bytes: damaged", n)
	}
	return mem.Bytes(k.Mem(), l.addr, int(n))
}

// members returns where the members of a table's entries are.
func (d *Disassembler) members(t siteTable) (map[string]memberPlace, uint64, error) {
	types, err := d.k.Types()
	if err != nil {
		return nil, 0, err
	}
	rec, err := types.Struct(t.entry)
	if err != nil {
		return nil, 0, err
	}
	out := make(map[string]memberPlace)
	for _, m := range rec.Members() {
		size, err := m.Type.Size()
		if err != nil || size != 4 && size != 8 {
			return nil, 0, fmt.Errorf("%s.%s has %d bytes", t.entry, m.Name, size)
		}
		out[m.Name] = memberPlace{uint64(m.Offset / 8), uint64(size)}
	}
	size, err := rec.Size()
	if err == nil && size == 0 {
		err = fmt.Errorf("struct %s is empty", t.entry)
	}
	return out, uint64(size), err
}
