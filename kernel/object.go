package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// An Object is a struct in the kernel's memory, for code that reads many of its
// members: a [ctype.Value] whose first error sticks. Every read after it gives
// zero; read what is needed, then ask [Object.Err] once.
//
// A member is named by its path, "se.sum_exec_runtime". Where kernels differ,
// several paths stand side by side, newest first: "__state|state".
type Object struct {
	Addr uint64
	v    ctype.Value
	err  error
}

// Object returns the struct of type name (without "struct") at addr.
func (k *Kernel) Object(name string, addr uint64) *Object {
	types, err := k.types()
	if err != nil {
		return &Object{Addr: addr, err: err}
	}
	typ, err := k.record(name)
	if err != nil {
		return &Object{Addr: addr, err: err}
	}
	return &Object{Addr: addr, v: types.ObjectAt(k.mem, typ, addr, name)}
}

// record finds a struct, in the kernel's types or else in the modules'. What
// was found is remembered, also that there is no such struct: walks ask for the
// same few again and again.
func (k *Kernel) record(name string) (*ctype.Type, error) {
	switch r, _ := k.records.Load(name); r := r.(type) {
	case *ctype.Type:
		return r, nil
	case error:
		return nil, r
	}
	types, err := k.types()
	if err != nil {
		return nil, err
	}
	t, err := types.Struct(name)
	if errors.Is(err, ctype.ErrNotFound) {
		if k.moduleTypes() != nil {
			return nil, err
		}
		if t, err = types.Struct(name); err != nil {
			k.records.Store(name, err)
			return nil, err
		}
	}
	if err == nil {
		k.records.Store(name, t)
	}
	return t, err
}

// Load reads the whole struct at once, and o's members are then those of that
// one moment. It is for structs of which many members are needed. Where the
// struct cannot be read whole its members are read one by one, as without Load.
func (o *Object) Load() *Object {
	if o.err == nil {
		if v, err := o.v.Load(); err == nil {
			o.v = v
		}
	}
	return o
}

// Enumerators returns the constants of the enum called name, or nil if the
// kernel has none.
func (k *Kernel) Enumerators(name string) []ctype.Enumerator {
	key := "enum " + name
	if t, ok := k.records.Load(key); ok {
		return t.(*ctype.Type).Enumerators()
	}
	types, err := k.types()
	if err != nil {
		return nil
	}
	t, err := types.Lookup(key)
	if err != nil {
		return nil
	}
	k.records.Store(key, t)
	return t.Enumerators()
}

// Err returns the first error that a read of o met.
func (o *Object) Err() error { return o.err }

// keep remembers the first error.
func (o *Object) keep(err error) {
	if o.err == nil {
		o.err = err
	}
}

// get returns a member, given by its path or the first of several that exists.
func (o *Object) get(path string) (ctype.Value, bool) {
	if o.err != nil {
		return ctype.Value{}, false
	}
	v, err := o.v.Field(o.present(path))
	o.keep(err)
	return v, err == nil
}

// present returns the first of several paths that exists, or else the first.
func (o *Object) present(paths string) string {
	first, _, several := strings.Cut(paths, "|")
	if !several {
		return first
	}
	for path := range strings.SplitSeq(paths, "|") {
		if o.v.Types().HasMember(o.v.Type(), path) {
			return path
		}
	}
	return first
}

// Has says whether the struct has a member.
func (o *Object) Has(path string) bool {
	return o.err == nil && o.v.Types().HasMember(o.v.Type(), path)
}

// Kind returns the kind of a member's type: where kernels differ, a struct can
// have become a pointer to it.
func (o *Object) Kind(path string) ctype.Kind {
	v, ok := o.get(path)
	if !ok {
		return ctype.Unknown
	}
	return v.Type().Strip().Kind()
}

// At returns the address of a member.
func (o *Object) At(path string) uint64 {
	v, ok := o.get(path)
	if !ok {
		return 0
	}
	addr, err := v.Addr()
	o.keep(err)
	return addr
}

// Uint reads an integer, enum, bool or pointer.
func (o *Object) Uint(path string) uint64 {
	if o.err == nil {
		if u, ok := o.v.PeekUint(o.present(path)); ok {
			return u
		}
	}
	v, ok := o.get(path)
	if !ok {
		return 0
	}
	u, err := v.Uint()
	o.keep(err)
	return u
}

// Int reads a signed integer.
func (o *Object) Int(path string) int64 { return int64(o.Uint(path)) }

// Bool reads a truth value.
func (o *Object) Bool(path string) bool { return o.Uint(path) != 0 }

// Ptr reads a pointer.
func (o *Object) Ptr(path string) uint64 { return o.Uint(path) }

// Str reads a char array, or the string that a char pointer points at; a NULL
// pointer gives "".
func (o *Object) Str(path string) string {
	v, ok := o.get(path)
	if !ok {
		return ""
	}
	if null, err := v.IsNull(); v.Type().Strip().Kind() == ctype.Pointer && (null || err != nil) {
		o.keep(err)
		return ""
	}
	s, err := v.CString()
	o.keep(err)
	return s
}

// Len returns the number of elements of an array member.
func (o *Object) Len(path string) int {
	v, ok := o.get(path)
	if !ok {
		return 0
	}
	return v.Type().Strip().Len()
}

// sub returns the object that v is, or an object of errors.
func (o *Object) sub(v ctype.Value, err error) *Object {
	if err == nil {
		var addr uint64
		if addr, err = v.Addr(); err == nil {
			return &Object{Addr: addr, v: v}
		}
	}
	return &Object{err: err}
}

// Field returns a struct inside the struct, or, for an array of structs, its
// first element; see [Object.Elem]. The errors of the result are its own, but
// for one that o already has.
func (o *Object) Field(path string) *Object {
	v, ok := o.get(path)
	if !ok {
		return &Object{err: o.err}
	}
	if v.Type().Strip().Kind() == ctype.Array {
		return o.sub(v.Index(0))
	}
	return o.sub(v, nil)
}

// Deref returns the struct that a pointer member points at. A NULL pointer is
// an error of the result.
func (o *Object) Deref(path string) *Object {
	v, ok := o.get(path)
	if !ok {
		return &Object{err: o.err}
	}
	null, err := v.IsNull()
	if null && err == nil {
		err = fmt.Errorf("%s is NULL", v.Path())
	}
	if err != nil {
		return &Object{err: err}
	}
	return o.sub(v.Deref())
}

// Elem returns the i-th struct of the array of structs that o is the first of.
func (o *Object) Elem(i int) *Object {
	if o.err != nil {
		return o
	}
	ptr, err := o.v.AddrOf()
	if err != nil {
		return &Object{err: err}
	}
	return o.sub(ptr.Index(int64(i)))
}

// Offset returns the offset in bytes of a member of the struct called name.
func (k *Kernel) Offset(name, path string) (uint64, error) {
	typ, err := k.record(name)
	if err != nil {
		return 0, err
	}
	types, err := k.types()
	if err != nil {
		return 0, err
	}
	p, err := types.Member(typ, path)
	return p.Offset, err
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
