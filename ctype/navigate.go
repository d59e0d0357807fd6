package ctype

import (
	"errors"
	"fmt"
	"strconv"
)

// A step of the expression that led to a value; kept as a chain and written
// out only for an error.
type step struct {
	prev *step
	op   byte
	name string
	n    int64
}

const (
	opName  byte = iota // name
	opField             // prev.name
	opIndex             // prev[n]
	opDeref             // *prev
	opAddr              // &prev
	opCast              // (name)prev
	opAt                // (name at n)
)

func (s *step) then(op byte, name string, n int64) *step { return &step{s, op, name, n} }

// String writes the expression as C does; (*p).x becomes p->x.
func (s *step) String() string {
	if s == nil {
		return "value"
	}
	switch s.op {
	case opField:
		if s.prev != nil && s.prev.op == opDeref {
			return s.prev.prev.primary() + "->" + s.name
		}
		return s.prev.primary() + "." + s.name
	case opIndex:
		return s.prev.primary() + "[" + strconv.FormatInt(s.n, 10) + "]"
	case opDeref:
		return "*" + s.prev.String()
	case opAddr:
		return "&" + s.prev.String()
	case opCast:
		return "(" + s.name + ")" + s.prev.String()
	case opAt:
		return fmt.Sprintf("(%s at 0x%x)", s.name, uint64(s.n))
	}
	return s.name
}

// primary is String, in parentheses if a postfix operator would bind tighter.
func (s *step) primary() string {
	if s != nil && (s.op == opDeref || s.op == opAddr || s.op == opCast) {
		return "(" + s.String() + ")"
	}
	return s.String()
}

// Field returns a member by its path ([Types.Member]). A pointer is followed
// first, as -> does.
func (v Value) Field(path string) (Value, error) {
	if v.typ == nil {
		return Value{}, v.fail(errors.New("no value"))
	}
	if v.typ.Strip().kind == Pointer {
		d, err := v.Deref()
		if err != nil {
			return Value{}, err
		}
		v = d
	}
	p, err := v.types.Member(v.typ, path)
	if err != nil {
		return Value{}, v.fail(err)
	}
	return v.at(p, path)
}

// FirstField is [Value.Field] for the first of several paths that exists.
func (v Value) FirstField(paths ...string) (Value, error) {
	rec := v.typ.Strip()
	if rec.kind == Pointer {
		rec = rec.Elem()
	}
	_, path, err := v.types.FirstMember(rec, paths...)
	if err != nil {
		return Value{}, v.fail(err)
	}
	return v.Field(path)
}

// at returns the part of v that a Place describes.
func (v Value) at(p Place, path string) (Value, error) {
	out := v
	if path != "" { // C does not name anonymous records
		out.path = v.path.then(opField, path, 0)
	}
	out.typ, out.bitOff, out.bitSize = p.Type, p.BitOffset, p.BitSize
	out.addr += p.Offset
	if v.data != nil {
		if p.Offset > uint64(len(v.data)) {
			return Value{}, out.fail(fmt.Errorf("lies beyond the %d bytes that are known", len(v.data)))
		}
		out.data = v.data[p.Offset:]
		if n, err := out.size(); v.lvalue && (err != nil || n > len(out.data)) {
			out.data = nil // a flexible array: read it when asked
		}
	} else if !v.lvalue {
		return Value{}, out.fail(ErrNotLvalue)
	}
	return out, nil
}

// Deref returns what a pointer points to; an array gives its first element.
func (v Value) Deref() (Value, error) {
	s := v.typ.Strip()
	switch s.kind {
	case Array:
		return v.Index(0)
	case Func, FuncProto:
		return v, nil
	case Pointer:
	default:
		return Value{}, v.fail(fmt.Errorf("%s is not a pointer", v.typ))
	}
	addr, err := v.Uint()
	if err != nil {
		return Value{}, err
	}
	path := v.path.then(opDeref, "", 0)
	if v.path != nil && v.path.op == opAddr {
		path = v.path.prev // *&x is x
	}
	return Value{types: v.types, typ: v.types.Complete(s.Elem()), mem: v.mem, lvalue: true, addr: addr, path: path}, nil
}

// Index returns element i of an array, or of the array a pointer points to.
// As in C the index is not checked against the array's length.
func (v Value) Index(i int64) (Value, error) {
	s := v.typ.Strip()
	if s.kind != Array && s.kind != Pointer {
		return Value{}, v.fail(fmt.Errorf("%s is neither array nor pointer", v.typ))
	}
	size, err := v.types.Sizeof(s.Elem())
	if err != nil {
		return Value{}, v.fail(err)
	}
	off := uint64(i) * uint64(size)
	path := v.path.then(opIndex, "", i)
	if s.kind == Pointer {
		addr, err := v.Uint()
		if err != nil {
			return Value{}, err
		}
		return Value{types: v.types, typ: v.types.Complete(s.Elem()), mem: v.mem, lvalue: true, addr: addr + off, path: path}, nil
	}
	out := v
	out.typ, out.path, out.addr, out.data = s.Elem(), path, v.addr+off, nil
	inside := i >= 0 && off+uint64(size) <= uint64(len(v.data))
	switch {
	case v.data != nil && inside:
		out.data = v.data[off:]
	case !v.lvalue:
		return Value{}, out.fail(fmt.Errorf("lies beyond the %d bytes that are known", len(v.data)))
	}
	return out, nil
}

// Cast converts a scalar to another scalar type, as C does; an array or
// function becomes its address. A record casts only to its own type.
func (v Value) Cast(t *Type) (Value, error) {
	to := t.Strip()
	if v.typ.IsRecord() && Identical(v.typ, t) {
		v.typ = t
		return v, nil
	}
	if to.kind == Void {
		return Value{types: v.types, typ: t, mem: v.mem, path: v.path}, nil
	}
	if !kinds(Int, Enum, Enum64, Pointer).has(to.kind) {
		return Value{}, v.fail(fmt.Errorf("cannot cast %s to %s", v.typ, t))
	}
	u, err := v.Uint()
	if err != nil {
		return Value{}, err
	}
	if to.enc&encBool != 0 && to.kind == Int && u != 0 {
		u = 1
	}
	out := v.types.Scalar(v.mem, t, u, "")
	out.path = v.path.then(opCast, t.String(), 0)
	return out, nil
}
