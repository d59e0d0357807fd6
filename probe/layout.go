package probe

import (
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/tracee"
)

// The structs of probe.bpf.c, in bytes; a test holds them against the object.
const (
	recordHead = 88 // struct record before its arguments
	openHead   = CallSize + 16 + 8 + seenSize
	seenSize   = 32
	lostSize   = 32
	countKey   = 16
)

// A layout says where the parts of a point's records are.
type layout struct {
	args, slots, snap, stack          int // how many; bytes; bytes; addresses
	packet                            bool
	atSlots, atPacket, atStack, bytes int
	kind                              Kind
}

func newLayout(c *Config, p *Point) layout {
	l := layout{args: registersOf(p), slots: p.SlotBytes, stack: c.Stack, kind: momentKind(p)}
	l.packet = p.Packet != NoPacket
	if l.packet {
		l.snap = (c.Snap + 7) &^ 7
	}
	l.atSlots = recordHead + 8*l.args
	l.atPacket = l.atSlots + l.slots
	l.atStack = l.atPacket
	if l.packet {
		l.atStack += seenSize + l.snap
	}
	l.bytes = l.atStack
	if l.stack > 0 {
		l.bytes += 8 + 8*l.stack
	}
	return l
}

// open is how many bytes of struct open are behind its head.
func (l *layout) open() int {
	n := l.slots + l.snap
	if l.stack > 0 {
		n += 8 + 8*l.stack
	}
	return n
}

// momentKind is the kind of events that one program tells at once.
func momentKind(p *Point) Kind {
	switch {
	case p.Mechanism == RawTP:
		return Fired
	case !p.Exit:
		return Entered
	}
	return Returned
}

// registersOf is how many 64-bit arguments a point's programs can read: those
// in registers, for what is no trampoline.
func registersOf(p *Point) int {
	n := 0
	for _, a := range p.Func.Params() {
		if a.Type.Kind() == ctype.Void { // "..."
			break
		}
		n += wordsOf(a.Type)
	}
	if p.Func.Proto == nil && p.Func.Kind != tracee.Kernel && p.Func.Kind != tracee.Tracepoint {
		n = 1 // the context
	}
	limit := MaxArgs
	switch {
	case p.Mechanism == KprobeMulti && !p.Entry:
		limit = 0 // gone when it returns
	case p.Mechanism == KprobeMulti, p.Mechanism == Breakpoint:
		limit = 6
	}
	return min(max(n, p.unreliable), limit)
}

// wordsOf is how many registers an argument takes.
func wordsOf(t *ctype.Type) int {
	if n, err := t.Size(); err == nil && n > 8 {
		return (n + 7) / 8
	}
	return 1
}

// direct reports whether the verifier lets programs read all arguments as they
// are. Before 6.8 it refuses pointers to anything but structs, void and text.
func direct(p *Point) bool {
	for _, a := range p.Func.Params() {
		t := a.Type.Strip()
		switch t.Kind() {
		case ctype.Int, ctype.Enum, ctype.Enum64:
			if n, err := t.Size(); err != nil || n > 8 {
				return false
			}
		case ctype.Pointer:
			e := t.Elem().Strip()
			if !e.IsRecord() && e.Kind() != ctype.Void && !e.IsChar() {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// returns reports whether a function returns something.
func returns(f *tracee.Function) bool {
	t := f.Result()
	return t == nil || t.Strip().Kind() != ctype.Void
}
