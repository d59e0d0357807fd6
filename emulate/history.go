package emulate

import "github.com/ksleuth/ksleuth/x86"

// A record is what is remembered of an instruction, or of one of its memory
// accesses beyond the first. Everything else follows from the instruction: what it reads and
// writes, and how what it writes depends on what it reads.
type record struct {
	addr uint64 // of its memory access
	id   uint32 // of the instruction, with the bits below
	n    uint32 // bytes accessed, where the instruction does not tell; or noAccess
}

// noAccess says that a repeated string instruction was repeated not once, or that
// a conditional move did not move.
const noAccess = ^uint32(0)

const (
	recExtra = 1 << 31 // belongs to the instruction recorded next
	recWrite = 1 << 30 // of an extra one: a write
	recID    = recWrite - 1
)

const chunkSize = 1 << 14

// A chunk is a part of the history.
type chunk struct {
	step uint64 // number of the first instruction recorded in it
	n    int
	rec  [chunkSize]record
}

// steps returns how many instructions a chunk has.
func (c *chunk) steps() uint64 {
	var n uint64
	for _, r := range c.rec[:c.n] {
		if r.id&recExtra == 0 {
			n++
		}
	}
	return n
}

// A History remembers the instructions that a machine executed, up to a bound:
// beyond, the oldest are forgotten. It tells where values came from by walking
// backwards: see [History.Slice] and [History.Origins]. It is not safe for
// concurrent use, nor while its machine runs.
type History struct {
	m      *Machine
	max    int // chunks
	chunks []*chunk
	cur    *chunk
	first  uint64      // the step recording began with
	info   []*instInfo // by instruction, made when first asked for
	marks  []mark
	starts []uint64 // steps at which a function was called
	last   Regs     // as the last run left them
}

// A mark says which registers were changed from outside before a step: by who
// called the next function, or handled an exception.
type mark struct {
	step uint64
	regs Locs
}

func newHistory(m *Machine, steps int) *History {
	h := &History{m: m, max: max(2, steps/chunkSize+1), first: m.Step}
	h.grow()
	return h
}

// grow begins a chunk.
func (h *History) grow() {
	c := &chunk{}
	if len(h.chunks) >= h.max {
		c = h.chunks[0]
		h.chunks = append(h.chunks[:0], h.chunks[1:]...)
		c.n = 0
	}
	if h.cur != nil {
		c.step = h.cur.step + h.cur.steps()
	} else {
		c.step = h.m.Step
	}
	h.chunks = append(h.chunks, c)
	h.cur = c
}

// add records an instruction that was executed.
func (h *History) add(m *Machine, u *uop) {
	c := h.cur
	if c.n+2 > chunkSize {
		h.grow()
		c = h.cur
	}
	r := &c.rec[c.n]
	r.id, r.n = u.id, m.n
	switch u.acc {
	case accRead:
		r.addr = m.read
	case accWrite:
		r.addr = m.wrote
	case accReadWrite:
		*r = record{addr: m.read, id: u.id | recExtra, n: m.n}
		c.n++
		r = &c.rec[c.n]
		*r = record{addr: m.wrote, id: u.id, n: m.n}
	}
	c.n++
	m.n = 0
}

// note records an access of a stub, which is recorded behind its accesses.
func (m *Machine) note(addr uint64, n uint32, write bool) {
	if m.hist == nil || m.cur == nil || m.cur.stub == nil {
		return
	}
	h := m.hist
	if h.cur.n+2 > chunkSize {
		h.grow()
	}
	id := m.cur.id | recExtra
	if write {
		id |= recWrite
	}
	h.cur.rec[h.cur.n] = record{addr: addr, id: id, n: n}
	h.cur.n++
}

// begin notes that a run begins, or goes on, with registers that may have been
// changed since before.
func (h *History) begin(m *Machine, before *Regs) {
	if len(m.Frames) == 1 && m.Frames[0].Step == m.Step && m.Frames[0].Entry == m.RIP {
		h.starts = append(h.starts, m.Step)
	}
	k := mark{step: m.Step}
	changed := false
	for i := range m.GP {
		if m.GP[i] != before.GP[i] {
			k.regs.GP[i], changed = 0xff, true
		}
		if m.X[i] != before.X[i] {
			k.regs.X[i], changed = 0xffff, true
		}
	}
	if k.regs.Flags = m.Flags ^ before.Flags; changed || k.regs.Flags != 0 {
		h.marks = append(h.marks, k)
	}
}

// inst returns the instruction of a record.
func (h *History) inst(id uint32) (*x86.Inst, *Stub) {
	return &h.m.insts[id&recID], h.m.uopStub[id&recID]
}
