// Package unwind walks kernel stacks: by the kernel's ORC tables in its own
// text and in modules, and by what the code did to the stack pointer in BPF
// programs and trampolines, which have no ORC.
//
// It never guesses: a stack that cannot be followed ends with a reason, and no
// word is taken for a return address because it looks like one.
package unwind

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/orc"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

// A Frame is one activation of a function.
type Frame struct {
	PC uint64 // the instruction that runs or will run next: for callers, the return address
	SP uint64 // stack pointer in this frame
	// CFA is the canonical frame address: SP before the call that made the
	// frame. The return address is at CFA-8. 0 where it is unknown.
	CFA  uint64
	Kind kernel.Kind
	// Exact says that PC is the very instruction that was interrupted, not
	// one behind a call.
	Exact bool
	// Reliable says that the frame follows from the one below it by rules
	// that hold for its code, with nothing assumed.
	Reliable bool
	// Recovered says, where not empty, past what damage the frame was found.
	Recovered string
	// Regs are the registers saved when this frame was interrupted, for an
	// exception or interrupt; nil in other frames.
	Regs *vmcore.Regs
	// RegsAddr is where Regs were saved, 0 for those of a running CPU.
	RegsAddr uint64
}

// A Damage is a saved or live frame pointer that differs from what the code
// must have put there.
type Damage struct {
	Frame int    // index of the frame whose frame pointer it is
	Cell  uint64 // address of the saved copy; 0 for the register itself
	Got   uint64
	Want  uint64
}

// A Stack is the result of unwinding.
type Stack struct {
	Frames []Frame
	Damage []Damage
	// User are the registers of the user program the kernel was entered
	// from, nil for kernel threads.
	User *vmcore.Regs
	// End is nil where the stack was followed to its outermost frame, else
	// the reason for which it stops.
	End error
}

// maxFrames bounds a stack: kernel stacks have 16 KiB and a frame 16 bytes at
// least.
const maxFrames = 1024

// From unwinds from the registers of a CPU that ran the given task (0 if
// unknown).
func From(k *kernel.Kernel, task uint64, regs vmcore.Regs) Stack {
	u := &unwinder{k: k, task: task, regs: &regs, pc: regs.RIP, sp: regs.RSP, bp: regs.RBP, exact: true}
	return u.run()
}

// Behind unwinds from a return address: the frames of the function that it is
// in and of its callers, where those inside of them are lost. sp and bp are
// the registers behind the return; bp matters only where a function needs it.
func Behind(k *kernel.Kernel, task, ret, sp, bp uint64) Stack {
	u := &unwinder{k: k, task: task, pc: ret, sp: sp, bp: bp}
	return u.run()
}

// Task unwinds the stack of a task that sleeps: thread.sp points at the struct
// inactive_task_frame that __switch_to_asm left.
func Task(k *kernel.Kernel, task uint64) Stack {
	o := k.Object("task_struct", task)
	sp := o.Field("thread").Uint("sp")
	f := k.Object("inactive_task_frame", sp)
	pc, bp := f.Uint("ret_addr"), f.Uint("bp")
	size := k.Sizeof("inactive_task_frame")
	if err := errors.Join(o.Err(), f.Err()); err != nil {
		return Stack{End: err}
	}
	u := &unwinder{k: k, task: task, pc: pc, sp: sp + size, bp: bp}
	// A new task has never run: what it "returns" to begins, and is not
	// behind a call.
	if s, off, ok := k.Symbolize(pc); ok && off == 0 && (s.Name == "ret_from_fork" || s.Name == "ret_from_fork_asm") {
		u.exact = true
	}
	return u.run()
}

// unwinder is the state at one frame.
type unwinder struct {
	k     *kernel.Kernel
	task  uint64
	stack Stack

	pc, sp, bp uint64
	bpCell     uint64 // where bp was loaded from; 0 while it is the register's
	exact      bool
	regs       *vmcore.Regs // registers of this very frame, where known
	regsAddr   uint64
	recovered  string
	decoded    int // bytes of generated code followed so far
}

// maxDecoded bounds the code followed for one stack: a damaged one can go
// through the same large program again and again.
const maxDecoded = 16 << 20

// errEnd ends a stack at its outermost frame.
var errEnd = errors.New("outermost frame")

func (u *unwinder) run() Stack {
	for len(u.stack.Frames) < maxFrames {
		if err := u.step(); err != nil {
			if err != errEnd {
				u.stack.End = err
			}
			return u.stack
		}
	}
	u.stack.End = fmt.Errorf("more than %d frames: the stack is damaged", maxFrames)
	return u.stack
}

// step records the current frame and moves to its caller.
func (u *unwinder) step() error {
	f := Frame{PC: u.pc, SP: u.sp, Exact: u.exact, Reliable: u.recovered == "", Recovered: u.recovered, Regs: u.regs, RegsAddr: u.regsAddr}
	u.recovered = ""
	if u.regs != nil && u.regs.CS&3 != 0 {
		u.stack.User = u.regs
		return errEnd
	}
	sym, off, ok := u.k.Symbolize(f.Lookup())
	if !ok || !u.executable(f.Lookup()) {
		return u.nowhere(f)
	}
	f.Kind = sym.Kind
	at := len(u.stack.Frames)
	u.stack.Frames = append(u.stack.Frames, f)
	var cfa uint64
	var err error
	if sym.Kind == kernel.KindBPF || sym.Kind == kernel.KindTrampoline {
		cfa, err = u.stepCode(at, sym, off)
	} else {
		cfa, err = u.stepORC(at, sym, off)
	}
	u.stack.Frames[at].CFA = cfa
	return err
}

// executable says whether code can run at pc: data has symbols, too. What the
// page tables do not say is believed.
func (u *unwinder) executable(pc uint64) bool {
	m, err := u.k.Walk(pc)
	return err != nil || m.Exec || !u.exact && u.wasInit(pc)
}

// wasInit says whether pc is in init code, whose pages are freed and no longer
// executable once the kernel is up. The first task's stack still returns there,
// though it never will.
func (u *unwinder) wasInit(pc uint64) bool {
	start, ok1 := u.k.Lookup("_sinittext")
	end, ok2 := u.k.Lookup("_einittext")
	return ok1 && ok2 && pc >= start.Addr && pc < end.Addr
}

// nowhere handles a pc that is no code of the kernel. At the top of a stack it
// is a call or jump through a bad pointer, and the return address is still on
// top of the stack; anywhere else the stack is damaged.
func (u *unwinder) nowhere(f Frame) error {
	if !u.exact {
		return fmt.Errorf("the return address 0x%x at 0x%x is no code of this kernel: the stack is damaged here", u.pc, u.sp-8)
	}
	f.Kind, f.CFA = kernel.KindKernel, u.sp+8
	u.stack.Frames = append(u.stack.Frames, f)
	ret, err := mem.U64(u.k.Mem(), u.sp)
	if err != nil {
		return fmt.Errorf("after a jump to 0x%x: %w", u.pc, err)
	}
	if _, _, ok := u.k.Symbolize(ret - 1); !ok {
		return fmt.Errorf("after a jump to 0x%x: the word on top of the stack, 0x%x, is no code of this kernel", u.pc, ret)
	}
	u.call(ret, u.sp+8)
	u.recovered = fmt.Sprintf("past the jump to 0x%x", f.PC)
	return nil
}

// Lookup returns the address by which the frame's function is found: a return
// address can lie behind the last instruction of a function that never
// returns, so the call before it is what counts.
func (f Frame) Lookup() uint64 {
	if f.Exact {
		return f.PC
	}
	return f.PC - 1
}

// call makes the caller's frame the current one.
func (u *unwinder) call(ret, sp uint64) {
	u.pc, u.sp = ret, sp
	u.exact, u.regs, u.regsAddr = false, nil, 0
}

// outwards checks that a frame begins above its end, or on another stack: else
// a damaged stack could lead round in a circle.
func (u *unwinder) outwards(cfa uint64) error {
	const stackSize = 16 << 10 // and the alignment of stacks: THREAD_SIZE, IRQ_STACK_SIZE
	if cfa <= u.sp && cfa/stackSize == u.sp/stackSize {
		return fmt.Errorf("the frame of %s does not lead outwards (0x%x after 0x%x): the stack is damaged here", u.k.FormatAddr(u.pc), cfa, u.sp)
	}
	return nil
}

// stepCode finds the caller of code that has no ORC by what it did to the
// stack pointer.
func (u *unwinder) stepCode(at int, sym kernel.Symbol, off uint64) (uint64, error) {
	d, err := u.depth(sym, off)
	if err != nil {
		return 0, err
	}
	return u.leave(at, sym, d)
}

// depth follows a function's code up to the current place in it.
func (u *unwinder) depth(sym kernel.Symbol, off uint64) (depth, error) {
	code, err := mem.Bytes(u.k.Mem(), sym.Addr, int(min(sym.Size, maxFunction)))
	if err != nil {
		return depth{}, fmt.Errorf("reading the code of %s: %w", sym.Name, err)
	}
	if u.decoded += len(code); u.decoded > maxDecoded {
		return depth{}, fmt.Errorf("more than %d MiB of code without ORC on one stack: damaged", maxDecoded>>20)
	}
	pc := u.pc - sym.Addr
	if !u.exact {
		// The depth before the call is the depth behind it.
		pc = off
	}
	d := depthAt(code, sym.Addr, int(pc), u.exact)
	if !d.visited {
		return d, fmt.Errorf("%s+0x%x: not reached from the function's entry: how far the stack pointer moved is unknown", sym.Name, off)
	}
	if d.lost {
		return d, fmt.Errorf("%s+0x%x: the stack pointer was set to what the code alone does not tell", sym.Name, off)
	}
	return d, nil
}

// leave moves to the caller of a function that stands at a known depth.
func (u *unwinder) leave(at int, sym kernel.Symbol, d depth) (uint64, error) {
	cfa := d.cfa(u.sp)
	if err := u.outwards(cfa); err != nil {
		return cfa, err
	}
	bp, cell := u.bp, u.bpCell
	var err error
	if d.saved {
		cell = cfa - 16 - uint64(d.slot)
		if bp, err = mem.U64(u.k.Mem(), cell); err != nil {
			return cfa, fmt.Errorf("frame of %s: %w", sym.Name, err)
		}
	}
	damaged := d.framed && u.bp != cfa-16
	if damaged {
		u.stack.Damage = append(u.stack.Damage, Damage{Frame: at, Cell: u.bpCell, Got: u.bp, Want: cfa - 16})
	}
	ret, err := mem.U64(u.k.Mem(), cfa-8)
	if err != nil {
		return cfa, fmt.Errorf("return address of %s: %w", sym.Name, err)
	}
	if ret, err = u.unhook(ret, cfa-8); err != nil {
		return cfa, err
	}
	u.call(ret, cfa)
	u.bp, u.bpCell = bp, cell
	if damaged {
		u.recovered = "past the damaged rbp"
	}
	return cfa, nil
}

// calledAt says whether the word at cell is the return address of a direct call
// to the function at entry.
func (u *unwinder) calledAt(cell, entry uint64) bool {
	const callLen = 5
	ret, err := mem.U64(u.k.Mem(), cell)
	if err != nil {
		return false
	}
	code, err := mem.Bytes(u.k.Mem(), ret-callLen, callLen)
	if err != nil {
		return false
	}
	in, err := x86.Decode(code, ret-callLen)
	if err != nil || in.Op != x86.CALL {
		return false
	}
	target, ok := in.Target()
	return ok && target == entry
}

// stepORC finds the caller of compiled code by the ORC entry for it.
func (u *unwinder) stepORC(at int, sym kernel.Symbol, off uint64) (uint64, error) {
	f := &u.stack.Frames[at]
	e, ok, err := u.k.ORC(f.Lookup())
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, fmt.Errorf("no ORC entry for %s", u.k.FormatAddr(u.pc))
	}
	switch e.Type {
	case orc.EndOfStack:
		if f.Kind == kernel.KindKernel {
			f.Kind = kernel.KindEntry
		}
		return 0, errEnd
	case orc.Undefined:
		// Objtool leaves out whole functions, too (STACK_FRAME_NON_STANDARD):
		// __crash_kexec, which noted its own registers.
		if d, err := u.depth(sym, off); err == nil && u.calledAt(d.cfa(u.sp)-8, sym.Addr) {
			return u.leave(at, sym, d)
		}
		return 0, fmt.Errorf("the ORC entry for %s says that its stack cannot be unwound", u.k.FormatAddr(u.pc))
	}
	cfa, err := u.cfa(e)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", u.k.FormatAddr(u.pc), err)
	}
	switch e.Type {
	case orc.Regs, orc.RegsPartial:
		f.Kind = kernel.KindEntry
		return cfa, u.interrupted(cfa, e.Type == orc.RegsPartial)
	}
	ret, err := mem.U64(u.k.Mem(), cfa-8)
	if err != nil {
		return cfa, fmt.Errorf("return address of %s: %w", u.k.FormatAddr(u.pc), err)
	}
	if err := u.restoreBP(e, cfa); err != nil {
		return cfa, err
	}
	if err := u.outwards(cfa); err != nil {
		return cfa, err
	}
	if ret, err = u.unhook(ret, cfa-8); err != nil {
		return cfa, err
	}
	u.call(ret, cfa)
	u.exact = e.Signal
	return cfa, nil
}
