package cexpr

import (
	"fmt"
	"strconv"
	"strings"
)

// A Token is a kind of word of an expression; operators are named by their
// spelling.
type Token string

// The tokens that are not operators.
const (
	tokEnd    Token = "end of expression"
	tokIdent  Token = "name"
	tokInt    Token = "number"
	tokChar   Token = "character"
	tokString Token = "string"
)

// operators, longest first: the lexer takes the longest that fits (C17 6.4p4).
// Those that change something are known so that they can be refused in words.
var operators = [...]Token{
	"<<=", ">>=", "...",
	"->", "++", "--", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
	"(", ")", "[", "]", ".", ",", "?", ":", "+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "<", ">", "=",
}

var assignments = map[Token]bool{
	"=": true, "++": true, "--": true, "+=": true, "-=": true, "*=": true, "/=": true, "%=": true,
	"&=": true, "|=": true, "^=": true, "<<=": true, ">>=": true,
}

type lexeme struct {
	tok   Token
	pos   int
	end   int
	text  string // of a name or number; the value of a string
	value uint64 // of a number or character
	typ   string // C type of a number
}

type lexer struct {
	src string
	pos int
}

func (l *lexer) errorf(pos int, msg string, args ...any) error {
	return &SyntaxError{l.src, pos, fmt.Sprintf(msg, args...)}
}

func isLetter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func (l *lexer) next() (lexeme, error) {
	for l.pos < len(l.src) && strings.IndexByte(" \t\r\n", l.src[l.pos]) >= 0 {
		l.pos++
	}
	start := l.pos
	if start == len(l.src) {
		return lexeme{tok: tokEnd, pos: start, end: start}, nil
	}
	switch c := l.src[start]; {
	case isLetter(c):
		return l.word(tokIdent), nil
	case isDigit(c):
		return l.number()
	case c == '\'':
		return l.char()
	case c == '"':
		return l.str()
	}
	for _, op := range operators {
		if strings.HasPrefix(l.src[start:], string(op)) {
			l.pos += len(op)
			if assignments[op] {
				hint := ""
				if op == "=" {
					hint = " (for a comparison write ==)"
				}
				return lexeme{}, l.errorf(start, "%s would change something: expressions only read%s", op, hint)
			}
			return lexeme{tok: op, pos: start, end: l.pos}, nil
		}
	}
	return lexeme{}, l.errorf(start, "unexpected character %q", []rune(l.src[start:])[0])
}

func (l *lexer) word(tok Token) lexeme {
	start := l.pos
	for l.pos < len(l.src) && (isLetter(l.src[l.pos]) || isDigit(l.src[l.pos])) {
		l.pos++
	}
	return lexeme{tok: tok, pos: start, end: l.pos, text: l.src[start:l.pos]}
}

func (l *lexer) number() (lexeme, error) {
	x := l.word(tokInt)
	if l.pos < len(l.src) && l.src[l.pos] == '.' && l.pos+1 < len(l.src) && isDigit(l.src[l.pos+1]) {
		return x, l.errorf(x.pos, "the kernel has no floating-point numbers")
	}
	digits := strings.TrimRight(x.text, "uUlL")
	base := 10
	switch {
	case len(digits) > 1 && (digits[1] == 'x' || digits[1] == 'X') && digits[0] == '0':
		base, digits = 16, digits[2:]
	case len(digits) > 1 && (digits[1] == 'b' || digits[1] == 'B') && digits[0] == '0':
		base, digits = 2, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base = 8
	}
	v, err := strconv.ParseUint(digits, base, 64)
	suffix, ok := suffixes[strings.ToLower(x.text[len(strings.TrimRight(x.text, "uUlL")):])]
	if err != nil || !ok || strings.ContainsAny(x.text, "_") {
		if numErr := (*strconv.NumError)(nil); asNumError(err, &numErr) && numErr.Err == strconv.ErrRange {
			return x, l.errorf(x.pos, "number %s does not fit in 64 bits", x.text)
		}
		return x, l.errorf(x.pos, "bad number %q", x.text)
	}
	x.value, x.typ = v, intType(v, base, suffix)
	return x, nil
}

func asNumError(err error, target **strconv.NumError) bool {
	e, ok := err.(*strconv.NumError)
	*target = e
	return ok
}

// suffixes says what an integer suffix, in lower case, asks for.
var suffixes = map[string]struct{ unsigned, long bool }{
	"": {}, "u": {unsigned: true}, "l": {long: true}, "ll": {long: true},
	"ul": {true, true}, "lu": {true, true}, "ull": {true, true}, "llu": {true, true},
}

// intType is the first type of C17 6.4.4.1's list that holds v. A decimal
// constant without u is never unsigned in C; one too large for long is here.
func intType(v uint64, base int, s struct{ unsigned, long bool }) string {
	signedOK, unsignedOK := !s.unsigned, s.unsigned || base != 10
	switch {
	case !s.long && signedOK && v < 1<<31:
		return "int"
	case !s.long && unsignedOK && v < 1<<32:
		return "unsigned int"
	case signedOK && v < 1<<63:
		return "long"
	}
	return "unsigned long"
}

func (l *lexer) char() (lexeme, error) {
	start := l.pos
	b, err := l.quoted('\'')
	if err != nil {
		return lexeme{}, err
	}
	if len(b) != 1 {
		return lexeme{}, l.errorf(start, "a character constant has one character, not %d", len(b))
	}
	// char is signed on x86-64.
	return lexeme{tok: tokChar, pos: start, end: l.pos, text: l.src[start:l.pos], value: uint64(int64(int8(b[0]))), typ: "int"}, nil
}

func (l *lexer) str() (lexeme, error) {
	start := l.pos
	b, err := l.quoted('"')
	return lexeme{tok: tokString, pos: start, end: l.pos, text: string(b)}, err
}

// quoted reads to the closing quote and resolves escapes.
func (l *lexer) quoted(quote byte) (out []byte, err error) {
	start := l.pos
	for l.pos++; l.pos < len(l.src); l.pos++ {
		switch c := l.src[l.pos]; c {
		case quote:
			l.pos++
			return out, nil
		case '\n':
			return nil, l.errorf(start, "no closing %c", quote)
		case '\\':
			b, n, err := l.escape(l.pos + 1)
			if err != nil {
				return nil, err
			}
			out = append(out, b)
			l.pos += n
		default:
			out = append(out, c)
		}
	}
	return nil, l.errorf(start, "no closing %c", quote)
}

var escapes = map[byte]byte{
	'n': '\n', 't': '\t', 'r': '\r', 'a': 7, 'b': 8, 'f': 12, 'v': 11, 'e': 27, '\\': '\\', '\'': '\'', '"': '"', '?': '?',
}

// escape resolves what follows a backslash and returns how long it is.
func (l *lexer) escape(pos int) (b byte, n int, err error) {
	if pos == len(l.src) {
		return 0, 0, l.errorf(pos-1, "escape without a character")
	}
	c := l.src[pos]
	if b, ok := escapes[c]; ok {
		return b, 1, nil
	}
	digits, base, skip := "01234567", 8, 0
	limit := 3
	if c == 'x' {
		digits, base, skip, limit = "0123456789abcdefABCDEF", 16, 1, 2
	}
	end := pos + skip
	for end < len(l.src) && end < pos+skip+limit && strings.IndexByte(digits, l.src[end]) >= 0 {
		end++
	}
	v, perr := strconv.ParseUint(l.src[pos+skip:end], base, 8)
	if perr != nil {
		return 0, 0, l.errorf(pos-1, "unknown escape \\%c", c)
	}
	return byte(v), end - pos, nil
}
