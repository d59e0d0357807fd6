package probe_test

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/probe"
)

// frame is an Ethernet frame with an IPv4 header's beginning.
func frame(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	b[12], b[13] = 8, 0
	b[14] = 0x45
	return b
}

// nestedPoints are the functions of the XDP program.
func nestedPoints(t *testing.T, id int, entry bool) []probe.Point {
	var points []probe.Point
	for _, f := range resolve(t, fmt.Sprintf("prog:%d/*", id)) {
		qt.Assert(t, qt.IsNil(f.Refused))
		points = append(points, probe.Point{Func: f, Mechanism: probe.Trampoline, Entry: entry, Exit: true})
	}
	qt.Assert(t, qt.HasLen(points, 3))
	return points
}

// TestRunningKernelPrograms: all functions of a program are observed, and each
// call knows the one that it was made in.
func TestRunningKernelPrograms(t *testing.T) {
	needTracing(t)
	prog := loadNested(t)["outer"]
	points := nestedPoints(t, programID(t, prog), true)
	s := attach(t, probe.Config{Points: points, Tree: true})
	const rounds = 50
	for range rounds {
		ret, _, err := prog.Test(frame(64))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(ret, 2))
	}
	events := rest(t, s)
	qt.Assert(t, qt.HasLen(events, 3*rounds))
	want := []struct {
		name string
		ret  uint64
	}{{"leaf", 7}, {"middle", 2}, {"outer", 2}}
	for i := 0; i < len(events); i += 3 {
		for n, w := range want {
			e := events[i+n]
			qt.Assert(t, qt.Equals(points[e.Point].Func.Name, w.name))
			qt.Assert(t, qt.Equals(e.Ret, w.ret))
			qt.Assert(t, qt.Equals(e.Args[0], events[i].Args[0]), qt.Commentf("the same xdp_buff"))
			if n < 2 {
				outer := events[i+n+1]
				qt.Assert(t, qt.Equals(e.Parent, outer.Call))
				qt.Assert(t, qt.IsTrue(e.Start >= outer.Start && e.End <= outer.End))
			} else {
				qt.Assert(t, qt.Equals(e.Parent, probe.CallID{}))
			}
		}
	}
	qt.Assert(t, qt.HasLen(s.Lost(), 0))
}

// byteIs is a filter that wants packets with one byte.
func byteIs(off, want int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R3, asm.R1, probe.PacketStart, asm.DWord),
		asm.Add.Imm(asm.R3, off),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 1),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Byte),
		asm.Mov.Imm(asm.R0, 0),
		asm.JNE.Imm(asm.R1, want, "out"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return().WithSymbol("out"),
	}
}

// TestRunningKernelPackets: bytes and device of packets, and filters on them.
func TestRunningKernelPackets(t *testing.T) {
	needTracing(t)
	progs := loadNested(t)
	for _, tt := range []struct {
		prog  string
		kind  probe.PacketKind
		entry bool
	}{
		{"outer", probe.XDPBuff, true}, {"outer", probe.XDPBuff, false},
		{"classify", probe.SKB, true}, {"classify", probe.SKB, false},
	} {
		for _, track := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/entry=%v/track=%v", tt.prog, tt.entry, track), func(t *testing.T) {
				prog := progs[tt.prog]
				fs := resolve(t, fmt.Sprintf("prog:%d", programID(t, prog)))
				p := probe.Point{Func: fs[0], Mechanism: probe.Trampoline, Entry: tt.entry, Exit: true, Packet: tt.kind}
				s := attach(t, probe.Config{Points: []probe.Point{p}, Snap: 60, PacketFilter: byteIs(20, 99), Track: track})
				other, wanted := frame(100), frame(200)
				wanted[20] = 99
				for range 10 {
					for _, b := range [][]byte{other, wanted} {
						_, _, err := prog.Test(b)
						qt.Assert(t, qt.IsNil(err))
					}
				}
				events := rest(t, s)
				qt.Assert(t, qt.HasLen(events, 10))
				ids := make(map[uint64]bool)
				for _, e := range events {
					qt.Assert(t, qt.IsNotNil(e.Packet))
					qt.Assert(t, qt.Equals(e.Packet.Len, 200))
					qt.Assert(t, qt.IsFalse(e.Packet.Raw))
					qt.Assert(t, qt.DeepEquals(e.Packet.Data, wanted[:64]))
					qt.Assert(t, qt.Equals(e.Packet.Ifindex, 1)) // test runs are from the loopback device
					qt.Assert(t, qt.Not(qt.Equals(e.Packet.Netns, 0)))
					qt.Assert(t, qt.Equals(e.Packet.ID != 0, track))
					ids[e.Packet.ID] = true
				}
				if track {
					qt.Assert(t, qt.HasLen(ids, 10), qt.Commentf("each is another packet"))
				}
				netns := events[0].Packet.Netns
				for in, want := range map[uint32]int{netns: 1, netns + 1: 0} {
					s := attach(t, probe.Config{Points: []probe.Point{p}, Netns: in})
					_, _, err := prog.Test(wanted)
					qt.Assert(t, qt.IsNil(err))
					qt.Assert(t, qt.HasLen(rest(t, s), want))
				}
			})
		}
	}
}

// TestRunningKernelTracepoint: a tracepoint fires.
func TestRunningKernelTracepoint(t *testing.T) {
	needTracing(t)
	fs := resolve(t, "tracepoint:sys_enter")
	c := start(t, "call")
	s := attach(t, probe.Config{Points: []probe.Point{{Func: fs[0], Mechanism: probe.RawTP, Entry: true}}, PID: c.Process.Pid})
	c.call(t, 100)
	n := 0
	for _, e := range rest(t, s) {
		qt.Assert(t, qt.Equals(e.Kind, probe.Fired))
		qt.Assert(t, qt.HasLen(e.Args, 2))
		if e.Args[1] == 121 { // __NR_getpgid
			n++
		}
	}
	qt.Assert(t, qt.Equals(n, 100))
}

// TestRunningKernelBreakpoint: the hardware calls at an instruction.
func TestRunningKernelBreakpoint(t *testing.T) {
	types := needTracing(t)
	f := mustFunction(t, types, "__x64_sys_getpgid")
	c := start(t, "call")
	s := attach(t, probe.Config{Points: []probe.Point{
		{Func: f, Mechanism: probe.Trampoline, Entry: true, Exit: true},
		{Func: f, Mechanism: probe.Breakpoint, Entry: true, Addr: uint64(f.Addr)},
	}, PID: c.Process.Pid, Tree: true})
	c.call(t, 100)
	var entered, returned []probe.Event
	for _, e := range rest(t, s) {
		if e.Kind == probe.Entered {
			entered = append(entered, e)
		} else {
			returned = append(returned, e)
		}
	}
	qt.Assert(t, qt.HasLen(returned, 100))
	qt.Assert(t, qt.HasLen(entered, 100))
	for i := range entered {
		qt.Assert(t, qt.Equals(entered[i].Args[0], returned[i].Args[0]))
		qt.Assert(t, qt.Equals(entered[i].TID, returned[i].TID))
	}
}
