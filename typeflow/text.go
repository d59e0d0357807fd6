package typeflow

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// Format writes a value by its type: enumerators and bools by name, pointers
// with their symbol, error numbers with theirs.
func (f *Flow) Format(v Value) string {
	if v.mayFail() {
		return f.FormatResult(v.Type, v.Val, v.Size)
	}
	return f.FormatAs(v.Type, v.Val, v.Size)
}

// errorNames are what members and variables are called that hold error numbers.
var errorNames = map[string]bool{"error": true, "err": true, "errno": true, "ret": true, "retval": true, "rc": true, "res": true, "result": true, "sk_err": true}

// mayFail says whether a negative value is an error number.
func (v Value) mayFail() bool {
	return v.Expr != nil && (v.Expr.Op == OpCall || errorNames[v.Expr.Name])
}

// FormatResult is FormatAs for what a function returned: negative numbers are errors.
func (f *Flow) FormatResult(t *ctype.Type, val uint64, size uint8) string {
	if t != nil && t.IsInteger() && t.IsSigned() && size > 0 {
		if n, err := f.types.Sizeof(t); err == nil && n < int(size) {
			size = uint8(n)
		}
		if n := int64(sext(val, size)); n < 0 && t.Strip().Kind() == ctype.Int {
			return f.negative(n)
		}
	}
	return f.FormatAs(t, val, size)
}

// FormatAs is Format for the low bytes of a number.
func (f *Flow) FormatAs(t *ctype.Type, val uint64, size uint8) string {
	if size == 0 {
		size = 8
	}
	val &= mask(size)
	if t == nil {
		if size == 8 && val > ^uint64(4095) {
			return f.negative(int64(val))
		}
		return fmt.Sprintf("%#x", val) + f.symbol(val)
	}
	wide := false
	if n, err := f.types.Sizeof(t); err == nil {
		wide = n >= 8
		if n < int(size) {
			size = uint8(n)
			val &= mask(size)
		}
	}
	s := t.Strip()
	switch s.Kind() {
	case ctype.Pointer:
		switch {
		case val == 0:
			return "NULL"
		case val > ^uint64(4095):
			return f.negative(int64(val))
		}
		return fmt.Sprintf("%#x", val) + f.symbol(val)
	case ctype.Enum, ctype.Enum64:
		return enumerator(s, val)
	}
	switch {
	case t.IsBool() && val <= 1:
		return strconv.FormatBool(val != 0)
	case t.IsSigned():
		n := int64(sext(val, size))
		switch {
		case n < 0 || !wide:
			return strconv.FormatInt(n, 10)
		}
	case t.IsChar() && val >= 0x20 && val < 0x7f:
		return fmt.Sprintf("%q", rune(val))
	}
	return fmt.Sprintf("%#x", val) + f.symbol(val)
}

func (f *Flow) negative(n int64) string {
	if e := ctype.ErrorName(n); e != "" {
		return fmt.Sprintf("%d (%s)", n, e)
	}
	return strconv.FormatInt(n, 10)
}

// symbol returns " <name>" of an address in the kernel's image.
func (f *Flow) symbol(addr uint64) string {
	if addr < 1<<47 {
		return ""
	}
	if s := f.env.Symbol(addr); s != "" {
		return " <" + s + ">"
	}
	return ""
}

func enumerator(s *ctype.Type, val uint64) string {
	for _, e := range s.Enumerators() {
		if uint32(e.Value) == uint32(val) {
			return e.Name
		}
	}
	return fmt.Sprintf("%#x", val)
}

// Text writes a relation that held, in words of C, with the values of what is
// compared: "x->read (0xff0) != y->commit (0x0)".
func (f *Flow) Text(c Cond, fr *Frame) string {
	c = c.Truth()
	l, r := f.typed(c.Left, c.Right), f.typed(c.Right, c.Left)
	left, right := f.side(l, fr, c), f.side(r, fr, c)
	if r.IsConst() && l.mayFail() {
		right = f.FormatResult(r.Type, r.Val, r.Size)
		if !strings.HasPrefix(right, "-") {
			right = f.side(r, fr, c)
		}
	}
	zero := r.IsConst() && r.Val == 0
	switch {
	case c.Op == "":
		return ""
	case c.Op == "&":
		return fmt.Sprintf("%s & %s (%#x)", left, right, l.Val&r.Val)
	case c.Op == "!&":
		return "!(" + left + " & " + right + ")" + f.worth(l)
	case isErr(c) && c.Op == ">":
		return "IS_ERR(" + left + ")" + f.worth(l)
	case isErr(c) && c.Op == "<=":
		return "!IS_ERR(" + left + ")" + f.worth(l)
	case c.Op == "==" && zero && strings.HasPrefix(left, "test_bit("):
		return "!" + left
	case c.Op == "!=" && zero && strings.HasPrefix(left, "test_bit("):
		return left
	case c.Op == "==" && (r.IsConst() || l.IsConst()):
		return left + " == " + right
	case c.Op == "==":
		return left + " == " + right + f.worth(r)
	}
	if !l.IsConst() {
		left += f.worth(l)
	}
	if !r.IsConst() {
		right += f.worth(r)
	}
	return left + " " + c.Op + " " + right
}

// constantText writes a number of the code.
func (f *Flow) constantText(v Value) string {
	if v.IsConst() && (v.Type == nil || v.Type.Strip().Kind() == ctype.Int && !v.Type.IsBool() && !v.Type.IsChar()) {
		n := v.Val
		if v.Type == nil || v.Type.IsSigned() {
			n = sext(n, v.Size)
		}
		if v.Type != nil && v.Type.IsSigned() {
			return strconv.FormatInt(int64(n), 10)
		}
		return f.number(n)
	}
	return f.Format(v)
}

// isErr says whether a relation is that of IS_ERR_VALUE.
func isErr(c Cond) bool {
	return c.Unsigned && c.Size == 8 && c.Right.IsConst() && c.Right.Val == ^uint64(4095)
}

// typed gives a constant the type of what it is compared with.
func (f *Flow) typed(v, other Value) Value {
	if v.IsConst() && v.Type == nil {
		v.Type = other.Type
		if other.Off != 0 {
			v.Type = nil
		}
	}
	return v
}

// worth is the value behind a name.
func (f *Flow) worth(v Value) string {
	if v.Expr == nil || v.Expr.Op == OpValue {
		return ""
	}
	if v.Off != 0 {
		v.Type = nil
	}
	return " (" + f.Format(v) + ")"
}

// side writes one side of a relation.
func (f *Flow) side(v Value, fr *Frame, c Cond) string {
	name := f.Name(v, fr)
	switch {
	case name == "" && c.Op != "&" && c.Op != "!&":
		if v.IsConst() && v.Type != nil && v.Type.Strip().Kind() == ctype.Pointer && v.Val != 0 {
			return f.number(v.Val)
		}
		return f.constantText(v)
	case name == "":
		return fmt.Sprintf("%#x", v.Val)
	}
	if v.Expr.Op == OpBinary || v.Expr.Op == OpCast && v.Expr.X.Op == OpBinary {
		if c.Op == "&" || c.Op == "!&" || v.Expr.cond != nil || precedence[v.Expr.Name] < 9 {
			name = "(" + name + ")"
		}
	}
	// A comparison of another signedness than the type's: said where it matters.
	order := c.Op != "==" && c.Op != "!=" && c.Op != "&" && c.Op != "!&"
	if order && v.Type != nil && v.Size > 0 && v.Val>>(8*v.Size-1)&1 != 0 {
		switch {
		case c.Unsigned && v.Type.IsSigned():
			name = "(" + unsigned(v.Size).String() + ")" + name
		case !c.Unsigned && !v.Type.IsSigned() && v.Type.IsInteger():
			name = "(" + signed(v.Size).String() + ")" + name
		}
	}
	return name
}
