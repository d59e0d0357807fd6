package bpfexpr

import (
	"fmt"

	"github.com/ksleuth/ksleuth/cexpr"
)

// maxNodes bounds an expression, with what stands for its names filled in.
const maxNodes = 4000

// An op is what a node computes. All values are 64 bits wide: those of narrower
// types are extended by their sign, as [ctype.Value.Uint] has them.
type op uint8

const (
	opConst   op = iota // value
	opFrame             // size bytes of struct call at off
	opHeld              // the hidden slot at off
	opLoad              // size bytes of memory at x
	opArith             // x tok y: + - * & | ^ / % << >>
	opNegate            // -x
	opInvert            // ~x
	opExtend            // x, cut to width bits
	opText              // x points to text, or without x the array at off in struct call is, that equals text
	opCompare           // x tok y
	opTest              // x is not 0
	opNot               // x is 0
	opAnd               // x && y
	opOr                // x || y
	opCond              // x ? y : z
)

// A node is a part of a typed expression, as the generator sees it.
type node struct {
	op      op
	tok     cexpr.Token
	x, y, z *node
	value   uint64

	off     int    // in struct call or slots
	size    int    // bytes to read
	shift   int    // of opFrame: bits to drop after loading
	bitOff  int    // of a bitfield
	bitSize int    // of a bitfield; else 0
	user    bool   // x is an address of user space
	text    string // of opText
	array   int    // of opText: the array's length, 0 if the text only ends at a NUL
	limit   int    // of a shift: so many bits are too many

	// What is known of the value: it fits in width bits, extended by their
	// sign if signed is set, else by zeros. opExtend, opFrame and opLoad see
	// to it.
	width  int
	signed bool
	how    bool // / % >> and comparisons take their operands as signed

	exit  bool // it is to be evaluated when the call returns
	reads bool // it depends on memory or on the call
	count int  // nodes, those that occur twice twice
	temps int  // values that are kept while this one is computed
}

func constant(v uint64) *node {
	n := &node{op: opConst, value: v, width: 64, count: 1}
	switch {
	case v>>32 == 0:
		n.width = max(1, bitLen(v))
	case int64(v) >= -1<<31 && int64(v) < 0:
		n.width, n.signed = 32, true
	}
	return n
}

func bitLen(v uint64) (n int) {
	for ; v != 0; v >>= 1 {
		n++
	}
	return n
}

func (n *node) isConst() bool { return n.op == opConst }

// small says whether a constant fits in the immediate of an instruction.
func (n *node) small() bool { return n.isConst() && int64(n.value) == int64(int32(n.value)) }

// leaf says whether the value can be loaded into any register without a call.
func (n *node) leaf() bool {
	return n.op == opConst || n.op == opHeld || n.op == opFrame && n.bitSize == 0
}

// logical says whether the value is a truth: 0 or 1, made by jumps.
func (n *node) logical() bool { return n.op >= opText && n.op <= opOr }

// fits says whether the value is the same after it was cut to so many bits.
func (n *node) fits(width int, signed bool) bool {
	switch {
	case width >= 64:
		return true
	case n.signed == signed:
		return n.width <= width
	}
	return !n.signed && n.width < width
}

// kids returns the operands.
func (n *node) kids() []*node {
	out := make([]*node, 0, 3)
	for _, k := range [...]*node{n.x, n.y, n.z} {
		if k != nil {
			out = append(out, k)
		}
	}
	return out
}

// settled fills in what follows from the operands.
func (n *node) settled() *node {
	n.count = 1
	for _, k := range n.kids() {
		n.count = min(n.count+k.count, maxNodes+1)
		n.exit = n.exit || k.exit
		n.reads = n.reads || k.reads
	}
	n.temps = n.needs()
	n.reads = n.reads || n.op == opFrame || n.op == opLoad || n.op == opText
	if n.width == 0 {
		n.width = 64
		if n.logical() {
			n.width = 1
		}
	}
	return n
}

// needs returns how many values are kept while this one is computed, if of two
// operands the one that needs more comes first (Sethi and Ullman).
func (n *node) needs() int {
	if n.op == opArith || n.op == opCompare {
		x, y := n.x.temps, n.y.temps
		switch {
		case n.x.leaf():
			return y
		case n.y.leaf():
			return x
		case x == y:
			return x + 1
		}
		return max(x, y)
	}
	most := 0
	for _, k := range n.kids() {
		most = max(most, k.temps)
	}
	if n.op == opText {
		most = max(most, 1)
	}
	return most
}

// extend cuts a value to a number of bits.
func extend(n *node, width int, signed bool) *node {
	switch {
	case n.fits(width, signed):
		return n
	case n.isConst():
		return constant(extended(n.value, width, signed))
	}
	return (&node{op: opExtend, x: n, width: width, signed: signed}).settled()
}

func extended(v uint64, width int, signed bool) uint64 {
	if width >= 64 {
		return v
	}
	shift := 64 - width
	if signed {
		return uint64(int64(v<<shift) >> shift)
	}
	return v << shift >> shift
}

func negate(n *node) *node {
	if n.isConst() {
		return constant(-n.value)
	}
	return (&node{op: opNegate, x: n}).settled()
}

func invert(n *node) *node {
	if n.isConst() {
		return constant(^n.value)
	}
	return (&node{op: opInvert, x: n}).settled()
}

// arith computes in 64 bits. Where both operands are known, so is the result;
// y of / and % is not the constant 0.
func arith(tok cexpr.Token, signed bool, x, y *node) *node {
	if x.isConst() && y.isConst() {
		return constant(compute(tok, signed, x.value, y.value))
	}
	switch {
	case y.isConst() && y.value == 0 && (tok == "+" || tok == "-" || tok == "|" || tok == "^" || tok == "<<" || tok == ">>"):
		return x
	case x.isConst() && x.value == 0 && (tok == "+" || tok == "|" || tok == "^"):
		return y
	case x.isConst() && x.value == 1 && tok == "*":
		return y
	case y.isConst() && y.value == 1 && (tok == "*" || tok == "/"):
		return x
	case tok == "+" && y.isConst() && x.op == opArith && x.tok == "+" && x.y.isConst():
		return arith(tok, signed, x.x, constant(x.y.value+y.value)) // members of members
	}
	n := &node{op: opArith, tok: tok, how: signed, x: x, y: y}
	switch {
	case tok == "&" && !x.signed && !y.signed:
		n.width = min(x.width, y.width)
	case tok == "&" && !x.signed:
		n.width = x.width
	case tok == "&" && !y.signed:
		n.width = y.width
	case (tok == "|" || tok == "^" || tok == "&") && x.signed == y.signed:
		n.width, n.signed = max(x.width, y.width), x.signed
	case tok == ">>" && (signed || !x.signed):
		n.width, n.signed = x.width, x.signed
	}
	return n.settled()
}

func compute(tok cexpr.Token, signed bool, a, b uint64) uint64 {
	switch tok {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "&":
		return a & b
	case "|":
		return a | b
	case "^":
		return a ^ b
	case "<<":
		return a << (b & 63)
	case ">>":
		if signed {
			return uint64(int64(a) >> (b & 63))
		}
		return a >> (b & 63)
	case "/":
		if signed {
			return uint64(int64(a) / int64(b))
		}
		return a / b
	case "%":
		if signed {
			return uint64(int64(a) % int64(b))
		}
		return a % b
	}
	return 0
}

func compare(tok cexpr.Token, signed bool, x, y *node) *node {
	if x.isConst() && y.isConst() {
		return truthOf(compared(tok, signed, x.value, y.value))
	}
	if x.isConst() { // constants stand on the right
		x, y = y, x
		tok = mirrored[tok]
	}
	return (&node{op: opCompare, tok: tok, how: signed, x: x, y: y}).settled()
}

var mirrored = map[cexpr.Token]cexpr.Token{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func compared(tok cexpr.Token, signed bool, a, b uint64) bool {
	if signed { // keep the order, unsigned
		a, b = a^1<<63, b^1<<63
	}
	switch tok {
	case "==":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

func truthOf(b bool) *node {
	if b {
		return constant(1)
	}
	return constant(0)
}

// truth is n != 0.
func truth(n *node) *node {
	switch {
	case n.isConst():
		return truthOf(n.value != 0)
	case n.logical():
		return n
	}
	return (&node{op: opTest, x: n}).settled()
}

func not(n *node) *node {
	if n.isConst() {
		return truthOf(n.value == 0)
	}
	return (&node{op: opNot, x: n}).settled()
}

// logic is x && y or x || y.
func logic(tok cexpr.Token, x, y *node) *node {
	x, y = truth(x), truth(y)
	o := opAnd
	if tok == "||" {
		o = opOr
	}
	if x.isConst() {
		if (x.value != 0) == (o == opOr) {
			return x
		}
		return y
	}
	return (&node{op: o, x: x, y: y}).settled()
}

func choose(test, x, y *node) *node {
	test = truth(test)
	if test.isConst() {
		if test.value != 0 {
			return x
		}
		return y
	}
	n := &node{op: opCond, x: test, y: x, z: y, width: 64}
	if x.signed == y.signed {
		n.width, n.signed = max(x.width, y.width), x.signed
	}
	return n.settled()
}

// key identifies what a node computes: equal keys, equal values.
func (n *node) key() string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("(%d%s %d %d %d %d %d.%d %t%t %q%d %d %d%t%t %s %s %s)", n.op, n.tok, n.value, n.off, n.size, n.shift,
		n.bitOff, n.bitSize, n.user, n.exit, n.text, n.array, n.limit, n.width, n.signed, n.how,
		n.x.key(), n.y.key(), n.z.key())
}
