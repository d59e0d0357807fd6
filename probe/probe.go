// Package probe observes calls in the running kernel: one collection of BPF
// code is loaded, adapted to each function that is asked for, attached, and its
// records are read. It changes nothing that the kernel does, and everything it
// attached is gone when the process is, however that ends.
package probe

import (
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/tracee"
)

// A Mechanism is a way to be called when a function is.
type Mechanism string

// The mechanisms.
const (
	Trampoline  Mechanism = "fentry/fexit" // 5.5; one program at the entry, one at the return
	FSession    Mechanism = "fsession"     // 7.0; one program at both
	KprobeMulti Mechanism = "kprobe-multi" // 5.18; many functions by one link
	RawTP       Mechanism = "tp_btf"       // tracepoints, 5.5
	Breakpoint  Mechanism = "breakpoint"   // execution breakpoint of the hardware, four a CPU
)

// A PacketKind is the type of an argument that stands for a packet.
type PacketKind uint8

// The kinds of packets.
const (
	NoPacket PacketKind = iota
	SKB                 // struct sk_buff *
	XDPBuff             // struct xdp_buff *
	XDPFrame            // struct xdp_frame *
)

// A Point is one function to observe, and what to do when it is called.
type Point struct {
	Func      *tracee.Function
	Mechanism Mechanism
	// Addr is where a Breakpoint is put: an instruction of Func.
	Addr uint64
	// Entry and Exit say where to look. Without Entry a call's duration is
	// not known, and what it was called with is as it stands at its return.
	Entry, Exit bool

	// The following are bodies of BPF functions int f(struct call *c, void
	// *slots), see abi.go; nil does nothing. Filter and ExitFilter return 0
	// for a call that is not wanted. Show is called for wanted calls at their
	// entry, ExitShow at their return; both write to slots, and ExitFilter may
	// read what Show left there.
	Filter, Show, ExitFilter, ExitShow asm.Instructions
	// SlotBytes is how much memory slots points to, a multiple of 8.
	SlotBytes int

	// Packet says which argument is a packet.
	Packet    PacketKind
	PacketArg int

	// unreliable is how many arguments its trampoline saves all the same.
	unreliable int
}

// A Mode says what becomes of the calls.
type Mode uint8

// The modes.
const (
	Events Mode = iota // each is told
	Count              // they are counted in the kernel, by function and return value
	Hist               // the first slot's value is put into a histogram, by the same
)

// Config is what to observe.
type Config struct {
	Points []Point
	Mode   Mode
	// ByReturn counts calls apart by what they returned.
	ByReturn bool

	// Conditions that hold for all points; zero means any.
	PID    int    // process, as the kernel's first pid namespace has it
	Comm   string // exact name of the thread, at most 15 bytes
	Cgroup uint64 // id: the inode number of its directory
	Netns  uint32 // inode number of the network namespace of the packet's device, or else of the task
	// MinDuration leaves out calls that were shorter.
	MinDuration time.Duration

	// Tree makes each call know the call that it was made in.
	Tree bool
	// Snap is how many bytes of a packet are kept, as it was at the entry.
	Snap int
	// PacketFilter and RawPacketFilter are bodies of int f(struct packet *p):
	// whether a packet that begins at its Ethernet header, or at its network
	// header, is wanted.
	PacketFilter, RawPacketFilter asm.Instructions
	// Track follows packets: once one was wanted at any point, it and what was
	// cloned or copied of it are wanted at all of them.
	Track bool
	// Stack is how many addresses of the kernel's stack are kept.
	Stack int

	// BufferBytes is the size of the ring buffer, a power of two and a
	// multiple of the page size; 0 is 8 MiB.
	BufferBytes int
	// MaxOpen is how many calls can be under way at once; 0 is 8192.
	MaxOpen int
	// Stats has the kernel count what the session's programs cost, for
	// [Session.Costs]; to count costs time at each call, of all BPF programs.
	Stats bool
}

// A Kind says what an event tells.
type Kind uint8

// The kinds of events.
const (
	Returned   Kind = iota + 1 // a call has ended
	Entered                    // the hardware came by an instruction (Breakpoint)
	Fired                      // a tracepoint
	Unfinished                 // a call that has not returned; see [Session.Open]
)

// A CallID identifies one call among all that a session sees.
type CallID struct {
	Frame uint64 // where its stack frame is
	Start uint64 // see Event.Start
}

// An Event is one record.
type Event struct {
	Kind   Kind
	Point  int // index into Config.Points
	Call   CallID
	Parent CallID // the innermost observed call around it, with Config.Tree; zero if there is none

	Start uint64 // ns of CLOCK_MONOTONIC; 0 if its entry was not seen
	End   uint64 // the same; of Entered and Fired the moment
	CPU   int    // at the end
	PID   int    // process
	TID   int    // thread
	Comm  string

	Args []uint64 // as the BPF calling convention has them: 64 bits each
	Ret  uint64   // r0, all 64 bits
	RAX  uint64   // of Entered: the register, which holds the tail-call count

	Slots  []byte
	Packet *Packet
	Stack  []uint64 // addresses, innermost first
	// Faults counts reads of memory by Filter, Show and so on that failed.
	Faults int
}

// A Packet is what was seen of one at the entry of a call.
type Packet struct {
	Len     int    // bytes in all
	Data    []byte // the first of them, at most Config.Snap
	Raw     bool   // it begins at the network header
	Ifindex int
	Netns   uint32 // inode number
	ID      uint64 // which packet it is, the same for clones and copies, with Config.Track
}
