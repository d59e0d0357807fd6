package ctype

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// A Value is a C value of a target: an object in its memory (an lvalue), or
// the result of a computation. It is small, immutable and lazy: memory is read
// by [Value.Uint], [Value.CString], [Value.Load] and the like.
type Value struct {
	types *Types
	typ   *Type
	mem   mem.Reader
	path  *step

	lvalue  bool
	bitOff  uint8 // of a bitfield: bits above addr or data[0]
	bitSize uint8
	addr    uint64 // of an lvalue
	imm     uint64 // of a computed scalar, as C converts it to u64
	data    []byte // contents, if they have been read
}

// maxLoad bounds what one Value reads at once.
const maxLoad = 16 << 20

// maxString bounds a string behind a char pointer.
const maxString = 4096

// An AccessError says which expression could not be evaluated and why. A
// failed read wraps the [mem.Fault].
type AccessError struct {
	Path string // the expression, as C writes it
	Err  error
}

// Error is the expression and the reason.
func (e *AccessError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *AccessError) Unwrap() error { return e.Err }

// ErrNotLvalue is wrapped when the address of a computed value or a bitfield
// is asked for.
var ErrNotLvalue = errors.New("not an object in memory")

// Object returns the object of type t at addr. name stands for it in errors.
func (ts *Types) Object(r mem.Reader, t *Type, addr uint64, name string) Value {
	return Value{types: ts, typ: t, mem: r, addr: addr, lvalue: true, path: &step{op: opName, name: name}}
}

// ObjectAt is [Types.Object] for an object that errors name by its address, as
// "(bpf_prog at 0xffffc90000012000)".
func (ts *Types) ObjectAt(r mem.Reader, t *Type, addr uint64, name string) Value {
	return Value{types: ts, typ: t, mem: r, addr: addr, lvalue: true, path: &step{op: opAt, name: name, n: int64(addr)}}
}

// Scalar returns a computed integer or pointer of type t, truncated to it.
// r is the memory a pointer points into. name stands for it in errors.
func (ts *Types) Scalar(r mem.Reader, t *Type, bits uint64, name string) Value {
	v := Value{types: ts, typ: t, mem: r, imm: bits, path: &step{op: opName, name: name}}
	if n, err := t.Size(); err == nil && n < 8 {
		v.imm = extend(bits, uint8(n*8), t.IsSigned())
	}
	return v
}

// Blob returns a value of type t from bytes that were copied out of memory.
func (ts *Types) Blob(r mem.Reader, t *Type, b []byte, name string) Value {
	return Value{types: ts, typ: t, mem: r, data: b, path: &step{op: opName, name: name}}
}

// Named returns v with another name in errors.
func (v Value) Named(name string) Value {
	v.path = &step{op: opName, name: name}
	return v
}

// Type returns the value's type.
func (v Value) Type() *Type { return v.typ }

// Types returns the types the value belongs to.
func (v Value) Types() *Types { return v.types }

// Mem returns the memory the value is in or points into; nil if none.
func (v Value) Mem() mem.Reader { return v.mem }

// IsLvalue says whether the value is an object in memory.
func (v Value) IsLvalue() bool { return v.lvalue }

// BitSize returns the size in bits of a bitfield, else 0.
func (v Value) BitSize() int { return int(v.bitSize) }

// Path returns the expression that leads to the value.
func (v Value) Path() string { return v.path.String() }

func (v Value) fail(err error) error {
	if err == nil {
		return nil
	}
	return &AccessError{v.Path(), err}
}

// Addr returns the address of an lvalue. The error wraps [ErrNotLvalue].
func (v Value) Addr() (uint64, error) {
	if !v.lvalue || v.bitSize != 0 {
		return 0, v.fail(ErrNotLvalue)
	}
	return v.addr, nil
}

// AddrOf returns a pointer to an lvalue, as C's & does.
func (v Value) AddrOf() (Value, error) {
	addr, err := v.Addr()
	if err != nil {
		return Value{}, err
	}
	return Value{types: v.types, typ: PointerTo(v.typ), mem: v.mem, imm: addr, path: v.path.then(opAddr, "", 0)}, nil
}

// Load reads the whole object once, so that its members need no more reads.
func (v Value) Load() (Value, error) {
	if !v.lvalue || v.data != nil {
		return v, nil
	}
	b, err := v.Bytes()
	if err != nil {
		return v, err
	}
	v.data = b
	return v, nil
}

// Bytes returns the bytes of the value. A bitfield gives the bytes it lies in.
func (v Value) Bytes() ([]byte, error) {
	n, err := v.size()
	if err != nil {
		return nil, v.fail(err)
	}
	switch {
	case v.data != nil:
		if len(v.data) < n {
			return nil, v.fail(fmt.Errorf("only %d of %d bytes are known", len(v.data), n))
		}
		return v.data[:n], nil
	case !v.lvalue:
		return le.AppendUint64(nil, v.imm)[:min(n, 8)], nil
	case v.mem == nil:
		return nil, v.fail(errors.New("no memory to read from"))
	case n > maxLoad:
		return nil, v.fail(fmt.Errorf("%d bytes are more than are read at once (%d)", n, maxLoad))
	}
	b := make([]byte, n)
	if err := v.mem.ReadMem(b, v.addr); err != nil {
		return nil, v.fail(err)
	}
	return b, nil
}

// size returns the number of bytes that hold the value.
func (v Value) size() (int, error) {
	if v.typ == nil {
		return 0, errors.New("no value")
	}
	if v.bitSize != 0 {
		return (int(v.bitOff) + int(v.bitSize) + 7) / 8, nil
	}
	return v.types.Sizeof(v.typ)
}

// Uint returns a scalar as C converts it to u64: a negative int is
// sign-extended. Pointers, enums and bool are scalars; arrays and functions
// are the address they stand for.
func (v Value) Uint() (uint64, error) {
	if v.typ == nil {
		return 0, v.fail(errors.New("no value"))
	}
	switch s := v.typ.Strip(); s.kind {
	case Array, Func, FuncProto:
		return v.Addr()
	case Int, Enum, Enum64, Pointer:
		if !v.lvalue && v.data == nil {
			return v.imm, nil
		}
		return v.scalar(s)
	default:
		return 0, v.fail(fmt.Errorf("%s is not a number", v.typ))
	}
}

func (v Value) scalar(s *Type) (uint64, error) {
	var b []byte
	if n, err := v.size(); err == nil && n <= 16 && v.lvalue && v.data == nil && v.mem != nil {
		var buf [16]byte // the usual case, without an allocation here
		if err := v.mem.ReadMem(buf[:n], v.addr); err != nil {
			return 0, v.fail(err)
		}
		b = buf[:n]
	} else if b, err = v.Bytes(); err != nil {
		return 0, err
	}
	u, err := decodeScalar(b, s, v.bitOff, v.bitSize)
	return u, v.fail(err)
}

// PeekUint is [Value.Field] and [Value.Uint] in one, for a member of a record
// whose bytes have been read ([Value.Load]): many times faster. Where it is not
// ok the two say why, or can do it.
func (v Value) PeekUint(path string) (u uint64, ok bool) {
	if v.data == nil {
		return 0, false
	}
	p, err := v.types.Member(v.typ, path)
	if err != nil {
		return 0, false
	}
	s := p.Type.Strip()
	n, err := p.Size()
	if err != nil || !kinds(Int, Enum, Enum64, Pointer).has(s.kind) || p.Offset+uint64(n) > uint64(len(v.data)) {
		return 0, false
	}
	u, err = decodeScalar(v.data[p.Offset:p.Offset+uint64(n)], s, p.BitOffset, p.BitSize)
	return u, err == nil
}

// Int returns a scalar as C converts it to s64.
func (v Value) Int() (int64, error) {
	u, err := v.Uint()
	return int64(u), err
}

// Bool says whether a scalar is not zero.
func (v Value) Bool() (bool, error) {
	u, err := v.Uint()
	return u != 0, err
}

// IsNull says whether a pointer (or other scalar) is zero.
func (v Value) IsNull() (bool, error) {
	u, err := v.Uint()
	return u == 0, err
}

// CString returns the text in an array of bytes, or behind a pointer to
// bytes, up to its NUL (or [mem.CString]'s limit of 4096 bytes).
func (v Value) CString() (string, error) {
	s := v.typ.Strip()
	if s.kind != Array && s.kind != Pointer {
		return "", v.fail(fmt.Errorf("%s is not text", v.typ))
	}
	if n, err := s.Elem().Size(); err != nil || n != 1 {
		return "", v.fail(fmt.Errorf("%s is not text", v.typ))
	}
	if s.kind == Array && s.nelems != 0 {
		b, err := v.Bytes()
		if i := bytes.IndexByte(b, 0); i >= 0 {
			b = b[:i]
		}
		return string(b), err
	}
	addr, err := v.Uint() // of a flexible array, its own address
	if err != nil {
		return "", err
	}
	if v.mem == nil {
		return "", v.fail(errors.New("no memory to read from"))
	}
	text, err := mem.CString(v.mem, addr, maxString)
	return text, v.fail(err)
}

// decodeScalar reads an integer, enum or pointer of up to 8 bytes.
func decodeScalar(b []byte, t *Type, bitOff, bitSize uint8) (uint64, error) {
	if bitSize == 0 {
		switch len(b) {
		case 1, 2, 4, 8:
			bitSize, bitOff = uint8(len(b)*8), 0
		default:
			return 0, fmt.Errorf("an integer of %d bytes does not fit in 64 bits", len(b))
		}
	}
	var u uint64
	for i, c := range b[:min(len(b), 8)] {
		u |= uint64(c) << (8 * i)
	}
	u >>= bitOff
	if len(b) > 8 { // a 64-bit field that starts inside a byte
		u |= uint64(b[8]) << (64 - bitOff)
	}
	return extend(u, bitSize, t.IsSigned()), nil
}

// extend cuts u to its low bits and extends the sign if there is one.
func extend(u uint64, bits uint8, signed bool) uint64 {
	if bits >= 64 {
		return u
	}
	shift := 64 - bits
	if signed {
		return uint64(int64(u<<shift) >> shift)
	}
	return u << shift >> shift
}
