package trace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/pcapfilter"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// A Request is what the user asks for.
type Request struct {
	Funcs []*tracee.Function
	Types *ctype.Types // the kernel's

	Filter       string   // a C expression; empty wants every call
	Show         []string // C expressions
	Hist         string   // a C expression whose values are put into a histogram
	PacketFilter string   // of pcap-filter(7)

	Count    bool
	ByReturn bool
	ExitOnly bool // do not look at entries: cheaper, no durations
	Flat     bool // one line a call, no trees
	Snap     int  // bytes of each packet to keep
	Track    bool
	Stack    int

	// Code is what the code of the BPF functions says of tail calls.
	Code *Code
	// Breakpoints is how many execution breakpoints may be used.
	Breakpoints int
	// Spoils are functions whose tail calls a trampoline may keep from being
	// made on this kernel.
	Spoils map[*tracee.Function]bool

	PID         int
	Comm        string
	Cgroup      uint64
	Netns       uint32
	MinDuration time.Duration
	Buffer      int

	// Mechanism is the only one to use; empty takes the best there is.
	Mechanism probe.Mechanism
	// Supports says why a mechanism cannot be used here; nil if it can.
	Supports func(probe.Mechanism) error
}

// A Role is what a point is for.
type Role string

// The roles.
const (
	Called Role = "calls"      // to see the function's calls
	Jumped Role = "tail calls" // to see the program being entered by tail calls
	Given  Role = "count"      // to see the tail-call count that the function is given
)

// An Observed is one function with how it is observed, or why it is not.
type Observed struct {
	Func      *tracee.Function
	Role      Role
	Mechanism probe.Mechanism // "" if it is not
	Addr      uint64          // of a breakpoint
	Point     int             // index into Config.Points; -1 if it is not observed
	Slots     []bpfexpr.Slot  // where the values of expressions are
	Jumps     *Jumps          // the tail calls it can make; nil if none
	Spoiled   bool            // it may be given a wrong tail-call count, as it is observed
	Refused   *tracee.Refusal // why it is not
	Err       error           // the same, where an expression does not fit it
}

// A Plan is what a request comes to.
type Plan struct {
	Config   probe.Config
	Observed []Observed
	of       []int // by index into Config.Points: the index into Observed
}

// manyFunctions is from how many kernel functions on one link for all of them
// is quicker to attach than a trampoline each, which costs less at each call.
const manyFunctions = 16

// NewPlan decides how each function is observed, and compiles the expressions
// for it. It touches nothing. The error is about the request as a whole: an
// expression that fits none of the functions, or is not C.
func NewPlan(r Request) (*Plan, error) {
	c := compiler{Request: r}
	if err := c.parse(); err != nil {
		return nil, err
	}
	p := &Plan{Config: c.config()}
	if err := c.packets(&p.Config); err != nil {
		return nil, err
	}
	var unfit error
	for _, f := range r.Funcs {
		p.Observed = append(p.Observed, c.observe(f))
	}
	p.Observed = c.watch(p.Observed)
	c.jumps(p.Observed)
	for i := range p.Observed {
		o := &p.Observed[i]
		if o.Mechanism == "" {
			continue
		}
		pt, err := c.point(o)
		if err != nil {
			o.Mechanism, o.Err = "", err
			if unfit == nil {
				unfit = err
			}
			continue
		}
		o.Point = len(p.Config.Points)
		p.Config.Points, p.of = append(p.Config.Points, pt), append(p.of, i)
	}
	if len(p.Config.Points) == 0 && unfit != nil {
		return nil, unfit
	}
	return p, nil
}

// A compiler makes points of functions.
type compiler struct {
	Request
	filter *cexpr.Expr
	show   []*cexpr.Expr
	many   bool
}

// parse parses the expressions.
func (c *compiler) parse() (err error) {
	isType := cexpr.IsType(c.Types)
	if c.Request.Filter != "" {
		if c.filter, err = cexpr.Parse(c.Request.Filter, isType); err != nil {
			return err
		}
	}
	for _, src := range c.shown() {
		x, err := cexpr.Parse(src, isType)
		if err != nil {
			return err
		}
		c.show = append(c.show, x)
	}
	kernel := 0
	for _, f := range c.Funcs {
		if f.Kind == tracee.Kernel {
			kernel++
		}
	}
	c.many = kernel >= manyFunctions
	return nil
}

// shown are the expressions whose values are kept; a histogram's comes first.
func (c *compiler) shown() []string {
	if c.Hist != "" {
		return []string{c.Hist}
	}
	var out []string
	for _, list := range c.Request.Show {
		out = append(out, splitList(list)...)
	}
	return out
}

// splitList splits a list of expressions at the commas between them.
func splitList(list string) (out []string) {
	depth, start := 0, 0
	var quote rune
	escaped := false
	for i, r := range list {
		switch {
		case escaped:
			escaped = false
		case quote != 0:
			escaped = r == '\\'
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case strings.ContainsRune("([{", r):
			depth++
		case strings.ContainsRune(")]}", r):
			depth--
		case r == ',' && depth == 0:
			out = append(out, strings.TrimSpace(list[start:i]))
			start = i + 1
		}
	}
	return append(out, strings.TrimSpace(list[start:]))
}

func (c *compiler) config() probe.Config {
	mode := probe.Events
	switch {
	case c.Hist != "":
		mode = probe.Hist
	case c.Count:
		mode = probe.Count
	}
	return probe.Config{
		Mode: mode, ByReturn: c.ByReturn,
		PID: c.PID, Comm: c.Comm, Cgroup: c.Cgroup, Netns: c.Netns, MinDuration: c.MinDuration,
		Tree: mode == probe.Events && !c.Flat && !c.ExitOnly, Snap: c.Snap,
		Track: c.Track, Stack: c.Stack, BufferBytes: c.Buffer,
	}
}

// packets compiles the packet filter, for packets with and without an Ethernet
// header.
func (c *compiler) packets(cfg *probe.Config) error {
	if c.PacketFilter == "" {
		return nil
	}
	for link, to := range map[pcapfilter.LinkType]*asm.Instructions{
		pcapfilter.Ethernet: &cfg.PacketFilter, pcapfilter.RawIP: &cfg.RawPacketFilter,
	} {
		prog, err := pcapfilter.Compile(c.PacketFilter, link)
		if err != nil {
			return err
		}
		if *to, err = pcapfilter.ToEBPF(prog, pcapfilter.Options{ABI: packetABI, Prefix: fmt.Sprintf("link%d", link)}); err != nil {
			return fmt.Errorf("packet filter %q: %w", c.PacketFilter, err)
		}
	}
	return nil
}

// packetABI is where the filter finds the packet.
var packetABI = pcapfilter.ABI{Start: probe.PacketStart, Head: probe.PacketHead, Len: probe.PacketLen, Short: probe.PacketShort}

// observe decides how a function is observed.
func (c *compiler) observe(f *tracee.Function) Observed {
	o := Observed{Func: f, Role: Called, Point: -1, Spoiled: c.Spoils[f], Refused: f.Refused}
	if f.Refused != nil {
		return o
	}
	var why []error
	for _, m := range c.mechanisms(f) {
		if c.Mechanism != "" && m != c.Mechanism {
			continue
		}
		err := c.Supports(m)
		if err == nil {
			o.Mechanism = m
			return o
		}
		why = append(why, err)
	}
	reason := "none of the ways to observe it was asked for"
	if err := errors.Join(why...); err != nil {
		reason = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	o.Refused = &tracee.Refusal{Reason: reason}
	return o
}

// mechanisms are the ways to observe a function, best first.
func (c *compiler) mechanisms(f *tracee.Function) []probe.Mechanism {
	switch {
	case f.Kind == tracee.Tracepoint:
		return []probe.Mechanism{probe.RawTP}
	case f.Kind != tracee.Kernel:
		return []probe.Mechanism{probe.FSession, probe.Trampoline}
	case c.many && len(f.Params()) <= registers:
		return []probe.Mechanism{probe.KprobeMulti, probe.FSession, probe.Trampoline}
	}
	return []probe.Mechanism{probe.FSession, probe.Trampoline, probe.KprobeMulti}
}

// registers is how many arguments of a function are in registers.
const registers = 6

// watch adds breakpoints, as many as there are: on programs that are entered by
// tail calls, which their trampolines are not called for, and on functions
// whose trampoline may spoil the tail-call count, to see what they are given.
func (c *compiler) watch(all []Observed) []Observed {
	left := c.Breakpoints
	add := func(f *tracee.Function, role Role, addr uint64) {
		o := Observed{Func: f, Role: role, Mechanism: probe.Breakpoint, Addr: addr, Point: -1}
		switch {
		case addr == 0:
			o.Mechanism, o.Refused = "", &tracee.Refusal{Reason: "the address of its code is not known", Remedy: "run as root, with kernel.kptr_restrict below 2"}
		case left == 0:
			o.Mechanism, o.Refused = "", &tracee.Refusal{
				Reason: fmt.Sprintf("a breakpoint would see it, and all are taken: %d were free", c.Breakpoints),
				Remedy: "name fewer functions at once",
			}
		default:
			left--
		}
		all = append(all, o)
	}
	for _, f := range c.Funcs {
		if c.Spoils[f] && c.Code.Body(f) != 0 {
			add(f, Given, c.Code.Body(f))
		}
	}
	for _, f := range c.Funcs {
		if len(f.Slots) > 0 {
			add(f, Jumped, c.Code.Entry(f))
		}
	}
	return all
}

// jumps tells of each function which tail calls it can make, and which of the
// programs that it can enter are watched.
func (c *compiler) jumps(all []Observed) {
	type function struct{ prog, subprog int }
	called, watched := make(map[function]bool), make(map[int]bool)
	for _, o := range all {
		switch {
		case o.Mechanism == "" || o.Func.Prog == nil:
		case o.Role == Called:
			called[function{o.Func.Prog.ID, o.Func.Subprog}] = true
		case o.Role == Jumped:
			watched[o.Func.Prog.ID] = true
		}
	}
	for i := range all {
		all[i].Jumps = c.Code.Jumps(all[i].Func,
			func(prog, subprog int) bool { return called[function{prog, subprog}] },
			func(prog int) bool { return watched[prog] })
	}
}

// point compiles what is to be done at a function.
func (c *compiler) point(o *Observed) (probe.Point, error) {
	f := o.Func
	pt := probe.Point{Func: f, Mechanism: o.Mechanism, Addr: o.Addr, Exit: true, Entry: !c.ExitOnly && c.needsEntry()}
	regs := probe.MaxArgs
	switch o.Mechanism {
	case probe.Breakpoint:
		pt.Entry, pt.Exit = true, false
		return pt, nil
	case probe.KprobeMulti:
		regs = registers
		pt.Entry = true // at the return the arguments are gone
	case probe.RawTP:
		pt.Entry, pt.Exit = true, false
	}
	if c.config().Mode == probe.Events || c.PacketFilter != "" || c.Track || c.Netns != 0 { // else nobody asks
		pt.Packet, pt.PacketArg = packetArg(f)
	}
	if pt.Packet == probe.NoPacket && (c.PacketFilter != "" || c.Track) {
		return pt, &NoPacketError{f.String()}
	}
	plan, err := bpfexpr.Compile(newEnv(f, c.Types, regs), bpfexpr.Input{Filter: c.filter, Show: c.show}, bpfexpr.Options{
		ExitOnly: !pt.Entry, Faults: probe.CallFaults,
	})
	if err != nil {
		return pt, fmt.Errorf("%v: %w", f, err)
	}
	pt.Filter, pt.Show, pt.ExitFilter, pt.ExitShow = plan.Filter, plan.Show, plan.ExitFilter, plan.ExitShow
	pt.SlotBytes, o.Slots = plan.Bytes, plan.Slots
	return pt, nil
}

// A NoPacketError says that packets were asked for, of which a function knows
// nothing.
type NoPacketError struct{ Function string }

// Error says what is missing.
func (e *NoPacketError) Error() string {
	return e.Function + ": none of its arguments is a packet (sk_buff, xdp_buff, xdp_frame) that could be filtered or tracked"
}

// needsEntry reports whether calls must be seen when they begin.
func (c *compiler) needsEntry() bool {
	counted := c.Count && c.Hist == "" && c.MinDuration == 0
	return !counted || c.usesEntry()
}

// usesEntry reports whether an expression is about the call's beginning.
func (c *compiler) usesEntry() bool {
	return c.filter != nil || len(c.show) > 0 || c.PacketFilter != "" || c.Track
}

// packetArg says which argument of a function is a packet.
func packetArg(f *tracee.Function) (probe.PacketKind, int) {
	kind, arg, ok := f.Packet()
	if !ok {
		return probe.NoPacket, 0
	}
	return packetKinds[kind], arg
}

// packetKinds are the structs that stand for packets.
var packetKinds = map[string]probe.PacketKind{
	"sk_buff": probe.SKB, "xdp_buff": probe.XDPBuff, "xdp_frame": probe.XDPFrame,
}

// Refused returns the functions that are not observed.
func (p *Plan) Refused() []Observed {
	return slices.DeleteFunc(slices.Clone(p.Observed), func(o Observed) bool { return o.Mechanism != "" })
}
