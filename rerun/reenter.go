package rerun

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/x86"
)

// An Entry is the moment at which a function of a stack began to run, brought
// about again: its caller is run from the beginning of the block that calls it,
// with the registers that the stack still tells. The memory is that of now: what was written
// since then is as it became.
type Entry struct {
	Frame    int    // of the stack
	Function uint64 // where it begins
	Caller   uint64 // where its caller was run from
	Call     uint64 // the call
	Return   uint64 // where it returns to
	Args     int    // how many registers of arguments are known, in their order
	Regs     emulate.Regs

	session *Session
}

// An UnknownError says why a function of a stack cannot be entered again.
type UnknownError struct {
	Function string
	Why      string
}

// Error names the function.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s cannot be entered again: %s", e.Function, e.Why)
}

// argRegs are the registers of arguments, in order (System V ABI).
var argRegs = [...]int{emulate.RDI, emulate.RSI, emulate.RDX, emulate.RCX, emulate.R8, emulate.R9}

// calleeSaved are the registers that a function leaves as they were.
var calleeSaved = [...]x86.Reg{x86asm.RBX, x86asm.RBP, x86asm.R12, x86asm.R13, x86asm.R14, x86asm.R15}

// unknownValue is what registers hold that are not known: no address, and different
// in each register.
func unknownValue(reg int) uint64 { return 0x0bad_0bad_0bad_0000 | uint64(reg)<<8 }

// Reenter brings the function of frame i of a stack back to its beginning. The error is an
// [*UnknownError] where the stack does not tell enough.
func (s *Session) Reenter(ctx context.Context, st stack.Stack, i int) (*Entry, error) {
	f, name := st.Frames[i], st.Frames[i].Symbol
	unknown := func(format string, args ...any) error {
		return &UnknownError{Function: name, Why: fmt.Sprintf(format, args...)}
	}
	if i+1 >= len(st.Frames) || st.Frames[i+1].Raw.Exact {
		return nil, unknown("it was not called by code whose stack is known")
	}
	sym, _, ok := s.k.Symbolize(f.Raw.Lookup())
	if !ok {
		return nil, unknown("its code is not known")
	}
	caller := st.Frames[i+1]
	block, err := s.callingBlock(caller.Raw)
	if err != nil {
		return nil, unknown("%v", err)
	}
	m := s.Machine()
	s.atBlock(m, block, unwind.Callee(s.k, rawStack(st), i+1))
	start := m.Regs
	for _, at := range entries(sym.Addr) {
		m.Break(at)
	}
	stop := m.Run(ctx)
	if stop.Outcome != emulate.Reached {
		return nil, unknown("running %s from %s did not come to it: %s", caller.Symbol, s.k.FormatAddr(block.start), stopText(stop))
	}
	if sp := m.GP[emulate.RSP]; sp != caller.Raw.SP-8 {
		return nil, unknown("running %s from %s came to it with another stack", caller.Symbol, s.k.FormatAddr(block.start))
	}
	e := &Entry{
		Frame: i, Function: sym.Addr, Return: caller.Raw.PC, Caller: block.start, Call: block.call, Regs: m.Regs, session: s,
	}
	e.Args = knownArgs(m, start)
	return e, nil
}

// rawStack is the stack without names.
func rawStack(st stack.Stack) unwind.Stack {
	var raw unwind.Stack
	for _, f := range st.Frames {
		raw.Frames = append(raw.Frames, f.Raw)
	}
	return raw
}

// atBlock puts a machine at the beginning of a block whose call has the given registers: what the
// block itself sets held something else before.
func (s *Session) atBlock(m *emulate.Machine, b callBlock, atCall unwind.Registers) {
	for r := range m.GP {
		m.GP[r] = unknownValue(r)
	}
	for _, reg := range calleeSaved {
		n, _ := emulate.RegNumber(reg)
		if v := atCall.Reg(reg); v.Known && b.written&(1<<n) == 0 {
			m.GP[n] = v.Value
		}
	}
	m.GP[emulate.RSP] = atCall.RSP.Value + b.pushed
	m.RIP = b.start
}

// entries are the addresses at which a function is entered: its beginning, or
// behind what a trampoline replaces there (call, with endbr64 before it).
func entries(start uint64) []uint64 { return []uint64{start, start + 4, start + 5, start + 9} }

// knownArgs counts the registers of arguments whose values do not come from what was
// not known when the machine began.
func knownArgs(m *emulate.Machine, start emulate.Regs) int {
	h := m.History()
	for i, r := range argRegs {
		var want emulate.Locs
		want.AddReg(r, 8)
		sl := h.Slice(emulate.SliceOptions{Before: m.Step, Want: want, Address: true})
		if !sl.Complete {
			return i
		}
		for reg, bytes := range sl.Initial.GP {
			if bytes != 0 && reg != emulate.RSP && start.GP[reg] == unknownValue(reg) {
				return i
			}
		}
	}
	return len(argRegs)
}

// A callBlock is the block of code that ends in, or contains, a call.
type callBlock struct {
	start, call uint64
	pushed      uint64 // bytes by which rsp is higher at its start than at the call
	written     uint16 // registers written before the call
}

// callingBlock finds the block of a frame that called the next one.
func (s *Session) callingBlock(f unwind.Frame) (callBlock, error) {
	sym, _, ok := s.k.Symbolize(f.Lookup())
	if !ok {
		return callBlock{}, errors.New("its caller's code is not known")
	}
	code, err := mem.Bytes(s.k.Mem(), sym.Addr, int(min(sym.Size, maxFunction)))
	if err != nil {
		return callBlock{}, err
	}
	g, err := cfg.Build(code, sym.Addr, cfg.Options{})
	if err != nil {
		return callBlock{}, err
	}
	n, ok := g.BlockAt(f.PC - 1)
	if !ok {
		return callBlock{}, fmt.Errorf("the call in %s is not reached from its beginning", sym.Name)
	}
	b := callBlock{start: g.Blocks[n].Start}
	for at := b.start; at < f.PC; {
		in, err := x86.Decode(code[at-sym.Addr:], at)
		if err != nil {
			return callBlock{}, err
		}
		next := at + uint64(in.Len)
		if next == f.PC {
			b.call = at
			return b, nil
		}
		e := in.Effects()
		switch {
		case in.Op == x86.PUSH:
			b.pushed += 8
		case in.Op == x86.SUB && ofRSP(&in):
			b.pushed += uint64(in.Args[1].Val)
		case in.Op == x86.ADD && ofRSP(&in):
			b.pushed -= uint64(in.Args[1].Val)
		case in.Flow() == x86.FlowCall || in.Flow() == x86.FlowIndirectCall: // it runs from behind an earlier call
			b = callBlock{start: next}
		default:
			for r, bytes := range e.Writes().GP {
				if bytes != 0 {
					b.written |= 1 << r
				}
			}
			if b.written&(1<<emulate.RSP) != 0 {
				return callBlock{}, fmt.Errorf("%s changes the stack pointer before the call", sym.Name)
			}
		}
		at = next
	}
	return callBlock{}, fmt.Errorf("no call of %s ends at %#x", sym.Name, f.PC)
}

// ofRSP says whether an instruction moves the stack pointer by a constant.
func ofRSP(in *x86.Inst) bool {
	return in.Args[0].Kind == x86.KindReg && in.Args[0].Reg == x86asm.RSP && in.Args[1].Kind == x86.KindImm
}

const maxFunction = 1 << 20 // bytes of code looked at

// machine returns a machine at the entry.
func (e *Entry) machine() *emulate.Machine {
	m := e.session.Machine()
	m.Regs = e.Regs
	m.Frames = append(m.Frames[:0], emulate.Frame{Entry: e.Function, Ret: e.Return, SP: e.Regs.GP[emulate.RSP]})
	return m
}

func stopText(s *emulate.Stop) string {
	if s.Err != nil {
		return s.Err.Error()
	}
	return string(s.Outcome)
}
