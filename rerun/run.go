package rerun

import (
	"context"
	"fmt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Result is what a run left behind.
type Result struct {
	Machine *emulate.Machine // as the run left it; its History, if one was asked for
	Stop    *emulate.Stop
	Start   emulate.Regs // what the run began with, before the call
	Uses    []Use        // what was stood in for, in the order of the first use
	Hits    []Hit        // writes to watched memory; the names are still to be found

	run *run
}

// A run is one machine and what its stubs note.
type run struct {
	s *Session
	m *emulate.Machine

	uses  []Use
	byKey map[useKey]int
	hits  []Hit

	heap    uint64            // bytes used at heapBase
	perCPU  uint64            // bytes used at perCPUBase
	sizes   map[uint64]uint64 // of what was allocated
	hidden  map[uint64]int    // bytes at addresses that were changed for the run's sake
	clock   uint64            // at step 0, in nanoseconds
	trapped *trapNote         // of the last BUG
	dead    [2]uint64         // part of a task's stack that is free when the function has returned
}

type useKey struct{ name, why string }

// use notes that a stub was called.
func (r *run) use(name, why string) {
	key := useKey{name, why}
	if i, ok := r.byKey[key]; ok {
		r.uses[i].Count++
		return
	}
	const most = 1000 // texts of printk can differ without end
	if len(r.uses) >= most {
		return
	}
	r.byKey[key] = len(r.uses)
	r.uses = append(r.uses, Use{Name: name, Why: why, Count: 1, From: r.caller()})
}

// caller names the place that a stub was called from, or else the instruction
// under way.
func (r *run) caller() string {
	m := r.m
	if row, ok := r.s.stubs()[m.RIP]; !ok || row.row == nil {
		return r.s.Name(m.RIP)
	}
	ret, err := mem.U64(m.Mem, m.GP[emulate.RSP])
	if err != nil || ret >= exitFloor {
		return ""
	}
	return r.s.Name(ret)
}

// exitFloor is above all code: package emulate has a run's own caller there.
const exitFloor = 0xffffffff_fffff000

// Machine returns a machine ready for a call: on its own stack, on the
// session's CPU, with stubs and exceptions. Each one has memory of its own,
// which is the target's as the session has changed it.
func (s *Session) Machine() *emulate.Machine { return s.newRun().m }

func (s *Session) newRun() *run {
	r := &run{
		s: s, m: emulate.New(s.view.Clone(), s.o.Limits),
		byKey: map[useKey]int{}, sizes: map[uint64]uint64{}, hidden: map[uint64]int{}, clock: s.clock(),
	}
	m := r.m
	m.Mem.Map(stackBase, stackSize)
	// The uppermost words stay free, as a task's registers are there.
	const top = 256
	m.GP[emulate.RSP] = stackBase + stackSize - top
	c := s.control()
	m.GSBase, m.FSBase, m.CR = c.GSBase, c.FSBase, c.CR
	m.TSC = r.clock
	for addr, row := range s.stubs() {
		m.SetStub(addr, r.stub(addr, row))
	}
	m.Exception = r.exception
	m.Wrote = r.wrote
	if s.k.Live() {
		r.use("live memory", "the kernel runs on meanwhile: each page is as it was when it was first read, and not all are of one moment")
	}
	return r
}

// Bits that CR0 and CR4 have on every x86-64 Linux, for dumps that do not note them.
const (
	usualCR0 = 0x80050033 // PG AM WP NE ET MP PE
	usualCR4 = 0x3606f0   // SMAP SMEP PCIDE OSXSAVE ... PGE MCE PAE
)

// findControl returns the control registers, and the bases of segments, that
// machines begin with: those of the dump, or usual ones.
func (s *Session) findControl() emulate.Regs {
	var m emulate.Regs
	m.GSBase = s.cpus[s.cpu]
	m.CR[0], m.CR[4] = usualCR0, usualCR4
	if addr, ok := s.perCPUVar("cpu_tlbstate", "cr4"); ok {
		if v, err := mem.U64(s.view, addr); err == nil && v != 0 {
			m.CR[4] = v
		}
	}
	if pgd, ok := s.k.Info().Symbol("swapper_pg_dir"); ok {
		if p, err := s.k.Walk(pgd); err == nil {
			m.CR[3] = p.Phys
		}
	}
	if regs, ok := s.k.Registers(s.cpu); ok {
		m.FSBase = regs.Regs.FSBase
		if regs.QEMU != nil {
			copy(m.CR[:], regs.QEMU.CR[:])
		}
	}
	return m
}

// Run calls a function. prepare, which may be nil, can add to the machine
// before: breaks, watches, an observer. Two runs of one target are the same. The
// error is of what is before the run; what happens in it is in the result.
func (s *Session) Run(ctx context.Context, t *Target, prepare func(*emulate.Machine)) (*Result, error) {
	r := s.newRun()
	m := r.m
	values := t.Values
	if len(values) > len(emulate.ArgRegs) {
		rest := values[len(emulate.ArgRegs):]
		if len(rest)%2 != 0 { // the stack is aligned to 16 at the call
			m.GP[emulate.RSP] -= 8
		}
		for i := len(rest) - 1; i >= 0; i-- {
			if err := m.Push(rest[i]); err != nil {
				return nil, fmt.Errorf("argument %d on the stack: %w", i+len(emulate.ArgRegs)+1, err)
			}
		}
		values = values[:len(emulate.ArgRegs)]
	}
	if err := s.enterBPF(m, t); err != nil {
		return nil, err
	}
	for i, reg := range emulate.ArgRegs {
		if i < len(values) {
			m.GP[reg] = values[i]
		}
	}
	if prepare != nil {
		prepare(m)
	}
	res := &Result{Machine: m, Start: m.Regs, run: r}
	res.Start.RIP = t.Addr
	res.Stop = m.Call(ctx, t.Addr, values...)
	return r.finish(res), nil
}

// enterBPF sets what a function of a BPF program finds in rax: the main one
// resets the tail-call count itself, the others get it from their caller.
func (s *Session) enterBPF(m *emulate.Machine, t *Target) error {
	if t.prologue == nil || t.prologue.Resets || t.prologue.CountBy != jit.CountPointer {
		return nil
	}
	if err := m.Push(0); err != nil { // the count
		return err
	}
	m.GP[emulate.RAX] = m.GP[emulate.RSP]
	return m.Push(0) // keeps the stack aligned
}

// Resume runs on from given registers, which are those of a frame of a stack,
// until the function that they are in returns. Where the stack cannot be unwound
// from them, the run goes on as far as it can. Registers set by [Session.Set]
// take the place of those given.
func (s *Session) Resume(ctx context.Context, regs vmcore.Regs, prepare func(*emulate.Machine)) (*Result, error) {
	at, ret := s.returnOf(regs)
	return s.ResumeTo(ctx, regs, at, ret, prepare)
}

// ResumeTo is [Session.Resume] until another function of the stack returns: the
// one whose return address ret lies at an address. Where that is 0, the run goes
// on as far as it can.
func (s *Session) ResumeTo(ctx context.Context, regs vmcore.Regs, at, ret uint64, prepare func(*emulate.Machine)) (*Result, error) {
	r := s.newRun()
	m := r.m
	setRegs(&m.Regs, regs)
	for _, v := range s.regs {
		m.GP[v.reg] = v.value
	}
	m.Flags = regs.RFLAGS&^(emulate.TF|emulate.IF) | emulate.IF | 2
	if at != 0 {
		r.dead = [2]uint64{at - stackSize, at}
		entry := regs.RIP
		if sym, _, ok := s.k.Symbolize(regs.RIP); ok {
			entry = sym.Addr
		}
		m.Frames = append(m.Frames[:0], emulate.Frame{Entry: entry, Ret: ret, SP: at})
		m.Break(ret)
	}
	if prepare != nil {
		prepare(m)
	}
	res := &Result{Machine: m, Start: m.Regs, run: r}
	for {
		res.Stop = m.Run(ctx)
		if at == 0 || res.Stop.Outcome != emulate.Reached || m.RIP != ret {
			break
		}
		// A deeper call of the same function can return there as well.
		if m.GP[emulate.RSP] > at {
			res.Stop.Outcome = emulate.Returned
			break
		}
	}
	return r.finish(res), nil
}

// returnOf returns where on the stack the return address of the function lies
// that the registers are in, and the return address; 0 if they are not known.
func (s *Session) returnOf(regs vmcore.Regs) (at, ret uint64) {
	st := unwind.From(s.k, s.task, regs)
	if len(st.Frames) == 0 || st.Frames[0].CFA == 0 {
		return 0, 0
	}
	at = st.Frames[0].CFA - 8
	ret, err := mem.U64(s.view, at)
	if err != nil {
		return 0, 0
	}
	return at, ret
}

// setRegs takes over the general registers and the instruction pointer.
func setRegs(m *emulate.Regs, r vmcore.Regs) {
	m.GP = [16]uint64{
		r.RAX, r.RCX, r.RDX, r.RBX, r.RSP, r.RBP, r.RSI, r.RDI,
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
	}
	m.RIP = r.RIP
}

func (r *run) finish(res *Result) *Result {
	res.Uses, res.Hits = r.uses, r.hits
	return res
}

// wrote notes a write to watched memory and ends the run.
func (r *run) wrote(w emulate.Write) bool {
	r.hits = append(r.hits, Hit{
		Place: r.s.Place(w.RIP), To: mem.Addr(w.Addr), Bytes: fmt.Sprintf("%x", w.Bytes),
		Value: mem.Addr(word(w.Bytes[:min(len(w.Bytes), 8)])), Calls: r.s.calls(r.m), Step: w.Step,
	})
	return true
}
