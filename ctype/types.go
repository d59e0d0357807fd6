// Package ctype knows the C types of a target kernel, from its BTF, and reads
// values of these types from its memory.
//
// [Types] finds types by name, [Value] is a typed place in memory, [FormatType]
// and [FormatValue] print. Nothing here trusts the BTF or the memory: both may come from a
// damaged dump.
package ctype

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
)

// ErrNotFound is wrapped by every [NotFoundError].
var ErrNotFound = errors.New("not found")

// A NotFoundError says that a target has no such type or member.
type NotFoundError struct {
	Kind        string   // what was looked for: "struct", "member of struct page"
	Name        string   // its name
	Suggestions []string // existing names that are close to Name, best first
}

// Error is one line; it offers the suggestions.
func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("no %s %q", e.Kind, e.Name)
	if head, rest, ok := strings.Cut(e.Kind, " of "); ok {
		s = fmt.Sprintf("%s has no %s %q", rest, head, e.Name)
	}
	if len(e.Suggestions) > 0 {
		s += "; did you mean " + strings.Join(e.Suggestions, ", ") + "?"
	}
	return s
}

// Unwrap returns [ErrNotFound].
func (e *NotFoundError) Unwrap() error { return ErrNotFound }

// Types are the types of one target: those of vmlinux and of its modules. It
// is safe for concurrent use.
type Types struct {
	vmlinux *table

	mu      sync.Mutex
	modules []*module
	places  map[placeKey]placeResult
}

// A module's BTF is split: it continues the ids and strings of vmlinux.
type module struct {
	name string
	raw  []byte
	once sync.Once
	t    *table // nil if damaged
	err  error
}

type placeKey struct {
	t    *Type
	path string
}

type placeResult struct {
	p   Place
	err error
}

// New indexes a raw BTF blob, usually vmlinux's (from __start_BTF, or
// /sys/kernel/btf/vmlinux). The blob is kept and must not change. Errors are a
// [*FormatError].
func New(blob []byte) (*Types, error) {
	t, err := newTable("vmlinux", blob, nil)
	if err != nil {
		return nil, err
	}
	return &Types{vmlinux: t, places: make(map[placeKey]placeResult)}, nil
}

// Read is [New] for the blob at the start of r; it reads as many bytes as the
// blob's header tells.
func Read(r io.ReaderAt) (*Types, error) {
	blob, err := readBlob("vmlinux", r)
	if err != nil {
		return nil, err
	}
	return New(blob)
}

// AddModule adds the split BTF of a module. It is parsed when a name is not
// found in vmlinux; only the header is checked here. A module of the same name
// is replaced.
func (ts *Types) AddModule(name string, raw []byte) error {
	if _, err := parseHeader(name, raw, len(raw)); err != nil {
		return err
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for i, m := range ts.modules {
		if m.name == name {
			ts.modules[i] = &module{name: name, raw: raw}
			return nil
		}
	}
	ts.modules = append(ts.modules, &module{name: name, raw: raw})
	return nil
}

// ModuleErrors returns what was found wrong with the modules' BTF so far.
func (ts *Types) ModuleErrors() (errs []error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, m := range ts.modules {
		if m.err != nil {
			errs = append(errs, m.err)
		}
	}
	return errs
}

// tables yields vmlinux and then each module, parsed now if it has not been.
func (ts *Types) tables(yield func(*table) bool) {
	if !yield(ts.vmlinux) {
		return
	}
	ts.mu.Lock()
	mods := ts.modules[:len(ts.modules):len(ts.modules)]
	ts.mu.Unlock()
	for _, m := range mods {
		m.once.Do(func() {
			t, err := newTable(m.name, m.raw, ts.vmlinux)
			ts.mu.Lock()
			m.t, m.err = t, err
			ts.mu.Unlock()
		})
		if m.err == nil && !yield(m.t) {
			return
		}
	}
}

// The C name spaces: tags, and ordinary identifiers that are types.
var (
	namedKinds = kinds(Typedef, Int, Float)
	tagKinds   = kinds(Struct, Union, Enum, Enum64)
)

// bareOrder is the order in which a bare name is tried.
var bareOrder = [...]kindSet{namedKinds, kinds(Struct), kinds(Union), kinds(Enum, Enum64), kinds(Func), kinds(Var), kinds(Fwd)}

// keywords are the prefixes that restrict a lookup.
var keywords = map[string]kindSet{
	"struct":  kinds(Struct),
	"union":   kinds(Union),
	"enum":    kinds(Enum, Enum64),
	"typedef": namedKinds,
	"func":    kinds(Func),
	"var":     kinds(Var),
}

// Lookup finds a type by "struct NAME", "union NAME", "enum NAME", "typedef
// NAME", "func NAME", "var NAME" (the per-CPU variables have one) or a bare
// NAME, which is tried as typedef or integer, struct, union, enum, function and
// variable, in this order. Of several types of one name the first of vmlinux
// wins, then the first of the modules. The error is a [*NotFoundError].
func (ts *Types) Lookup(name string) (*Type, error) {
	name = strings.TrimSpace(name)
	if word, rest, ok := strings.Cut(name, " "); ok {
		if set, ok := keywords[word]; ok {
			return ts.lookup(word, strings.TrimSpace(rest), set)
		}
	}
	for _, set := range bareOrder {
		if t := ts.first(name, set); t != nil {
			return t, nil
		}
	}
	return nil, ts.notFound("type", name, namedKinds|tagKinds|kinds(Func))
}

// LookupAll returns all types of a name, of whatever kind, vmlinux's first.
func (ts *Types) LookupAll(name string) (found []*Type) {
	for t := range ts.tables {
		found = append(found, t.find(name, ^kindSet(0))...)
	}
	return found
}

// Match yields the types of a kind whose names fit, by number, vmlinux's first.
// What does not fit is not decoded: to go over all functions of a kernel takes
// milliseconds. fits must not keep the bytes.
func (ts *Types) Match(kind Kind, fits func(name []byte) bool) iter.Seq[*Type] {
	return func(yield func(*Type) bool) {
		for t := range ts.tables {
			for i := range t.offs {
				if t.kindAt(i) == kind && fits(t.nameAt(i)) && !yield(t.byID(t.firstID+uint32(i))) {
					return
				}
			}
		}
	}
}

// Struct finds a struct by its tag. The error is a [*NotFoundError].
func (ts *Types) Struct(name string) (*Type, error) { return ts.lookup("struct", name, kinds(Struct)) }

// ByID returns the type with a number in vmlinux's BTF (or the only one's), or
// in that of a module; 0 is void. The error is a [*NotFoundError].
func (ts *Types) ByID(module string, id uint32) (*Type, error) {
	for t := range ts.tables {
		if t.name != module && (module != "" || t != ts.vmlinux) {
			continue
		}
		if typ := t.byID(id); typ.kind != Unknown {
			return typ, nil
		}
		break
	}
	return nil, &NotFoundError{Kind: "type id", Name: fmt.Sprint(id)}
}

// Text returns the text at an offset into the strings of vmlinux's BTF (or the
// only one's), by which line info names files and lines. A bad offset gives a
// text that says so.
func (ts *Types) Text(off uint32) string { return ts.vmlinux.str(off) }

// FuncProto returns the prototype of a kernel function. The error is a
// [*NotFoundError].
func (ts *Types) FuncProto(name string) (*Type, error) {
	t, err := ts.lookup("func", name, kinds(Func))
	if err != nil {
		return nil, err
	}
	return t.Elem(), nil
}

// IsTypedef says whether a bare name is a type in C: a typedef or an integer of
// the target. Modules are asked too, if they have been parsed.
func (ts *Types) IsTypedef(name string) bool {
	if len(ts.vmlinux.find(name, namedKinds)) > 0 {
		return true
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, m := range ts.modules {
		if m.t != nil && len(m.t.find(name, namedKinds)) > 0 {
			return true
		}
	}
	return false
}

// Enumerator finds an enumeration constant and the enum it is of. It scans all
// enums of vmlinux (about a millisecond), then those of the modules.
func (ts *Types) Enumerator(name string) (Enumerator, *Type, error) {
	for t := range ts.tables {
		if e, typ, ok := t.enumerator(name); ok {
			return e, typ, nil
		}
	}
	return Enumerator{}, nil, &NotFoundError{Kind: "enumerator", Name: name}
}

// Complete returns the definition of a forward-declared struct or union, from
// whatever module has it; other types are returned as they are.
func (ts *Types) Complete(t *Type) *Type {
	s := t.Strip()
	if s.kind != Fwd {
		return t
	}
	set := kinds(Struct)
	if s.flag {
		set = kinds(Union)
	}
	if full := ts.first(s.name, set); full != nil {
		return full
	}
	return t
}

// Sizeof returns the size of a type in bytes.
func (ts *Types) Sizeof(t *Type) (int, error) { return ts.Complete(t).Size() }

func (ts *Types) lookup(what, name string, set kindSet) (*Type, error) {
	if t := ts.first(name, set); t != nil {
		return t, nil
	}
	return nil, ts.notFound(what, name, set)
}

func (ts *Types) first(name string, set kindSet) *Type {
	for t := range ts.tables {
		if found := t.find(name, set); len(found) > 0 {
			return found[0]
		}
	}
	return nil
}

func (ts *Types) notFound(what, name string, set kindSet) error {
	s := newSuggester(name)
	for t := range ts.tables {
		for i := range t.offs {
			if set.has(t.kindAt(i)) {
				s.consider(t.nameAt(i))
			}
		}
	}
	return &NotFoundError{Kind: what, Name: name, Suggestions: s.best()}
}

// enumerator searches the enums by string offset: one comparison a constant.
func (t *table) enumerator(name string) (Enumerator, *Type, bool) {
	offs := t.stringOffsets(name)
	if len(offs) == 0 {
		return Enumerator{}, nil, false
	}
	for i, start := range t.offs {
		k := t.kindAt(i)
		if k != Enum && k != Enum64 {
			continue
		}
		l := kindLayout[k]
		n := int(le.Uint32(t.raw[start+4:]) & 0xffff)
		for j := range n {
			if !offs[le.Uint32(t.raw[int(start)+btfTypeLen+j*l.elem:])] {
				continue
			}
			typ := t.byID(t.firstID + uint32(i))
			return typ.Enumerators()[j], typ, true
		}
	}
	return Enumerator{}, nil, false
}

// stringOffsets returns the offsets at which a whole string stands, in this
// table and its base.
func (t *table) stringOffsets(name string) map[uint32]bool {
	out := make(map[uint32]bool)
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return out
	}
	for ; t != nil; t = t.base {
		for at := 0; ; {
			i := bytes.Index(t.strs[at:], []byte(name+"\x00"))
			if i < 0 {
				break
			}
			if at += i; at == 0 || t.strs[at-1] == 0 {
				out[t.firstStr+uint32(at)] = true
			}
			at++
		}
	}
	return out
}
