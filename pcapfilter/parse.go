package pcapfilter

import (
	"fmt"
	"net/netip"
	"slices"
)

// Limits on what is foreign: deeper or longer expressions are refused.
const (
	maxExpr  = 64 << 10 // bytes
	maxDepth = 200      // of brackets and negations
)

// protocols are the words that can stand before other qualifiers, before "["
// and alone.
var protocols = []string{
	"ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp", "carp",
	"ah", "esp", "atalk", "aarp", "decnet", "lat", "sca", "moprc", "mopdl", "iso", "stp", "ipx", "netbeui",
	"esis", "isis", "clnp", "l1", "l2", "iih", "lsp", "snp", "csnp", "psnp", "radio",
}

// A parser is a recursive descent over libpcap's grammar.y: and and or have one
// precedence and group to the left, not binds closer, and an id without
// qualifiers takes those of the term before it.
type parser struct {
	expr  string
	toks  []token
	i     int
	depth int
}

// parse returns nil for an empty expression, which every packet matches.
func parse(expr string) (node, error) {
	if len(expr) > maxExpr {
		return nil, &Error{expr, maxExpr, fmt.Sprintf("the filter is longer than %d bytes", maxExpr)}
	}
	toks, err := scan(expr)
	if err != nil {
		return nil, err
	}
	p := &parser{expr: expr, toks: toks}
	if p.peek().kind == tokEnd {
		return nil, nil
	}
	n, _, err := p.expression(qualifiers{})
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokEnd {
		return nil, p.unexpected("and, or or the end of the filter", qualifiers{})
	}
	return n, nil
}

func (p *parser) peek() token       { return p.toks[p.i] }
func (p *parser) ahead(n int) token { return p.toks[min(p.i+n, len(p.toks)-1)] }
func (p *parser) is(words ...string) bool {
	t := p.peek()
	return (t.kind == tokKeyword || t.kind == tokOp) && slices.Contains(words, t.text)
}

func (p *parser) accept(words ...string) bool {
	if !p.is(words...) {
		return false
	}
	p.i++
	return true
}

func (p *parser) fail(pos int, format string, args ...any) error {
	return &Error{p.expr, pos, fmt.Sprintf(format, args...)}
}

func (p *parser) expect(op string) error {
	if !p.accept(op) {
		return p.unexpected(op, qualifiers{})
	}
	return nil
}

// enter counts nested brackets and negations; every call needs a leave.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(p.peek().pos, "more than %d brackets and negations inside each other", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// expression is a chain of terms. The first one cannot lack qualifiers; before
// are those that brackets take over.
func (p *parser) expression(before qualifiers) (node, qualifiers, error) {
	return p.chain(before, func(q qualifiers, first bool) (node, qualifiers, error) { return p.element(q, !first) })
}

// chain is what stands between and and or.
func (p *parser) chain(q qualifiers, element func(q qualifiers, first bool) (node, qualifiers, error)) (node, qualifiers, error) {
	l, q, err := element(q, true)
	for err == nil && p.is("and", "or") {
		and := p.accept("and") || !p.accept("or")
		var r node
		if r, q, err = element(q, false); err != nil {
			break
		}
		if and {
			l = &andNode{l, r}
		} else {
			l = &orNode{l, r}
		}
	}
	return l, q, err
}

// element is a term, or an id if that is allowed here.
func (p *parser) element(q qualifiers, idAllowed bool) (node, qualifiers, error) {
	if err := p.enter(); err != nil {
		return nil, q, err
	}
	defer p.leave()
	if p.accept("not") {
		n, q, err := p.element(q, idAllowed)
		return &notNode{n}, q, err
	}
	id := p.idFollows()
	if !id && (startsArith(p.peek()) || p.is("(")) {
		if n, ok, err := p.tryRelation(); ok || err != nil {
			return n, qualifiers{}, err
		}
	}
	if id {
		if !idAllowed && !q.set {
			return nil, q, p.unexpected("", q)
		}
		n, err := p.id(q)
		return n, q, err
	}
	if p.accept("(") {
		n, _, err := p.expression(q)
		if err == nil {
			err = p.expect(")")
		}
		return n, q, err
	}
	return p.primitive()
}

// idFollows says whether the first token that is no opening bracket or not is
// an id. A number is none if an operator follows it.
func (p *parser) idFollows() bool {
	n := 0
	for t := p.ahead(n); (t.kind == tokOp && t.text == "(") || (t.kind == tokKeyword && t.text == "not"); t = p.ahead(n) {
		n++
	}
	if t := p.ahead(n); t.kind != tokNumber {
		return isID(t)
	}
	for n++; p.ahead(n).kind == tokOp && p.ahead(n).text == ")"; n++ {
	}
	return p.ahead(n).kind != tokOp
}

func isID(t token) bool {
	switch t.kind {
	case tokNumber, tokName, tokIPv4, tokIPv6, tokMAC:
		return true
	}
	return false
}

// id is an id or a chain of them in brackets, all with the qualifiers q.
func (p *parser) id(q qualifiers) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	switch {
	case p.accept("not"):
		n, err := p.id(q)
		return &notNode{n}, err
	case p.accept("("):
		n, _, err := p.chain(q, func(q qualifiers, _ bool) (node, qualifiers, error) {
			n, err := p.id(q)
			return n, q, err
		})
		if err == nil {
			err = p.expect(")")
		}
		return n, err
	}
	t := p.peek()
	if !isID(t) {
		return nil, p.unexpected("", q)
	}
	if !q.set {
		return nil, p.unexpected("", q)
	}
	p.i++
	v := value{pos: t.pos, kind: t.kind, text: t.text, num: t.num, ip: t.ip, mac: t.mac, bits: -1}
	switch {
	case (t.kind == tokIPv4 || t.kind == tokIPv6) && p.accept("/"):
		n := p.peek()
		if n.kind != tokNumber {
			return nil, p.unexpected("the length of the prefix", q)
		}
		p.i++
		v.bits = int(min(n.num, 1000))
	case t.kind == tokIPv4 && p.accept("mask"):
		m := p.peek()
		if m.kind != tokIPv4 {
			return nil, p.unexpected("a mask such as 255.255.0.0", q)
		}
		p.i++
		v.mask = m.text
	}
	return &valueNode{q, v}, nil
}

// primitive is what begins with a word of the language.
func (p *parser) primitive() (node, qualifiers, error) {
	t := p.peek()
	switch {
	case p.accept("less", "greater"):
		n := p.peek()
		if n.kind != tokNumber {
			return nil, qualifiers{}, p.unexpected("a length in bytes", qualifiers{})
		}
		p.i++
		return &lenNode{t.pos, t.text == "less", n.num}, qualifiers{}, nil
	case p.accept("vlan", "mpls", "pppoed", "pppoes"):
		n := &layerNode{pos: t.pos, layer: t.text}
		if t.text != "pppoed" {
			n.id, n.hasID = p.optionalNumber()
		}
		return n, qualifiers{}, nil
	}
	q := qualifiers{set: true, pos: t.pos}
	if t.kind == tokKeyword && slices.Contains(protocols, t.text) {
		q.proto = t.text
		p.i++
	}
	if what := p.peek(); p.accept("broadcast", "multicast") {
		return &castNode{what.pos, q.proto, what.text}, qualifiers{}, nil
	}
	q.dir = p.direction()
	if typ := p.peek(); p.accept("host", "net", "port", "portrange") || q.dir == dirNone && p.accept("proto", "protochain", "gateway") {
		q.typ = typ.text
	}
	switch {
	case q.dir != dirNone || q.typ != "":
		n, err := p.id(q)
		return n, q, err
	case q.proto != "":
		if t := p.peek(); isID(t) {
			return nil, q, p.fail(t.pos, "%q after %q: say what it is, as in %q", p.text(t), q.proto, q.proto+" host "+p.text(t))
		}
		return &protoNode{t.pos, q.proto}, qualifiers{}, nil
	}
	return nil, q, p.unexpected("", q)
}

// direction is src, dst, or both with and or or between them.
func (p *parser) direction() dir {
	t := p.peek()
	if !p.accept("src", "dst") {
		return dirNone
	}
	op, other := p.peek(), p.ahead(1)
	if (p.is("and") || p.is("or")) && other.kind == tokKeyword && (other.text == "src" || other.text == "dst") && other.text != t.text {
		p.i += 2
		if op.text == "and" {
			return dirAnd
		}
		return dirOr
	}
	if t.text == "src" {
		return dirSrc
	}
	return dirDst
}

// optionalNumber is a number, perhaps in brackets.
func (p *parser) optionalNumber() (uint32, bool) {
	n := 0
	for p.ahead(n).kind == tokOp && p.ahead(n).text == "(" {
		n++
	}
	num := p.ahead(n)
	if num.kind != tokNumber {
		return 0, false
	}
	for i := range n {
		if t := p.ahead(n + 1 + i); t.kind != tokOp || t.text != ")" {
			return 0, false
		}
	}
	p.i += 2*n + 1
	return num.num, true
}

// text returns a token as it was written.
func (p *parser) text(t token) string {
	end := len(p.expr)
	for _, next := range p.toks {
		if next.pos > t.pos {
			end = next.pos
			break
		}
	}
	s := p.expr[t.pos:end]
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t' || s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}

// unexpected explains the token at hand. q are the qualifiers before it.
func (p *parser) unexpected(want string, q qualifiers) error {
	t := p.peek()
	what := fmt.Sprintf("%q", p.text(t))
	if t.kind == tokEnd {
		what = "the end"
	}
	why, refused := refusedWords[t.text]
	var n uint32
	switch {
	case t.kind == tokKeyword && refused:
		return p.fail(t.pos, "%s is not supported: %s", p.text(t), why)
	case want != "":
		return p.fail(t.pos, "%s where %s should be", what, want)
	case t.kind == tokKeyword && q.typ == "proto" && isProtocolName(t.text, &n):
		return p.fail(t.pos, "%s is a word of the language: write \\%s here, or its number", t.text, t.text)
	case q.set && (q.typ != "" || q.dir != dirNone):
		return p.fail(t.pos, "%s where an address, a port, a protocol or a number should be", what)
	case isID(t):
		return p.fail(t.pos, "%s alone: say what it is, as in %q", what, hint(t)+" "+p.text(t))
	default:
		return p.fail(t.pos, "%s where a condition should be", what)
	}
}

func isProtocolName(word string, n *uint32) bool {
	var ok bool
	if *n, ok = ipProtocols[word]; !ok {
		*n, ok = linkProtocols[word]
	}
	return ok
}

// hint returns the qualifier that an id most probably lacks.
func hint(t token) string {
	switch {
	case t.kind == tokNumber:
		return "port"
	case t.kind == tokMAC:
		return "ether host"
	case t.kind == tokName:
		if _, ok := services[t.text]; ok {
			return "port"
		}
	case t.kind == tokIPv4 || t.ip != netip.Addr{}:
	}
	return "host"
}
