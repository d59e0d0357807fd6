package kallsyms

import (
	"bytes"
	"fmt"
	"iter"
	"path"
	"sort"
	"strings"
)

// All returns the symbols in the order of addresses, as /proc/kallsyms does.
func (t *Table) All() iter.Seq[Symbol] {
	return func(yield func(Symbol) bool) {
		off := 0
		for i := range t.addrs {
			var name []byte
			name, off = t.next(off)
			if !yield(t.symbol(i, name)) {
				return
			}
		}
	}
}

// Lookup returns the symbol of that name. Static functions of different files
// may share a name: a global symbol is preferred, then the lowest address; use
// [Table.Find] for all of them. A call passes over the whole table, so resolve
// many names with [Table.LookupAll].
func (t *Table) Lookup(name string) (Symbol, bool) {
	s, ok := t.LookupAll(name)[name]
	return s, ok
}

// LookupAll resolves many names in one pass over the table. Names that the
// kernel does not have are missing from the result. See [Table.Lookup] for
// names that occur more than once.
func (t *Table) LookupAll(names ...string) map[string]Symbol {
	found := make(map[string]Symbol, len(names))
	m := newMatcher(t, names...)
	off := 0
	for i := range t.addrs {
		var name []byte
		name, off = t.next(off)
		w := m.match(name)
		if w < 0 {
			continue
		}
		old, dup := found[m.names[w]]
		if s := t.symbol(i, name); !dup || !global(old.Type) && global(s.Type) {
			found[s.Name] = s
		}
	}
	return found
}

// Find returns the symbols whose names match the pattern, in the order of
// addresses. The pattern is that of [path.Match]; without any of * ? [ it is a
// name, and all symbols of that name are found. The error is
// [path.ErrBadPattern], wrapped.
func (t *Table) Find(pattern string) (iter.Seq[Symbol], error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("symbol pattern %q: %w", pattern, err)
	}
	// Most patterns start with plain text, which saves making a string of
	// every name of the table.
	prefix := pattern
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		prefix = pattern[:i]
	}
	return func(yield func(Symbol) bool) {
		var buf []byte
		off := 0
		for i := range t.addrs {
			var name []byte
			name, off = t.next(off)
			buf = t.expand(buf[:0], name)
			if len(buf) < 1 || !bytes.HasPrefix(buf[1:], []byte(prefix)) {
				continue
			}
			if ok, _ := path.Match(pattern, string(buf[1:])); ok && !yield(t.symbol(i, name)) {
				return
			}
		}
	}, nil
}

// At returns the symbol that addr belongs to, and the offset of addr in it. Of
// several symbols at one address it returns the one a person would name: not a
// __pfx_ or section boundary, rather global than local, without leading
// underscores. Offsets of per-CPU variables are not addresses: At does not find
// them, and nothing behind the last symbol.
func (t *Table) At(addr uint64) (s Symbol, off uint64, ok bool) {
	if addr < kernelHalf {
		return Symbol{}, 0, false
	}
	end := sort.Search(len(t.addrs), func(i int) bool { return t.addrs[i] > addr })
	if end <= t.kernel {
		return Symbol{}, 0, false
	}
	start := t.addrs[end-1]
	if end == len(t.addrs) && addr != start {
		return Symbol{}, 0, false
	}
	first := sort.Search(end, func(i int) bool { return t.addrs[i] >= start })
	pos := t.seek(first)
	for i := first; i < end; i++ {
		var name []byte
		name, pos = t.next(pos)
		alias := t.symbol(i, name)
		if i == first || rank(alias) < rank(s) {
			s = alias
		}
	}
	return s, addr - start, true
}

// symbol makes the Symbol of entry i from its compressed name.
func (t *Table) symbol(i int, name []byte) Symbol {
	var room [128]byte
	text := t.expand(room[:0], name)
	s := Symbol{Addr: t.addrs[i]}
	if len(text) > 0 {
		s.Type, s.Name = text[0], string(text[1:])
	}
	// Neighbours mostly have addresses of their own, so a linear search is
	// the short one; a long run of aliases is left to the binary one.
	next := i + 1
	if next < len(t.addrs) && t.addrs[next] == s.Addr {
		next += sort.Search(len(t.addrs)-next, func(j int) bool { return t.addrs[next+j] > s.Addr })
	}
	if next < len(t.addrs) && (t.addrs[next] < kernelHalf || s.Addr >= kernelHalf) {
		s.Size = t.addrs[next] - s.Addr
	}
	return s
}

// global reports whether a type letter says that other files see the symbol.
func global(typ byte) bool { return typ >= 'A' && typ <= 'Z' }

// rank orders the symbols of one address, the best name first.
func rank(s Symbol) int {
	r := 0
	for _, worse := range []bool{
		isPrefix(s.Name),
		isBoundary(s.Name),
		!global(s.Type),
		s.Type == 'W', // a weak alias: the strong name is what the source says
		strings.HasPrefix(s.Name, "__"),
		strings.HasPrefix(s.Name, "_"),
		strings.Contains(s.Name, "."), // .part.0, .cold: a piece of a function
	} {
		r <<= 1
		if worse {
			r |= 1
		}
	}
	return r
}

// isPrefix reports whether name marks the padding in front of a function:
// __pfx_ since 6.2 (9f2899fe36a6), __cfi_ with CONFIG_CFI_CLANG.
func isPrefix(name string) bool {
	return strings.HasPrefix(name, "__pfx_") || strings.HasPrefix(name, "__cfi_")
}

// isBoundary reports whether name is one that the linker script defines at the
// start or the end of a section. It shares its address with the first thing in
// the section, or with what follows it.
func isBoundary(name string) bool {
	switch name {
	case "_text", "_stext", "_etext", "_sinittext", "_einittext", "_sdata", "_edata", "_end":
		return true
	}
	rest, ok := strings.CutPrefix(name, "__")
	if !ok {
		return false
	}
	return strings.HasPrefix(rest, "start_") || strings.HasPrefix(rest, "stop_") ||
		strings.HasSuffix(rest, "_start") || strings.HasSuffix(rest, "_end") || strings.HasSuffix(rest, "_begin")
}
