package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
)

// A Value is what is known of the contents of a register or a memory cell.
type Value struct {
	Type *ctype.Type // in C; nil if not known
	// Expr says what the value is. Of a pointer with Off it is what the
	// value less Off is. nil if nothing is known.
	Expr *Expr
	Off  int64 // displacement, inside what Expr points at
	Val  uint64
	Size uint8  // bytes of the register or cell that are meant
	Addr uint64 // what it was loaded from; 0 if it was computed
	Step uint64 // at which it was loaded or computed

	idx      *index // part of Off that is an index
	cellStep uint64 // of a cell: when it was stored
}

// An index is the part of a displacement that was computed: Expr times Mul,
// which is Val bytes.
type index struct {
	Expr *Expr
	Mul  uint64
	Val  int64
}

// Known says whether the value has a name, or is a constant.
func (v Value) Known() bool { return v.Expr != nil }

// IsConst says whether the value is a constant of the code.
func (v Value) IsConst() bool { return v.Expr != nil && v.Expr.Op == OpConst && v.Off == 0 }

// pointee returns what the value points at, or nil.
func (v Value) pointee() *ctype.Type {
	if v.Type == nil {
		return nil
	}
	s := v.Type.Strip()
	if s.Kind() != ctype.Pointer {
		return nil
	}
	return s.Elem()
}

// isPointer says whether arithmetic with the value moves inside what it points at.
func (v Value) isPointer() bool { return v.Expr != nil && v.pointee() != nil }

// base returns the value of Expr alone.
func (v Value) base() uint64 { return v.Val - uint64(v.Off) }

func constant(n uint64, size uint8) Value {
	n &= mask(size)
	return Value{Expr: constExpr(n), Val: n, Size: size}
}

func mask(size uint8) uint64 {
	if size >= 8 {
		return ^uint64(0)
	}
	return 1<<(8*size) - 1
}

func sext(v uint64, size uint8) uint64 {
	if size >= 8 || size == 0 {
		return v
	}
	s := 64 - 8*uint(size)
	return uint64(int64(v<<s) >> s)
}

// low returns the low bytes of a value.
func (v Value) low(size uint8) Value {
	if size >= v.Size {
		return v
	}
	cut := v.Val & mask(size)
	switch {
	case v.Expr == nil:
	case v.IsConst():
		v.Expr = constExpr(cut)
	case cut != v.Val:
		v.Expr, v.Off, v.idx = castExpr(unsigned(size), pointerExpr(v)), 0, nil
		v.Type = unsigned(size)
	}
	v.Val, v.Size = cut, size
	return v
}

// unsigned returns the unsigned integer type of a size.
func unsigned(size uint8) *ctype.Type {
	switch size {
	case 1:
		return ctype.Builtin("u8")
	case 2:
		return ctype.Builtin("u16")
	case 4:
		return ctype.Builtin("u32")
	}
	return ctype.Builtin("u64")
}
