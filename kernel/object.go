package kernel

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// An Object is a struct in the kernel's memory, read member by member. The
// first error sticks, and every read after it gives zero: read what is needed,
// then ask [Object.Err] once.
//
// A member is named by its path, "se.sum_exec_runtime". Where kernels differ,
// several paths stand side by side, newest first: "__state|state".
type Object struct {
	k    *Kernel
	typ  *ctype.Type
	name string
	Addr uint64
	err  error
}

// Object returns the struct of type name (without "struct") at addr.
func (k *Kernel) Object(name string, addr uint64) *Object {
	typ, err := k.record(name)
	return &Object{k: k, typ: typ, name: name, Addr: addr, err: err}
}

// Err returns the first error that a read of o met.
func (o *Object) Err() error { return o.err }

func (o *Object) fail(path string, err error) {
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("%s at 0x%x: %s: %w", o.name, o.Addr, path, err)
	}
}

func (k *Kernel) record(name string) (*ctype.Type, error) {
	types, err := k.types()
	if err != nil {
		return nil, err
	}
	return types.Struct(name)
}

// resolve finds a member by its path, or by the first of several that exists.
func (o *Object) resolve(paths string) (ctype.Place, bool) {
	if o.err != nil {
		return ctype.Place{}, false
	}
	m, err := o.k.member(o.typ, paths)
	o.fail(paths, err)
	return m, err == nil
}

func (k *Kernel) member(typ *ctype.Type, paths string) (ctype.Place, error) {
	types, err := k.types()
	if err != nil {
		return ctype.Place{}, err
	}
	if !strings.Contains(paths, "|") {
		return types.Member(typ, paths)
	}
	p, _, err := types.FirstMember(typ, strings.Split(paths, "|")...)
	return p, err
}

// Offset returns the offset in bytes of a member of the struct called name.
func (k *Kernel) Offset(name, path string) (uint64, error) {
	typ, err := k.record(name)
	if err != nil {
		return 0, err
	}
	m, err := k.member(typ, path)
	return m.Offset, err
}

// Sizeof returns the size in bytes of the struct called name, or 0 if the
// kernel has none.
func (k *Kernel) Sizeof(name string) uint64 {
	typ, err := k.record(name)
	if err != nil {
		return 0
	}
	n, err := typ.Size()
	if err != nil {
		return 0
	}
	return uint64(n)
}

// Has says whether the struct has a member.
func (o *Object) Has(path string) bool {
	if o.typ == nil {
		return false
	}
	_, err := o.k.member(o.typ, path)
	return err == nil
}

// At returns the address of a member.
func (o *Object) At(path string) uint64 {
	m, _ := o.resolve(path)
	return o.Addr + m.Offset
}

// Uint reads an integer, enum, bool or pointer.
func (o *Object) Uint(path string) uint64 {
	m, ok := o.resolve(path)
	if !ok {
		return 0
	}
	v, err := o.k.word(m, o.Addr)
	o.fail(path, err)
	return v
}

// word reads a member of at most 8 bytes, zero-extended.
func (k *Kernel) word(m ctype.Place, base uint64) (uint64, error) {
	size, err := m.Type.Size()
	if err != nil {
		return 0, err
	}
	if m.BitSize != 0 {
		size = (int(m.BitOffset) + int(m.BitSize) + 7) / 8
	}
	if size == 0 || size > 8 {
		return 0, fmt.Errorf("%s is no word (%d bytes)", m.Type, size)
	}
	var b [8]byte
	if err := k.mem.ReadMem(b[:size], base+m.Offset); err != nil {
		return 0, err
	}
	v := uint64(0)
	for i := size - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	if m.BitSize != 0 {
		v = v >> m.BitOffset & (1<<m.BitSize - 1)
	}
	return v, nil
}

// Int reads a signed integer.
func (o *Object) Int(path string) int64 {
	v := o.Uint(path)
	m, ok := o.resolve(path)
	if !ok {
		return 0
	}
	bits := int(m.BitSize)
	if bits == 0 {
		size, _ := m.Type.Size() // Uint has asked
		bits = 8 * size
	}
	return int64(v<<(64-bits)) >> (64 - bits)
}

// Bool reads a truth value.
func (o *Object) Bool(path string) bool { return o.Uint(path) != 0 }

// Ptr reads a pointer.
func (o *Object) Ptr(path string) uint64 { return o.Uint(path) }

// maxString bounds strings read through a char pointer.
const maxString = 4096

// Str reads a char array, or the string that a char pointer points at.
func (o *Object) Str(path string) string {
	m, ok := o.resolve(path)
	if !ok {
		return ""
	}
	addr, limit := o.Addr+m.Offset, maxString
	if m.Type.Strip().Kind() == ctype.Pointer {
		if addr = o.Uint(path); addr == 0 {
			return ""
		}
	} else if limit, _ = m.Type.Size(); limit == 0 { // flexible array
		limit = maxString
	}
	s, err := mem.CString(o.k.mem, addr, min(limit, maxString))
	o.fail(path, err)
	return s
}

// Len returns the number of elements of an array member.
func (o *Object) Len(path string) int {
	m, ok := o.resolve(path)
	if !ok {
		return 0
	}
	return m.Type.Strip().Len()
}

// Field returns a struct inside the struct, or, for an array of structs, its
// first element; see [Object.Elem].
func (o *Object) Field(path string) *Object {
	m, ok := o.resolve(path)
	if !ok {
		return &Object{k: o.k, name: path, err: o.err}
	}
	typ := m.Type.Strip()
	if typ.Kind() == ctype.Array {
		typ = typ.Elem().Strip()
	}
	return &Object{k: o.k, typ: typ, name: recordName(typ), Addr: o.Addr + m.Offset}
}

// Deref returns the struct that a pointer member points at. A NULL pointer is
// an error.
func (o *Object) Deref(path string) *Object {
	p := o.Uint(path)
	m, ok := o.resolve(path)
	if !ok {
		return &Object{k: o.k, name: path, err: o.err}
	}
	typ := m.Type.Strip().Elem().Strip()
	d := &Object{k: o.k, typ: typ, name: recordName(typ), Addr: p}
	if p == 0 {
		d.err = fmt.Errorf("%s at 0x%x: %s is NULL", o.name, o.Addr, path)
	}
	return d
}

// Elem returns the i-th struct of the array of structs that o is the first of.
func (o *Object) Elem(i int) *Object {
	if o.err != nil {
		return o
	}
	size, err := o.typ.Size()
	e := &Object{k: o.k, typ: o.typ, name: o.name, Addr: o.Addr + uint64(i)*uint64(size)}
	e.fail(fmt.Sprintf("[%d]", i), err)
	return e
}

func recordName(t *ctype.Type) string {
	if n := t.Name(); n != "" {
		return n
	}
	return t.String()
}
