package emulate

import (
	"iter"
	"math/bits"
	"sort"

	"github.com/ksleuth/ksleuth/x86"
)

// An Access is an access to memory.
type Access struct {
	Addr uint64
	N    int // bytes
}

// An Event is one executed instruction or stub.
type Event struct {
	Step          uint64
	Inst          *x86.Inst // of a stub only Addr is set
	Stub          *Stub     // nil for an instruction
	Reads, Writes []Access  // memory
}

// An instInfo is what the history has to know of an instruction.
type instInfo struct {
	x86.Effects
	inst  *x86.Inst
	stub  *Stub
	flow  x86.Flow
	gp, x uint16 // registers written
	flags uint32
	reads bool // memory
	write bool
	cmov  bool
}

// of returns what is known of a record's instruction.
func (h *History) of(id uint32) *instInfo {
	id &= recID
	if int(id) < len(h.info) {
		if i := h.info[id]; i != nil {
			return i
		}
	} else {
		h.info = append(h.info, make([]*instInfo, len(h.m.insts)-len(h.info))...)
	}
	in, stub := h.inst(id)
	i := &instInfo{inst: in, stub: stub, flow: in.Flow()}
	if stub != nil {
		i.Effects, i.flow, i.write, i.reads = stubEffects(stub), x86.FlowRet, true, true
		if stub.Jumps {
			i.flow = x86.FlowIndirectJump
		}
	} else {
		i.Effects = in.Effects()
	}
	_, cond := in.Cond()
	i.cmov = cond && in.NArgs == 2
	w := i.Writes()
	for r := range 16 {
		if w.GP[r] != 0 {
			i.gp |= 1 << r
		}
		if w.X[r] != 0 {
			i.x |= 1 << r
		}
	}
	i.flags = w.Flags
	for _, m := range i.Mem[:i.NMem] {
		i.reads = i.reads || m.Access&x86.Read != 0
		i.write = i.write || m.Access&x86.Write != 0
	}
	h.info[id] = i
	return i
}

// stubEffects are those of a function by the calling convention, without memory.
func stubEffects(s *Stub) x86.Effects {
	e := x86.Effects{Known: true}
	args := s.Args
	if args <= 0 || args > 6 {
		args = 6
	}
	regs := [...]uint8{RDI, RSI, RDX, RCX, R8, R9}
	for _, r := range regs[:args] {
		e.In[e.NIn] = x86.Place{Kind: x86.PlaceGP, N: r, Size: 8}
		e.NIn++
	}
	e.NOut = 1
	e.Out[0] = x86.Output{Place: x86.Place{Kind: x86.PlaceGP, N: RAX, Size: 8}, Class: x86.Compute, From: 1<<args - 1}
	return e
}

// A cursor is a place in the history, between two steps.
type cursor struct {
	h     *History
	chunk int
	i     int    // record that follows, in the chunk
	step  uint64 // its number
	buf   []record
}

// An entry is what is recorded of one step.
type entry struct {
	step  uint64
	rec   record
	extra []record // in the order of the accesses; valid until the next move of the cursor
	info  *instInfo
}

// Span returns the steps that are remembered, end being the next one.
func (h *History) Span() (first, end uint64) {
	return h.chunks[0].step, h.cur.step + h.cur.steps()
}

// Forgot says whether steps of the machine are no longer remembered.
func (h *History) Forgot() bool { return h.chunks[0].step > h.first }

// at returns the cursor before a step.
func (h *History) at(step uint64) cursor {
	first, end := h.Span()
	step = min(max(step, first), end)
	ci := sort.Search(len(h.chunks), func(i int) bool { return h.chunks[i].step > step }) - 1
	c := cursor{h: h, chunk: ci, step: h.chunks[ci].step}
	ch := h.chunks[ci]
	for c.step < step {
		if ch.rec[c.i].id&recExtra == 0 {
			c.step++
		}
		c.i++
	}
	return c
}

// prev moves back by a step.
func (c *cursor) prev(e *entry) bool {
	h := c.h
	for {
		if c.i == 0 {
			if c.chunk == 0 {
				return false
			}
			c.chunk--
			c.i = h.chunks[c.chunk].n
			continue
		}
		c.i--
		if r := &h.chunks[c.chunk].rec[c.i]; r.id&recExtra == 0 {
			e.rec = *r
			break
		}
	}
	ch := h.chunks[c.chunk]
	j := c.i
	for j > 0 && ch.rec[j-1].id&recExtra != 0 {
		j--
	}
	c.step--
	e.step, e.info, e.extra = c.step, h.of(e.rec.id), ch.rec[j:c.i]
	c.i = j
	if j == 0 {
		c.spill(e)
	}
	e.own()
	return true
}

// spill adds records of the same step at the end of the chunk before, where a
// stub had more than the rest of it takes.
func (c *cursor) spill(e *entry) {
	for c.i == 0 && c.chunk > 0 {
		ch := c.h.chunks[c.chunk-1]
		j := ch.n
		for j > 0 && ch.rec[j-1].id&recExtra != 0 {
			j--
		}
		if j == ch.n {
			return
		}
		c.buf = append(append(make([]record, 0, ch.n-j+len(e.extra)), ch.rec[j:ch.n]...), e.extra...)
		e.extra = c.buf
		c.chunk, c.i = c.chunk-1, j
	}
}

// own drops what a stub left that ended the run.
func (e *entry) own() {
	for len(e.extra) > 0 && (e.extra[0].id^e.rec.id)&recID != 0 {
		e.extra = e.extra[1:]
	}
}

// next moves on by a step.
func (c *cursor) next(e *entry) bool {
	h := c.h
	c.buf = c.buf[:0]
	for {
		ch := h.chunks[c.chunk]
		if c.i == ch.n {
			if c.chunk+1 == len(h.chunks) {
				return false
			}
			c.chunk, c.i = c.chunk+1, 0
			continue
		}
		r := ch.rec[c.i]
		c.i++
		if r.id&recExtra != 0 {
			c.buf = append(c.buf, r)
			continue
		}
		e.step, e.rec, e.extra, e.info = c.step, r, c.buf, h.of(r.id)
		e.own()
		c.step++
		return true
	}
}

// access returns where access i of an instruction went; 0 bytes if it went nowhere.
func (e *entry) access(i int) (addr uint64, n int) {
	info := e.info
	r := &e.rec
	if info.NMem == 2 && i == 0 {
		if len(e.extra) == 0 {
			return 0, 0
		}
		r = &e.extra[0]
	}
	switch {
	case r.n == 0 || info.cmov:
		return r.addr, int(info.Mem[i].Size)
	case r.n == noAccess:
		return r.addr, 0
	}
	return r.addr, int(r.n)
}

// unmoved says whether In[in] of a conditional move is not the one it took.
func (e *entry) unmoved(in int) bool {
	if !e.info.cmov || e.info.NIn < 3 { // 2 where both are one register
		return false
	}
	took := 1
	if e.rec.n == noAccess {
		took = 0
	}
	return in < 2 && in != took
}

// event makes an Event, of the memory of buf.
func (e *entry) event(buf []Access) (Event, []Access) {
	ev := Event{Step: e.step, Inst: e.info.inst, Stub: e.info.stub}
	buf = buf[:0]
	for _, which := range [2]x86.Access{x86.Read, x86.Write} {
		from := len(buf)
		if ev.Stub != nil {
			for _, r := range e.extra {
				if (r.id&recWrite != 0) == (which == x86.Write) {
					buf = append(buf, Access{r.addr, int(r.n)})
				}
			}
		}
		for i, m := range e.info.Mem[:e.info.NMem] {
			if a, n := e.access(i); m.Access&which != 0 && n > 0 {
				buf = append(buf, Access{a, n})
			}
		}
		if which == x86.Read {
			ev.Reads = buf[from:len(buf):len(buf)]
		} else {
			ev.Writes = buf[from:len(buf):len(buf)]
		}
	}
	return ev, buf
}

// copied returns an Event that stays.
func (e *entry) copied() Event {
	ev, _ := e.event(nil)
	return ev
}

// Backward yields the steps before from, newest first. An Event's accesses are
// valid until the next one.
func (h *History) Backward(from uint64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		c := h.at(from)
		var e entry
		var ev Event
		var buf []Access
		for c.prev(&e) {
			if ev, buf = e.event(buf); !yield(ev) {
				return
			}
		}
	}
}

// Forward yields the steps from from on. An Event's accesses are valid until the
// next one.
func (h *History) Forward(from uint64) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		c := h.at(from)
		var e entry
		var ev Event
		var buf []Access
		for c.next(&e) {
			if ev, buf = e.event(buf); !yield(ev) {
				return
			}
		}
	}
}

// Writer returns the last step before a step that wrote any of the places.
func (h *History) Writer(before uint64, want *Locs) (Event, bool) {
	var gp, x uint16
	for r := range 16 {
		if want.GP[r] != 0 {
			gp |= 1 << r
		}
		if want.X[r] != 0 {
			x |= 1 << r
		}
	}
	c := h.at(before)
	var e entry
	for c.prev(&e) {
		i := e.info
		if (i.gp&gp != 0 || i.x&x != 0 || i.flags&uint32(want.Flags) != 0) && e.writesReg(want) ||
			i.write && len(want.Mem) > 0 && e.writesMem(want.Mem) {
			return e.copied(), true
		}
	}
	return Event{}, false
}

func (e *entry) writesReg(want *Locs) bool {
	w := e.info.Writes()
	for r := range 16 {
		if w.GP[r]&want.GP[r] != 0 || w.X[r]&want.X[r] != 0 {
			return true
		}
	}
	return w.Flags&uint32(want.Flags) != 0
}

func (e *entry) writesMem(want Bytes) bool {
	hit := false
	e.writes(func(addr uint64, n int) {
		if hit = hit || want.hits(addr, n); hit {
			return
		}
	})
	return hit
}

// hits says whether any of n bytes at addr are in the set.
func (b Bytes) hits(addr uint64, n int) bool {
	if n > 8*len(b)+8 {
		for w, m := range b {
			for ; m != 0; m &= m - 1 {
				if w+uint64(bits.TrailingZeros8(m))-addr < uint64(n) {
					return true
				}
			}
		}
		return false
	}
	for w, m := range words(addr, n) {
		if b[w]&m != 0 {
			return true
		}
	}
	return false
}

// writes calls f for the writes to memory.
func (e *entry) writes(f func(addr uint64, n int)) {
	if e.info.stub != nil {
		for _, r := range e.extra {
			if r.id&recWrite != 0 {
				f(r.addr, int(r.n))
			}
		}
		return
	}
	for i, m := range e.info.Mem[:e.info.NMem] {
		if m.Access&x86.Write != 0 {
			if a, n := e.access(i); n > 0 {
				f(a, n)
			}
		}
	}
}
