package ctype

import (
	"fmt"
	"sync/atomic"
)

// A Kind is the kind of a type, numbered as BTF_KIND_* in
// include/uapi/linux/btf.h. Unknown is also the kind of a type that a damaged
// blob refers to but does not contain.
type Kind uint8

// The kinds. Void is not in BTF, where id 0 stands for it.
const (
	Unknown Kind = iota
	Int
	Pointer
	Array
	Struct
	Union
	Enum
	Fwd
	Typedef
	Volatile
	Const
	Restrict
	Func
	FuncProto
	Var
	Datasec
	Float
	DeclTag
	TypeTag
	Enum64
	Void
)

var kindNames = [...]string{
	"unknown", "int", "pointer", "array", "struct", "union", "enum", "forward declaration", "typedef",
	"volatile", "const", "restrict", "function", "function prototype", "variable", "data section",
	"float", "declaration tag", "type tag", "enum64", "void",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

type kindSet uint32

func kinds(ks ...Kind) (s kindSet) {
	for _, k := range ks {
		s |= 1 << k
	}
	return s
}

func (s kindSet) has(k Kind) bool { return s>>k&1 != 0 }

// An encoding of an integer, BTF_INT_*.
const (
	encSigned = 1
	encChar   = 2
	encBool   = 4
)

// A Type is a C type, of a target's BTF or made by [Types.ParseType],
// [PointerTo] or [ArrayOf]. It is immutable and safe for concurrent use; what
// it refers to is decoded when asked for.
type Type struct {
	kind   Kind
	enc    uint8 // of an Int
	flag   bool  // kind_flag: bitfield offsets, a signed enum, a forward-declared union
	name   string
	id     uint32
	size   uint32
	nelems uint32

	// Of a type from BTF: the table, the id it refers to, its elements.
	src  *table
	ref  uint32
	data []byte

	elem   *Type                // of a type made here
	target atomic.Pointer[Type] // what ref stands for, once it was asked for
	aux    atomic.Pointer[aux]
}

// aux is what is decoded of a type's elements.
type aux struct {
	members []Member
	values  []Enumerator
	params  []Param
}

// A Member is a member of a struct or union. An anonymous struct or union
// inside another is a member without a name.
type Member struct {
	Name    string
	Type    *Type
	Offset  uint32 // bits from the start of the struct
	BitSize uint32 // of a bitfield; else 0
}

// An Enumerator is a named constant of an enum. A negative value of a signed
// enum is sign-extended.
type Enumerator struct {
	Name  string
	Value uint64
}

// A Param is a parameter of a function. A last one of kind Void stands for "...".
type Param struct {
	Name string
	Type *Type
}

// voidType is the type void. Like the built-in integers it never changes.
var voidType = &Type{kind: Void, name: "void"}

// decode decodes the type at an offset of the type section. scan has checked
// that all its bytes are there.
func (t *table) decode(off int) *Type {
	nameOff, info, last := le.Uint32(t.raw[off:]), le.Uint32(t.raw[off+4:]), le.Uint32(t.raw[off+8:])
	typ := &Type{kind: Kind(info >> 24 & 0x1f), flag: info>>31 != 0, src: t}
	if nameOff != 0 {
		typ.name = t.str(nameOff)
	}
	l := kindLayout[typ.kind]
	start := off + btfTypeLen
	typ.data = t.raw[start : start+l.fixed+l.elem*int(info&0xffff)]
	switch typ.kind {
	case Int:
		typ.size = last
		typ.enc = typ.data[3] & 0xf
	case Struct, Union, Enum, Enum64, Float, Datasec:
		typ.size = last
		if typ.kind == Enum && !t.signs && !typ.flag {
			typ.flag = looksSigned(typ.data)
		}
	case Array:
		typ.ref, typ.nelems = le.Uint32(typ.data), le.Uint32(typ.data[8:])
	case Pointer:
		typ.size, typ.ref = 8, last
	default:
		typ.ref = last
	}
	return typ
}

// looksSigned guesses whether an enum is signed where the BTF does not say:
// the format can since 6089fb325cf7 (6.0). A small negative number is likelier
// than the largest unsigned ones, which are error codes and limits of -1.
func looksSigned(enumerators []byte) bool {
	for d := enumerators; len(d) > 0; d = d[8:] {
		if le.Uint32(d[4:]) >= 0xffff0000 {
			return true
		}
	}
	return false
}

// Kind returns the kind of the type.
func (t *Type) Kind() Kind { return t.kind }

// Name returns the tag, typedef, function or integer name, without "struct"
// and the like; "" for anonymous and derived types.
func (t *Type) Name() string { return t.name }

// ID returns the BTF type id, 0 for types that are not from BTF.
func (t *Type) ID() uint32 { return t.id }

// Module returns the name of the BTF the type is from: "vmlinux", a module's
// name, or "" if none.
func (t *Type) Module() string {
	if t.src == nil {
		return ""
	}
	return t.src.name
}

// Elem returns what the type refers to: the target of a pointer, the element
// of an array, what a typedef or qualifier names, the result of a function
// prototype, the prototype of a function. Other kinds give void.
func (t *Type) Elem() *Type {
	if t.src != nil {
		e := t.target.Load()
		if e == nil {
			e = t.src.byID(t.ref)
			t.target.Store(e)
		}
		return e
	}
	if t.elem != nil {
		return t.elem
	}
	return voidType
}

// Len returns the number of elements of an array; 0 for a flexible one.
func (t *Type) Len() int { return int(t.nelems) }

const wrappers = 1<<Typedef | 1<<Volatile | 1<<Const | 1<<Restrict | 1<<TypeTag | 1<<Var

// maxHops bounds chains of typedefs, qualifiers and array dimensions; a chain
// in a damaged blob may be a ring.
const maxHops = 64

// Strip returns the type behind typedefs, qualifiers and tags.
func (t *Type) Strip() *Type {
	for range maxHops {
		if !kindSet(wrappers).has(t.kind) {
			return t
		}
		t = t.Elem()
	}
	return &Type{kind: Unknown, name: "<damaged: typedefs without end>"}
}

// IsInteger says whether the type is an integer, bool or enum.
func (t *Type) IsInteger() bool { return kinds(Int, Enum, Enum64).has(t.Strip().kind) }

// IsBool says whether the type is bool.
func (t *Type) IsBool() bool { s := t.Strip(); return s.kind == Int && s.enc&encBool != 0 }

// IsChar says whether the type is plain char, the element of text. u8 is not.
func (t *Type) IsChar() bool {
	s := t.Strip()
	return s.kind == Int && s.size == 1 && (s.name == "char" || s.enc&encChar != 0)
}

// IsSigned says whether values of the type are signed.
func (t *Type) IsSigned() bool {
	switch s := t.Strip(); s.kind {
	case Int:
		return s.enc&encSigned != 0
	case Enum, Enum64:
		return s.flag
	}
	return false
}

// IsRecord says whether the type is a struct or union.
func (t *Type) IsRecord() bool { return kinds(Struct, Union).has(t.Strip().kind) }

// maxSize bounds the size of a type: more than any target has memory.
const maxSize = 1 << 46

// Size returns the size in bytes. void, functions, forward declarations and
// damaged types have none and give an error.
func (t *Type) Size() (int, error) {
	n := uint64(1)
	s := t.Strip()
	for hop := 0; s.kind == Array; hop++ {
		if n *= uint64(s.nelems); n > maxSize || hop == maxHops {
			return 0, fmt.Errorf("%s is too large", t)
		}
		s = s.Elem().Strip()
	}
	switch s.kind {
	case Int, Struct, Union, Enum, Enum64, Float, Pointer, Datasec:
		if n *= uint64(s.size); n > maxSize {
			return 0, fmt.Errorf("%s is too large", t)
		}
		return int(n), nil
	case Fwd:
		return 0, fmt.Errorf("%s is declared but not defined in this BTF", s)
	}
	return 0, fmt.Errorf("%s has no size", s)
}

// Members returns the members of a struct or union in order, else nil.
func (t *Type) Members() []Member {
	if s := t.Strip(); kinds(Struct, Union).has(s.kind) {
		return s.elements().members
	}
	return nil
}

// Variables returns the variables of a data section in order, else nil. The
// Offset of each is where the section's loader has put it.
func (t *Type) Variables() []Member {
	if t.kind != Datasec || t.src == nil {
		return nil
	}
	vars := make([]Member, 0, len(t.data)/12)
	for d := t.data; len(d) > 0; d = d[12:] { // struct btf_var_secinfo
		v := t.src.byID(le.Uint32(d))
		off := le.Uint32(d[4:])
		if v.kind != Var || off > maxSection {
			continue
		}
		vars = append(vars, Member{Name: v.name, Type: v.Elem(), Offset: off * 8})
	}
	return vars
}

// Enumerators returns the constants of an enum, else nil.
func (t *Type) Enumerators() []Enumerator {
	if s := t.Strip(); kinds(Enum, Enum64).has(s.kind) {
		return s.elements().values
	}
	return nil
}

// Params returns the parameters of a function or prototype, else nil.
func (t *Type) Params() []Param {
	s := t.Strip()
	if s.kind == Func {
		s = s.Elem()
	}
	if s.kind != FuncProto {
		return nil
	}
	return s.elements().params
}

func (t *Type) elements() *aux {
	if a := t.aux.Load(); a != nil {
		return a
	}
	a := new(aux)
	if t.src != nil {
		switch t.kind {
		case Struct, Union:
			a.members = t.decodeMembers()
		case Enum, Enum64:
			a.values = t.decodeEnumerators()
		case FuncProto:
			for d := t.data; len(d) > 0; d = d[8:] {
				a.params = append(a.params, Param{t.src.str(le.Uint32(d)), t.src.byID(le.Uint32(d[4:]))})
			}
		}
	}
	t.aux.CompareAndSwap(nil, a)
	return t.aux.Load()
}

func (t *Type) decodeMembers() []Member {
	ms := make([]Member, 0, len(t.data)/12)
	for d := t.data; len(d) > 0; d = d[12:] {
		m := Member{Name: t.src.str(le.Uint32(d)), Type: t.src.byID(le.Uint32(d[4:])), Offset: le.Uint32(d[8:])}
		if t.flag { // kind_flag, 9d5f9f701b18 (5.0): size in the top byte
			m.Offset, m.BitSize = m.Offset&0xffffff, m.Offset>>24
		} else if s := m.Type; s.kind == Int && s.src != nil {
			// Before kind_flag, an integer of fewer bits than bytes*8 was a bitfield.
			if bits, off := uint32(s.data[0]), uint32(s.data[2]); bits != s.size*8 || off != 0 {
				m.Offset, m.BitSize = m.Offset+off, bits
			}
		}
		m.BitSize = min(m.BitSize, 64)
		ms = append(ms, m)
	}
	return ms
}

func (t *Type) decodeEnumerators() []Enumerator {
	var es []Enumerator
	for d := t.data; len(d) > 0; {
		e := Enumerator{Name: t.src.str(le.Uint32(d)), Value: uint64(le.Uint32(d[4:]))}
		if t.kind == Enum64 {
			e.Value |= uint64(le.Uint32(d[8:])) << 32
			d = d[12:]
		} else {
			if t.flag {
				e.Value = uint64(int64(int32(e.Value)))
			}
			d = d[8:]
		}
		es = append(es, e)
	}
	return es
}

// PointerTo returns the type of pointers to t.
func PointerTo(t *Type) *Type { return &Type{kind: Pointer, size: 8, elem: t} }

// ArrayOf returns the type of arrays of n elements of t.
func ArrayOf(t *Type, n uint32) *Type { return &Type{kind: Array, nelems: n, elem: t} }

// FuncOf returns the prototype of functions with a result and parameters.
func FuncOf(result *Type, params []Param) *Type {
	t := &Type{kind: FuncProto, elem: result}
	t.aux.Store(&aux{params: params})
	return t
}

// Identical says whether a and b are the same C type. Qualifiers and typedefs
// do not count; records and enums are the same if kind and tag are.
func Identical(a, b *Type) bool {
	for range maxHops {
		a, b = a.Strip(), b.Strip()
		if a == b {
			return true
		}
		if a.kind != b.kind || a.size != b.size || a.enc != b.enc || a.nelems != b.nelems {
			return a.tagged() && b.tagged() && a.name == b.name && a.isUnion() == b.isUnion()
		}
		switch a.kind {
		case Pointer, Array:
			a, b = a.Elem(), b.Elem()
		case Int, Void, Float:
			return true
		case Struct, Union, Enum, Enum64:
			return a.name == b.name && a.name != ""
		default:
			return a.String() == b.String()
		}
	}
	return false
}

// tagged says whether the type is a record or its forward declaration, with a tag.
func (t *Type) tagged() bool { return kinds(Struct, Union, Fwd).has(t.kind) && t.name != "" }

func (t *Type) isUnion() bool { return t.kind == Union || t.kind == Fwd && t.flag }
