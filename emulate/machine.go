package emulate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ksleuth/ksleuth/x86"
)

// Numbers of the general registers in [Regs.GP], as instructions encode them.
const (
	RAX = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
)

// Bits of RFLAGS.
const (
	CF = 1 << 0
	PF = 1 << 2
	AF = 1 << 4
	ZF = 1 << 6
	SF = 1 << 7
	TF = 1 << 8
	IF = 1 << 9
	DF = 1 << 10
	OF = 1 << 11
	AC = 1 << 18

	statusFlags = CF | PF | AF | ZF | SF | OF
	fixedFlags  = 1 << 1 // reads as 1
)

// Regs are the registers of a machine.
type Regs struct {
	GP             [16]uint64 // by number: RAX and so on
	RIP            uint64
	Flags          uint64
	FSBase, GSBase uint64
	KernelGSBase   uint64 // what swapgs exchanges GSBase with
	CR             [9]uint64
	X              [16][2]uint64 // xmm0 to xmm15, low half first
}

// Options bound a run. Zero values stand for the defaults.
type Options struct {
	Steps   uint64        // instructions: 100 million
	Depth   int           // calls inside calls: 1,000
	Time    time.Duration // 30 seconds
	History int           // instructions that are remembered; 0 remembers none, see [Machine.History]
}

func (o Options) orDefaults() Options {
	if o.Steps == 0 {
		o.Steps = 100e6
	}
	if o.Depth == 0 {
		o.Depth = 1000
	}
	if o.Time == 0 {
		o.Time = 30 * time.Second
	}
	return o
}

// An Outcome is the way a run ended.
type Outcome string

// The outcomes.
const (
	Returned    Outcome = "returned"    // to the caller of the function that was called
	Reached     Outcome = "reached"     // an address that [Machine.Break] names
	Watched     Outcome = "watched"     // watched memory was written
	Faulted     Outcome = "fault"       // memory that the target does not have
	Trapped     Outcome = "trap"        // an exception that is not of memory: ud2, divide by zero
	Unsupported Outcome = "unsupported" // an instruction that cannot be executed here
	Limited     Outcome = "limit"       // of instructions, depth or time
	Looped      Outcome = "loop"        // the machine came into a state in which it had been before
	Stopped     Outcome = "stopped"     // by a stub or an observer
)

// A Stop says why a run ended. RIP is that of the instruction that could not be
// executed, or of the next one.
type Stop struct {
	Outcome Outcome
	RIP     uint64
	Step    uint64 // instructions executed until then
	Err     error  // what happened, in words; nil if the function returned
	Loop    *Loop  // of Looped
}

// A Loop is an endless loop: after Period instructions the machine, its
// registers and its memory, is what it was.
type Loop struct {
	Step   uint64 // at which it was first in the state
	Period uint64
	Low    uint64 // lowest and highest address executed in it, of the innermost function
	High   uint64
}

// A Vector is a number of an exception (SDM vol. 3, 6.3.1).
type Vector uint8

// The exceptions that a machine raises.
const (
	DivideError    Vector = 0
	Breakpoint     Vector = 3  // int3
	InvalidOpcode  Vector = 6  // ud2 and the like
	GeneralProtect Vector = 13 // a non-canonical address, a privileged instruction
	PageFault      Vector = 14
)

// An Exception is what the processor would raise.
type Exception struct {
	Vector Vector
	Addr   uint64 // of the memory, for PageFault and GeneralProtect
	Write  bool
	Err    error
	Inst   *x86.Inst
}

// Error says what happened and where.
func (e *Exception) Error() string {
	at := ""
	if e.Inst != nil {
		at = fmt.Sprintf(" at %#x: %s", e.Inst.Addr, e.Inst)
	}
	switch e.Vector {
	case DivideError:
		return "divide error" + at
	case Breakpoint:
		return "breakpoint" + at
	case InvalidOpcode:
		return "invalid opcode" + at
	}
	return fmt.Sprintf("%v%s", e.Err, at)
}

// Unwrap returns the fault of memory.
func (e *Exception) Unwrap() error { return e.Err }

// An UnsupportedError names an instruction that cannot be executed.
type UnsupportedError struct {
	Inst *x86.Inst
	Why  string // or ""
}

// Error names the instruction.
func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("cannot execute %s at %#x (bytes % x)", e.Inst, e.Inst.Addr, e.Inst.Bytes())
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// A LimitError says which bound was reached.
type LimitError struct{ What string }

// Error says which.
func (e *LimitError) Error() string { return "stopped after " + e.What }

// A Frame is a call that has not returned.
type Frame struct {
	Entry uint64 // the function called
	Ret   uint64 // where it returns to
	SP    uint64 // stack pointer at its entry: where the return address lies
	Step  uint64 // of the call
}

// A Stub stands for a function that does not run. Run may use the machine's
// registers and memory (by Load and Store, so that the history knows);
// afterwards the machine returns to the caller. An error ends the run.
type Stub struct {
	Name string
	Run  func(m *Machine) error
	// Jumps: Run has set RIP itself, there is no return.
	Jumps bool
	// Args is how many of the six argument registers Run looks at, for the
	// history; 0 where that is not known: then all count.
	Args int
}

// An Observer sees a run go by.
type Observer interface {
	// Before is called before each instruction.
	Before(m *Machine, in *x86.Inst)
	// Stub is called before a stub runs.
	Stub(m *Machine, s *Stub)
}

// A Machine is a CPU with the memory it sees. It is not safe for concurrent use.
type Machine struct {
	Regs
	Mem  *Memory
	Step uint64 // instructions executed; exact between runs and for observers, else up to a block behind
	// Frames are the calls since the run began, outermost first.
	Frames []Frame
	// Exception, if set, is asked when one is raised. It returns true if it has set
	// the registers to go on with.
	Exception func(m *Machine, e *Exception) bool
	// Observer, if set, sees every instruction. It makes the run slow.
	Observer Observer
	// Wrote, if set, is called after watched memory was written; true ends the run.
	Wrote func(w Write) bool
	// TSC is what rdtsc adds the number of instructions to.
	TSC uint64
	// TSCAux is what rdpid and rdtscp return: by Linux's convention the number of
	// the CPU in the lower 12 bits, that of its NUMA node above.
	TSCAux uint32

	opt     Options
	code    map[uint64]*block
	insts   []x86.Inst // by uop.id
	uopStub []*Stub    // by uop.id, nil for instructions
	stubs   map[uint64]*Stub
	breaks  map[uint64]bool
	watches []watch
	hist    *History

	read, wrote uint64 // address of the last load, store
	n           uint32 // bytes of a repeated access, or noAccess; else 0
	clock       uint64 // reads of the clock so far
	repeats     uint64 // rounds of repeated string instructions so far
	cur         *uop   // where a fault happens
	stop        *Stop
	loop        loopFinder
	generation  int // of the decoded code
}

// exitAddr is where the function that was called returns to: no code can be there.
const exitAddr = 0xfffffffffffff000

// New returns a machine that sees mem.
func New(mem *Memory, o Options) *Machine {
	m := &Machine{
		Mem: mem, opt: o.orDefaults(),
		code: map[uint64]*block{}, stubs: map[uint64]*Stub{}, breaks: map[uint64]bool{},
	}
	m.Flags = fixedFlags | IF
	if o.History > 0 {
		m.hist = newHistory(m, o.History)
	}
	return m
}

// History returns what is remembered of the run, or nil.
func (m *Machine) History() *History { return m.hist }

// SetStub lets s stand for the function at addr.
func (m *Machine) SetStub(addr uint64, s *Stub) {
	m.stubs[addr] = s
	m.forget()
}

// Break ends a run when it comes to addr.
func (m *Machine) Break(addr uint64) {
	m.breaks[addr] = true
	m.forget()
}

// Unbreak takes a Break back.
func (m *Machine) Unbreak(addr uint64) {
	delete(m.breaks, addr)
	m.forget()
}

// forget drops the decoded code.
func (m *Machine) forget() {
	clear(m.code)
	m.generation++
}

// Call runs the function at addr with up to six arguments, on the stack that
// RSP points at, until it returns.
func (m *Machine) Call(ctx context.Context, addr uint64, args ...uint64) *Stop {
	for i, r := range ArgRegs {
		if i < len(args) {
			m.GP[r] = args[i]
		}
	}
	if err := m.Push(exitAddr); err != nil {
		return &Stop{Outcome: Faulted, RIP: addr, Err: err}
	}
	m.Frames = append(m.Frames[:0], Frame{Entry: addr, Ret: exitAddr, SP: m.GP[RSP], Step: m.Step})
	m.RIP = addr
	return m.Run(ctx)
}

// Push pushes a word. It is for setting up a run, and for stubs.
func (m *Machine) Push(v uint64) error {
	if err := m.Store(m.GP[RSP]-8, v, 8); err != nil {
		return err
	}
	m.GP[RSP] -= 8
	return nil
}

// Load reads a word of 1, 2, 4 or 8 bytes for a stub; the history knows of it.
func (m *Machine) Load(addr uint64, size int) (uint64, error) {
	if v, ok := m.load(addr, uint8(size)); ok {
		m.note(addr, uint32(size), false)
		return v, nil
	}
	return 0, m.takeStop()
}

// Store writes a word of 1, 2, 4 or 8 bytes for a stub; the history knows of it.
func (m *Machine) Store(addr, v uint64, size int) error {
	if m.store(addr, v, uint8(size)) {
		m.note(addr, uint32(size), true)
		return nil
	}
	return m.takeStop()
}

// StoreBytes writes bytes for a stub; the history knows of it.
func (m *Machine) StoreBytes(addr uint64, b []byte) error {
	if m.storeBytes(b, addr) {
		m.note(addr, uint32(len(b)), true)
		return nil
	}
	return m.takeStop()
}

func (m *Machine) takeStop() error {
	s := m.stop
	m.stop = nil
	if s == nil {
		return errors.New("the run was ended")
	}
	return s.Err
}

// A Write is a write to watched memory, by an instruction or a stub.
type Write struct {
	Step  uint64
	RIP   uint64 // of the instruction
	Addr  uint64
	Bytes []byte // what was written
}

type watch struct{ start, end uint64 }

// Watch has n bytes at addr watched: see Machine.Wrote. Without it the first
// write ends the run.
func (m *Machine) Watch(addr, n uint64) {
	m.watches = append(m.watches, watch{addr, addr + n})
	for pn := addr >> pageShift; pn <= (addr+n-1)>>pageShift; pn++ {
		if p, err := m.Mem.page(pn << pageShift); err == nil {
			p.watched = true
		}
		m.Mem.tlb[pn%tlbSize] = tlbEntry{}
	}
}

// watched is called after a write to a page that has watched memory.
func (m *Machine) watched(addr uint64, b []byte) {
	for _, w := range m.watches {
		if addr >= w.end || addr+uint64(len(b)) <= w.start {
			continue
		}
		rip := m.RIP
		if m.cur != nil {
			rip = m.cur.addr
		}
		wr := Write{Step: m.Step, RIP: rip, Addr: addr, Bytes: append([]byte(nil), b...)}
		if m.Wrote == nil || m.Wrote(wr) {
			m.stop = &Stop{Outcome: Watched, RIP: rip, Err: fmt.Errorf("%d bytes at %#x were written", len(b), addr)}
		}
		return
	}
}

// fault raises the exception for memory that cannot be accessed. It returns
// false: the instruction is not carried out.
func (m *Machine) fault(addr uint64, write bool, err error) bool {
	var limit *LimitError
	if errors.As(err, &limit) {
		m.stop = &Stop{Outcome: Limited, Err: limit}
		return false
	}
	e := &Exception{Vector: PageFault, Addr: addr, Write: write, Err: err}
	if int64(addr<<7)>>7 != int64(addr) { // 57 bits: with 4-level page tables, too, no such page is mapped
		e.Vector = GeneralProtect
	}
	return m.raise(e)
}

// raise ends the run with an exception, unless the machine's owner handles it.
func (m *Machine) raise(e *Exception) bool {
	if m.cur != nil {
		e.Inst = &m.insts[m.cur.id]
	}
	o := Faulted
	if e.Vector != PageFault && e.Vector != GeneralProtect {
		o = Trapped
	}
	m.stop = &Stop{Outcome: o, Err: e}
	return false
}
