package ctype

import (
	"fmt"
	"strings"
)

// String returns the type as C writes it, without a name: "struct page *",
// "int (*)(struct sk_buff *)".
func (t *Type) String() string { return Declare(t, "") }

// Declare returns the C declaration of a name of type t, as in
// "void (*destructor)(struct sk_buff *)" or "char comm[16]". An anonymous
// struct is written "struct {...}".
func Declare(t *Type, name string) string {
	return (&declarer{steps: maxSteps}).declare(t, name)
}

// maxSteps bounds the parts of one declaration. The longest of a kernel have
// some hundred; a damaged blob may describe endless ones.
const maxSteps = 1024

type declarer struct{ steps int }

// declare wraps the declarator d, from the inside out, until a type with a name
// is reached.
func (w *declarer) declare(t *Type, d string) string {
	for hop := 0; hop < maxHops && w.steps > 0; hop++ {
		w.steps--
		switch t.kind {
		case Pointer:
			d = "*" + d
			t = t.Elem()
		case Const, Volatile, Restrict, TypeTag, Var:
			quals, inner := t.qualifiers()
			if inner.kind != Pointer {
				// Before the name: const char *p.
				return joinWords(quals, w.declare(inner, d))
			}
			d = "*" + joinWords(quals, d)
			t = inner.Elem()
		case Array:
			d = fmt.Sprintf("%s[%d]", parens(d), t.nelems)
			t = t.Elem()
		case Func:
			if d == "" {
				d = t.name
			}
			t = t.Elem()
		case FuncProto:
			d = parens(d) + "(" + w.params(t) + ")"
			t = t.Elem()
		default:
			return joinWords(t.word(), d)
		}
	}
	return joinWords("<damaged: a type without end>", d)
}

// qualifiers returns the qualifiers of t in words and what they qualify.
func (t *Type) qualifiers() (words string, inner *Type) {
	for range maxHops {
		switch t.kind {
		case Const, Volatile, Restrict:
			words = joinWords(words, t.kind.String())
		case TypeTag, Var:
		default:
			return words, t
		}
		t = t.Elem()
	}
	return words, t
}

// parens puts a pointer declarator in parentheses, as [] and () bind tighter.
func parens(d string) string {
	if strings.HasPrefix(d, "*") {
		return "(" + d + ")"
	}
	return d
}

func joinWords(a, b string) string {
	if a == "" || b == "" || strings.HasPrefix(b, "[") {
		return a + b
	}
	return a + " " + b
}

func (w *declarer) params(t *Type) string {
	var out []string
	for i, p := range t.elements().params {
		if p.Type.kind == Void && p.Name == "" && i > 0 {
			out = append(out, "...")
			continue
		}
		if out = append(out, w.declare(p.Type, p.Name)); w.steps <= 0 {
			break
		}
	}
	if out == nil {
		return "void"
	}
	return strings.Join(out, ", ")
}

// word is how C names a type that is not derived from another.
func (t *Type) word() string {
	switch t.kind {
	case Struct, Union:
		return tag(t.kind.String(), t.name)
	case Enum, Enum64:
		return tag("enum", t.name)
	case Fwd:
		if t.flag {
			return tag("union", t.name)
		}
		return tag("struct", t.name)
	case Int, Float, Typedef, Void, Unknown:
		if t.name == "" {
			return "<unnamed>"
		}
		return t.name
	}
	return "<" + t.kind.String() + " " + t.name + ">"
}

func tag(kind, name string) string {
	if name == "" {
		return kind + " {...}"
	}
	return kind + " " + name
}
