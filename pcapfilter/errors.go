package pcapfilter

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// An Error says where and why an expression is refused: it is no filter, or one
// that cannot be compiled with exactly the meaning it has for tcpdump.
type Error struct {
	Expr string // the whole expression
	Pos  int    // byte offset into Expr
	Msg  string
}

// Error is one line with the column, counted from 1.
func (e *Error) Error() string {
	_, before := e.line()
	return fmt.Sprintf("column %d: %s", utf8.RuneCountInString(before)+1, e.Msg)
}

// Caret returns the line of the expression and a caret below the error.
func (e *Error) Caret() string {
	line, before := e.line()
	var pad strings.Builder
	for _, r := range before {
		if r != '\t' {
			r = ' '
		}
		pad.WriteRune(r)
	}
	return line + "\n" + pad.String() + "^"
}

// line returns the line that the error is in, and what stands before it there.
func (e *Error) line() (line, before string) {
	pos := min(e.Pos, len(e.Expr))
	start := strings.LastIndexByte(e.Expr[:pos], '\n') + 1
	line, _, _ = strings.Cut(e.Expr[start:], "\n")
	return line, e.Expr[start:pos]
}
