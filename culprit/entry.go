package culprit

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/x86"
)

// An Entry is the moment at which a function of a stack began to run, brought
// about again: what its caller did just before it called is done again, as far
// as the registers that the stack still tells suffice. The memory is that of now:
// what was written since then is as it became.
type Entry struct {
	Frame    int    // of the stack
	Function uint64 // where it begins
	Caller   uint64 // where its caller was run from
	Call     uint64 // the call
	Return   uint64 // where it returns to
	Args     int    // how many registers of arguments are known, in their order
	Regs     emulate.Regs

	finder *Finder
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

// calleeSaved are the registers that a function leaves as they were.
var calleeSaved = [...]x86.Reg{x86asm.RBX, x86asm.RBP, x86asm.R12, x86asm.R13, x86asm.R14, x86asm.R15}

// unknownValue is what registers hold that are not known: no address, and
// different in each register.
func unknownValue(reg int) uint64 { return 0x0bad_0bad_0bad_0000 | uint64(reg)<<8 }

// Reenter brings the function of frame i of a stack back to its beginning. The
// error is an [*UnknownError] where the stack does not tell enough.
func (s *Finder) Reenter(ctx context.Context, st stack.Stack, i int) (*Entry, error) {
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
	way, err := s.wayToCall(caller.Raw)
	if err != nil {
		return nil, unknown("%v", err)
	}
	ap := s.approach(ctx, way, unwind.Callee(s.k, rawStack(st), i+1))
	m := ap.m
	e := &Entry{
		Frame: i, Function: sym.Addr, Return: caller.Raw.PC, Caller: way[0].Addr, Call: way[len(way)-1].Addr, finder: s,
	}
	sp := caller.Raw.SP - 8
	atCall := m.Regs
	if t, ok := way[len(way)-1].Target(); ok && t != sym.Addr && !s.thunk(t) {
		// By way of other code: a trampoline, a tail call.
		for _, at := range entries(sym.Addr) {
			m.Break(at)
		}
		m.RIP = e.Call
		ok = m.Run(ctx).Outcome == emulate.Reached && m.GP[emulate.RSP] == sp
		if !ok { // what is not known decides where it goes; the arguments mostly stay
			m.Regs = atCall
		}
	}
	if m.GP[emulate.RSP] == sp+8 {
		if err := m.Push(e.Return); err != nil {
			return nil, unknown("%v", err)
		}
	}
	if m.GP[emulate.RSP] != sp {
		return nil, unknown("what %s did before the call leads to another stack", caller.Symbol)
	}
	m.RIP = sym.Addr
	for e.Args < len(emulate.ArgRegs) && ap.unknown.GP[emulate.ArgRegs[e.Args]] == 0 {
		e.Args++
	}
	e.Regs = m.Regs
	return e, nil
}

// thunk says whether code at addr only goes where a register says.
func (s *Finder) thunk(addr uint64) bool {
	sym, _, ok := s.k.Symbolize(addr)
	return ok && strings.HasPrefix(sym.Name, "__x86_indirect_")
}

// rawStack is the stack without names.
func rawStack(st stack.Stack) unwind.Stack {
	var raw unwind.Stack
	for _, f := range st.Frames {
		raw.Frames = append(raw.Frames, f.Raw)
	}
	return raw
}

// entries are the addresses at which a function is entered: its beginning, or
// behind what a trampoline replaces there (call, with endbr64 before it).
func entries(start uint64) []uint64 { return []uint64{start, start + 4, start + 5, start + 9} }

// machine returns a machine at the entry.
func (e *Entry) machine() *emulate.Machine {
	m := e.finder.Machine()
	m.Regs = e.Regs
	m.Frames = append(m.Frames[:0], emulate.Frame{Entry: e.Function, Ret: e.Return, SP: e.Regs.GP[emulate.RSP]})
	return m
}
