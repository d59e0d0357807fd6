package emulate

import (
	"context"
	"fmt"
	"time"

	"github.com/ksleuth/ksleuth/x86"
)

// Run executes from RIP on until something ends it.
func (m *Machine) Run(ctx context.Context) *Stop {
	r := runner{m: m, ctx: ctx, deadline: time.Now().Add(m.opt.Time), limit: m.opt.Steps}
	m.loop = loopFinder{}
	if m.hist != nil {
		m.hist.begin(m, &m.hist.last)
	}
	s := r.run()
	s.Step = m.Step
	if m.hist != nil {
		m.hist.last = m.Regs
	}
	return s
}

type runner struct {
	m        *Machine
	ctx      context.Context
	deadline time.Time
	limit    uint64
	checked  uint64 // step of the last look at the clock
}

// checkEvery is the number of instructions between looks at the clock.
const checkEvery = 1 << 18

func (r *runner) run() *Stop {
	m := r.m
	var b *block
	for first := true; ; first = false {
		if m.RIP == exitAddr {
			return &Stop{Outcome: Returned, RIP: m.RIP}
		}
		if len(m.breaks) > 0 && !first && m.breaks[m.RIP] {
			return &Stop{Outcome: Reached, RIP: m.RIP}
		}
		next := b.next(m.RIP, m.generation)
		if next == nil {
			var err *Stop
			if next, err = m.block(m.RIP); err != nil {
				if m.resume(err) {
					continue
				}
				return err
			}
			b.link(next)
		}
		b = next
		start := m.RIP
		ok := false
		if m.Observer == nil && len(m.watches) == 0 {
			ok = m.runBlock(b)
		} else {
			ok = m.runSlowly(b)
		}
		if !ok {
			s := m.stop
			m.stop = nil
			if m.resume(s) {
				b = nil
				continue
			}
			return s
		}
		if m.RIP <= start {
			if l := m.loop.look(m); l != nil {
				m.bound(l)
				return &Stop{Outcome: Looped, RIP: m.RIP, Loop: l, Err: fmt.Errorf("an endless loop: after %d instructions the machine is as it was", l.Period)}
			}
		}
		if err := r.check(); err != nil {
			return &Stop{Outcome: Limited, RIP: m.RIP, Err: err}
		}
	}
}

// check returns an error where a limit is reached.
func (r *runner) check() error {
	m := r.m
	if len(m.Frames) > m.opt.Depth {
		return &LimitError{fmt.Sprintf("%d calls inside calls", m.opt.Depth)}
	}
	if m.Step+m.repeats >= r.limit {
		return &LimitError{fmt.Sprintf("%d instructions", m.Step)}
	}
	if m.Step-r.checked < checkEvery {
		return nil
	}
	r.checked = m.Step
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if time.Now().After(r.deadline) {
		return &LimitError{m.opt.Time.String()}
	}
	return nil
}

// runBlock executes a block. It reports false if the run was ended inside it.
func (m *Machine) runBlock(b *block) bool {
	m.RIP = b.end
	h := m.hist
	for i := range b.uops {
		u := &b.uops[i]
		m.cur = u
		if !u.exec(m, u) {
			m.RIP = u.addr
			m.Step += uint64(i)
			return false
		}
		if h != nil {
			h.add(m, u)
		}
	}
	m.Step += uint64(len(b.uops))
	return true
}

// runSlowly is runBlock for an observer, and for watched memory.
func (m *Machine) runSlowly(b *block) bool {
	generation := m.generation
	for i := range b.uops {
		u := &b.uops[i]
		m.cur = u
		m.RIP = u.addr
		if m.Observer != nil {
			if u.stub != nil {
				m.Observer.Stub(m, u.stub)
			} else {
				m.Observer.Before(m, &m.insts[u.id])
			}
			if m.stop != nil {
				return false
			}
		}
		m.RIP = u.next
		if !u.exec(m, u) {
			m.RIP = u.addr
			return false
		}
		if m.hist != nil {
			m.hist.add(m, u)
		}
		m.Step++
		if m.stop != nil { // a watch
			m.stop.RIP = u.addr
			return false
		}
		if m.generation != generation {
			return true // the code was written
		}
	}
	return true
}

// Stop ends the run; it is for observers.
func (m *Machine) Stop(err error) {
	m.stop = &Stop{Outcome: Stopped, Err: err}
}

// resume asks the machine's owner whether a run can go on after an exception.
func (m *Machine) resume(s *Stop) bool {
	if s.RIP == 0 {
		s.RIP = m.RIP
	}
	e, ok := s.Err.(*Exception)
	if !ok || m.Exception == nil {
		return false
	}
	before := m.Regs
	if !m.Exception(m, e) {
		return false
	}
	if m.hist != nil {
		m.hist.begin(m, &before)
	}
	return true
}

// bound goes around a loop once more, and notes where it is: in the function
// that all of it stands in.
func (m *Machine) bound(l *Loop) {
	o, watches, hist := m.Observer, m.watches, m.hist
	b := &bounds{depth: int(^uint(0) >> 1)}
	m.Observer, m.watches, m.hist = b, nil, nil
	for end := m.Step + l.Period; m.Step < end; {
		code, stop := m.block(m.RIP)
		if stop != nil || !m.runSlowly(code) {
			break
		}
	}
	m.Observer, m.watches, m.hist, m.stop = o, watches, hist, nil
	l.Low, l.High = b.low, b.high
}

// bounds are the addresses of the instructions that were executed with the
// fewest calls around them.
type bounds struct {
	depth     int
	low, high uint64
}

// Before implements [Observer].
func (b *bounds) Before(m *Machine, in *x86.Inst) {
	n := len(m.Frames)
	if n < b.depth {
		b.depth, b.low, b.high = n, in.Addr, in.Addr
	}
	if n == b.depth {
		b.low, b.high = min(b.low, in.Addr), max(b.high, in.Addr)
	}
}

// Stub implements [Observer].
func (b *bounds) Stub(*Machine, *Stub) {}

// A loopFinder finds a state of the machine that comes back, by Brent's method:
// one earlier state is kept, and replaced after twice as many looks each time.
// It looks where control goes backwards: every loop does.
type loopFinder struct {
	kept  bool
	regs  Regs
	hash  uint64
	clock uint64
	step  uint64
	looks uint64
	power uint64
	proof *Memory // of the state kept, once it seems to have come back
}

func (f *loopFinder) look(m *Machine) *Loop {
	f.looks++
	if f.kept && m.RIP == f.regs.RIP && m.Mem.hash == f.hash && m.clock == f.clock && m.Regs == f.regs {
		if f.proof == nil { // a hash can lie: go around once more, with a copy of memory
			f.proof, f.step, f.looks, f.power = m.Mem.Clone(), m.Step, 0, f.power*2
			return nil
		}
		if m.Mem.equal(f.proof) {
			return &Loop{Step: f.step, Period: m.Step - f.step}
		}
	}
	if !f.kept || f.looks >= f.power {
		f.kept, f.regs, f.hash, f.clock, f.step, f.proof = true, m.Regs, m.Mem.hash, m.clock, m.Step, nil
		f.looks, f.power = 0, max(1, f.power*2)
	}
	return nil
}
