package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// Limits end a session by themselves; zero is no limit.
type Limits struct {
	Time    time.Duration
	Calls   int
	MaxRate uint64 // calls a second of all functions, also of those that no record is made of
}

// A RateError says that a session ended because there were too many calls.
type RateError struct {
	Rate, Limit uint64 // calls a second
}

// Error says how many calls there were.
func (e *RateError) Error() string {
	return fmt.Sprintf("detached: %d calls a second, more than the %d allowed", e.Rate, e.Limit)
}

// A Setting is what a session needs besides a plan.
type Setting struct {
	Types *ctype.Types // the kernel's
	// Symbol names an address of code; nil names none.
	Symbol func(addr uint64) (name string, offset uint64, ok bool)
	// Why says of a refused tail call what is known of the machine code; rax is
	// what the function was given as its count, if that was seen. nil says
	// nothing.
	Why func(f *tracee.Function, rax uint64, seen bool) *Refusal
	Limits
}

// A Sink takes what a session tells. Calls come when they are complete.
type Sink struct {
	Call func(*Call) error
	// Note says what is worth knowing meanwhile, in a sentence.
	Note func(string)
	// Idle is called when all that has happened so far is told: what was told
	// is to be seen now.
	Idle func() error
}

// A Session is an observation under way.
type Session struct {
	plan  *Plan
	set   Setting
	probe *probe.Session
	asm   *Assembler
	dec   *Decoder
	given *givenCounts
	sink  Sink
	began time.Time
	told  int
	// What was told up to seen was shown, at that time; behind counts events.
	seen   int
	shown  time.Time
	behind int
	slow   map[probe.CallID]bool // calls of which was said that they take long
}

// Start attaches what a plan says. Points that could not be attached are in
// [Session.Failed].
func Start(ctx context.Context, p *Plan, set Setting) (*Session, error) {
	s := &Session{plan: p, set: set, given: newGivenCounts(), slow: make(map[probe.CallID]bool)}
	points, err := p.points(set.Types)
	if err != nil {
		return nil, err
	}
	s.dec = &Decoder{Points: points, Wall: wallOffset(), Iface: deviceNames(), Symbol: set.Symbol}
	p.Config.Stats = set.MaxRate > 0
	if s.probe, err = probe.Attach(ctx, p.Config); err != nil {
		return nil, err
	}
	s.asm = NewAssembler(s.dec, Options{Tree: p.Config.Tree || p.has(Given), Why: s.why, Lost: s.lost})
	s.began = time.Now()
	return s, nil
}

// points are what the decoder must know, by the index of events.
func (p *Plan) points(types *ctype.Types) ([]Point, error) {
	out := make([]Point, len(p.Config.Points))
	for _, o := range p.Observed {
		if o.Mechanism == "" {
			continue
		}
		c := p.Config.Points[o.Point]
		pt := Point{Func: o.Func, Packet: c.Packet, PacketArg: c.PacketArg, Jumps: o.Jumps, Spoiled: o.Spoiled}
		if o.Func.Stub != nil {
			pt.Type = o.Func.Stub.Type
		}
		if shown := shownSlots(o.Slots); len(shown) > 0 {
			pt.Values = func(slots []byte) []Value { return values(types, shown, slots) }
		}
		out[o.Point] = pt
	}
	return out, nil
}

func shownSlots(all []bpfexpr.Slot) (out []bpfexpr.Slot) {
	for _, s := range all {
		if s.Shown {
			out = append(out, s)
		}
	}
	return out
}

// values tells what expressions gave.
func values(types *ctype.Types, shown []bpfexpr.Slot, slots []byte) []Value {
	out := make([]Value, 0, len(shown))
	for _, s := range shown {
		v := Value{Expr: s.Name}
		val, err := s.Value(types, slots)
		if err == nil {
			v.Text, err = ctype.FormatValue(val, ctype.FormatOptions{})
		}
		if err != nil {
			v.Error, v.Text = err.Error(), "?"
		} else {
			v.Value = val.Plain(ctype.FormatOptions{})
		}
		out = append(out, v)
	}
	return out
}

// wallOffset is what has to be added to CLOCK_MONOTONIC to have the time.
func wallOffset() int64 {
	var best, offset int64
	for i := range 5 { // the shortest reading is the truest
		var before, after unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		now := time.Now().UnixNano()
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		if took := after.Nano() - before.Nano(); i == 0 || took < best {
			best, offset = took, now-before.Nano()-took/2
		}
	}
	return offset
}

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return uint64(now.Nano())
}

// deviceNames names the devices of this process's network namespace.
func deviceNames() func(netns uint32, ifindex int) string {
	own := uint32(0)
	if info, err := os.Stat("/proc/self/ns/net"); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			own = uint32(st.Ino)
		}
	}
	names := make(map[int]string)
	return func(netns uint32, ifindex int) string {
		if netns != own && netns != 0 {
			return ""
		}
		name, known := names[ifindex]
		if !known {
			if dev, err := net.InterfaceByIndex(ifindex); err == nil {
				name = dev.Name
			}
			names[ifindex] = name
		}
		return name
	}
}

// Failed returns the points that could not be attached, and why.
func (s *Session) Failed() []probe.PointError { return s.probe.Failed() }

// sweepEvery is how often a session looks for calls whose record was lost, and
// for those that take long.
const sweepEvery = time.Second

// Run tells calls until the context is done or a limit is reached; it detaches
// everything and tells what is left. A session runs once.
func (s *Session) Run(ctx context.Context, sink Sink) (*Summary, error) {
	s.sink = sink
	if s.set.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.set.Time)
		defer cancel()
	}
	err := s.read(ctx)
	if errors.Is(err, errEnough) {
		err = nil
	}
	sum, endErr := s.end()
	return sum, errors.Join(err, endErr)
}

// errEnough ends a session after as many calls as were asked for.
var errEnough = errors.New("enough calls")

// read tells calls as they end. The error is a [*RateError] if there are too
// many.
func (s *Session) read(ctx context.Context) error {
	sweep := time.Now().Add(sweepEvery)
	rate := rateMeter{limit: s.set.MaxRate}
	for {
		over, err := s.readUntil(ctx, sweep)
		if over || err != nil {
			return err
		}
		now := time.Now()
		sweep = now.Add(sweepEvery)
		if err := errors.Join(s.sweep(), s.idle(), rate.check(s.probe, &s.plan.Config, now)); err != nil {
			return err
		}
	}
}

// readUntil tells calls until a moment, or until all is over.
func (s *Session) readUntil(ctx context.Context, moment time.Time) (over bool, err error) {
	wait, cancel := context.WithDeadline(ctx, moment)
	defer cancel()
	for {
		e, err := s.probe.Read(wait)
		if err == nil {
			err = s.add(&e)
		}
		if err == nil {
			err = s.idle()
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return true, nil
		case errors.Is(err, context.DeadlineExceeded):
			return false, nil
		default:
			return true, err
		}
	}
}

// longestDelay is how long what was told may wait to be seen while more is told.
const longestDelay = 50 * time.Millisecond

// idle has what was told be seen, if there is nothing else to tell right now.
func (s *Session) idle() error {
	if s.seen == s.told {
		return nil
	}
	if s.probe.Waiting() {
		if s.behind++; s.behind%256 != 0 || time.Since(s.shown) < longestDelay {
			return nil
		}
	}
	s.seen, s.shown = s.told, time.Now()
	return s.sink.Idle()
}

// add takes one event.
func (s *Session) add(e *probe.Event) error {
	role := s.plan.role(e.Point)
	switch {
	case role == Given:
		s.given.note(e, s.plan.Config.Points[e.Point].Func)
		return nil
	case s.plan.Config.Tree:
	case role == Jumped:
		e.Parent = s.given.innermost(e.TID)
	case e.Kind == probe.Returned && e.Start == 0:
		s.given.returned(e, s.plan.Config.Points[e.Point].Func)
	}
	return s.tell(s.asm.Add(e))
}

func (s *Session) tell(calls []*Call) error {
	for _, c := range calls {
		if s.set.Calls > 0 && s.told >= s.set.Calls {
			return errEnough
		}
		s.told++
		if err := s.sink.Call(c); err != nil {
			return err
		}
	}
	if s.set.Calls > 0 && s.told >= s.set.Calls {
		return errEnough
	}
	return nil
}

// longCall is from when a call that has not returned is worth a note: one that
// hangs never will, and would not be told.
const longCall = 10 * time.Second

// sweep tells what would wait for ever.
func (s *Session) sweep() error {
	if s.plan.Config.Mode != probe.Events {
		return nil
	}
	open, err := s.probe.Open()
	if err != nil {
		return err
	}
	now := monotonic()
	for i := range open {
		e := &open[i]
		if e.Start == 0 || now < e.Start+uint64(longCall) || s.slow[e.Call] {
			continue
		}
		s.slow[e.Call] = true
		if c := s.dec.Call(e); c != nil {
			s.sink.Note(fmt.Sprintf("%s (pid %d, tid %d) has not returned from %s for %d s", c.Comm, c.PID, c.TID, c.Function, (now-e.Start)/1e9))
		}
	}
	return s.tell(s.asm.Sweep(open))
}

// why gives the reason for a tail call that was not made.
func (s *Session) why(c *Call, p *Point) *Refusal {
	if s.set.Why == nil {
		return nil
	}
	rax, seen := s.given.of(c)
	return s.set.Why(p.Func, uint64(rax), seen)
}

// lost is how many records were lost so far, and when that was found.
func (s *Session) lost() (n, now uint64) {
	for _, l := range s.probe.Lost() {
		n += l.Buffer + l.Open
	}
	return n, monotonic()
}

// role returns what a point is for.
func (p *Plan) role(point int) Role { return p.Observed[p.of[point]].Role }

// has reports whether a plan has points of a role.
func (p *Plan) has(role Role) bool {
	return slices.ContainsFunc(p.Observed, func(o Observed) bool { return o.Role == role && o.Mechanism != "" })
}
