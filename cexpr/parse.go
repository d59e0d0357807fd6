package cexpr

import (
	"fmt"

	"github.com/ksleuth/ksleuth/ctype"
)

// Limits of expressions, which people type.
const (
	maxSource = 64 << 10
	maxNest   = 250
	maxHeight = 2000
)

// Parse parses an expression. isType says which names are typedefs: whether
// (x)-1 is a cast depends on it; nil knows none. Errors are a [*SyntaxError].
func Parse(src string, isType func(string) bool) (*Expr, error) {
	if len(src) > maxSource {
		return nil, &SyntaxError{src[:80], 80, fmt.Sprintf("the expression is longer than %d bytes", maxSource)}
	}
	if isType == nil {
		isType = func(string) bool { return false }
	}
	p := &parser{lexer: lexer{src: src}, isType: isType}
	if err := p.advance(); err != nil {
		return nil, err
	}
	root, err := p.expr()
	if err != nil {
		return nil, err
	}
	if p.tok.tok != tokEnd {
		return nil, p.unexpected("an operator or the end")
	}
	return &Expr{src, root}, nil
}

type parser struct {
	lexer
	isType func(string) bool
	tok    lexeme
	prev   int // end of the token before tok
	depth  int
	height int // operators so far
}

func (p *parser) advance() (err error) {
	p.prev = p.tok.end
	p.tok, err = p.next()
	return err
}

func (p *parser) unexpected(want string) error {
	got := string(p.tok.tok)
	if p.tok.tok != tokEnd {
		got = fmt.Sprintf("%q", p.src[p.tok.pos:p.tok.end])
	}
	return p.errorf(p.tok.pos, "expected %s, found %s", want, got)
}

func (p *parser) expect(tok Token) error {
	if p.tok.tok != tok {
		return p.unexpected(string(tok))
	}
	return p.advance()
}

func (p *parser) enter() error {
	if p.depth++; p.depth > maxNest {
		return p.errorf(p.tok.pos, "nested more than %d deep", maxNest)
	}
	return nil
}

// precedence of the binary operators, C17 6.5.5 to 6.5.14; higher binds tighter.
var precedence = map[Token]int{
	"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6,
	"<": 7, "<=": 7, ">": 7, ">=": 7, "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}

// expr parses a conditional expression.
func (p *parser) expr() (Node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	test, err := p.binary(1)
	if err != nil || p.tok.tok != "?" {
		return test, err
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	then, err := p.expr()
	if err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	other, err := p.expr()
	if err != nil {
		return nil, err
	}
	return &Cond{test, then, other}, nil
}

func (p *parser) binary(least int) (Node, error) {
	x, err := p.unary()
	if err != nil {
		return nil, err
	}
	for {
		op, at := p.tok.tok, p.tok.pos
		prec := precedence[op]
		if prec < least || prec == 0 {
			return x, nil
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		y, err := p.binary(prec + 1)
		if err != nil {
			return nil, err
		}
		x = &Binary{at, op, x, y}
		if err := p.grown(); err != nil {
			return nil, err
		}
	}
}

// grown bounds the height of trees that grow to the left without recursion
// here, but with recursion in whoever walks them.
func (p *parser) grown() error {
	if p.height++; p.height > maxHeight {
		return p.errorf(p.tok.pos, "more than %d operators", maxHeight)
	}
	return nil
}

func (p *parser) unary() (Node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	at := p.tok.pos
	switch op := p.tok.tok; op {
	case "+", "-", "!", "~", "*", "&":
		if err := p.advance(); err != nil {
			return nil, err
		}
		x, err := p.unary()
		return &Unary{at, op, x}, err
	case "&&":
		return nil, p.errorf(at, "&& has no left operand")
	case "(":
		return p.parenOrCast()
	case tokIdent:
		if p.tok.text == "sizeof" {
			return p.sizeof()
		}
	}
	return p.postfix(nil)
}

// parenOrCast parses from an opening parenthesis.
func (p *parser) parenOrCast() (Node, error) {
	at := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.atType() {
		typ, err := p.typeName()
		if err != nil {
			return nil, err
		}
		if err := p.expect(")"); err != nil {
			return nil, err
		}
		x, err := p.unary()
		return &Cast{at, typ, x}, err
	}
	x, err := p.expr()
	if err != nil {
		return nil, err
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	return p.postfix(x)
}

func (p *parser) sizeof() (Node, error) {
	at := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.tok != "(" {
		x, err := p.unary()
		return &Sizeof{At: at, X: x}, err
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.atType() {
		typ, err := p.typeName()
		if err != nil {
			return nil, err
		}
		return &Sizeof{At: at, Type: typ}, p.expect(")")
	}
	x, err := p.expr()
	if err != nil {
		return nil, err
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	x, err = p.postfix(x)
	return &Sizeof{At: at, X: x}, err
}

// postfix parses . -> [] and calls behind x, or behind a primary expression.
func (p *parser) postfix(x Node) (_ Node, err error) {
	if x == nil {
		if x, err = p.primary(); err != nil {
			return nil, err
		}
	}
	for {
		switch p.tok.tok {
		case ".", "->":
			arrow := p.tok.tok == "->"
			if err := p.advance(); err != nil {
				return nil, err
			}
			if p.tok.tok != tokIdent {
				return nil, p.unexpected("a member's name")
			}
			x = &Member{x, arrow, p.tok.pos, p.tok.text}
			err = p.advance()
		case "[":
			if err := p.advance(); err != nil {
				return nil, err
			}
			i, err := p.expr()
			if err != nil {
				return nil, err
			}
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			x = &Index{x, i}
		case "(":
			fun, ok := x.(*Ident)
			if !ok {
				return nil, p.errorf(p.tok.pos, "only built-in functions can be called, by name")
			}
			x, err = p.call(fun)
		default:
			return x, nil
		}
		if err == nil {
			err = p.grown()
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) call(fun *Ident) (Node, error) {
	c := &Call{Fun: fun}
	if err := p.advance(); err != nil {
		return nil, err
	}
	for p.tok.tok != ")" {
		var arg Node
		var err error
		if p.atType() {
			arg, err = p.typeName()
		} else {
			arg, err = p.expr()
		}
		if err != nil {
			return nil, err
		}
		c.Args = append(c.Args, arg)
		if p.tok.tok == "," {
			if err := p.advance(); err != nil {
				return nil, err
			}
			if p.tok.tok == ")" {
				return nil, p.unexpected("an argument")
			}
		} else if p.tok.tok != ")" {
			return nil, p.unexpected(", or )")
		}
	}
	err := p.advance()
	c.End = p.prev
	return c, err
}

func (p *parser) primary() (Node, error) {
	t := p.tok
	switch t.tok {
	case tokIdent:
		if ctype.IsTypeWord(t.text) {
			return nil, p.errorf(t.pos, "%q begins a type: put it in parentheses", t.text)
		}
		return &Ident{t.pos, t.text}, p.advance()
	case tokInt, tokChar:
		return &IntLit{t.pos, t.text, t.value, t.typ}, p.advance()
	case tokString:
		s := &StringLit{t.pos, t.text}
		err := p.advance()
		for err == nil && p.tok.tok == tokString { // "a" "b" is "ab"
			s.Value += p.tok.text
			err = p.advance()
		}
		return s, err
	}
	return nil, p.unexpected("a value")
}

// atType says whether a type name begins here.
func (p *parser) atType() bool {
	return p.tok.tok == tokIdent && (ctype.IsTypeWord(p.tok.text) || p.isType(p.tok.text))
}

// typeName delimits a type name: words, then *, [n], and balanced parentheses.
// ctype parses what is inside.
func (p *parser) typeName() (*TypeName, error) {
	start := p.tok.pos
	tagged, named := false, false
	for p.tok.tok == tokIdent {
		word := p.tok.text
		switch {
		case tagged || ctype.IsTypeWord(word):
			tagged = !tagged && (word == "struct" || word == "union" || word == "enum")
			named = named || !isQualifier(word)
		case !named && p.isType(word):
			named = true
		default:
			return nil, p.unexpected("the end of the type")
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	if tagged {
		return nil, p.unexpected("a struct's, union's or enum's name")
	}
	for nest := 0; ; {
		switch p.tok.tok {
		case "*", tokInt, "...":
		case tokIdent:
			if nest == 0 && !isQualifier(p.tok.text) {
				return nil, p.unexpected("the end of the type")
			}
		case "(", "[":
			nest++
		case ")", "]", ",":
			if nest == 0 {
				return &TypeName{start, p.src[start:p.prev]}, nil
			}
			if p.tok.tok != "," {
				nest--
			}
		default:
			return nil, p.unexpected("the end of the type")
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
}

func isQualifier(word string) bool {
	return word == "const" || word == "volatile" || word == "restrict"
}
