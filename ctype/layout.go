package ctype

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
)

// A Layout says where some members of a type lie, looked up once, so that a
// walk over many objects costs one read for each.
type Layout struct {
	Type   *Type
	Size   int // of the type, bytes
	names  []string
	places []Place // Type is nil for an optional member that is missing
	lo, hi uint64  // the bytes that hold all members
}

// maxRecord bounds what one [Layout.Read] reads; the largest struct of a
// kernel that is walked in numbers (task_struct) has some 10 KiB.
const maxRecord = 1 << 20

// Layout looks up members of a type given by its name. A member is a path as
// for [Types.Member]; "__state|state" takes the first that exists, and an empty
// alternative ("recent_used_cpu|") makes it optional: see [Record.Has].
func (ts *Types) Layout(typ string, members ...string) (*Layout, error) {
	t, err := ts.Lookup(typ)
	if err != nil {
		return nil, err
	}
	return ts.LayoutOf(t, members...)
}

// LayoutOf is [Types.Layout] for a type.
func (ts *Types) LayoutOf(t *Type, members ...string) (*Layout, error) {
	size, err := ts.Sizeof(t)
	if err != nil {
		return nil, err
	}
	l := &Layout{Type: t, Size: size, names: members, lo: uint64(size)}
	for _, member := range members {
		paths := strings.Split(member, "|")
		optional := len(paths) > 1 && paths[len(paths)-1] == ""
		if optional {
			paths = paths[:len(paths)-1]
		}
		p, _, err := ts.FirstMember(t, paths...)
		if err != nil {
			if !optional {
				return nil, err
			}
			l.places = append(l.places, Place{})
			continue
		}
		n, err := p.bytes()
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", member, err)
		}
		l.places = append(l.places, p)
		l.lo, l.hi = min(l.lo, p.Offset), max(l.hi, p.Offset+n)
	}
	l.lo = min(l.lo, l.hi)
	if l.hi-l.lo > maxRecord {
		return nil, fmt.Errorf("members of %s span %d bytes, more than %d", t, l.hi-l.lo, maxRecord)
	}
	return l, nil
}

// bytes returns how many bytes from Offset hold the member.
func (p Place) bytes() (uint64, error) {
	if p.BitSize != 0 {
		return (uint64(p.BitOffset) + uint64(p.BitSize) + 7) / 8, nil
	}
	n, err := p.Type.Size()
	return uint64(n), err
}

// Place returns where the i-th member lies.
func (l *Layout) Place(i int) Place { return l.places[i] }

// Offset returns the offset in bytes of the i-th member.
func (l *Layout) Offset(i int) uint64 { return l.places[i].Offset }

// A Record holds the members of one object. Its methods take the index of a
// member in the Layout's list and never fail.
type Record struct {
	l    *Layout
	addr uint64
	data []byte // from l.lo
}

// Read reads the members of the object at addr. buf is used for the bytes if it
// is large enough, so one buffer serves a walk; each Record is then valid until
// the next. The error is the reader's, prefixed with the type.
func (l *Layout) Read(r mem.Reader, addr uint64, buf *[]byte) (Record, error) {
	n := int(l.hi - l.lo)
	var b []byte
	if buf == nil {
		b = make([]byte, n)
	} else {
		if cap(*buf) < n {
			*buf = make([]byte, n)
		}
		b = (*buf)[:n]
	}
	if err := r.ReadMem(b, addr+l.lo); err != nil {
		return Record{}, fmt.Errorf("%s at %#x: %w", l.Type, addr, err)
	}
	return Record{l, addr, b}, nil
}

// Addr returns the address of the object.
func (r Record) Addr() uint64 { return r.addr }

// AddrOf returns the address of the i-th member.
func (r Record) AddrOf(i int) uint64 { return r.addr + r.l.places[i].Offset }

// Has says whether an optional member exists.
func (r Record) Has(i int) bool { return r.l.places[i].Type != nil }

// Bytes returns the bytes of the i-th member, nil if it is missing.
func (r Record) Bytes(i int) []byte {
	p := r.l.places[i]
	if p.Type == nil {
		return nil
	}
	n, _ := p.bytes() // LayoutOf has asked already
	off := p.Offset - r.l.lo
	return r.data[off : off+n]
}

// Uint returns the i-th member as C converts it to u64; 0 if it is missing or
// larger than 8 bytes.
func (r Record) Uint(i int) uint64 {
	p := r.l.places[i]
	if p.Type == nil {
		return 0
	}
	v, _ := decodeScalar(r.Bytes(i), p.Type, p.BitOffset, p.BitSize)
	return v
}

// Int returns the i-th member as C converts it to s64.
func (r Record) Int(i int) int64 { return int64(r.Uint(i)) }

// CString returns the text of the i-th member, an array of bytes, up to its NUL.
func (r Record) CString(i int) string {
	b := r.Bytes(i)
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	return string(b)
}
