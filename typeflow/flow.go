package typeflow

import (
	"encoding/binary"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/x86"
)

// A Frame is a call that is followed.
type Frame struct {
	Func  Func // without a Name where the function is not known
	Entry uint64
	SP    uint64  // stack pointer at its entry
	Step  uint64  // of its first instruction
	Depth int     // calls around it
	Args  []Value // by Func.Proto's parameters, as its caller names them; nil if not known

	parent *Frame
}

// Parent returns the frame of the caller, nil of the outermost.
func (fr *Frame) Parent() *Frame { return fr.parent }

// A Kind is the kind of an [Event].
type Kind uint8

// The kinds of events.
const (
	Load   Kind = iota // Value was loaded from Place
	Store              // Value was stored to Place
	Call               // Frame was entered
	Return             // Frame was left; Value is what it returned
	Branch             // a conditional jump, move or set decided by Cond
)

// An Event is something that an instruction did. It is valid during the call
// of [Flow.On].
type Event struct {
	Kind  Kind
	Step  uint64
	Inst  *x86.Inst // nil for the call of a stub, and its return
	Frame *Frame
	Value Value
	// Of a Load or Store: the place, an lvalue, nil where it has no name; its
	// size; and whether it is the stack's own, a spill.
	Place *Expr
	Addr  uint64
	Size  uint8
	Stack bool
	// Of a Branch: what held, and whether a jump was taken.
	Cond  Cond
	Taken bool
}

// A Flow follows the C expressions in registers and memory during a run. It
// is an [emulate.Observer], for one run.
type Flow struct {
	// On, if set, is called with every event.
	On func(e *Event)
	// Each, if set, is called before each instruction, when Flow.Reg says what
	// its registers hold.
	Each func(m *emulate.Machine, in *x86.Inst)

	// Params, if set, are the parameters of the first function, where its own
	// prototype is not known: the types of what it is called with.
	Params []ctype.Param

	env   Env
	types *ctype.Types
	m     *emulate.Machine
	in    *x86.Inst
	frame *Frame
	begun bool

	regs    [16]Value
	written []int // registers whose values are known once the instruction is done
	flags   flags
	// A store by an instruction that is not followed: what it stored is known when
	// it is done.
	storing   *place
	storeStep uint64
	cells     map[uint64]Value
	objects   map[uint64]*ctype.Type // records that typed pointers have pointed at
	members   map[memberKey]member
	funcs     map[uint64]*Func
	vars      map[uint64]*Variable

	prev   transfer
	prevSP uint64
}

// A transfer is how control went on from the last instruction.
type transfer uint8

const (
	goesOn transfer = iota
	called
	jumped
	returned
)

// New returns a Flow for one run.
func New(env Env) *Flow {
	return &Flow{
		env: env, types: env.Types(),
		cells: map[uint64]Value{}, objects: map[uint64]*ctype.Type{}, members: map[memberKey]member{},
		funcs: map[uint64]*Func{}, vars: map[uint64]*Variable{},
	}
}

// Before implements [emulate.Observer].
func (f *Flow) Before(m *emulate.Machine, in *x86.Inst) {
	f.settle(m)
	f.in = in
	if f.Each != nil {
		f.Each(m, in)
	}
	f.step()
	switch in.Flow() {
	case x86.FlowCall, x86.FlowIndirectCall:
		f.prev = called
	case x86.FlowJump, x86.FlowCondJump, x86.FlowIndirectJump:
		f.prev = jumped
	case x86.FlowRet:
		f.prev, f.prevSP = returned, m.GP[emulate.RSP]
	default:
		f.prev = goesOn
	}
}

// Stub implements [emulate.Observer].
func (f *Flow) Stub(m *emulate.Machine, s *emulate.Stub) {
	f.settle(m)
	f.in = nil
	if f.frame != nil && f.frame.Func.Name == "" {
		f.frame.Func.Name = s.Name
	}
	f.setReg(emulate.RAX, Value{Size: 8, Step: m.Step})
	f.flags = flags{}
	f.prev, f.prevSP = returned, m.GP[emulate.RSP]
	if s.Jumps {
		f.prev = jumped
	}
}

// Finish is called after the run: it takes in the last instruction. If the run
// ended with a return, Value is what the first function returned.
func (f *Flow) Finish() Value {
	if f.m == nil {
		return Value{}
	}
	f.settle(f.m)
	return f.regs[emulate.RAX]
}

// Step returns the number of the instruction at hand.
func (f *Flow) Step() uint64 { return f.m.Step }

// Frame returns the call that the machine is in.
func (f *Flow) Frame() *Frame { return f.frame }

// Reg returns what the low size bytes of a register hold, by its number
// ([emulate.RAX] and so on). It is for Flow.Each.
func (f *Flow) Reg(r int, size uint8) Value { return f.use(r, size) }

// Arg returns what an operand of the instruction that is about to be executed
// holds. It is for Flow.Each.
func (f *Flow) Arg(i int) Value {
	a := &f.in.Args[i]
	if a.Kind == x86.KindMem {
		pl := f.place(a)
		return f.loadFrom(pl)
	}
	return f.arg(i)
}

// settle takes in what the last instruction did.
func (f *Flow) settle(m *emulate.Machine) {
	f.m = m
	for _, r := range f.written {
		v := &f.regs[r]
		now := m.GP[r] & mask(v.Size)
		if v.Val&mask(v.Size) != now {
			*v = Value{Size: v.Size, Step: v.Step} // it did not do what was thought
		}
		v.Val = now
		v.Expr = bounded(v.Expr, v.base(), v.Type)
	}
	f.written = f.written[:0]
	if p := f.storing; p != nil {
		f.storing = nil
		if v, ok := f.read(p.addr, p.size); ok {
			f.emit(Event{Kind: Store, Step: f.storeStep, Value: Value{Type: p.typ, Val: v, Size: p.size}, Place: p.expr, Addr: p.addr, Size: p.size, Stack: p.stack})
		}
	}
	switch {
	case !f.begun:
		f.begun = true
		f.enter(false)
	case f.prev == called:
		f.enter(false)
	case f.prev == returned:
		f.leave(f.prevSP)
		fallthrough
	case f.prev == jumped:
		if f.frame == nil || m.RIP != f.frame.Entry {
			if _, ok := f.function(m.RIP); ok {
				f.enter(true)
			}
		}
	}
	f.prev = goesOn
}

func (f *Flow) function(addr uint64) (Func, bool) {
	p, ok := f.funcs[addr]
	if !ok {
		if fn, found := f.env.Func(addr); found {
			p = &fn
		}
		f.funcs[addr] = p
	}
	if p == nil {
		return Func{}, false
	}
	return *p, true
}

func (f *Flow) variable(addr uint64) (Variable, bool) {
	p, ok := f.vars[addr]
	if !ok {
		if v, found := f.env.Variable(addr); found {
			p = &v
		}
		f.vars[addr] = p
	}
	if p == nil {
		return Variable{}, false
	}
	return *p, true
}

// use returns what is known of a register's low bytes, as they are now.
func (f *Flow) use(r int, size uint8) Value {
	v := f.regs[r]
	now := f.m.GP[r] & mask(size)
	switch {
	case size < v.Size && v.Val&mask(size) == now:
		return v.low(size)
	case v.Size != 0 && v.Val == now: // wider: the rest is zero
		v.Size = size
		return v
	}
	return Value{Val: now, Size: size}
}

// setReg notes what an instruction leaves in a register. When it is done that is
// compared with the register.
func (f *Flow) setReg(r int, v Value) {
	f.regs[r] = v
	f.written = append(f.written, r)
}

// forgetReg notes that an instruction writes a register with something unknown.
func (f *Flow) forgetReg(r int) { f.regs[r] = Value{} }

// read reads memory as the machine sees it.
func (f *Flow) read(addr uint64, size uint8) (uint64, bool) {
	var b [8]byte
	if size > 8 || f.m.Mem.ReadMem(b[:size], addr) != nil {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[:]), true
}

func (f *Flow) emit(e Event) {
	if f.On == nil {
		return
	}
	e.Inst = f.in
	if e.Step == 0 {
		e.Step = f.m.Step
	}
	if e.Frame == nil {
		e.Frame = f.frame
	}
	f.On(&e)
}
