package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/x86"
)

// A place is a memory operand.
type place struct {
	addr  uint64
	size  uint8
	expr  *Expr // an lvalue, or nil
	typ   *ctype.Type
	stack bool // near the stack pointer, and without a typed pointer to it
}

// stackReach is how far from the stack pointer the stack's cells are known.
const stackReach = 1 << 15

func (f *Flow) onStack(addr uint64) bool {
	return addr-f.m.GP[emulate.RSP]+stackReach < 2*stackReach
}

// place says what a memory operand is.
func (f *Flow) place(a *x86.Arg) place {
	p := place{addr: f.m.EA(f.in, *a), size: uint8(min(a.Size, 255))}
	if p.size == 0 || p.size > 8 {
		return p
	}
	base, bok := emulate.RegNumber(a.Reg)
	indexReg, iok := emulate.RegNumber(a.Index)
	var b, i Value
	if bok {
		b = f.use(base, 8)
	}
	if iok {
		i = f.use(indexReg, 8)
	}
	if bok && base == emulate.RSP {
		p.stack = true
		return p
	}
	var dyn *index
	if iok {
		dyn = indexOf(i, uint64(a.Scale))
	}
	switch {
	case bok && f.through(&p, b, dyn):
	case iok && a.Scale == 1 && f.through(&p, i, indexOf(b, 1)):
	case f.named(&p, dyn):
	case f.onStack(p.addr):
		p.stack = true
	case bok && b.Expr != nil && !b.IsConst():
		f.unnamed(&p, b)
	case iok && a.Scale == 1 && i.isPointer():
		f.unnamed(&p, i)
	}
	return p
}

// indexOf returns a value as an index, nil if it has no name.
func indexOf(v Value, scale uint64) *index {
	if v.Expr == nil || v.Off != 0 || v.isPointer() {
		return nil
	}
	return &index{Expr: v.Expr, Mul: scale, Val: int64(v.Val * scale)}
}

// through names what lies at p by a pointer that leads there.
func (f *Flow) through(p *place, ptr Value, dyn *index) bool {
	for range maxDepth {
		if ptr.Expr == nil {
			return false
		}
		if dyn == nil {
			dyn = ptr.idx
		}
		if n, ok := f.xaNode(ptr); ok {
			ptr = n
		}
		if f.byType(p, ptr, dyn) || f.byObject(p, ptr) {
			return true
		}
		// What points at a member can lead to the record around it.
		if ptr.Expr.Op != OpParam || ptr.Expr.param.value.Off == 0 {
			return false
		}
		off := ptr.Off
		ptr = ptr.Expr.param.value
		ptr.Off += off
		ptr.Val += uint64(off)
	}
	return false
}

// byType names p by the type of what ptr points at.
func (f *Flow) byType(p *place, ptr Value, dyn *index) bool {
	t := ptr.pointee()
	if t == nil {
		return false
	}
	t = f.types.Complete(t)
	n, err := t.Size()
	if err != nil {
		return false
	}
	total, off := uint64(n), p.addr-ptr.base()
	inside := off < total && off+uint64(p.size) <= total || f.flexible(t.Strip()) && int64(off) >= 0
	if inside && dyn != nil && dyn.Val == 0 && !t.IsRecord() && indexExpr(dyn, 0, total).Op != OpConst {
		inside = false // p[i], where i is 0
	}
	if inside {
		return f.inside(p, f.pointed(ptr.Expr), t, off, dyn)
	}
	// An element of an array.
	k := int64(off)
	if total == 0 || t.Strip().Kind() == ctype.Struct && (dyn == nil || uint64(dyn.Val)%total != 0 || dyn.Val == 0) ||
		t.Strip().Kind() == ctype.Union || k%int64(total) != 0 && t.Strip().Kind() != ctype.Struct {
		return false
	}
	el := k / int64(total)
	if k%int64(total) < 0 {
		el--
	}
	if el < 0 && !t.IsInteger() {
		return false
	}
	x := newExpr(Expr{Op: OpIndex, X: ptr.Expr, Y: indexExpr(dyn, el, total), Type: t})
	return f.inside(p, x, t, uint64(k-el*int64(total)), nil)
}

// pointed returns the lvalue that a pointer points at.
func (f *Flow) pointed(ptr *Expr) *Expr {
	if ptr.Op == OpAddr {
		return ptr.X
	}
	return newExpr(Expr{Op: OpDeref, X: ptr})
}

// byObject names p by the type that the object at the same address was seen to have.
func (f *Flow) byObject(p *place, ptr Value) bool {
	for _, at := range [...]uint64{ptr.Val, ptr.base()} {
		t := f.objects[at]
		if t == nil {
			continue
		}
		n, err := t.Size()
		off := p.addr - at
		if err != nil || off+uint64(p.size) > uint64(n) || off >= uint64(n) {
			continue
		}
		whole := ptr
		if at == ptr.base() {
			whole.Off, whole.idx = 0, nil
		}
		x := castExpr(ctype.PointerTo(t), pointerExpr(whole))
		return f.inside(p, newExpr(Expr{Op: OpDeref, X: x}), t, off, nil)
	}
	return false
}

// named names p by the variable that it lies in.
func (f *Flow) named(p *place, dyn *index) bool {
	v, ok := f.variable(p.addr)
	if !ok {
		return false
	}
	return f.inVariable(p, v, dyn)
}

func variableExpr(v Variable) *Expr {
	x := &Expr{Op: OpGlobal, Name: v.Name, Type: v.Type, nodes: 1}
	if v.CPU >= 0 {
		x.Op, x.N = OpPerCPU, uint64(v.CPU)
	}
	return x
}

func (f *Flow) inVariable(p *place, v Variable, dyn *index) bool {
	off := p.addr - v.Addr
	if v.Type != nil {
		if n, err := f.types.Sizeof(v.Type); err == nil && off+uint64(p.size) <= uint64(n) {
			return f.inside(p, variableExpr(v), v.Type, off, dyn)
		}
		// A dynamic array, which BTF cannot tell: __per_cpu_offset[].
		if s := v.Type.Strip(); s.Kind() == ctype.Array && s.Len() <= 1 {
			return f.inside(p, variableExpr(v), ctype.ArrayOf(s.Elem(), 0), off, dyn)
		}
	}
	x := variableExpr(v)
	if x.Size = p.size; v.Type != nil || off != 0 || v.Size > 8 {
		x = newExpr(Expr{Op: OpOffset, X: addrOf(x), N: off, Size: p.size})
	}
	p.expr, p.typ = x, unsigned(p.size)
	return true
}

// inside names p as a part of the lvalue x of type t.
func (f *Flow) inside(p *place, x *Expr, t *ctype.Type, off uint64, dyn *index) bool {
	m := f.member(t, off, uint64(p.size))
	for _, s := range m.steps {
		switch {
		case s.name == "":
			x = newExpr(Expr{Op: OpIndex, X: x, Y: indexExpr(dyn, int64(s.index), s.elem), Hidden: s.hidden})
		case x.Op == OpDeref && x.Type == nil:
			x = newExpr(Expr{Op: OpArrow, X: x.X, Name: s.name, Hidden: s.hidden})
		default:
			x = newExpr(Expr{Op: OpDot, X: x, Name: s.name, Hidden: s.hidden})
		}
	}
	p.typ = unsigned(p.size)
	switch m.fit {
	case scalarFit:
		if m.typ == nil {
			return false
		}
		p.typ = m.typ
		x = newExpr(Expr{Op: x.Op, X: x.X, Y: x.Y, Name: x.Name, N: x.N, Hidden: x.Hidden, Type: x.Type, param: x.param})
		if x.Op != OpDeref {
			x.Type = m.typ
		}
		p.expr = x
		if t := f.disguised(x, t); t != nil {
			p.typ = t
		}
	case partFit:
		if n, err := f.types.Sizeof(m.typ); err == nil && m.rest == 0 && n <= 8 {
			if v, ok := f.read(p.addr, uint8(n)); ok && v>>(8*p.size) == 0 {
				p.expr, p.typ = x, m.typ // the rest is zero: it is the same number
				return true
			}
		}
		if x.Type == nil && x.Op != OpDeref {
			x.Type = m.typ
		}
		p.expr = newExpr(Expr{Op: OpPart, X: x, N: m.rest, Size: p.size})
	case wholeFit:
		p.expr = newExpr(Expr{Op: OpOffset, X: addrOf(x), N: m.rest, Size: p.size})
	case holeFit:
		p.expr = newExpr(Expr{Op: OpBits, X: x, N: 8 * m.rest, Size: p.size, Type: m.typ})
	default:
		return false
	}
	return true
}

// unnamed names p by the pointer that leads there and the distance.
func (f *Flow) unnamed(p *place, ptr Value) {
	p.typ = unsigned(p.size)
	x := ptr.Expr
	off := p.addr - ptr.base()
	if !ptr.isPointer() {
		x, off = pointerExpr(ptr), p.addr-ptr.Val
	}
	p.expr = newExpr(Expr{Op: OpOffset, X: x, N: off, Size: p.size})
}

// indexExpr writes element number n, of elem bytes, by the index that was computed.
func indexExpr(dyn *index, n int64, elem uint64) *Expr {
	c := constExpr(uint64(n))
	if dyn == nil || elem == 0 || dyn.Expr.Op == OpConst || dyn.Expr.Op == OpValue || dyn.Val%int64(elem) != 0 {
		return c
	}
	x, mul := dyn.Expr, dyn.Mul
	for mul != elem && x.Op == OpBinary && x.Y.Op == OpConst && x.Y.N < 64 {
		switch x.Name {
		case "<<":
			mul <<= x.Y.N
		case "*":
			mul *= x.Y.N
		default:
			return c
		}
		x = x.X
	}
	if mul != elem {
		return c
	}
	d := n - dyn.Val/int64(elem)
	if x.Op == OpBinary && x.Name == "+" && x.Y.Op == OpConst && d < 0 {
		x, d = x.X, d+int64(x.Y.N)
	}
	switch {
	case d > 0:
		x = newExpr(Expr{Op: OpBinary, Name: "+", X: x, Y: constExpr(uint64(d))})
	case d < 0:
		x = newExpr(Expr{Op: OpBinary, Name: "-", X: x, Y: constExpr(uint64(-d))})
	}
	return x
}

// disguises are members that hold a pointer as a number, with flags in its
// low bits.
var disguises = map[[2]string]string{
	{"rb_node", "__rb_parent_color"}: "struct rb_node *",
	{"sk_buff", "_skb_refdst"}:       "struct dst_entry *",
}

// disguised returns the type of the pointer that a member holds as a number.
func (f *Flow) disguised(x *Expr, t *ctype.Type) *ctype.Type {
	if x.Op != OpArrow && x.Op != OpDot {
		return nil
	}
	for key, decl := range disguises {
		if key[1] == x.Name {
			if to, err := f.types.ParseType(decl); err == nil {
				return to
			}
		}
	}
	return nil
}

// loadFrom returns the value at a place, as memory has it now.
func (f *Flow) loadFrom(p place) Value {
	val, ok := f.read(p.addr, p.size)
	v := Value{Val: val, Size: p.size, Addr: p.addr, Step: f.m.Step}
	if !ok {
		return v
	}
	if p.expr == nil {
		if c, ok := f.cell(p.addr, p.size); ok && c.Val == val {
			return c
		}
		return v
	}
	if p.expr.Op == OpPerCPU || p.expr.Op == OpDot {
		if isCurrent(p.expr) {
			v.Expr, v.Type = &Expr{Op: OpCurrent, N: val, nodes: 1}, p.typ
			return v
		}
	}
	v.Expr, v.Type = p.expr, p.typ
	f.noteObject(v)
	if n, ok := f.xaNode(v); ok {
		f.noteObject(n)
	}
	return v
}

// isCurrent says whether a per-CPU variable is the pointer to the current task:
// current_task, pcpu_hot.current_task (e57ef2ed97c1, 6.2 to 6.14).
func isCurrent(x *Expr) bool {
	if x.Op == OpDot {
		return x.Name == "current_task" && x.X.Op == OpPerCPU && x.X.Name == "pcpu_hot"
	}
	return x.Op == OpPerCPU && (x.Name == "current_task" || x.Name == "const_current_task")
}

// maxObjects bounds what is remembered of a long run.
const maxObjects = 1 << 16

// noteObject remembers what a typed pointer points at.
func (f *Flow) noteObject(v Value) {
	t := v.pointee()
	if t == nil || v.Off != 0 || v.Val < 4096 || v.Size != 8 || v.Val+4096 < 4096 {
		return
	}
	t = f.types.Complete(t)
	n, err := t.Size()
	if err != nil || !t.IsRecord() {
		return
	}
	if was := f.objects[v.Val]; was != nil {
		if m, err := was.Size(); err == nil && m >= n {
			return
		}
	} else if len(f.objects) >= maxObjects {
		return
	}
	f.objects[v.Val] = t
}

// cell returns what was stored to a cell of the stack.
func (f *Flow) cell(addr uint64, size uint8) (Value, bool) {
	c, ok := f.cells[addr]
	if !ok || c.Size < size {
		return Value{}, false
	}
	// The cell must be of the frame that is there now.
	for fr := f.frame; fr != nil; fr = fr.parent {
		if addr < fr.SP {
			if c.cellStep < fr.Step {
				return Value{}, false
			}
			break
		}
	}
	return c.low(size), true
}

// storeTo notes that a value is stored to a place.
func (f *Flow) storeTo(p place, v Value) {
	v = v.low(p.size)
	if p.size == 0 || p.size > 8 {
		f.clobber(p.addr, uint64(p.size))
		return
	}
	if f.onStack(p.addr) {
		if v.Size == 0 || v.Size > p.size {
			v.Size = p.size
		}
		v.cellStep = f.m.Step
		f.cells[p.addr] = v
	}
	if p.expr != nil && p.typ != nil && p.typ.Strip().Kind() == ctype.Pointer {
		f.noteObject(Value{Type: p.typ, Val: v.Val, Size: v.Size})
	}
	f.emit(Event{Kind: Store, Value: v, Place: p.expr, Addr: p.addr, Size: p.size, Stack: p.stack})
}

// clobber forgets cells that something unknown was written to.
func (f *Flow) clobber(addr, n uint64) {
	if !f.onStack(addr) {
		return
	}
	for a := addr - 7; a != addr+min(n, 1<<12); a++ {
		if c, ok := f.cells[a]; ok && a+uint64(c.Size) > addr {
			delete(f.cells, a)
		}
	}
}
