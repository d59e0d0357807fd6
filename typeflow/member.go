package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
)

// A memberStep is one step of the way to a member.
type memberStep struct {
	name   string
	index  uint64 // of an array, where name is ""
	elem   uint64 // size of the array's element
	hidden bool
}

// A member is what lies at a place of a type.
type member struct {
	steps []memberStep
	typ   *ctype.Type // of what the steps lead to
	rest  uint64      // bytes into it
	fit   fit
}

// A fit says how well an access and a member go together.
type fit uint8

const (
	noFit     fit = iota // outside of the type
	holeFit              // in a record, at no member: padding or bitfields
	wholeFit             // several members at once
	partFit              // part of a scalar
	scalarFit            // a scalar
)

type memberKey struct {
	t         *ctype.Type
	off, size uint64
}

const maxDepth = 24 // records inside records

// member returns what size bytes at an offset of type t are.
func (f *Flow) member(t *ctype.Type, off, size uint64) member {
	key := memberKey{t, off, size}
	m, ok := f.members[key]
	if !ok {
		m = f.find(t, off, size, maxDepth)
		f.unwrap(t, &m)
		f.members[key] = m
	}
	return m
}

func (f *Flow) find(t *ctype.Type, off, size uint64, depth int) member {
	s := f.types.Complete(t).Strip()
	total, err := s.Size()
	if err != nil || depth == 0 {
		return member{}
	}
	switch s.Kind() {
	case ctype.Struct, ctype.Union:
		if off+size > uint64(total) && !f.flexible(s) || off+size < off {
			return member{}
		}
		return f.findInRecord(s, off, size, depth)
	case ctype.Array:
		return f.findInArray(s, off, size, depth)
	}
	switch {
	case off == 0 && size == uint64(total):
		return member{typ: t, fit: scalarFit}
	case off+size <= uint64(total):
		return member{typ: t, rest: off, fit: partFit}
	}
	return member{}
}

func (f *Flow) findInArray(s *ctype.Type, off, size uint64, depth int) member {
	n, err := f.types.Sizeof(s.Elem())
	if err != nil || n == 0 {
		return member{}
	}
	es := uint64(n)
	if s.Len() != 0 && off/es >= uint64(s.Len()) {
		return member{}
	}
	m := f.find(s.Elem(), off%es, size, depth-1)
	if m.fit == noFit { // over the end of an element
		return member{typ: s, rest: off, fit: wholeFit}
	}
	m.steps = append([]memberStep{{index: off / es, elem: es}}, m.steps...)
	return m
}

// flexible says whether a record ends in an array without a length.
func (f *Flow) flexible(s *ctype.Type) bool {
	ms := s.Members()
	if len(ms) == 0 {
		return false
	}
	a := ms[len(ms)-1].Type.Strip()
	return a.Kind() == ctype.Array && a.Len() == 0
}

func (f *Flow) findInRecord(s *ctype.Type, off, size uint64, depth int) member {
	best := member{typ: s, rest: off, fit: holeFit}
	if total, err := s.Size(); err == nil && off == 0 && size == uint64(total) {
		best.fit = wholeFit
	}
	ms := s.Members()
	for i, m := range ms {
		start := uint64(m.Offset / 8)
		if m.BitSize != 0 || off < start {
			continue
		}
		n, err := f.types.Sizeof(m.Type)
		// An array without a length reaches on from the end of a record; elsewhere it
		// marks a place.
		open := err == nil && n == 0 && (i == len(ms)-1 || s.Kind() == ctype.Union)
		if err != nil || off >= start+uint64(n) && !open {
			continue
		}
		sub := f.find(m.Type, off-start, size, depth-1)
		if m.Name != "" {
			sub.steps = append([]memberStep{{name: m.Name}}, sub.steps...)
		}
		if sub.fit > best.fit {
			best = sub
		}
		if best.fit == scalarFit && (m.Name != "" || s.Kind() == ctype.Struct) {
			break
		}
	}
	return best
}

// unwrap marks the members at the end of the way that wrap a single number.
func (f *Flow) unwrap(t *ctype.Type, m *member) {
	if m.fit < partFit || m.typ.Strip().Kind() == ctype.Pointer {
		return
	}
	at := t
	first := len(m.steps)
	for i, st := range m.steps {
		wraps := false
		if st.name == "" {
			at = f.types.Complete(at).Strip().Elem()
		} else {
			rec := f.types.Complete(at).Strip()
			wraps = wrapper(rec)
			p, err := f.types.Member(rec, st.name)
			if err != nil {
				return
			}
			at = p.Type
		}
		switch {
		case !wraps:
			first = len(m.steps)
		case first == len(m.steps) && i > 0:
			first = i
		}
	}
	for i := first; i < len(m.steps); i++ {
		m.steps[i].hidden = true
	}
}

// wrapper says whether a record has one member, and that is all there is to it.
func wrapper(s *ctype.Type) bool {
	ms := s.Members()
	if len(ms) != 1 || ms[0].Name == "" || ms[0].BitSize != 0 {
		return false
	}
	a, err1 := s.Size()
	b, err2 := ms[0].Type.Size()
	return err1 == nil && err2 == nil && a == b
}

// bitfield returns the bitfield at a bit of a record, if it has exactly that width.
func (f *Flow) bitfield(rec *ctype.Type, bit uint64, width int) (names []string, typ *ctype.Type, ok bool) {
	return f.findBits(f.types.Complete(rec).Strip(), bit, width, maxDepth)
}

func (f *Flow) findBits(s *ctype.Type, bit uint64, width, depth int) (names []string, typ *ctype.Type, ok bool) {
	if depth == 0 {
		return nil, nil, false
	}
	for _, m := range s.Members() {
		start := uint64(m.Offset)
		if m.BitSize != 0 {
			if start == bit && int(m.BitSize) == width && m.Name != "" {
				return []string{m.Name}, m.Type, true
			}
			continue
		}
		in := f.types.Complete(m.Type).Strip()
		n, err := in.Size()
		if err != nil || !in.IsRecord() || bit < start || bit >= start+8*uint64(n) {
			continue
		}
		if sub, t, ok := f.findBits(in, bit-start, width, depth-1); ok {
			if m.Name != "" {
				sub = append([]string{m.Name}, sub...)
			}
			return sub, t, true
		}
	}
	return nil, nil, false
}
