package ctype

import (
	"fmt"
	"strconv"
	"strings"
)

// A ParseError says where a type name is not C.
type ParseError struct {
	Text string
	Pos  int // byte offset into Text
	Msg  string
}

// Error is one line with the position.
func (e *ParseError) Error() string {
	return fmt.Sprintf("type name %q: column %d: %s", e.Text, e.Pos+1, e.Msg)
}

// Limits of type names, which people type.
const (
	maxTypeText  = 4096
	maxTypeDepth = 32 // parentheses and prototypes inside each other
)

// ParseType returns the type that a C type name stands for, as a cast has it:
// "struct task_struct *", "unsigned long", "char[16]", "int (*)(void *, u64)".
// Errors are a [*ParseError], or a [*NotFoundError] for an unknown tag or
// typedef. "union u" finds a union only; a bare name a typedef or integer only.
func (ts *Types) ParseType(text string) (*Type, error) {
	if len(text) > maxTypeText {
		return nil, &ParseError{text[:32] + "...", maxTypeText, "too long"}
	}
	p := typeParser{ts: ts, text: text}
	p.next()
	t, err := p.typeName(0)
	if err == nil && p.tok != "" {
		err = p.errorf("unexpected %q", p.tok)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

type typeParser struct {
	ts   *Types
	text string
	pos  int    // of tok
	end  int    // behind tok
	tok  string // word, number or punctuation; "" at the end
}

func (p *typeParser) errorf(msg string, args ...any) error {
	return &ParseError{p.text, p.pos, fmt.Sprintf(msg, args...)}
}

func isWordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (p *typeParser) next() {
	for p.end < len(p.text) && strings.IndexByte(" \t\n", p.text[p.end]) >= 0 {
		p.end++
	}
	p.pos = p.end
	for p.end < len(p.text) && isWordByte(p.text[p.end]) {
		p.end++
	}
	if p.end == p.pos && p.end < len(p.text) {
		p.end++
		if strings.HasPrefix(p.text[p.pos:], "...") {
			p.end += 2
		}
	}
	p.tok = p.text[p.pos:p.end]
}

func (p *typeParser) accept(tok string) bool {
	if p.tok != tok {
		return false
	}
	p.next()
	return true
}

func (p *typeParser) isWord() bool { return p.tok != "" && isWordByte(p.tok[0]) }

// typeName parses specifiers and an abstract declarator.
func (p *typeParser) typeName(depth int) (*Type, error) {
	t, err := p.specifiers()
	if err != nil {
		return nil, err
	}
	wrap, err := p.declarator(depth)
	if err != nil {
		return nil, err
	}
	return wrap(t), nil
}

func (p *typeParser) specifiers() (*Type, error) {
	var t *Type
	var quals []Kind
	var ints []string
	start := p.pos
	for p.isWord() {
		word := p.tok
		if k, ok := qualifierWords[word]; ok {
			quals = append(quals, k)
			p.next()
			continue
		}
		if t != nil || ints != nil && !intWords[word] {
			break
		}
		if intWords[word] {
			ints = append(ints, word)
			p.next()
			continue
		}
		var err error
		if t, err = p.named(word); err != nil {
			return nil, err
		}
	}
	if ints != nil {
		if t = integer(ints); t == nil {
			p.pos = start
			return nil, p.errorf("%q is not a C type", strings.Join(ints, " "))
		}
		// As the target has it: whether char is signed differs.
		if found := p.ts.first(t.name, kinds(Int)); found != nil {
			t = found
		}
	}
	if t == nil {
		return nil, p.errorf("expected a type")
	}
	return qualify(t, quals), nil
}

func qualify(t *Type, quals []Kind) *Type {
	for _, k := range quals {
		t = &Type{kind: k, elem: t}
	}
	return t
}

// named parses a tag or typedef.
func (p *typeParser) named(word string) (*Type, error) {
	set := namedKinds
	if word == "struct" || word == "union" || word == "enum" {
		set = keywords[word]
		p.next()
		if !p.isWord() {
			return nil, p.errorf("expected a name after %s", word)
		}
	} else if c := word[0]; c >= '0' && c <= '9' {
		return nil, p.errorf("expected a type")
	} else {
		word = "type"
	}
	name := p.tok
	t := p.ts.first(name, set)
	if t == nil && word == "type" {
		t = builtins[name]
	}
	if t == nil && (word == "struct" || word == "union") {
		// A pointer to a type that is only declared is fine.
		for _, f := range p.ts.LookupAll(name) {
			if f.kind == Fwd && f.flag == (word == "union") {
				t = f
			}
		}
	}
	if t == nil {
		return nil, p.ts.notFound(word, name, set)
	}
	p.next()
	return t, nil
}

// declarator parses an abstract declarator into what it makes of a type.
func (p *typeParser) declarator(depth int) (wrap func(*Type) *Type, err error) {
	if depth > maxTypeDepth {
		return nil, p.errorf("nested too deeply")
	}
	if p.accept("*") {
		var quals []Kind
		for {
			k, ok := qualifierWords[p.tok]
			if !ok {
				break
			}
			quals = append(quals, k)
			p.next()
		}
		inner, err := p.declarator(depth + 1)
		if err != nil {
			return nil, err
		}
		return func(t *Type) *Type { return inner(qualify(PointerTo(t), quals)) }, nil
	}
	inner := func(t *Type) *Type { return t }
	if p.tok == "(" {
		// "(*" opens a declarator; anything else is a parameter list.
		if rest := strings.TrimLeft(p.text[p.end:], " \t\n"); rest != "" && strings.IndexByte("*([", rest[0]) >= 0 {
			p.next()
			if inner, err = p.declarator(depth + 1); err != nil {
				return nil, err
			}
			if !p.accept(")") {
				return nil, p.errorf("expected )")
			}
		}
	} else if p.isWord() && depth > 0 {
		p.next() // the name of a parameter
	}
	return p.suffixes(inner, depth)
}

// suffixes parses [n] and (parameters).
func (p *typeParser) suffixes(inner func(*Type) *Type, depth int) (func(*Type) *Type, error) {
	var post []func(*Type) *Type
	for p.tok == "[" || p.tok == "(" {
		if len(post) > maxTypeDepth {
			return nil, p.errorf("nested too deeply")
		}
		if p.accept("[") {
			n := uint64(0)
			if p.tok != "]" {
				var err error
				if n, err = strconv.ParseUint(p.tok, 0, 31); err != nil {
					return nil, p.errorf("array length %q", p.tok)
				}
				p.next()
			}
			if !p.accept("]") {
				return nil, p.errorf("expected ]")
			}
			post = append(post, func(t *Type) *Type { return ArrayOf(t, uint32(n)) })
			continue
		}
		p.next()
		params, err := p.params(depth)
		if err != nil {
			return nil, err
		}
		post = append(post, func(t *Type) *Type { return FuncOf(t, params) })
	}
	return func(t *Type) *Type {
		for i := len(post) - 1; i >= 0; i-- {
			t = post[i](t)
		}
		return inner(t)
	}, nil
}

func (p *typeParser) params(depth int) (params []Param, err error) {
	if p.accept(")") {
		return nil, nil
	}
	for {
		t := voidType
		if !p.accept("...") {
			if t, err = p.typeName(depth + 1); err != nil {
				return nil, err
			}
		}
		params = append(params, Param{Type: t})
		if p.accept(")") {
			break
		}
		if !p.accept(",") {
			return nil, p.errorf("expected , or )")
		}
	}
	if len(params) == 1 && params[0].Type.kind == Void {
		return nil, nil
	}
	return params, nil
}
