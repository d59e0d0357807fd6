package kernel

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/kallsyms"
	"github.com/ksleuth/ksleuth/mem"
)

// A Kind says what sort of code or data a symbol belongs to.
type Kind string

// The kinds of symbols. The first five are the kinds of stack frames, too.
const (
	KindKernel     Kind = "kernel"
	KindModule     Kind = "module"
	KindBPF        Kind = "bpf"        // a BPF program or subprogram
	KindTrampoline Kind = "trampoline" // a BPF trampoline, dispatcher or struct_ops image
	KindEntry      Kind = "entry"      // low-level entry code: where the kernel was entered
	KindUser       Kind = "user"
)

// A Symbol is a named range of the kernel's address space.
type Symbol struct {
	Name   string
	Addr   uint64
	Size   uint64 // bytes up to the next symbol, where the true size is not recorded
	Kind   Kind
	Module string // name of the module, for KindModule
}

// String returns the symbol's name, with its module behind it as the kernel
// prints it.
func (s Symbol) String() string {
	if s.Module != "" {
		return s.Name + " [" + s.Module + "]"
	}
	return s.Name
}

// loadSymbols finds the kernel's own symbol table.
func (k *Kernel) loadSymbols(stext uint64) (*kallsyms.Table, error) {
	anchor := kallsyms.Anchor{Name: "_stext", Addr: stext}
	loc, ok := kallsyms.LocationsFrom(k.info.Symbol)
	if !ok { // before 5fd8fea935a1 (6.0)
		start, end := k.rodata(stext)
		var err error
		if loc, err = kallsyms.Scan(k.mem, start, end); err != nil {
			return nil, fmt.Errorf("the kernel's symbol table: %w", err)
		}
	}
	t, err := kallsyms.Load(k.mem, loc, anchor)
	if err != nil {
		return nil, fmt.Errorf("the kernel's symbol table: %w", err)
	}
	return t, nil
}

// leastRodata is less than any kernel's read-only data, and more than the pages
// of the freed gap in front of it that can look like it: a page there that BPF
// code came to use is read-only in the image's mapping as well, for changes of
// permissions go to all mappings of a page (cpa_process_alias).
const leastRodata = 1 << 20

// rodata returns the range of the kernel image's read-only data, by what the
// page tables permit: the image is text (executable), read-only data, data.
func (k *Kernel) rodata(stext uint64) (start, end uint64) {
	for at := stext; at < stext+maxImage; {
		m, err := k.mem.Walk(at)
		next := at&^(m.Size-1) + m.Size
		if err != nil {
			next = at + 4096
		}
		switch ro := err == nil && !m.Exec && !m.Writable; {
		case ro && start == 0:
			start = at
		case !ro && start != 0 && at-start >= leastRodata:
			return start, at
		case !ro:
			start = 0
		}
		at = next
	}
	return stext, stext + maxImage
}

// Lookup finds a symbol by its name: in the kernel, then in modules, where
// "module:name" asks for one module alone, then among BPF programs.
func (k *Kernel) Lookup(name string) (Symbol, bool) {
	mod, bare, qualified := strings.Cut(name, ":")
	if !qualified {
		bare = name
		if s, ok := k.coreLookup(name); ok {
			return coreSymbol(s), true
		}
	}
	mods, _ := k.modules() // a list cut short still has symbols
	for _, m := range mods {
		if qualified && m.Name != mod {
			continue
		}
		if s, ok := m.lookup(k, bare); ok {
			return s, true
		}
	}
	text, _ := k.bpfText()
	for _, t := range text {
		if t.Name == name {
			return t.symbol(), true
		}
	}
	return Symbol{}, false
}

// wellKnown are the symbols that ksleuth itself asks for, besides globals. They
// are looked up in one pass over the table: its names are compressed, and a
// pass takes milliseconds.
var wellKnown = []string{
	"_end", "_stext", "_sinittext", "_einittext", "__start_BTF", "__stop_BTF", "__per_cpu_offset", "__cpu_present_mask", "__cpu_possible_mask", "runqueues",
	"tk_core", "bpf_map_offload_ops", "vmemmap_base", "__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind", "__stop_orc_unwind", "__start_orc_header",
	"trampoline_table", "trampoline_key_table", "trampoline_ip_table", "perf_cpu_context", "pmus",
}

// coreLookup finds one of the kernel's own symbols.
func (k *Kernel) coreLookup(name string) (kallsyms.Symbol, bool) {
	if _, ours := globals[name]; ours || slices.Contains(wellKnown, name) {
		s, ok := k.known()[name]
		return s, ok
	}
	return k.syms.Lookup(name)
}

func (k *Kernel) lookupKnown() map[string]kallsyms.Symbol {
	names := slices.Clone(wellKnown)
	for name := range globals {
		names = append(names, name)
	}
	return k.syms.LookupAll(names...)
}

// LookupAll finds several of the kernel's own symbols in one pass over the
// table; names it does not have are left out.
func (k *Kernel) LookupAll(names ...string) map[string]Symbol {
	out := make(map[string]Symbol, len(names))
	for name, s := range k.syms.LookupAll(names...) {
		out[name] = coreSymbol(s)
	}
	return out
}

// PerCPUSymbols returns the symbols of per-CPU variables by offset into a CPU's
// area, for kernels that link that area at address 0; since 9d7de2aa8b41 (6.15)
// it is linked with the rest of the kernel, and there are none.
func (k *Kernel) PerCPUSymbols() []Symbol {
	var out []Symbol
	for s := range k.syms.All() {
		if s.Addr>>63 != 0 {
			break
		}
		out = append(out, coreSymbol(s))
	}
	return out
}

// Addr returns the address of one of the kernel's own symbols.
func (k *Kernel) Addr(name string) (uint64, error) {
	s, ok := k.coreLookup(name)
	if !ok {
		return 0, &NoSymbolError{Name: name}
	}
	return s.Addr, nil
}

// A NoSymbolError says that a kernel has no symbol of a name.
type NoSymbolError struct {
	Name        string
	Suggestions []string // names that come near
}

// Error says which name is missing and which ones come near.
func (e *NoSymbolError) Error() string {
	s := "this kernel has no symbol " + e.Name
	if len(e.Suggestions) > 0 {
		s += " (did you mean " + strings.Join(e.Suggestions, ", ") + "?)"
	}
	return s
}

// Find returns the symbol called name, or a [*NoSymbolError] with suggestions.
func (k *Kernel) Find(name string) (Symbol, error) {
	if s, ok := k.Lookup(name); ok {
		return s, nil
	}
	return Symbol{}, &NoSymbolError{Name: name, Suggestions: k.syms.Suggest(name)}
}

// Match returns every symbol of the kernel, its modules and BPF programs whose
// name fits the glob pattern (see [path.Match]), by address.
func (k *Kernel) Match(pattern string) ([]Symbol, error) {
	core, err := k.syms.Find(pattern)
	if err != nil {
		return nil, err
	}
	var out []Symbol
	for s := range core {
		out = append(out, coreSymbol(s))
	}
	add := func(s Symbol) {
		if ok, _ := path.Match(pattern, s.Name); ok { // Find has checked the pattern
			out = append(out, s)
		}
	}
	mods, _ := k.modules()
	for _, m := range mods {
		syms, _ := m.symbols(k)
		for _, s := range syms {
			add(s)
		}
	}
	text, _ := k.bpfText()
	for _, t := range text {
		add(t.symbol())
	}
	slices.SortStableFunc(out, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return out, nil
}

// Symbolize returns the symbol that addr lies in and the offset into it.
func (k *Kernel) Symbolize(addr uint64) (Symbol, uint64, bool) {
	if addr >= kernelMap {
		if s, off, ok := k.syms.At(addr); ok && k.inImage(addr) {
			return coreSymbol(s), off, true
		}
	}
	if addr>>63 == 0 {
		return Symbol{}, 0, false
	}
	if t, ok := k.BPFTextAt(addr); ok {
		return t.symbol(), addr - t.Start, true
	}
	if m, ok := k.ModuleAt(addr); ok {
		if s, ok := m.at(k, addr); ok {
			return s, addr - s.Addr, true
		}
	}
	return Symbol{}, 0, false
}

// inImage says whether addr lies in the kernel's image: the last symbol of
// kallsyms would otherwise claim everything above it.
func (k *Kernel) inImage(addr uint64) bool {
	end, ok := k.coreLookup("_end")
	return !ok || addr < end.Addr
}

// FormatAddr returns "symbol+0xoffset", or the bare address in hexadecimal.
func (k *Kernel) FormatAddr(addr uint64) string {
	s, off, ok := k.Symbolize(addr)
	if !ok {
		return fmt.Sprintf("0x%x", addr)
	}
	if off == 0 {
		return s.String()
	}
	if s.Module != "" {
		return fmt.Sprintf("%s+0x%x [%s]", s.Name, off, s.Module)
	}
	return fmt.Sprintf("%s+0x%x", s.Name, off)
}

func coreSymbol(s kallsyms.Symbol) Symbol {
	return Symbol{Name: s.Name, Addr: s.Addr, Size: s.Size, Kind: KindKernel}
}

// BPFText is a range of code that BPF generated: struct bpf_ksym on the list
// bpf_kallsyms (535911c80ad4, 5.7).
type BPFText struct {
	Start, End uint64
	Name       string // as in /proc/kallsyms: bpf_prog_TAG_NAME, bpf_trampoline_ID, bpf_dispatcher_NAME
	Ksym       uint64 // address of the struct bpf_ksym
	Program    bool   // a program or subprogram; else an image (trampoline, dispatcher)
}

func (t BPFText) symbol() Symbol {
	kind := KindTrampoline
	if t.Program {
		kind = KindBPF
	}
	return Symbol{Name: t.Name, Addr: t.Start, Size: t.End - t.Start, Kind: kind}
}

// BPFText returns the code that BPF generated, by address. With an error comes
// what was read before it.
func (k *Kernel) BPFText() ([]BPFText, error) { return k.bpfText() }

// BPFTextAt returns the generated code that addr lies in.
func (k *Kernel) BPFTextAt(addr uint64) (BPFText, bool) {
	text, _ := k.bpfText()
	i, _ := slices.BinarySearchFunc(text, addr, func(t BPFText, a uint64) int {
		if a < t.Start {
			return 1
		}
		return -1
	})
	if i == 0 || addr >= text[i-1].End {
		return BPFText{}, false
	}
	return text[i-1], true
}

const maxBPFName = 512 // KSYM_NAME_LEN

func (k *Kernel) loadBPFText() ([]BPFText, error) {
	head, err := k.Addr("bpf_kallsyms")
	if err != nil {
		return nil, err
	}
	node, err := k.Offset("bpf_ksym", "lnode")
	if err != nil {
		return nil, err
	}
	var out []BPFText
	for at, err := range k.List(head) {
		if err != nil {
			return sortText(out), fmt.Errorf("BPF symbols: %w", err)
		}
		o := k.Object("bpf_ksym", at-node)
		t := BPFText{Start: o.Uint("start"), End: o.Uint("end"), Ksym: o.Addr, Program: o.Bool("prog")}
		t.Name, _ = mem.CString(k.mem, o.At("name"), maxBPFName)
		if err := o.Err(); err != nil {
			return sortText(out), fmt.Errorf("BPF symbols: %w", err)
		}
		if t.End > t.Start {
			out = append(out, t)
		}
	}
	return sortText(out), nil
}

func sortText(t []BPFText) []BPFText {
	slices.SortFunc(t, func(a, b BPFText) int { return cmp.Compare(a.Start, b.Start) })
	return t
}
