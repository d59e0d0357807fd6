package trace

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// A Point is what must be known of a [probe.Point] to tell its events.
type Point struct {
	Func *tracee.Function
	// Type and Attach are the type and the attach type of the program whose
	// numbers it returns: of an extension those of the program that it stands
	// in. Empty are those of Func.Prog. Attach "classifier" says of a sched_cls
	// program that it is used without direct-action.
	Type, Attach string
	// Packet says which argument is the packet of its events.
	Packet    probe.PacketKind
	PacketArg int
	// Values returns what --show asked for; nil if that is nothing.
	Values func(slots []byte) []Value
	// Jumps are its tail calls; nil if it makes none.
	Jumps *Jumps
	// Spoiled: being observed, the function may be given a wrong tail-call
	// count.
	Spoiled bool

	known *known // what follows from the above, made when first needed
}

// known is what is the same for all events of a point.
type known struct {
	params   []param
	context  bool   // the first argument is the program's context
	typ      string // of the program whose numbers it returns
	verdicts *verdicts
	decides  bool
}

// A param is a parameter.
type param struct {
	name, text string // text is its type
	typ        *ctype.Type
	words      int // registers that it takes
	pointer    bool
}

// knows returns what is the same for all events of a point.
func (p *Point) knows() *known {
	if p.known != nil {
		return p.known
	}
	k := &known{context: p.hasContext(), decides: p.mayDecide()}
	for i, q := range p.Func.Params() {
		if i == maxParams || q.Type.Kind() == ctype.Void {
			break
		}
		a := param{name: q.Name, text: q.Type.String(), typ: q.Type, words: 1, pointer: q.Type.Strip().Kind() == ctype.Pointer}
		// A record that is passed by value takes as many registers as it has
		// words (System V psABI 3.2.3; at most two).
		if n, err := q.Type.Size(); err == nil && n > 8 {
			a.words = (n + 7) / 8
		}
		if a.name == "" {
			a.name = "arg" + strconv.Itoa(i)
		}
		k.params = append(k.params, a)
	}
	if f := p.Func.Prog; f != nil {
		k.typ = cmp.Or(p.Type, f.Type)
		k.verdicts = verdictsOf(k.typ, cmp.Or(p.Attach, f.Attach))
	}
	p.known = k
	return k
}

// A Decoder turns events into calls. It is not safe for concurrent use.
type Decoder struct {
	Points []Point
	// Wall is what has to be added to CLOCK_MONOTONIC to have nanoseconds
	// since 1970.
	Wall int64
	// Iface names a network device, "" if it cannot; nil names none.
	Iface func(netns uint32, ifindex int) string
	// Symbol names an address of code; nil names none.
	Symbol func(addr uint64) (name string, offset uint64, ok bool)

	tuples tuples
}

// Call tells one event as a call: one that has returned, one that has not, a
// tracepoint, or a program that was entered by a tail call. It returns nil if
// the event is of no known point.
func (d *Decoder) Call(e *probe.Event) *Call {
	if e.Point < 0 || e.Point >= len(d.Points) {
		return nil
	}
	p := &d.Points[e.Point]
	c := &Call{
		Function: p.Func.Name, Module: p.Func.Module, Kind: string(p.Func.Kind),
		Prog: program(p.Func), Stub: stubOf(p.Func),
		Start: e.Start, End: e.End, CPU: e.CPU, PID: e.PID, TID: e.TID, Comm: e.Comm,
	}
	switch e.Kind {
	case probe.Returned:
		if e.Start != 0 && e.End >= e.Start {
			n := e.End - e.Start
			c.Duration = &n
		}
	case probe.Unfinished:
		c.End, c.Unfinished = 0, true
	case probe.Entered:
		c.Start, c.End, c.Jumped, c.RAX = at(e), 0, true, mem.Addr(e.RAX)
	}
	c.Time = int64(at(e)) + d.Wall
	c.Packet = d.packet(e.Packet)
	c.Args = d.args(p, e, c.Packet)
	if p.Values != nil && e.Kind != probe.Entered {
		c.Shown = p.Values(e.Slots)
	}
	if e.Kind == probe.Returned {
		c.Return = p.result(e.Ret)
	}
	c.Stack = d.stack(p.Func, e.Stack)
	return c
}

// at is the moment that stands for an event: its entry, else its end.
func at(e *probe.Event) uint64 {
	if e.Start != 0 {
		return e.Start
	}
	return e.End
}

func program(f *tracee.Function) *Program {
	if f.Prog == nil {
		return nil
	}
	return &Program{ID: f.Prog.ID, Name: f.Prog.Name, Type: f.Prog.Type, Tag: f.Prog.Tag}
}

func stubOf(f *tracee.Function) *Function {
	if f.Stub == nil {
		return nil
	}
	return &Function{Prog: Program{ID: f.Stub.ProgID, Name: f.Stub.ProgName}, Name: f.Stub.Func}
}

func (d *Decoder) packet(p *probe.Packet) *Packet {
	if p == nil {
		return nil
	}
	out := &Packet{Len: p.Len, Ifindex: p.Ifindex, Netns: p.Netns, Data: p.Data, Raw: p.Raw}
	out.Text = d.tuples.text(p.Data, p.Len, p.Raw)
	if d.Iface != nil && p.Ifindex != 0 {
		out.Iface = d.Iface(p.Netns, p.Ifindex)
	}
	if p.ID != 0 {
		out.ID = fmt.Sprintf("%x", p.ID)
	}
	return out
}

// stack names the callers of a function. What stands in front of it on its own
// stack is how it is observed.
func (d *Decoder) stack(f *tracee.Function, addrs []uint64) []Frame {
	var out []Frame
	for _, a := range addrs {
		fr := Frame{Addr: mem.Addr(a)}
		if d.Symbol != nil {
			if name, off, ok := d.Symbol(a); ok {
				fr.Symbol, fr.Offset = name, off
			}
		}
		start := uint64(f.Addr)
		if inside := start != 0 && a >= start && a < start+uint64(f.Len); inside || f.Kind == tracee.Kernel && fr.Symbol == f.Name {
			out = nil
			continue
		}
		out = append(out, fr)
	}
	return out
}

// maxParams bounds the parameters of a function that BTF tells.
const maxParams = probe.MaxArgs

// args types the arguments.
func (d *Decoder) args(p *Point, e *probe.Event, pkt *Packet) []Arg {
	k := p.knows()
	out := make([]Arg, 0, len(k.params))
	reg := 0
	for i := range k.params {
		q := &k.params[i]
		if q.words > len(e.Args)-reg {
			break
		}
		a := Arg{Name: q.name, Type: q.text, Raw: mem.Addr(e.Args[reg])}
		a.Val, a.Text = d.value(p.Func.Types, q, e.Args[reg:reg+q.words])
		if i == 0 && pkt != nil && k.context {
			a.Text = contextText(pkt)
		}
		out = append(out, a)
		reg += q.words
	}
	if len(out) == 0 && k.context && len(e.Args) > 0 { // a program without types
		a := Arg{Name: "ctx", Type: "void *", Raw: mem.Addr(e.Args[0]), Text: pointerText(e.Args[0])}
		if pkt != nil {
			a.Text = contextText(pkt)
		}
		out = append(out, a)
	}
	return out
}

// hasContext says whether the first argument of a function is its program's
// context, which the packet of its events was read from.
func (p *Point) hasContext() bool {
	f := p.Func
	switch f.Kind {
	case tracee.Program:
		return true
	case tracee.Extension, tracee.Subprogram:
		return f.Context != nil || p.Packet != probe.NoPacket && p.PacketArg == 0
	}
	return false
}

// contextText stands for the address of a context that is about a packet.
func contextText(p *Packet) string {
	name := p.Iface
	if name == "" && p.Ifindex != 0 {
		name = "if" + strconv.Itoa(p.Ifindex)
	}
	if name != "" {
		name += ", "
	}
	return fmt.Sprintf("{%s%d B}", name, p.Len)
}

// value types the registers that hold one argument.
func (d *Decoder) value(types *ctype.Types, q *param, words []uint64) (ctype.Value, string) {
	t, name := q.typ, q.name
	switch {
	case types == nil:
		return ctype.Value{}, mem.Addr(words[0]).String()
	case q.pointer:
		return types.Scalar(nil, t, words[0], name), d.pointer(words[0])
	case t.Strip().IsRecord():
		n, err := t.Size()
		if err != nil || n > 8*len(words) {
			return ctype.Value{}, mem.Addr(words[0]).String()
		}
		v := types.Blob(nil, t, littleEndian(words)[:n], name)
		return v, plainText(v)
	}
	v := types.Scalar(nil, t, words[0], name)
	text, err := ctype.FormatValue(v, ctype.FormatOptions{Symbolize: d.symbol})
	if err != nil {
		text = mem.Addr(words[0]).String()
	}
	return v, text
}

func (d *Decoder) symbol(addr uint64) string {
	if d.Symbol == nil {
		return ""
	}
	name, off, ok := d.Symbol(addr)
	switch {
	case !ok:
		return ""
	case off == 0:
		return name
	}
	return fmt.Sprintf("%s+%#x", name, off)
}

// pointer is the address, by name where that of code is known.
func (d *Decoder) pointer(v uint64) string {
	text := pointerText(v)
	if name := d.symbol(v); name != "" && v != 0 {
		text += " <" + name + ">"
	}
	return text
}
