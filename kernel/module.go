package kernel

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/ksleuth/ksleuth/mem"
)

// A Module is a loaded kernel module.
type Module struct {
	Name  string
	Addr  uint64 // of the struct module
	State string // live, coming, going or unformed
	Refs  int64  // users, the module's own excluded
	Taint uint64 // TAINT_* bits
	Parts []Range

	load    sync.Once
	syms    []Symbol // by address
	symsErr error
}

// A Range is a range of addresses, end excluded.
type Range struct{ Start, End uint64 }

// Contains says whether addr lies in the range.
func (r Range) Contains(addr uint64) bool { return addr >= r.Start && addr < r.End }

// Base returns the address of the module's text, which /proc/modules prints.
func (m *Module) Base() uint64 {
	if len(m.Parts) == 0 {
		return 0
	}
	return m.Parts[0].Start
}

// Size returns the bytes the module takes, without its discarded init part.
func (m *Module) Size() uint64 {
	var n uint64
	for _, p := range m.Parts {
		n += p.End - p.Start
	}
	return n
}

// moduleStates is enum module_state (include/linux/module.h).
var moduleStates = []string{"live", "coming", "going", "unformed"}

// moduleParts are the ways struct module has recorded its memory.
var moduleParts = []struct {
	member     string // first member of struct module that tells this layout
	base, size string // members of one part
	array      bool
	core       int // parts that are kept after initialisation
}{
	{"mem", "base", "size", true, 4},          // ac3b43283923, 6.4: text, data, rodata, ro_after_init, then init parts
	{"core_layout", "base", "size", false, 1}, // 7523e4dc5057, 4.5
}

const maxModules = 1 << 14

// Modules returns the loaded modules, newest first as the kernel lists them.
// With an error comes what was read before it.
func (k *Kernel) Modules() ([]*Module, error) { return k.modules() }

func (k *Kernel) loadModules() ([]*Module, error) {
	head, err := k.Addr("modules")
	if err != nil {
		return nil, nil // CONFIG_MODULES is off
	}
	node, err := k.Offset("module", "list")
	if err != nil {
		return nil, err
	}
	var out []*Module
	for at, err := range k.List(head) {
		if err != nil {
			return out, fmt.Errorf("modules: %w", err)
		}
		m, err := k.module(at - node)
		if err != nil {
			return out, fmt.Errorf("modules: %w", err)
		}
		if out = append(out, m); len(out) > maxModules {
			return out, fmt.Errorf("modules: more than %d: the list is damaged", maxModules)
		}
	}
	return out, nil
}

func (k *Kernel) module(addr uint64) (*Module, error) {
	o := k.Object("module", addr)
	m := &Module{Addr: addr, Name: o.Str("name"), Taint: o.Uint("taints"), State: "unknown"}
	if s := o.Uint("state"); s < uint64(len(moduleStates)) {
		m.State = moduleStates[s]
	}
	if o.Has("refcnt") { // CONFIG_MODULE_UNLOAD; MODULE_REF_BASE is 1
		m.Refs = o.Field("refcnt").Int("counter") - 1
	}
	for _, l := range moduleParts {
		if !o.Has(l.member) {
			continue
		}
		part := o.Field(l.member)
		n := 1
		if l.array {
			n = min(l.core, o.Len(l.member))
		}
		for i := range n {
			p := part.Elem(i)
			base, size := p.Uint(l.base), p.Uint(l.size)
			if size != 0 {
				m.Parts = append(m.Parts, Range{base, base + size})
			}
		}
		break
	}
	return m, o.Err()
}

// ModuleAt returns the module that addr lies in.
func (k *Kernel) ModuleAt(addr uint64) (*Module, bool) {
	mods, _ := k.modules()
	for _, m := range mods {
		for _, p := range m.Parts {
			if p.Contains(addr) {
				return m, true
			}
		}
	}
	return nil, false
}

// symbols returns the module's symbols by address: the Elf64_Syms that struct
// mod_kallsyms keeps.
func (m *Module) symbols(k *Kernel) ([]Symbol, error) {
	m.load.Do(func() { m.syms, m.symsErr = k.moduleSymbols(m) })
	return m.syms, m.symsErr
}

const (
	elfSymSize    = 24
	maxModuleSyms = 1 << 18
	maxSymName    = 512
)

func (k *Kernel) moduleSymbols(m *Module) ([]Symbol, error) {
	o := k.Object("module", m.Addr).Deref("kallsyms")
	symtab, strtab, n := o.Ptr("symtab"), o.Ptr("strtab"), o.Uint("num_symtab")
	if err := o.Err(); err != nil {
		return nil, fmt.Errorf("symbols of module %s: %w", m.Name, err)
	}
	if n > maxModuleSyms {
		return nil, fmt.Errorf("symbols of module %s: %d of them: damaged", m.Name, n)
	}
	raw, err := mem.Bytes(k.mem, symtab, int(n)*elfSymSize)
	if err != nil {
		return nil, fmt.Errorf("symbols of module %s: %w", m.Name, err)
	}
	var out []Symbol
	for ; len(raw) >= elfSymSize; raw = raw[elfSymSize:] {
		le := binary.LittleEndian
		name, value := le.Uint32(raw), le.Uint64(raw[8:])
		if section := le.Uint16(raw[6:]); section == 0 || !m.contains(value) {
			continue // undefined, or in the init part that is gone
		}
		s, err := mem.CString(k.mem, strtab+uint64(name), maxSymName)
		if err != nil {
			return nil, fmt.Errorf("symbols of module %s: %w", m.Name, err)
		}
		if s == "" {
			continue
		}
		out = append(out, Symbol{Name: s, Addr: value, Size: le.Uint64(raw[16:]), Kind: KindModule, Module: m.Name})
	}
	slices.SortStableFunc(out, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return out, nil
}

func (m *Module) contains(addr uint64) bool {
	return slices.ContainsFunc(m.Parts, func(p Range) bool { return p.Contains(addr) })
}

func (m *Module) lookup(k *Kernel, name string) (Symbol, bool) {
	syms, _ := m.symbols(k)
	i := slices.IndexFunc(syms, func(s Symbol) bool { return s.Name == name })
	if i < 0 {
		return Symbol{}, false
	}
	return syms[i], true
}

// at returns the symbol addr lies in; where the symbols are unreadable, the
// module's start stands for it.
func (m *Module) at(k *Kernel, addr uint64) (Symbol, bool) {
	syms, err := m.symbols(k)
	i, _ := slices.BinarySearchFunc(syms, addr, func(s Symbol, a uint64) int {
		if a < s.Addr {
			return 1
		}
		return -1
	})
	if i > 0 {
		return syms[i-1], true
	}
	if err != nil {
		return Symbol{Name: m.Name, Addr: m.Base(), Size: m.Size(), Kind: KindModule, Module: m.Name}, true
	}
	return Symbol{}, false
}
