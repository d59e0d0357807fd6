package typeflow

import (
	"math/bits"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/x86"
)

// flags are what the status flags stand for.
type flags struct {
	kind        flagsKind
	left, right Value
	result      Value
	size        uint8
}

type flagsKind uint8

const (
	flagsUnknown flagsKind = iota
	flagsCompare           // of left - right
	flagsSum               // of result = left + right
	flagsMask              // of result = left & right
	flagsResult            // of a result
	flagsBit               // carry is bit right of left
)

// A Cond is a relation that a conditional instruction asked for.
type Cond struct {
	Left, Right Value
	// Op is == != < <= > >=, or & if Left has bits of the mask Right.
	Op       string
	Unsigned bool // of the order relations
	Size     uint8
	Held     bool // it held; otherwise its opposite did
}

// opposite are the relations that hold where another does not.
var opposite = map[string]string{"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "&": "!&", "!&": "&"}

// mirrored are the relations with their sides exchanged.
var mirrored = map[string]string{"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}

// Truth returns the relation that did hold.
func (c Cond) Truth() Cond {
	if !c.Held {
		c.Op, c.Held = opposite[c.Op], true
	}
	return c
}

// Known says whether what was compared has a name.
func (c Cond) Known() bool {
	return c.Op != "" && (c.Left.Known() && !c.Left.IsConst() || c.Right.Known() && !c.Right.IsConst())
}

// relations are the conditions after a comparison, by their even encodings.
var relations = map[uint8]struct {
	op       string
	unsigned bool
}{2: {"<", true}, 4: {"==", false}, 6: {"<=", true}, 8: {"<", false}, 12: {"<", false}, 14: {"<=", false}}

// condition says what the condition with an encoding asks for.
func (f *Flow) condition(cc uint8) (Cond, bool) {
	c, ok := f.relation(cc &^ 1)
	if !ok {
		return Cond{}, false
	}
	if c.Left.IsConst() && !c.Right.IsConst() && mirrored[c.Op] != "" {
		c.Left, c.Right, c.Op = c.Right, c.Left, mirrored[c.Op]
	}
	c.Held = holds(cc&^1, f.m.Flags)
	if cc&1 != 0 {
		c.Op, c.Held = opposite[c.Op], !c.Held
	}
	return c, true
}

func (f *Flow) relation(cc uint8) (Cond, bool) {
	fl := &f.flags
	c := Cond{Size: fl.size}
	zero := constant(0, fl.size)
	if fl.kind == flagsBit {
		c.Left, c.Right, c.Op = fl.result, constant(0, 1), "!="
		return c, cc == 2
	}
	r, ok := relations[cc]
	if !ok || fl.kind == flagsUnknown {
		return c, false
	}
	c.Op, c.Unsigned = r.op, r.unsigned
	switch {
	case fl.kind == flagsCompare && cc != 8:
		c.Left, c.Right = fl.left, fl.right
		if inner, ok := c.nested(); ok {
			return inner, true
		}
		return c, true
	case fl.kind == flagsSum && cc == 2: // a carry
		c.Left, c.Right = fl.result, fl.left
		return c, true
	}
	if fl.kind == flagsCompare {
		c.Left, c.Right = f.arith("-", fl.left, fl.right, fl.size), zero
		return c, true
	}
	// Of a result, compared with zero: and, or, test leave no carry and no overflow.
	switch cc {
	case 2:
		return c, false
	case 6:
		if fl.kind != flagsMask && fl.kind != flagsResult {
			return c, false
		}
		c.Op, c.Unsigned = "==", false
	}
	c.Left, c.Right = fl.result, zero
	if fl.kind == flagsMask && c.Op == "==" && !Equal(fl.left, fl.right) && fl.right.IsConst() {
		return f.maskTest(c, fl), true
	}
	if inner, ok := c.nested(); ok {
		return inner, true
	}
	return c, true
}

// maskTest returns the relation "no bit of the mask is set".
func (f *Flow) maskTest(c Cond, fl *flags) Cond {
	left, m := fl.left, fl.right
	if left.Expr != nil {
		switch left.Expr.Op {
		case OpCast:
			if left.Expr.Type == unsigned(left.Size) && m.Val <= mask(left.Size) {
				left.Expr, left.Type = left.Expr.X, nil // what the cast cuts off the mask does, too
			}
		case OpBits:
			if x, t := f.bitsExpr(left.Expr, m.Val); x != nil {
				v := Value{Expr: x, Type: t, Val: fl.result.Val >> bits.TrailingZeros64(m.Val), Size: left.Size, Addr: left.Addr, Step: left.Step}
				return Cond{Left: v, Right: constant(0, left.Size), Op: "==", Size: c.Size}
			}
		case OpPart: // a byte of a word of flags
			part, t := left.Expr, left.Expr.X.Type
			if t == nil {
				break
			}
			n, err := f.types.Sizeof(t)
			whole, ok := f.read(left.Addr-part.N, uint8(min(n, 8)))
			if err != nil || n > 8 || !ok || whole>>(8*part.N)&mask(part.Size) != left.Val {
				break
			}
			m = constant(m.Val<<(8*part.N), uint8(n))
			left = Value{Expr: part.X, Type: t, Val: whole, Size: uint8(n), Addr: left.Addr - part.N, Step: left.Step}
		}
	}
	return Cond{Left: left, Right: m, Op: "!&", Size: c.Size}
}

// nested returns the relation of which a truth value was made, where that is
// compared with zero.
func (c Cond) nested() (Cond, bool) {
	if c.Left.Expr == nil || c.Left.Expr.Op != OpBinary || c.Left.Expr.cond == nil || !c.Right.IsConst() {
		return c, false
	}
	in := *c.Left.Expr.cond
	switch {
	case c.Op == "!=" && c.Right.Val == 0 || c.Op == "==" && c.Right.Val == 1:
	case c.Op == "==" && c.Right.Val == 0 || c.Op == "!=" && c.Right.Val == 1:
		in.Op, in.Held = opposite[in.Op], !in.Held
	default:
		return c, false
	}
	return in, true
}

// holds says whether an even condition holds.
func holds(cc uint8, fl uint64) bool {
	sf, of := fl&emulate.SF != 0, fl&emulate.OF != 0
	switch cc {
	case 0:
		return of
	case 2:
		return fl&emulate.CF != 0
	case 4:
		return fl&emulate.ZF != 0
	case 6:
		return fl&(emulate.CF|emulate.ZF) != 0
	case 8:
		return sf
	case 10:
		return fl&emulate.PF != 0
	case 12:
		return sf != of
	}
	return fl&emulate.ZF != 0 || sf != of
}

// condExpr writes a relation as a truth value.
func condExpr(c Cond) *Expr {
	e := &Expr{Op: OpBinary, Name: c.Op, X: pointerExpr(c.Left), Y: pointerExpr(c.Right), cond: &c}
	if e.X == nil || e.Y == nil {
		return nil
	}
	return newExpr(*e)
}

func doCompare(f *Flow, in *x86.Inst) {
	size := uint8(min(in.Args[0].Size, 8))
	a := f.arg(0)
	if in.Op == x86.CMP {
		f.flags = flags{kind: flagsCompare, left: a, right: f.arg(1), size: size}
		return
	}
	x, y := &in.Args[0], &in.Args[1]
	if x.Kind == x86.KindReg && y.Kind == x86.KindReg && x.Reg == y.Reg {
		f.flags = flags{kind: flagsResult, result: a, size: size}
		return
	}
	b := f.arg(1)
	if r, ok := emulate.RegNumber(x.Reg); ok && x.Kind == x86.KindReg && !high(x) && size < 8 && b.IsConst() {
		if wide := f.use(r, 8); wide.Expr != nil && wide.Expr.Op != OpBits {
			a = wide // the mask is of its low bits
		}
	}
	f.flags = flags{kind: flagsMask, left: a, right: b, result: f.arith("&", a, b, size), size: size}
}

// doBitTest follows bt, which tells one bit.
func doBitTest(f *Flow, in *x86.Inst) {
	i := f.arg(1)
	var v Value
	a := &in.Args[0]
	if a.Kind == x86.KindMem {
		v = f.bitOfMemory(a, i)
	} else {
		x := f.arg(0)
		n := i.Val & (8*uint64(max(x.Size, 1)) - 1)
		v = Value{Val: x.Val >> n & 1, Size: 1, Step: f.m.Step, Type: unsigned(1)}
		v.Expr = binop("&", binop(">>", pointerExpr(x), pointerExpr(i)), constExpr(1))
	}
	f.flags = flags{kind: flagsBit, result: v, size: 1}
}

// bitOfMemory is test_bit(i, addr): the bit can lie far from the operand.
func (f *Flow) bitOfMemory(a *x86.Arg, i Value) Value {
	n := int64(sext(i.Val, i.Size))
	addr := f.m.EA(f.in, *a)
	if f.in.Args[1].Kind == x86.KindImm {
		n &= int64(8*a.Size - 1)
	}
	b, ok := f.read(addr+uint64(n>>3), 1)
	v := Value{Val: b >> (n & 7) & 1, Size: 1, Step: f.m.Step, Type: unsigned(1), Addr: addr + uint64(n>>3)}
	if !ok {
		return v
	}
	p := f.place(a)
	if p.expr != nil && i.Expr != nil {
		w := Value{Expr: addrOf(p.expr), Val: addr, Size: 8}
		v.Expr = newExpr(Expr{Op: OpCall, Name: "test_bit", Args: []Value{i, w}})
	}
	return v
}

func doJump(f *Flow, in *x86.Inst) {
	cc, _ := in.Cond()
	c, _ := f.condition(cc)
	f.emit(Event{Kind: Branch, Cond: c.Truth(), Taken: holds(cc&^1, f.m.Flags) != (cc&1 != 0)})
}

func doSet(f *Flow, in *x86.Inst) {
	cc, _ := in.Cond()
	v := Value{Size: 1, Step: f.m.Step}
	if holds(cc&^1, f.m.Flags) != (cc&1 != 0) {
		v.Val = 1
	}
	if c, ok := f.condition(cc); ok {
		v.Expr, v.Type = condExpr(c), boolType
		f.emit(Event{Kind: Branch, Cond: c.Truth()})
	}
	f.write(0, v)
}

func doMoveIf(f *Flow, in *x86.Inst) {
	cc, _ := in.Cond()
	a, b := f.arg(0), f.arg(1)
	c, _ := f.condition(cc)
	taken := holds(cc&^1, f.m.Flags) != (cc&1 != 0)
	f.emit(Event{Kind: Branch, Cond: c.Truth(), Taken: taken})
	if taken {
		a = b
	}
	f.write(0, a)
}
