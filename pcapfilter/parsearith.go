package pcapfilter

import "strings"

// startsArith says that only a relation can begin with the token, or at least
// that it can. A bracket is for the caller to decide.
func startsArith(t token) bool {
	switch t.kind {
	case tokNumber:
		return true
	case tokOp:
		return t.text == "-"
	case tokKeyword:
		if t.text == "len" {
			return true
		}
		for _, p := range protocols {
			if p == t.text {
				return true
			}
		}
	}
	return false
}

// tryRelation parses a relation. Where the text may still be something else, ok
// is false and nothing was read; where it cannot, there is an error.
func (p *parser) tryRelation() (n node, ok bool, err error) {
	start, t := p.i, p.peek()
	next := p.ahead(1)
	certain := t.text == "-" && t.kind == tokOp || t.text == "len" && t.kind == tokKeyword ||
		t.kind == tokKeyword && next.kind == tokOp && next.text == "["
	l, err := p.arith(0)
	if err == nil {
		op := p.peek()
		if p.accept("<", "<=", ">", ">=", "=", "!=") {
			r, err := p.arith(0)
			return &relationNode{op.pos, op.text, l, r}, true, err
		}
		if _, plain := l.(*numberArith); !plain || certain {
			err = p.unexpected("a comparison such as =, != or <", qualifiers{})
			if !certain && t.text == "(" { // "(ip[0]) ..." can only be arithmetic, "(ip[0] = 1)" is not
				certain = !p.is(")")
			} else {
				certain = true
			}
		}
	}
	if certain {
		return nil, false, err
	}
	p.i = start
	return nil, false, nil
}

// precedence of the operators, the loosest first (grammar.y).
var precedence = [][]string{{"|"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/"}}

// arith is a number made by operators of the level and closer ones. In libpcap
// % and ^ have no precedence, so that yacc lets them take all that follows,
// whatever stands before: a * b % c + d is a * (b % (c + d)). Nobody means
// that, so beside another operator they need brackets here.
func (p *parser) arith(level int) (arith, error) {
	if level == len(precedence) {
		return p.operand()
	}
	start := p.i
	l, err := p.arith(level + 1)
	if err == nil && level == 0 && p.is("%", "^") {
		op, left := p.peek(), p.i
		p.i++
		var r arith
		if r, err = p.operand(); err != nil {
			return nil, err
		}
		l = &binaryArith{op.pos, op.text, l, r}
		if !p.oneOperand(start, left) || p.is("+", "-", "*", "/", "&", "|", "<<", ">>", "%", "^") {
			return nil, p.fail(op.pos, "%s beside another operator: put brackets around what it applies to", op.text)
		}
	}
	for err == nil {
		op := p.peek()
		if !p.accept(precedence[level]...) {
			return l, nil
		}
		var r arith
		if r, err = p.arith(level + 1); err == nil {
			l = &binaryArith{op.pos, op.text, l, r}
		}
	}
	return nil, err
}

// oneOperand says whether the tokens are one operand without an operator
// outside of its brackets.
func (p *parser) oneOperand(from, to int) bool {
	depth := 0
	for _, t := range p.toks[from:to] {
		if t.kind != tokOp {
			continue
		}
		switch t.text {
		case "(", "[":
			depth++
		case ")", "]":
			depth--
		default:
			if depth == 0 {
				return false
			}
		}
	}
	return true
}

// operand is a number, a load, a length, a negation or brackets.
func (p *parser) operand() (arith, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	t := p.peek()
	switch {
	case t.kind == tokNumber:
		p.i++
		return &numberArith{t.pos, t.num}, nil
	case p.accept("len"):
		return &lenArith{t.pos}, nil
	case p.accept("-"):
		x, err := p.operand()
		return &negArith{t.pos, x}, err
	case p.accept("("):
		x, err := p.arith(0)
		if err == nil {
			err = p.expect(")")
		}
		return x, err
	case t.kind == tokKeyword && p.ahead(1).kind == tokOp && p.ahead(1).text == "[":
		return p.load()
	}
	if t.kind == tokName && strings.ContainsRune(t.text, '-') {
		return nil, p.fail(t.pos, "%s is one word: put spaces around - where it is an operator", t.text)
	}
	return nil, p.unexpected("a number", qualifiers{})
}

// load is proto[index:size].
func (p *parser) load() (arith, error) {
	t := p.peek()
	p.i += 2
	index, err := p.arith(0)
	if err != nil {
		return nil, err
	}
	load := &loadArith{pos: t.pos, proto: t.text, index: index, size: 1}
	if p.accept(":") {
		n := p.peek()
		if n.kind != tokNumber || n.num != 1 && n.num != 2 && n.num != 4 {
			return nil, p.unexpected("a size of 1, 2 or 4 bytes", qualifiers{})
		}
		p.i++
		load.size = n.num
	}
	return load, p.expect("]")
}
