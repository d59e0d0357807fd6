package culprit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/x86"
)

const (
	maxFunction = 1 << 20 // bytes of code looked at
	maxWay      = 512     // instructions before a call
)

// wayToCall returns the instructions that were executed before a frame called
// the next one, as far back as there is only one way they can have been
// reached, and the call itself.
func (s *Finder) wayToCall(f unwind.Frame) ([]x86.Inst, error) {
	sym, _, ok := s.k.Symbolize(f.Lookup())
	if !ok {
		return nil, errors.New("its caller's code is not known")
	}
	code, err := mem.Bytes(s.k.Mem(), sym.Addr, int(min(sym.Size, maxFunction)))
	if err != nil {
		return nil, err
	}
	g, err := cfg.Build(code, sym.Addr, cfg.Options{})
	if err != nil {
		return nil, err
	}
	n, ok := g.BlockAt(f.PC - 1)
	if !ok {
		return nil, fmt.Errorf("the call in %s is not reached from its beginning", sym.Name)
	}
	way := insts(g, n, f.PC)
	if len(way) == 0 || !calls(&way[len(way)-1]) {
		return nil, fmt.Errorf("no call of %s ends at %#x", sym.Name, f.PC)
	}
	for b := &g.Blocks[n]; len(b.Preds) == 1 && len(way) < maxWay; {
		n = b.Preds[0]
		b = &g.Blocks[n]
		if slices.ContainsFunc(way, func(in x86.Inst) bool { return in.Addr == b.Start }) {
			break // a loop
		}
		way = append(insts(g, n, b.End), way...)
	}
	// One cannot go back over what sets the stack pointer otherwise than by a
	// constant.
	for i := len(way) - 1; i >= 0; i-- {
		if _, ok := moves(&way[i]); !ok {
			return way[i+1:], nil
		}
	}
	return way, nil
}

func calls(in *x86.Inst) bool {
	return in.Flow() == x86.FlowCall || in.Flow() == x86.FlowIndirectCall
}

// insts decodes a block up to an address.
func insts(g *cfg.Graph, block int, end uint64) (out []x86.Inst) {
	b := &g.Blocks[block]
	code := g.Code(block)
	for at := b.Start; at < end; {
		in, err := x86.Decode(code[at-b.Start:], at)
		if err != nil {
			return nil
		}
		out = append(out, in)
		at += uint64(in.Len)
	}
	return out
}

// moves tells by how much an instruction moves the stack pointer. It reports
// false if that is not a constant. Calls return with it as it was.
func moves(in *x86.Inst) (int64, bool) {
	switch in.Op {
	case x86.PUSH, x86.PUSHF:
		return -8, true
	case x86.POP, x86.POPF:
		return 8, true
	case x86.CALL:
		return 0, true
	}
	e := in.Effects()
	if e.Known && e.Writes().GP[emulate.RSP] == 0 {
		return 0, true
	}
	if in.Args[0].Kind == x86.KindReg && in.Args[0].Reg == x86asm.RSP && in.Args[1].Kind == x86.KindImm {
		switch in.Op {
		case x86.SUB:
			return -in.Args[1].Val, true
		case x86.ADD:
			return in.Args[1].Val, true
		}
	}
	return 0, false
}

// An approach does again what was done before a call, with what is known: an
// instruction that needs what is not known makes its results unknown.
type approach struct {
	m       *emulate.Machine
	unknown x86.RegSet
}

// approach goes a way up to its call, which is not carried out. atCall are the
// registers there.
func (s *Finder) approach(ctx context.Context, way []x86.Inst, atCall unwind.Registers) *approach {
	a := &approach{m: s.Machine()}
	last := [16]int{} // by register: behind the last instruction that writes it
	sp := atCall.RSP.Value
	for i := range way[:len(way)-1] {
		by, _ := moves(&way[i])
		sp -= uint64(by)
		e := way[i].Effects()
		for r, bytes := range e.Writes().GP {
			if bytes != 0 {
				last[r] = i + 1
			}
		}
	}
	for r := range a.m.GP {
		a.forget(r)
	}
	a.unknown.Flags = x86.FlagStatus
	a.m.GP[emulate.RSP], a.unknown.GP[emulate.RSP] = sp, 0
	for i := range way {
		// From where it is not written any more, a register is what it is at
		// the call.
		for _, reg := range calleeSaved {
			n, _ := emulate.RegNumber(reg)
			if v := atCall.Reg(reg); last[n] == i && v.Known {
				a.m.GP[n], a.unknown.GP[n] = v.Value, 0
			}
		}
		if i < len(way)-1 {
			a.step(ctx, &way[i])
		}
	}
	return a
}

// step carries out an instruction, if all that it needs is known.
func (a *approach) step(ctx context.Context, in *x86.Inst) {
	m := a.m
	switch in.Flow() {
	case x86.FlowNext:
	case x86.FlowCall, x86.FlowIndirectCall: // what it does is not known
		for _, r := range callerSaved {
			a.forget(r)
		}
		a.unknown.Flags = x86.FlagStatus
		return
	default: // which way it went is known
		return
	}
	by, _ := moves(in)
	sp := m.GP[emulate.RSP] + uint64(by)
	e := in.Effects()
	reads, writes := e.Reads(), e.Writes()
	if e.Known && !a.lacks(&reads) && !a.lacks(&e.Address) && a.execute(ctx, in) {
		for r, bytes := range writes.GP {
			a.unknown.GP[r] &^= bytes
		}
		a.unknown.Flags &^= writes.Flags
		return
	}
	for r, bytes := range writes.GP {
		if bytes != 0 {
			a.forget(r)
		}
	}
	a.unknown.Flags |= writes.Flags
	m.GP[emulate.RSP], a.unknown.GP[emulate.RSP] = sp, 0
}

// execute has the machine carry out one instruction.
func (a *approach) execute(ctx context.Context, in *x86.Inst) bool {
	next := in.Addr + uint64(in.Len)
	a.m.RIP = in.Addr
	a.m.Break(next)
	stop := a.m.Run(ctx)
	a.m.Unbreak(next)
	return stop.Outcome == emulate.Reached
}

// callerSaved are the registers that a function may change.
var callerSaved = [...]int{
	emulate.RAX, emulate.RCX, emulate.RDX, emulate.RSI, emulate.RDI, emulate.R8, emulate.R9, emulate.R10, emulate.R11,
}

func (a *approach) forget(r int) {
	a.m.GP[r], a.unknown.GP[r] = unknownValue(r), 0xff
}

// lacks says whether something of a set is unknown.
func (a *approach) lacks(s *x86.RegSet) bool {
	for r, bytes := range s.GP {
		if bytes&a.unknown.GP[r] != 0 {
			return true
		}
	}
	return s.Flags&a.unknown.Flags != 0
}
