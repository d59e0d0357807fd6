package cexpr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A SyntaxError says where an expression is not C.
type SyntaxError struct {
	Expr string // the whole expression
	Pos  int    // byte offset into Expr
	Msg  string
}

// Error is one line with the column, counted from 1.
func (e *SyntaxError) Error() string { return located(e.Expr, e.Pos, e.Msg) }

// Caret returns the line of the expression and a caret below the error.
func (e *SyntaxError) Caret() string { return caret(e.Expr, e.Pos) }

// An EvalError says which part of an expression could not be evaluated. It
// wraps the reason: a [ctype.AccessError], a [ctype.NotFoundError] and so on.
type EvalError struct {
	Expr string
	Pos  int // byte offset into Expr
	Err  error
}

// Error is one line with the column, counted from 1.
func (e *EvalError) Error() string { return located(e.Expr, e.Pos, e.Err.Error()) }

// Unwrap returns the reason.
func (e *EvalError) Unwrap() error { return e.Err }

// Caret returns the line of the expression and a caret below the error.
func (e *EvalError) Caret() string { return caret(e.Expr, e.Pos) }

func located(expr string, pos int, msg string) string {
	return fmt.Sprintf("column %d: %s", utf8.RuneCountInString(expr[lineStart(expr, pos):min(pos, len(expr))])+1, msg)
}

func lineStart(expr string, pos int) int {
	return strings.LastIndexByte(expr[:min(pos, len(expr))], '\n') + 1
}

func caret(expr string, pos int) string {
	pos = min(pos, len(expr))
	start := lineStart(expr, pos)
	line, _, _ := strings.Cut(expr[start:], "\n")
	var pad strings.Builder
	for _, r := range expr[start:pos] {
		if r == '\t' {
			pad.WriteRune('\t')
		} else {
			pad.WriteByte(' ')
		}
	}
	return line + "\n" + pad.String() + "^"
}
