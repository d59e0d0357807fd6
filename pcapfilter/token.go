package pcapfilter

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// A kind is what sort of token a piece of text is.
type kind uint8

const (
	tokEnd     kind = iota
	tokOp           // an operator, bracket or colon
	tokKeyword      // a word of the language
	tokNumber       // a number, or a name that stands for one
	tokName         // another word: a service, a protocol, a host
	tokIPv4         // 10.0, 10.0.0, 10.0.0.1
	tokIPv6
	tokMAC
)

type token struct {
	kind kind
	pos  int
	text string // a keyword or operator in its only spelling
	num  uint32 // of a number
	ip   netip.Addr
	mac  [6]byte
}

// operators are those of several characters first: the longest one is meant.
var operators = []struct{ text, as string }{
	{"&&", "and"}, {"||", "or"},
	{">=", ">="}, {"<=", "<="}, {"!=", "!="}, {"==", "="}, {"<<", "<<"}, {">>", ">>"},
	{"!", "not"},
	{"+", "+"}, {"-", "-"}, {"*", "*"}, {"/", "/"}, {"%", "%"}, {"&", "&"}, {"|", "|"}, {"^", "^"},
	{"<", "<"}, {">", ">"}, {"=", "="}, {"(", "("}, {")", ")"}, {"[", "["}, {"]", "]"}, {":", ":"},
}

var (
	wordForm   = regexp.MustCompile(`^[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?`)
	numberForm = regexp.MustCompile(`^(?:[0-9]+|0[xX][0-9A-Fa-f]+)$`)
	dottedForm = regexp.MustCompile(`^(?:[0-9]+|0[xX][0-9A-Fa-f]+)(?:\.(?:[0-9]+|0[xX][0-9A-Fa-f]+)){1,3}$`)
	colonForm  = regexp.MustCompile(`^[0-9A-Fa-f]*:[0-9A-Fa-f:.]+`)
	macForm    = regexp.MustCompile(`^(?:` +
		`[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{1,2}){5}|` +
		`[0-9A-Fa-f]{1,2}(?:-[0-9A-Fa-f]{1,2}){5}|` +
		`[0-9A-Fa-f]{1,2}(?:\.[0-9A-Fa-f]{1,2}){5}|` +
		`[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}|` +
		`[0-9A-Fa-f]{12})$`)
)

// scan splits an expression into tokens, by the rules of libpcap's scanner.l:
// the longest match counts, so "0-1" is one name, and "0 - 1" a difference.
func scan(expr string) ([]token, error) {
	var out []token
	for pos := 0; ; {
		for pos < len(expr) && strings.IndexByte(" \t\r\n", expr[pos]) >= 0 {
			pos++
		}
		if pos == len(expr) {
			return append(out, token{kind: tokEnd, pos: pos, text: "the end"}), nil
		}
		t, n, msg := scanOne(expr[pos:])
		if msg != "" {
			return nil, &Error{expr, pos, msg}
		}
		t.pos = pos
		out = append(out, t)
		pos += n
	}
}

// scanOne returns the first token of s and its length, or why there is none.
func scanOne(s string) (token, int, string) {
	if addr := longestAddress(s); addr.kind != tokEnd {
		return addr, len(addr.text), ""
	}
	if word := wordForm.FindString(s); word != "" {
		t, msg := scanWord(word)
		return t, len(word), msg
	}
	if s[0] == '\\' {
		n := strings.IndexAny(s, " !()\n\t")
		if n < 0 {
			n = len(s)
		}
		if n > 1 {
			return token{kind: tokName, text: s[1:n]}, n, ""
		}
	}
	for _, op := range operators {
		if strings.HasPrefix(s, op.text) {
			k := tokOp
			if op.as == "and" || op.as == "or" || op.as == "not" {
				k = tokKeyword
			}
			return token{kind: k, text: op.as}, len(op.text), ""
		}
	}
	return token{}, 0, strconv.QuoteRune([]rune(s)[0]) + " means nothing here"
}

// longestAddress returns the address with colons that s begins with, if it is
// longer than the word there.
func longestAddress(s string) token {
	run := colonForm.FindString(s)
	if len(run) > 64 { // no address is so long
		run = run[:64]
	}
	for word := wordForm.FindString(s); len(run) > len(word); run = run[:len(run)-1] {
		if macForm.MatchString(run) {
			return token{kind: tokMAC, text: run, mac: parseMAC(run)}
		}
		if ip, err := netip.ParseAddr(run); err == nil && ip.Is6() {
			return token{kind: tokIPv6, text: run, ip: ip}
		}
	}
	return token{}
}

func scanWord(word string) (token, string) {
	if as, ok := keywords[word]; ok {
		return token{kind: tokKeyword, text: as}, ""
	}
	if n, ok := numbers[word]; ok {
		return token{kind: tokNumber, text: word, num: n}, ""
	}
	switch {
	case macForm.MatchString(word):
		return token{kind: tokMAC, text: word, mac: parseMAC(word)}, ""
	case numberForm.MatchString(word):
		if strings.HasPrefix(word, "0") && strings.ContainsAny(word, "89") && !strings.ContainsAny(word, "xX") {
			return token{}, word + " begins with 0, as octal numbers do, but has a digit that they do not"
		}
		base, digits := 10, word
		switch {
		case len(word) > 1 && (word[1] == 'x' || word[1] == 'X'):
			base, digits = 16, word[2:]
		case word[0] == '0':
			base = 8
		}
		n, err := strconv.ParseUint(digits, base, 32)
		if err != nil {
			return token{}, word + " does not fit into 32 bits"
		}
		return token{kind: tokNumber, text: word, num: uint32(n)}, ""
	case dottedForm.MatchString(word):
		return token{kind: tokIPv4, text: word}, ""
	}
	return token{kind: tokName, text: word}, ""
}

// parseMAC takes what macForm matches.
func parseMAC(s string) (mac [6]byte) {
	digits := s
	if strings.ContainsAny(s, ":-") || strings.Count(s, ".") == 5 {
		var b strings.Builder
		for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' || r == '.' }) {
			b.WriteString("0"[len(f)-1:])
			b.WriteString(f)
		}
		digits = b.String()
	}
	digits = strings.ReplaceAll(digits, ".", "")
	for i := range mac {
		n, _ := strconv.ParseUint(digits[2*i:2*i+2], 16, 8) // the form was checked
		mac[i] = byte(n)
	}
	return mac
}

// parseIPv4 takes 1 to 4 decimal numbers with dots; the address is left-aligned
// and bits says how many were given.
func parseIPv4(s string) (addr uint32, bits int, ok bool) {
	for f := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(f, 10, 8)
		if err != nil {
			return 0, 0, false
		}
		addr, bits = addr<<8|uint32(n), bits+8
	}
	return addr << (32 - bits), bits, bits <= 32
}
