package ctype

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Place is where a member lies in a type, and what it is.
type Place struct {
	Type      *Type
	Offset    uint64 // bytes
	BitOffset uint8  // of a bitfield: bits above Offset, 0 to 7
	BitSize   uint8  // of a bitfield; else 0
}

// Size returns how many bytes from Offset hold the member.
func (p Place) Size() (int, error) {
	if p.BitSize != 0 {
		return (int(p.BitOffset) + int(p.BitSize) + 7) / 8, nil
	}
	return p.Type.Size()
}

// Limits of searches in records that may come from a damaged blob.
const (
	maxDepth = 32      // anonymous records inside each other
	maxMemo  = 1 << 16 // places remembered
)

// Member finds a member by its path from a struct, union or array type:
// "mm", "se.avg.load_sum", "cb[3].next", "[2].x". Members of anonymous structs
// and unions count as the outer one's. It does not follow pointers. Results
// are remembered. A missing member is a [*NotFoundError].
func (ts *Types) Member(t *Type, path string) (Place, error) {
	key := placeKey{t, path}
	ts.mu.Lock()
	r, ok := ts.places[key]
	ts.mu.Unlock()
	if ok {
		return r.p, r.err
	}
	r.p, r.err = ts.resolve(t, path)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if len(ts.places) < maxMemo {
		ts.places[key] = r
	}
	return r.p, r.err
}

// FirstMember returns the first of several paths that exists, and that path:
// kernels rename members. If none exists the error is the one of the first.
func (ts *Types) FirstMember(t *Type, paths ...string) (Place, string, error) {
	var first error
	for _, path := range paths {
		p, err := ts.Member(t, path)
		if err == nil {
			return p, path, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errors.New("no member path given")
	}
	return Place{}, "", first
}

// HasMember says whether a type has a member.
func (ts *Types) HasMember(t *Type, path string) bool {
	_, err := ts.Member(t, path)
	return err == nil
}

// Offsetof returns the offset in bytes of a member from the start of a type
// given by its name, as [Types.Lookup] takes it. Bitfields have none.
func (ts *Types) Offsetof(typ, path string) (int, error) {
	t, err := ts.Lookup(typ)
	if err != nil {
		return 0, err
	}
	p, err := ts.Member(t, path)
	if err != nil {
		return 0, err
	}
	if p.BitSize != 0 {
		return 0, fmt.Errorf("%s of %s is a bitfield: it has no offset in bytes", path, t)
	}
	return int(p.Offset), nil
}

func (ts *Types) resolve(t *Type, path string) (Place, error) {
	p := Place{Type: t}
	rest := path
	for n := 0; rest != ""; n++ {
		var step string
		var err error
		switch {
		case p.BitSize != 0:
			err = fmt.Errorf("member path %q: a bitfield has no members", path)
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return Place{}, fmt.Errorf("member path %q: [ without ]", path)
			}
			step, rest = rest[1:end], rest[end+1:]
			err = ts.stepIndex(&p, step)
		default:
			if n > 0 {
				if rest[0] != '.' {
					return Place{}, fmt.Errorf("member path %q: expected . or [ before %q", path, rest)
				}
				rest = rest[1:]
			}
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			step, rest = rest[:end], rest[end:]
			err = ts.stepMember(&p, step)
		}
		if err != nil {
			return Place{}, err
		}
	}
	return p, nil
}

func (ts *Types) stepIndex(p *Place, step string) error {
	i, err := strconv.ParseUint(step, 0, 32)
	if err != nil {
		return fmt.Errorf("array index %q: %w", step, err)
	}
	arr := p.Type.Strip()
	if arr.kind != Array {
		return fmt.Errorf("%s is not an array", p.Type)
	}
	size, err := ts.Sizeof(arr.Elem())
	if err != nil {
		return err
	}
	p.Type, p.Offset = arr.Elem(), p.Offset+i*uint64(size)
	return nil
}

func (ts *Types) stepMember(p *Place, name string) error {
	rec := ts.Complete(p.Type).Strip()
	if !kinds(Struct, Union).has(rec.kind) {
		return fmt.Errorf("%s has no members, so no %q", p.Type, name)
	}
	s := search{name: name, budget: maxVisits}
	m, off, ok := s.in(rec, maxDepth)
	if !ok || name == "" {
		return &NotFoundError{
			Kind: "member of " + rec.String(), Name: name,
			Suggestions: Suggest(name, memberNames(rec)),
		}
	}
	bits := off + uint64(m.Offset)
	p.Type = m.Type
	p.Offset += bits / 8
	p.BitOffset, p.BitSize = 0, uint8(m.BitSize)
	if m.BitSize != 0 {
		p.BitOffset = uint8(bits % 8)
	}
	return nil
}

// A search looks for a member by name, within a budget.
type search struct {
	name   string
	budget int
}

// in returns the member and the bit offset of the record that holds it.
func (s *search) in(rec *Type, depth int) (*Member, uint64, bool) {
	ms := rec.Members()
	for i := range ms {
		if s.budget--; s.budget < 0 {
			return nil, 0, false
		}
		m := &ms[i]
		if m.Name != "" {
			if m.Name == s.name {
				return m, 0, true
			}
			continue
		}
		if depth > 0 && m.Type.IsRecord() {
			if found, off, ok := s.in(m.Type.Strip(), depth-1); ok {
				return found, off + uint64(m.Offset), true
			}
		}
	}
	return nil, 0, false
}

// memberNames lists the names that a search in rec can find, up to a limit.
func memberNames(rec *Type) (names []string) {
	budget := maxVisits
	var walk func(t *Type, depth int)
	walk = func(t *Type, depth int) {
		for _, m := range t.Members() {
			budget--
			switch {
			case budget < 0:
				return
			case m.Name != "":
				names = append(names, m.Name)
			case depth > 0 && m.Type.IsRecord():
				walk(m.Type, depth-1)
			}
		}
	}
	walk(rec, 4)
	return names
}
