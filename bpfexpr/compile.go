package bpfexpr

import (
	"errors"

	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

// maxSlots bounds the bytes of all slots: instructions reach no further.
const maxSlots = 32 << 10

// Compile compiles a filter, and expressions whose values are wanted. The
// instructions call bpf_probe_read_kernel and its kin (5.5) and use at most 200
// bytes of stack. They take struct call to hold no pointers that the verifier
// knows: what a helper has written there, or loads from memory.
//
// Conditions joined by && in a filter that need nothing known only later are in
// Plan.Filter, the others in Plan.ExitFilter. What these need of the moment the
// call was entered is in hidden slots, behind those of in.Show, which are in its
// order. Errors are an [*Error].
func Compile(env Env, in Input, o Options) (*Plan, error) {
	p := &planner{Options: o, held: make(map[string]int)}
	if p.StringBytes <= 0 {
		p.StringBytes = 64
	}
	if p.MemoryBytes <= 0 {
		p.MemoryBytes = 256
	}
	var conditions []*node
	if in.Filter != nil {
		c := newChecker(env, in.Filter)
		n, err := c.scalar(in.Filter.Root)
		if err != nil {
			return nil, err
		}
		conditions = conjuncts(truth(n), nil)
	}
	for _, x := range in.Show {
		c := newChecker(env, x)
		v, err := c.check(x.Root)
		if err == nil {
			err = c.fail(x.Root.Pos(), p.show(x, v))
		}
		if err != nil {
			return nil, err
		}
	}
	err := p.generate(conditions)
	if err == nil && p.plan.Bytes > maxSlots {
		err = errors.New("the values take too much memory")
	}
	if err != nil {
		return nil, newChecker(env, first(in)).fail(0, err)
	}
	return &p.plan, nil
}

// first returns an expression for an error that is about all of them.
func first(in Input) *cexpr.Expr {
	if in.Filter != nil {
		return in.Filter
	}
	return in.Show[0]
}

// conjuncts appends the conditions that && joins; those that are true are left
// out.
func conjuncts(n *node, out []*node) []*node {
	if n.op == opAnd {
		return conjuncts(n.y, conjuncts(n.x, out))
	}
	if n.isConst() && n.value != 0 {
		return out
	}
	return append(out, n)
}

// A filling is what to put into a slot.
type filling struct {
	slot  int
	n     *node // the value, or the address of text or memory
	frame int   // without n: where in struct call the memory is
	user  bool
	str   bool // text that ends at a NUL, else Size bytes
}

// A planner decides what is evaluated when.
type planner struct {
	Options
	plan        Plan
	entry, exit []filling
	hidden      []filling
	held        map[string]int // by node.key: the offset of a hidden slot
}

// add appends a slot and returns its index.
func (p *planner) add(s Slot) int {
	s.Off = p.plan.Bytes
	p.plan.Bytes += 8 + (s.Size+7)&^7
	p.plan.Slots = append(p.plan.Slots, s)
	return len(p.plan.Slots) - 1
}

// show makes the slot of an expression.
func (p *planner) show(x *cexpr.Expr, o operand) error {
	s := Slot{Name: x.Src, Type: o.typ, Shown: true}
	f := filling{user: o.user}
	var err error
	switch t := o.typ.Strip(); {
	case o.place == literal:
		return errors.New("a string is not worth showing")
	case t.Kind() == ctype.Pointer && t.Elem().IsChar():
		s.Form, s.Size, f.str = String, p.StringBytes, true
		f.n, err = o.value()
	case t.Kind() == ctype.Array || o.typ.IsRecord():
		if err = p.object(&s, &f, o); err == nil && o.place == inMemory {
			f.n, err = o.address()
		}
		f.frame = o.off
	default:
		s.Size = 8
		f.n, err = o.value()
	}
	if err != nil {
		return err
	}
	f.slot = p.add(s)
	if p.ExitOnly || o.exit || f.n != nil && f.n.exit {
		p.exit = append(p.exit, f)
	} else {
		p.entry = append(p.entry, f)
	}
	return nil
}

// object decides how much of an array or record is kept.
func (p *planner) object(s *Slot, f *filling, o operand) error {
	s.Form, s.Size = Memory, p.MemoryBytes
	t := o.typ.Strip()
	text := t.Kind() == ctype.Array && t.Elem().IsChar()
	if text {
		s.Form, s.Size = String, p.StringBytes
	}
	size, err := o.typ.Size()
	if err != nil {
		return err
	}
	switch {
	case size > 0:
		s.Size = min(s.Size, size)
	case text: // a flexible array
		f.str = true
	default:
		return errors.New("its size is not known: show an element of it, by [0]")
	}
	return nil
}

// generate makes the instructions.
func (p *planner) generate(conditions []*node) (err error) {
	var atEntry, atExit []*node
	for _, n := range conditions {
		if n.exit || p.ExitOnly {
			atExit = append(atExit, p.hide(n))
		} else {
			atEntry = append(atEntry, n)
		}
	}
	for i := range p.exit {
		if f := &p.exit[i]; f.n != nil {
			f.n = p.hide(f.n)
		}
	}
	if p.plan.Filter, err = p.filter(atEntry); err != nil {
		return err
	}
	if p.plan.ExitFilter, err = p.filter(atExit); err != nil {
		return err
	}
	if p.plan.Show, err = p.fill(append(p.entry, p.hidden...)); err != nil {
		return err
	}
	p.plan.ExitShow, err = p.fill(p.exit)
	return err
}

// hide returns n with hidden slots in place of what it needs of the entry.
func (p *planner) hide(n *node) *node {
	switch {
	case p.ExitOnly, !n.exit && !n.reads:
		return n
	case n.exit:
		out := *n
		for _, k := range [...]**node{&out.x, &out.y, &out.z} {
			if *k != nil {
				*k = p.hide(*k)
			}
		}
		return out.settled()
	}
	key := n.key()
	off, ok := p.held[key]
	if !ok {
		slot := p.add(Slot{Name: "part of the filter", Form: Scalar, Size: 8, Type: ctype.Builtin("unsigned long")})
		off = p.plan.Slots[slot].Off
		p.held[key] = off
		p.hidden = append(p.hidden, filling{slot: slot, n: n})
	}
	h := &node{op: opHeld, off: off, width: n.width, signed: n.signed}
	return h.settled()
}

// filter makes a function that says whether all conditions hold; nil if there
// are none.
func (p *planner) filter(conditions []*node) (asm.Instructions, error) {
	if len(conditions) == 0 {
		return nil, nil
	}
	g := newGenerator(p.Faults)
	no := g.label()
	g.fault = g.label()
	for _, n := range conditions {
		g.branch(n, false, no)
	}
	g.emit(asm.Mov.Imm(asm.R0, 1), asm.Return())
	g.here(g.fault)
	g.count()
	g.here(no)
	g.emit(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return g.finish()
}

// fill makes a function that fills slots; nil if there are none.
func (p *planner) fill(fs []filling) (asm.Instructions, error) {
	if len(fs) == 0 {
		return nil, nil
	}
	if p.plan.Bytes > maxSlots {
		return nil, errors.New("the values take too much memory")
	}
	g := newGenerator(p.Faults)
	for _, f := range fs {
		s := p.plan.Slots[f.slot]
		done := g.label()
		g.fault = g.label()
		g.slot(s, f)
		g.emit(zero(regSlots, s.Off))
		g.jump(done)
		g.here(g.fault)
		g.emit(asm.StoreMem(regSlots, int16(s.Off), asm.R0, asm.DWord))
		if s.Shown {
			g.count()
		}
		g.here(done)
	}
	g.emit(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return g.finish()
}

// slot puts a value into its slot.
func (g *generator) slot(s Slot, f filling) {
	off := s.Off + 8
	switch {
	case f.n == nil:
		for done := 0; done < s.Size; {
			size := 8
			for size > s.Size-done || (f.frame+done)%size != 0 || done%size != 0 {
				size /= 2
			}
			g.emit(
				asm.LoadMem(asm.R1, regCall, int16(f.frame+done), sizes[size]),
				asm.StoreMem(regSlots, int16(off+done), asm.R1, sizes[size]),
			)
			done += size
		}
	case s.Form == Scalar:
		g.value(f.n)
		g.emit(asm.StoreMem(regSlots, int16(off), asm.R0, asm.DWord))
	default:
		g.value(f.n)
		g.object(f, off, s.Size)
	}
}

// object reads the object at the address in R0 to a slot. Types do not say
// whose memory a pointer leads to, and on x86-64 an address is the kernel's or
// the user's and never both: what is not read as the one is tried as the other.
func (g *generator) object(f filling, off, size int) {
	kernel, user := readKernel, readUser
	if f.str {
		kernel, user = readKernelStr, readUserStr
	}
	if f.user {
		g.readTo(user, regSlots, off, size)
		return
	}
	other, done, fault := g.label(), g.label(), g.fault
	tmp := g.keep()
	g.fault = other
	g.readTo(kernel, regSlots, off, size)
	g.jump(done)
	g.here(other)
	g.fault = fault
	g.kept(tmp, asm.R0)
	g.readTo(user, regSlots, off, size)
	g.here(done)
	g.release()
}
