//go:build linux

package pcapfilter_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/pcapfilter"
)

// The stand-in for struct packet: another order than the real one, so that
// nothing holds by chance.
var packetABI = pcapfilter.ABI{Head: 0, Len: 4, Short: 8, Start: 16}

const (
	packetSize = 24
	slotSize   = 1024 // of a packet in the map
)

// A runner runs filters in the kernel over packets in kernel memory.
type runner struct {
	typ  ebpf.ProgramType
	base uint64 // kernel address of the packets
}

// newRunner puts the packets into an array, whose address a BPF program tells.
// Test runs of raw tracepoint programs came with Linux 5.10 (1b4d60ec162f);
// where tracing is not allowed, XDP does.
func newRunner(t *testing.T, packets [][]byte) *runner {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loading BPF programs takes root")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Log(err)
	}
	slots, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: slotSize, MaxEntries: uint32(len(packets))})
	qt.Assert(t, qt.IsNil(err))
	addr, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { slots.Close(); addr.Close() })
	for i, p := range packets {
		qt.Assert(t, qt.IsTrue(len(p) <= slotSize))
		qt.Assert(t, qt.IsNil(slots.Put(uint32(i), append(append([]byte{}, p...), make([]byte, slotSize-len(p))...))))
	}
	lookup := func(m *ebpf.Map) asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
		}
	}
	tell := append(lookup(slots), asm.Mov.Reg(asm.R6, asm.R0))
	tell = append(append(tell, lookup(addr)...),
		asm.StoreMem(asm.R0, 0, asm.R6, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return())
	for _, r := range []*runner{{typ: ebpf.RawTracepoint}, {typ: ebpf.XDP}} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: r.typ, Instructions: tell, License: "GPL"})
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			t.Logf("%v programs: %v", r.typ, err)
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		defer prog.Close()
		r.run(t, prog, 0, 0, 0)
		qt.Assert(t, qt.IsNil(addr.Lookup(uint32(0), &r.base)))
		qt.Assert(t, qt.IsTrue(r.base>>63 == 1), qt.Commentf("%#x", r.base))
		return r
	}
	t.Skip("this kernel loads no BPF programs here")
	return nil
}

// run returns the program's result. The arguments come as those of the
// tracepoint, or as the bytes of an XDP packet.
func (r *runner) run(t *testing.T, prog *ebpf.Program, start uint64, head, size uint32) uint32 {
	t.Helper()
	args := make([]byte, 24)
	binary.NativeEndian.PutUint64(args, start)
	binary.NativeEndian.PutUint32(args[8:], head)
	binary.NativeEndian.PutUint32(args[16:], size)
	o := &ebpf.RunOptions{Context: args}
	if r.typ == ebpf.XDP {
		o = &ebpf.RunOptions{Data: args}
	}
	ret, err := prog.Run(o)
	qt.Assert(t, qt.IsNil(err))
	return ret
}

// load makes a program that puts struct packet on its stack and calls the
// filter. It returns 1 for a match, and 2 for short.
func (r *runner) load(t *testing.T, name string, prog []bpf.Instruction) *ebpf.Program {
	t.Helper()
	filter, err := pcapfilter.ToEBPF(prog, pcapfilter.Options{ABI: packetABI, Prefix: "flt"})
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", name))
	filter[0] = filter[0].WithSymbol("filter")
	main := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	if r.typ == ebpf.XDP {
		main = asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.Word),
			asm.LoadMem(asm.R2, asm.R1, 4, asm.Word),
			asm.Mov.Reg(asm.R3, asm.R6), asm.Add.Imm(asm.R3, 24),
			asm.JGT.Reg(asm.R3, asm.R2, "none"),
		}
	}
	main = append(main,
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord), asm.StoreMem(asm.RFP, packetABI.Start-packetSize, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, 8, asm.DWord), asm.StoreMem(asm.RFP, packetABI.Head-packetSize, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, 16, asm.DWord), asm.StoreMem(asm.RFP, packetABI.Len-packetSize, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, packetABI.Short-packetSize, 0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -packetSize),
		asm.Call.Label("filter"),
		asm.LoadMem(asm.R1, asm.RFP, packetABI.Short-packetSize, asm.Word), asm.LSh.Imm(asm.R1, 1),
		asm.JEq.Imm(asm.R0, 0, "zero"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Or.Reg(asm.R0, asm.R1).WithSymbol("zero"),
		asm.Return())
	if r.typ == ebpf.XDP {
		main = append(main, asm.Mov.Imm(asm.R0, 4).WithSymbol("none"), asm.Return())
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: r.typ, Instructions: append(main, filter...), License: "GPL"})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%s: %v", name, strings.Join(refused.Log[max(0, len(refused.Log)-20):], "\n"))
	}
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", name))
	return p
}

// subset is a part of the packets that a guest gets through quickly.
func subset(t *testing.T, link pcapfilter.LinkType) [][]byte {
	base := basePackets(t, link)
	out := base
	for i, p := range truncated(base) {
		if i%97 == 0 {
			out = append(out, p)
		}
	}
	return out
}

// TestRunningKernelVerdicts runs every filter in the kernel, ours and those that
// tcpdump compiled, and compares with the classic program's verdict: whole
// packets, and packets of which only a part is in the head.
func TestRunningKernelVerdicts(t *testing.T) {
	want := goldens(t)
	var programs, runs, matches, shorts int
	for _, l := range links {
		packets := subset(t, l.link)
		for i, f := range filters(t) {
			if i%3 != 0 {
				continue
			}
			if g := want[l.name+" "+f.expr]; g.err == "" {
				packets = append(packets, aimed(g.optimized, basePackets(t, l.link), 1)...)
			}
		}
		r := newRunner(t, packets)
		for n, f := range filters(t) {
			ours, err := pcapfilter.Compile(f.expr, l.link)
			if err != nil {
				continue
			}
			classic := [][]bpf.Instruction{ours}
			if n%8 == 0 {
				classic = append(classic, want[l.name+" "+f.expr].optimized)
			}
			for _, c := range classic {
				name := l.name + " " + f.expr
				prog := r.load(t, name, c)
				programs++
				judge := machine{program: c}
				for i, p := range packets {
					for _, head := range [][]int{{len(p)}, {14 + i%40}}[i%2] {
						judge.head = head
						want := judge.verdict(p)
						got := r.run(t, prog, r.base+uint64(i*slotSize), uint32(head), uint32(len(p)))
						if got != want {
							t.Fatalf("%s: %d, classic %d, %d of packet %x", name, got, want, head, p)
						}
						runs++
						matches += int(got & 1)
						shorts += int(got >> 1)
					}
				}
				prog.Close()
			}
		}
	}
	qt.Check(t, qt.IsTrue(matches > 0 && shorts > 0))
	t.Logf("%d programs, %d verdicts, %d matches, %d short", programs, runs, matches, shorts)
}

// verdict is what runner.load's program returns.
func (m *machine) verdict(p []byte) (v uint32) {
	if m.head >= len(p) {
		m.head = 0
	}
	if m.run(p) != 0 {
		v = 1
	}
	if m.short {
		v |= 2
	}
	return v
}

// TestRunningKernelUnreadable is about memory that cannot be read, and filters
// that are long.
func TestRunningKernelUnreadable(t *testing.T) {
	r := newRunner(t, [][]byte{make([]byte, 100)})
	prog := r.load(t, "ip", mustCompile(t, "ip"))
	defer prog.Close()
	qt.Check(t, qt.Equals(r.run(t, prog, 8, 100, 100), 2))
	qt.Check(t, qt.Equals(r.run(t, prog, r.base, 0, 100), 2))
	qt.Check(t, qt.Equals(r.run(t, prog, r.base, 0, 0), 0))
	qt.Check(t, qt.Equals(r.run(t, prog, r.base, 200, 10), 0)) // a head longer than the packet

	var hosts, ports []string
	for i := range 200 {
		hosts = append(hosts, fmt.Sprintf("host 10.0.%d.%d", i/7, i))
	}
	for i := range 60 {
		ports = append(ports, fmt.Sprint(i))
	}
	for _, expr := range []string{strings.Join(hosts, " or "), "not (" + strings.Join(hosts, " or ") + ")", "port " + strings.Join(ports, " or "),
		"tcp portrange 1-100 and not (port " + strings.Join(ports, " or ") + ")"} {
		classic := mustCompile(t, expr)
		prog := r.load(t, expr, classic)
		if info, err := prog.Info(); err == nil {
			n, _ := info.VerifiedInstructions() // told since Linux 5.16
			t.Logf("%.40s...: %d classic instructions, the verifier looked at %d", expr, len(classic), n)
		}
		prog.Close()
	}
}

func mustCompile(t *testing.T, expr string) []bpf.Instruction {
	t.Helper()
	p, err := pcapfilter.Compile(expr, pcapfilter.Ethernet)
	qt.Assert(t, qt.IsNil(err))
	return p
}

// TestRunningKernelClassic is about classic programs that Compile does not make:
// loads by one X on paths that meet, a large X, long shifts, division by 0.
func TestRunningKernelClassic(t *testing.T) {
	pkt := make([]byte, 64)
	for i := range pkt {
		pkt[i] = byte(i)
	}
	other := append([]byte{1}, pkt[1:]...)
	packets := [][]byte{pkt, other}
	r := newRunner(t, packets)
	for name, c := range map[string][]bpf.Instruction{
		"paths meet": {
			bpf.LoadConstant{Dst: bpf.RegX, Val: 10},
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 1, SkipTrue: 2},
			bpf.LoadIndirect{Off: 4, Size: 1},
			bpf.Jump{Skip: 1},
			bpf.LoadIndirect{Off: 2, Size: 4},
			bpf.LoadIndirect{Off: 4, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 14, SkipFalse: 1},
			bpf.RetConstant{Val: 1},
			bpf.RetConstant{Val: 0},
		},
		"large X": {
			bpf.LoadConstant{Dst: bpf.RegX, Val: 0xfffffffc},
			bpf.LoadIndirect{Off: 20, Size: 1},
			bpf.RetConstant{Val: 1},
		},
		"long shift": {
			bpf.LoadConstant{Dst: bpf.RegX, Val: 33},
			bpf.LoadConstant{Dst: bpf.RegA, Val: 1},
			bpf.ALUOpX{Op: bpf.ALUOpShiftLeft},
			bpf.RetA{},
		},
		"division": {
			bpf.LoadAbsolute{Off: 0, Size: 1},
			bpf.TAX{},
			bpf.LoadConstant{Dst: bpf.RegA, Val: 5},
			bpf.ALUOpX{Op: bpf.ALUOpDiv},
			bpf.RetConstant{Val: 1},
		},
		"length":  {bpf.LoadExtension{Num: bpf.ExtLen}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 64, SkipFalse: 1}, bpf.RetConstant{Val: 1}, bpf.RetConstant{Val: 0}},
		"nothing": {bpf.RetConstant{Val: 0}},
	} {
		prog := r.load(t, name, c)
		defer prog.Close()
		judge := machine{program: c}
		for i, p := range packets {
			judge.head = len(p)
			got := r.run(t, prog, r.base+uint64(i*slotSize), uint32(len(p)), uint32(len(p)))
			qt.Check(t, qt.Equals(got, judge.verdict(p)), qt.Commentf("%s, packet %d", name, i))
		}
	}
}

// TestNotTranslated is about classic programs that ToEBPF refuses.
func TestNotTranslated(t *testing.T) {
	ret := bpf.RetConstant{Val: 1}
	for _, c := range []struct {
		prog []bpf.Instruction
		want string
	}{
		{nil, "packet filter: no instructions"},
		{[]bpf.Instruction{bpf.TAX{}}, "packet filter: the last instruction does not return"},
		{[]bpf.Instruction{bpf.Jump{Skip: 3}, ret}, "packet filter: a jump leads behind the program"},
		{[]bpf.Instruction{bpf.LoadAbsolute{Off: 70000, Size: 1}, ret}, "packet filter: instruction 0: no packet has a byte 70000"},
		{[]bpf.Instruction{bpf.LoadIndirect{Off: 0xfffffff0, Size: 1}, ret}, "packet filter: instruction 0: no packet has a byte 4294967280"},
		{[]bpf.Instruction{bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 32}, ret}, "packet filter: instruction 0: a shift .*"},
		{[]bpf.Instruction{bpf.ALUOpConstant{Op: bpf.ALUOpDiv}, ret}, "packet filter: .*divides by 0"},
		{[]bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtRand}, ret}, "packet filter: .*unsupported BPF extension.*"},
	} {
		_, err := pcapfilter.ToEBPF(c.prog, pcapfilter.Options{ABI: packetABI, Prefix: "f"})
		qt.Check(t, qt.ErrorMatches(err, c.want))
	}
	_, err := pcapfilter.ToEBPF([]bpf.Instruction{ret}, pcapfilter.Options{ABI: packetABI})
	qt.Check(t, qt.ErrorMatches(err, "packet filter: no prefix for the labels"))
}
