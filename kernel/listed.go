package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kallsyms"
)

// ErrHidden says that the running kernel lists symbols without their addresses.
// It is an [fs.ErrPermission].
var ErrHidden error = hiddenError{}

type hiddenError struct{}

func (hiddenError) Error() string {
	return "/proc/kallsyms hides addresses; it takes CAP_SYSLOG and sysctl kernel.kptr_restrict below 2"
}

func (hiddenError) Unwrap() error { return fs.ErrPermission }

// Listed are the symbols that the running kernel lists in /proc/kallsyms, for
// where its memory cannot be read. Sizes are not listed: a symbol reaches up to
// the next one, and where that is another module's its size is unknown, 0.
type Listed struct {
	syms []listed // by address
}

type listed struct {
	Symbol
	typ byte // as nm(1) prints it
}

// bpfModule is what /proc/kallsyms has in place of a module for BPF code.
const bpfModule = "bpf"

// ReadListed reads the text of /proc/kallsyms. Where all addresses are hidden
// the error is [ErrHidden].
func ReadListed(r io.Reader) (*Listed, error) {
	l := new(Listed)
	hidden := true
	module := "" // symbols of a module follow each other
	for line, err := range kallsyms.ReadText(r) {
		if err != nil {
			return nil, err
		}
		if string(line.Module) != module {
			module = string(line.Module)
		}
		s := listed{Symbol{Name: string(line.Name), Addr: line.Addr, Kind: KindKernel}, line.Type}
		switch {
		case module == bpfModule:
			s.Kind = bpfKind(s.Name)
		case module != "":
			s.Kind, s.Module = KindModule, module
		}
		hidden = hidden && s.Addr == 0
		l.syms = append(l.syms, s)
	}
	if len(l.syms) == 0 {
		return nil, errors.New("/proc/kallsyms lists no symbols")
	}
	if hidden {
		return nil, ErrHidden
	}
	slices.SortStableFunc(l.syms, func(a, b listed) int { return cmp.Compare(a.Addr, b.Addr) })
	l.measure()
	return l, nil
}

// bpfKind tells code of programs by their names (bpf_get_prog_name in
// kernel/bpf/core.c) from trampolines, dispatchers and struct_ops images.
func bpfKind(name string) Kind {
	if strings.HasPrefix(name, "bpf_prog_") {
		return KindBPF
	}
	return KindTrampoline
}

// measure sets sizes.
func (l *Listed) measure() {
	next := len(l.syms) // the first of the next address
	for i := len(l.syms) - 1; i >= 0; i-- {
		if i+1 < len(l.syms) && l.syms[i+1].Addr != l.syms[i].Addr {
			next = i + 1
		}
		s := &l.syms[i]
		// Before 6.15 the first symbols are offsets into per-CPU areas.
		if next < len(l.syms) && l.syms[next].owner() == s.owner() && l.syms[next].Addr>>63 == s.Addr>>63 {
			s.Size = l.syms[next].Addr - s.Addr
		}
	}
}

// owner is the part of the kernel that a symbol belongs to.
func (s *listed) owner() string {
	switch s.Kind {
	case KindModule:
		return s.Module
	case KindKernel:
		return ""
	}
	return "[" + bpfModule + "]"
}

// lookupOrder says in which order [Kernel.Lookup] looks.
func (s *listed) lookupOrder() int {
	switch {
	case s.Kind == KindKernel && s.typ >= 'A' && s.typ <= 'Z': // global
		return 0
	case s.Kind == KindKernel:
		return 1
	case s.Kind == KindModule:
		return 2
	}
	return 3
}

// Lookup finds a symbol as [Kernel.Lookup] does.
func (l *Listed) Lookup(name string) (Symbol, bool) {
	mod, bare, qualified := strings.Cut(name, ":")
	var best *listed
	for i := range l.syms {
		s := &l.syms[i]
		if s.Name != name && !(qualified && s.Module == mod && s.Name == bare) {
			continue
		}
		if best == nil || s.lookupOrder() < best.lookupOrder() {
			best = s
		}
	}
	if best == nil {
		return Symbol{}, false
	}
	return best.Symbol, true
}

// Find returns the symbol called name, or a [*NoSymbolError] with suggestions.
func (l *Listed) Find(name string) (Symbol, error) {
	if s, ok := l.Lookup(name); ok {
		return s, nil
	}
	names := make([]string, len(l.syms))
	for i, s := range l.syms {
		names[i] = s.Name
	}
	slices.Sort(names)
	return Symbol{}, &NoSymbolError{Name: name, Suggestions: ctype.Suggest(name, slices.Compact(names))}
}

// Match returns every symbol whose name fits the pattern, as [Kernel.Match]
// does.
func (l *Listed) Match(pattern string) ([]Symbol, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("symbol pattern %q: %w", pattern, err)
	}
	var out []Symbol
	for _, s := range l.syms {
		if ok, _ := path.Match(pattern, s.Name); ok {
			out = append(out, s.Symbol)
		}
	}
	return out, nil
}

// Symbolize returns the symbol that addr lies in and the offset into it.
func (l *Listed) Symbolize(addr uint64) (Symbol, uint64, bool) {
	end, _ := slices.BinarySearchFunc(l.syms, addr, func(s listed, a uint64) int {
		if s.Addr <= a {
			return -1
		}
		return 1
	})
	if addr>>63 == 0 || end == 0 || l.syms[end-1].Addr>>63 == 0 {
		return Symbol{}, 0, false
	}
	best := l.syms[end-1]
	for i := end - 2; i >= 0 && l.syms[i].Addr == best.Addr; i-- {
		if s := l.syms[i]; s.Kind == KindKernel && !kallsyms.Better(best.plain(), s.plain()) {
			best = s // of equals the first
		}
	}
	off := addr - best.Addr
	return best.Symbol, off, off == 0 || off < best.Size
}

func (s *listed) plain() kallsyms.Symbol {
	return kallsyms.Symbol{Name: s.Name, Addr: s.Addr, Type: s.typ, Size: s.Size}
}
