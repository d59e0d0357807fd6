package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/tracee"
)

// Defaults and limits of a Config.
const (
	defaultBuffer  = 8 << 20
	defaultMaxOpen = 8192
	maxStack       = 127     // PERF_MAX_STACK_DEPTH
	maxPoint       = 1 << 15 // bytes of slots, and of a packet, of one point
)

// A step is one program of a point, and how it is attached.
type step struct {
	template string
	typ      uint32
	attach   uint32
	returns  bool // kprobe-multi: it is called at the return
}

// stepsOf are the programs of a point; the last to be attached first.
func stepsOf(p *Point) []step {
	switch p.Mechanism {
	case Trampoline, FSession:
		switch {
		case p.Entry && p.Exit && p.Mechanism == FSession:
			return []step{{"tramp_session", typeTracing, attachFsession, true}}
		case p.Entry && p.Exit:
			return []step{{"tramp_entry", typeTracing, attachFentry, false}, {"tramp_exit", typeTracing, attachFexit, true}}
		case p.Exit:
			return []step{{"tramp_moment", typeTracing, attachFexit, true}}
		}
		return []step{{"tramp_moment", typeTracing, attachFentry, false}}
	case KprobeMulti:
		switch {
		case p.Entry && p.Exit:
			return []step{{"regs_entry", typeKprobe, attachKprobeMulti, false}, {"regs_exit", typeKprobe, attachKprobeMulti, true}}
		case p.Exit:
			return []step{{"regs_moment", typeKprobe, attachKprobeMulti, true}}
		}
		return []step{{"regs_moment", typeKprobe, attachKprobeMulti, false}}
	case RawTP:
		return []step{{"tramp_moment", typeTracing, attachRawTP, false}}
	case Breakpoint:
		return []step{{"regs_moment", typePerfEvent, 0, false}}
	}
	return nil
}

// complete fills in the defaults of a Config and says what is wrong with it.
func (c *Config) complete() error {
	if c.BufferBytes == 0 {
		c.BufferBytes = defaultBuffer
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = defaultMaxOpen
	}
	page := os.Getpagesize()
	switch {
	case len(c.Points) == 0:
		return errors.New("there is nothing to observe")
	case c.BufferBytes < page || c.BufferBytes&(c.BufferBytes-1) != 0 || c.BufferBytes > 1<<30:
		return fmt.Errorf("a buffer of %d bytes: its size is a power of two, from %d to %d", c.BufferBytes, page, 1<<30)
	case c.MaxOpen < 1 || c.MaxOpen > 1<<20:
		return fmt.Errorf("%d open calls: 1 to %d can be kept", c.MaxOpen, 1<<20)
	case len(c.Comm) > 15:
		return fmt.Errorf("%q is no name of a thread: these have at most 15 bytes", c.Comm)
	case c.Stack < 0 || c.Stack > maxStack:
		return fmt.Errorf("%d addresses of the stack: the kernel tells at most %d", c.Stack, maxStack)
	case c.Snap < 0 || c.Snap > maxPoint:
		return fmt.Errorf("%d bytes of a packet: at most %d are kept", c.Snap, maxPoint)
	}
	for i := range c.Points {
		if err := c.check(&c.Points[i]); err != nil {
			return fmt.Errorf("%v: %w", c.Points[i].Func, err)
		}
	}
	return nil
}

func (c *Config) check(p *Point) error {
	switch {
	case p.Func == nil:
		return errors.New("no function is given")
	case !p.Entry && !p.Exit:
		return errors.New("neither its entry nor its return is asked for")
	case p.SlotBytes < 0 || p.SlotBytes%8 != 0 || p.SlotBytes > maxPoint:
		return fmt.Errorf("%d bytes of slots: at most %d, in words of 8", p.SlotBytes, maxPoint)
	case p.Packet > XDPFrame || p.Packet != NoPacket && (p.PacketArg < 0 || p.PacketArg >= MaxArgs):
		return fmt.Errorf("argument %d is no packet of kind %d", p.PacketArg, p.Packet)
	case c.MinDuration > 0 && !(p.Entry && p.Exit):
		return errors.New("its duration is not known without both its entry and its return")
	}
	return nil
}

// open reports whether a point keeps its calls while they are under way.
func (p *Point) open() bool { return p.Entry && p.Exit || p.Packet != NoPacket }

// code returns the generated functions of a point.
func (c *Config) code(p *Point) generated {
	g := generated{}
	for name, body := range map[string]asm.Instructions{
		genFilter: p.Filter, genShow: p.Show, genExitFilter: p.ExitFilter, genExitShow: p.ExitShow,
	} {
		if len(body) > 0 {
			g[name] = body
		}
	}
	if p.Packet != NoPacket {
		if len(c.PacketFilter) > 0 {
			g[genPacket] = c.PacketFilter
		}
		if len(c.RawPacketFilter) > 0 {
			g[genRawPacket] = c.RawPacketFilter
		}
	}
	return g
}

// constantsOf returns the constants of a point's programs.
func (c *Config) constantsOf(i int, l *layout, self int) values {
	p := &c.Points[i]
	has := func(body asm.Instructions) uint64 { return flag(len(body) > 0) }
	v := values{
		kPoint: uint64(i), kKind: uint64(l.kind), kNargs: uint64(l.args),
		kDirect: flag(direct(p)), kReturns: flag(returns(p.Func)),
		kPID: uint64(c.PID), kCgroup: c.Cgroup, kNetns: uint64(c.Netns), kMinimum: uint64(c.MinDuration),
		kTree: flag(c.Tree), kMode: uint64(c.Mode), kByReturn: flag(c.ByReturn),
		kFilter: has(p.Filter), kShow: has(p.Show), kExitFilter: has(p.ExitFilter), kExitShow: has(p.ExitShow),
		kSlots: uint64(p.SlotBytes), kPacket: uint64(p.Packet), kPacketArg: uint64(p.PacketArg),
		kSnap: uint64(l.snap), kStack: uint64(8 * l.stack),
		kRecord: uint64(l.bytes), kAtSlots: uint64(l.atSlots), kAtPacket: uint64(l.atPacket), kAtStack: uint64(l.atStack),
		kAtSnap: uint64(openHead + p.SlotBytes), kAtTrace: uint64(openHead + p.SlotBytes + l.snap), kResident: uint64(c.MaxOpen),
	}
	v[kFull] = v[kFilter] | v[kShow] | v[kExitFilter] | v[kExitShow]
	if p.Packet != NoPacket {
		v[kPacketFilter], v[kRawFilter] = has(c.PacketFilter), has(c.RawPacketFilter)
		v[kTrack] = flag(c.Track)
		v[kFresh] = flag(p.Packet == XDPBuff && p.Func.Kind == tracee.Program)
	}
	if c.Comm != "" {
		var b [16]byte
		copy(b[:], c.Comm)
		v[kComm], v[kComm0], v[kComm1] = 1, binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	}
	kernel := p.Func.Kind == tracee.Kernel || p.Func.Kind == tracee.Tracepoint
	if kernel && c.PID != self && c.Mode == Events { // to count calls makes none
		v[kSelf] = uint64(self)
		if p.Func.Types != nil {
			if off, err := p.Func.Types.Offsetof("task_struct", "stack"); err == nil {
				v[kTaskStack] = uint64(off)
			}
		}
	}
	v[kNeedEntry] = v[kFilter] | v[kPacketFilter] | v[kRawFilter] | v[kTrack] | flag(c.MinDuration > 0) |
		v[kShow]&v[kExitFilter] | flag(c.Mode == Hist)&(v[kShow]|flag(p.SlotBytes == 0))
	if p.Mechanism == KprobeMulti {
		v[kSPExit] = ^uint64(7) // the return address was taken off the stack: -8
	}
	return v
}

// selfID is the process's number in the first pid namespace, by which the
// kernel's programs know it; 0 if it is in another.
func selfID() int {
	const first = "pid:[4026531836]" // PROC_PID_INIT_INO
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != first {
		return 0
	}
	return os.Getpid()
}
