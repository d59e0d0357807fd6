package typeflow

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// pointerExpr returns the expression of a value, its displacement included; nil
// if it has none.
func pointerExpr(v Value) *Expr {
	if v.Expr == nil || v.Off == 0 {
		return v.Expr
	}
	return newExpr(Expr{Op: OpDisplaced, X: v.Expr, N: uint64(v.Off), Type: v.pointee(), dyn: v.idx})
}

// Name writes a value as C as the function of a frame knows it, "" if it has
// no name. Constants have none.
func (f *Flow) Name(v Value, fr *Frame) string {
	if v.Expr == nil || v.IsConst() || v.Expr.Op == OpValue {
		return ""
	}
	return f.Write(pointerExpr(v), fr)
}

// Write writes an expression as C. Parameters of functions that were called from
// the frame are replaced by what was passed.
func (f *Flow) Write(e *Expr, fr *Frame) string {
	if e == nil {
		return ""
	}
	p := printer{f: f, frame: fr}
	return p.expr(e)
}

// Full is Write with the members of wrapping structs: atomic_t's counter.
func (f *Flow) Full(e *Expr, fr *Frame) string {
	if e == nil {
		return ""
	}
	p := printer{f: f, frame: fr, full: true}
	return p.expr(e)
}

type printer struct {
	f     *Flow
	frame *Frame
	full  bool
	// literal: parameters are written as what they were worth.
	literal bool
	depth   int
}

const maxPrint = 200 // expressions inside expressions

// seen says whether the parameters of a call have names in the printer's frame.
func (p *printer) seen(of *Frame) bool {
	for fr := p.frame; fr != nil; fr = fr.parent {
		if fr == of {
			return true
		}
	}
	return p.frame == nil
}

func (p *printer) expr(e *Expr) string {
	if p.depth++; p.depth > maxPrint {
		return "..."
	}
	defer func() { p.depth-- }()
	switch e.Op {
	case OpConst:
		return p.f.number(e.N)
	case OpValue:
		return fmt.Sprintf("%#x", e.N)
	case OpParam:
		return p.param(e)
	case OpGlobal:
		if p.literal && e.Type == nil && e.Size > 0 {
			return fmt.Sprintf("(*(%s *)&%s)", unsigned(e.Size), e.Name)
		}
		return e.Name
	case OpPerCPU:
		if p.literal && e.Type == nil {
			return p.offset(&Expr{Op: OpOffset, X: &Expr{Op: OpGlobal, Name: fmt.Sprintf("&per_cpu(%s, %d)", e.Name, e.N), Type: e.Type}, Size: e.Size})
		}
		return fmt.Sprintf("per_cpu(%s, %d)", e.Name, e.N)
	case OpCurrent:
		if p.literal {
			return fmt.Sprintf("((struct task_struct *)%#x)", e.N)
		}
		return "current"
	case OpArrow, OpDot, OpIndex:
		return p.lvalue(e)
	case OpDeref:
		if e.Type == nil {
			if lv, ok := p.target(e.X, nil); ok {
				return lv
			}
		}
		return "*" + p.unary(e.X)
	case OpAddr:
		if x := e.X; x.Op == OpIndex && x.Y.Op == OpConst && x.Y.N == 0 {
			return p.expr(x.X)
		}
		return "&" + p.unary(e.X)
	case OpCast:
		return "(" + e.Type.String() + ")" + p.unary(e.X)
	case OpBinary:
		if p.literal {
			return p.computed(e)
		}
		return p.operand(e.X, e, true) + " " + e.Name + " " + p.operand(e.Y, e, false)
	case OpUnary:
		return e.Name + p.unary(e.X)
	case OpCall:
		if p.literal && e.Type != nil {
			return fmt.Sprintf("((%s)%#x)", e.Type, e.N)
		}
		return p.call(e)
	case OpBits:
		return p.offset(&Expr{Op: OpOffset, X: addrOf(e.X), N: e.N / 8, Size: e.Size})
	case OpPart:
		if e.N == 0 {
			return "(" + unsigned(e.Size).String() + ")" + p.unary(e.X)
		}
		return fmt.Sprintf("(%s)(%s >> %d)", unsigned(e.Size), p.primary(e.X), 8*e.N)
	case OpOffset:
		return p.offset(e)
	case OpDisplaced:
		return p.displaced(e)
	}
	return "?"
}

func (p *printer) param(e *Expr) string {
	if p.literal {
		return fmt.Sprintf("((%s)%#x)", e.Type, e.param.value.Val)
	}
	if p.seen(e.param.frame) {
		return e.Name
	}
	v := e.param.value
	if v.Expr == nil {
		if v.Val == 0 && e.Type.Strip().Kind() == ctype.Pointer {
			return "NULL"
		}
		return fmt.Sprintf("%#x", v.Val)
	}
	if v.Off != 0 && e.Type.Strip().Kind() == ctype.Pointer {
		if lv, ok := p.member(v.Expr, v.pointee(), v.Off, e.Type.Strip().Elem(), v.idx); ok {
			return "&" + lv
		}
	}
	return p.expr(pointerExpr(v))
}

// passed returns what a parameter stands for in the printer's frame.
func (p *printer) passed(e *Expr) *Expr {
	for range maxPrint {
		if p.literal || e.Op != OpParam || p.seen(e.param.frame) || e.param.value.Expr == nil || e.param.value.Off != 0 {
			break
		}
		e = e.param.value.Expr
	}
	return e
}

// target writes the lvalue that a pointer expression is the address of.
func (p *printer) target(e *Expr, want *ctype.Type) (string, bool) {
	e = p.passed(e)
	switch e.Op {
	case OpAddr:
		return p.primary(e.X), true
	case OpDisplaced:
		return p.member(e.X, e.Type, int64(e.N), want, e.dyn)
	case OpParam:
		if v := e.param.value; !p.literal && !p.seen(e.param.frame) && v.Off != 0 {
			return p.member(v.Expr, v.pointee(), v.Off, e.Type.Strip().Elem(), v.idx)
		}
	}
	return "", false
}

// lvalue writes a member or an element.
func (p *printer) lvalue(e *Expr) string {
	if e.Hidden && !p.full {
		if e.Op == OpArrow {
			return p.expr(&Expr{Op: OpDeref, X: e.X})
		}
		return p.expr(e.X)
	}
	switch e.Op {
	case OpArrow:
		if lv, ok := p.target(e.X, nil); ok {
			return lv + "." + e.Name
		}
		return p.primary(e.X) + "->" + e.Name
	case OpDot:
		if e.X.Op == OpDeref && e.X.Type == nil {
			return p.lvalue(&Expr{Op: OpArrow, X: e.X.X, Name: e.Name})
		}
		return p.primary(e.X) + "." + e.Name
	}
	if e.Y.Op == OpConst {
		return fmt.Sprintf("%s[%d]", p.primary(e.X), int64(e.Y.N))
	}
	return p.primary(e.X) + "[" + p.expr(e.Y) + "]"
}

// precedence orders the binary operators.
var precedence = map[string]int{
	"*": 10, "+": 9, "-": 9, "<<": 8, ">>": 8, "<": 7, "<=": 7, ">": 7, ">=": 7, "==": 6, "!=": 6, "&": 5, "^": 4, "|": 3,
}

// operand writes an operand of a binary operator, in parentheses wherever a reader
// would have to think.
func (p *printer) operand(e, of *Expr, first bool) string {
	e = p.passed(e)
	if e.Op == OpConst && e.N < 10000 && strings.Contains("+-*<<>>", of.Name) {
		return strconv.FormatUint(e.N, 10)
	}
	s := p.expr(e)
	if e.Op != OpBinary {
		return s
	}
	in, out := precedence[e.Name], precedence[of.Name]
	if in >= 9 && out <= 7 && out >= 6 || in == 9 && out == 9 && first {
		return s
	}
	return "(" + s + ")"
}

func (p *printer) unary(e *Expr) string {
	e = p.passed(e)
	if s := p.expr(e); e.Op == OpBinary || e.Op == OpDisplaced && !strings.HasPrefix(s, "&") {
		return "(" + s + ")"
	} else {
		return s
	}
}

func (p *printer) primary(e *Expr) string {
	e = p.passed(e)
	s := p.expr(e)
	if e.Op == OpBinary || e.Op == OpDisplaced || e.Op == OpUnary || strings.IndexByte("*&(-", s[0]) >= 0 && !e.postfix() {
		return "(" + s + ")"
	}
	return s
}

func (p *printer) call(e *Expr) string {
	var args []string
	n := 0
	for _, a := range e.Args {
		s := p.f.valueName(p, a)
		n += len(s)
		args = append(args, s)
	}
	if n > 80 {
		return e.Name + "(...)"
	}
	return e.Name + "(" + strings.Join(args, ", ") + ")"
}

// valueName writes an argument: by its name, or else by its value.
func (f *Flow) valueName(p *printer, v Value) string {
	if x := pointerExpr(v); x != nil && x.Op != OpConst && x.Op != OpValue {
		return p.expr(x)
	}
	return f.constantText(v)
}

// offset writes memory that has no name of its own.
func (p *printer) offset(e *Expr) string {
	t := unsigned(e.Size).String()
	switch off := int64(e.N); {
	case off == 0:
		return "*(" + t + " *)" + p.unary(e.X)
	case off < 0:
		return fmt.Sprintf("*(%s *)(%s - %#x)", t, p.untyped(e.X), -off)
	default:
		return fmt.Sprintf("*(%s *)(%s + %#x)", t, p.untyped(e.X), off)
	}
}

// computed writes a binary expression for evaluation: C does not mask pointers.
func (p *printer) computed(e *Expr) string {
	s := fmt.Sprintf("((u64)%s %s (u64)%s)", p.unary(e.X), e.Name, p.unary(e.Y))
	if e.Type != nil {
		s = fmt.Sprintf("(%s)%s", e.Type, s)
	}
	return "(" + s + ")"
}

// untyped writes a pointer so that adding to it adds bytes.
func (p *printer) untyped(e *Expr) string {
	s := p.unary(e)
	if e = p.passed(e); e.Op == OpConst || e.Op == OpValue {
		return s
	}
	return "(void *)" + s
}

// displaced writes a pointer into what another one points at.
func (p *printer) displaced(e *Expr) string {
	if lv, ok := p.member(e.X, e.Type, int64(e.N), nil, e.dyn); ok {
		return "&" + lv
	}
	s, off := p.untyped(e.X), int64(e.N)
	if e.dyn != nil && !p.literal {
		off -= e.dyn.Val
		i := p.operand(e.dyn.Expr, &Expr{Op: OpBinary, Name: "*"}, false)
		if s += " + " + i; e.dyn.Mul != 1 {
			s += fmt.Sprintf(" * %d", e.dyn.Mul)
		}
	}
	switch {
	case off < 0:
		return fmt.Sprintf("%s - %#x", s, -off)
	case off > 0:
		return fmt.Sprintf("%s + %#x", s, off)
	}
	return s
}

// member writes the member at an offset of what a pointer points at: the
// outermost one that begins there, or the one of type want.
func (p *printer) member(x *Expr, t *ctype.Type, off int64, want *ctype.Type, dyn *index) (string, bool) {
	x = p.passed(x)
	if x.Op == OpParam && !p.literal && !p.seen(x.param.frame) && x.param.value.Expr != nil {
		v := x.param.value // it is displaced itself
		return p.member(v.Expr, v.pointee(), v.Off+off, want, v.idx)
	}
	if t == nil || off < 0 {
		return "", false
	}
	steps, ok := p.f.starting(t, uint64(off), want, maxDepth)
	if !ok {
		return "", false
	}
	e := p.f.pointed(x)
	for _, s := range steps {
		switch {
		case s.name == "":
			e = newExpr(Expr{Op: OpIndex, X: e, Y: indexExpr(dyn, int64(s.index), s.elem)})
		case e.Op == OpDeref:
			e = newExpr(Expr{Op: OpArrow, X: e.X, Name: s.name})
		default:
			e = newExpr(Expr{Op: OpDot, X: e, Name: s.name})
		}
	}
	return p.lvalue(e), true
}

// starting finds what begins at an offset of a type.
func (f *Flow) starting(t *ctype.Type, off uint64, want *ctype.Type, depth int) ([]memberStep, bool) {
	s := f.types.Complete(t).Strip()
	if depth == 0 {
		return nil, false
	}
	switch s.Kind() {
	case ctype.Array:
		n, err := f.types.Sizeof(s.Elem())
		if err != nil || n == 0 || s.Len() != 0 && off/uint64(n) >= uint64(s.Len()) {
			return nil, false
		}
		first := memberStep{index: off / uint64(n), elem: uint64(n)}
		if off%uint64(n) == 0 {
			return []memberStep{first}, true
		}
		sub, ok := f.starting(s.Elem(), off%uint64(n), want, depth-1)
		return append([]memberStep{first}, sub...), ok
	case ctype.Struct, ctype.Union:
		return f.startingInRecord(s, off, want, depth)
	}
	return nil, false
}

func (f *Flow) startingInRecord(s *ctype.Type, off uint64, want *ctype.Type, depth int) (found []memberStep, ok bool) {
	for _, m := range s.Members() {
		start := uint64(m.Offset / 8)
		n, err := f.types.Sizeof(m.Type)
		if m.BitSize != 0 || err != nil || off < start || n != 0 && off >= start+uint64(n) {
			continue
		}
		own := memberStep{name: m.Name}
		exact := off == start && m.Name != ""
		if exact && (want == nil || want.Strip().Kind() == ctype.Void || ctype.Identical(want, m.Type)) {
			return []memberStep{own}, true
		}
		sub, deeper := f.starting(m.Type, off-start, want, depth-1)
		if deeper && m.Name != "" {
			sub = append([]memberStep{own}, sub...)
		}
		switch {
		case exact && !ok:
			found, ok = []memberStep{own}, true
			if deeper && want != nil {
				found = sub
			}
		case deeper && !ok:
			found, ok = sub, true
		}
	}
	return found, ok
}

// number writes a constant.
func (f *Flow) number(n uint64) string {
	switch {
	case n < 10 || n > ^uint64(4095):
		return strconv.FormatInt(int64(n), 10)
	case n >= 1<<47:
		if s := f.env.Symbol(n); s != "" && !strings.Contains(s, "+") {
			return "&" + s
		}
	}
	return fmt.Sprintf("%#x", n)
}
