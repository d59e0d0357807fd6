package probe

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"
)

// TestLayouts holds what Go knows of structs against the object's types.
func TestLayouts(t *testing.T) {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(object))
	qt.Assert(t, qt.IsNil(err))
	type members map[string]int
	for name, want := range map[string]struct {
		size int
		members
	}{
		"call": {CallSize, members{
			"args": CallArgs, "ret": CallRet, "start": CallStart, "now": CallNow, "pid_tgid": CallPidTgid, "uid_gid": CallUidGid,
			"cgroup": CallCgroup, "cpu": CallCPU, "faults": CallFaults, "comm": CallComm,
		}},
		"packet": {PacketSize, members{"start": PacketStart, "head": PacketHead, "len": PacketLen, "undecided": PacketShort, "pad": 20}},
		"seen":   {seenSize, members{"id": 0, "len": 8, "kept": 12, "ifindex": 16, "netns": 20, "raw": 24, "pad": 28}},
		"open":   {openHead, members{"call": 0, "parent": CallSize, "point": CallSize + 16, "has_packet": CallSize + 20, "packet": CallSize + 24}},
		"record": {recordHead, members{
			"point": 0, "kind": 4, "flags": 5, "pad": 6, "frame": 8, "start": 16, "end": 24, "parent": 32,
			"ret": 48, "pid_tgid": 56, "comm": 64, "cpu": 80, "faults": 84, "args": recordHead,
		}},
		"lost":  {lostSize, members{"buffer": 0, "open": 8, "undecided": 16, "counts": 24}},
		"count": {countKey, members{"point": 0, "bucket": 4, "ret": 8}},
	} {
		var s *btf.Struct
		qt.Assert(t, qt.IsNil(spec.TypeByName(name, &s)), qt.Commentf("%s", name))
		qt.Check(t, qt.Equals(int(s.Size), want.size), qt.Commentf("%s", name))
		got := members{}
		for _, m := range s.Members {
			got[m.Name] = int(m.Offset.Bytes())
		}
		qt.Check(t, qt.DeepEquals(got, want.members), qt.Commentf("%s", name))
	}
	var e *btf.Enum
	qt.Assert(t, qt.IsNil(spec.TypeByName("constant", &e)))
	qt.Check(t, qt.Equals(e.Values[constants].Name, "K_N"))
	qt.Check(t, qt.Equals(e.Values[kSPExit].Name, "K_SPEXIT"))
	qt.Check(t, qt.Equals(e.Values[kSnap].Name, "K_SNAP"))
	qt.Check(t, qt.Equals(e.Values[kRecord].Name, "K_RECORD"))
	qt.Check(t, qt.Equals(e.Values[kAtTrace].Name, "K_ATTRACE"))
}

// TestStack: no program with generated code takes more of the stack than there
// is: 512 bytes for a chain of calls.
func TestStack(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	qt.Assert(t, qt.IsNil(err))
	for name, p := range spec.Programs {
		depth := make(map[string]int)
		fn := ""
		for _, ins := range p.Instructions {
			if s := ins.Symbol(); s != "" {
				fn = s
			}
			off := 0
			switch {
			case ins.Dst == asm.RFP && ins.OpCode.Class().IsStore():
				off = int(ins.Offset)
			case ins.Src == asm.RFP && ins.OpCode.Class().IsLoad():
				off = int(ins.Offset)
			case ins.OpCode == asm.Add.Op(asm.ImmSource) && ins.Constant < 0 && ins.Constant > -512:
				off = int(ins.Constant)
			}
			depth[fn] = max(depth[fn], -off)
		}
		round := func(n int) int { return (n + 31) &^ 31 }
		sum := round(depth[name]) + round(GeneratedMax)
		qt.Check(t, qt.IsTrue(sum <= 512), qt.Commentf("%s: %d", name, depth[name]))
		packet := 512 - round(depth[name]) - round(depth["see_packet"])
		qt.Check(t, qt.IsTrue(packet >= 96), qt.Commentf("%s leaves %d bytes for a packet filter", name, packet))
	}
}

// TestPrune: what is not reached is not there, and what is does the same.
func TestPrune(t *testing.T) {
	assemble := func(insns asm.Instructions) []byte {
		var b bytes.Buffer
		qt.Assert(t, qt.IsNil(insns.Marshal(&b, binary.LittleEndian)))
		return b.Bytes()
	}
	full := asm.Instructions{
		asm.LoadImm(asm.R1, 0, asm.DWord).WithSymbol("main"),
		asm.LoadImm(asm.R6, 3, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "skip"),
		asm.FnGetCurrentPidTgid.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Call.Label("unused"),
		asm.Mov.Reg(asm.R0, asm.R6).WithSymbol("skip"),
		asm.JGT.Imm(asm.R6, 7, "out"),
		asm.Mov.Imm(asm.R2, 9),
		asm.FnKtimeGetNs.Call(),
		asm.JGT.Imm(asm.R0, 5, "out"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Call.Label("used"),
		asm.Return().WithSymbol("out"),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("unused"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 4).WithSymbol("used"),
		asm.Return(),
	}
	want := asm.Instructions{ // calls read R1 to R5, so these stay
		asm.LoadImm(asm.R1, 0, asm.DWord).WithSymbol("main"),
		asm.LoadImm(asm.R6, 3, asm.DWord),
		asm.Mov.Reg(asm.R0, asm.R6),
		asm.Mov.Imm(asm.R2, 9),
		asm.FnKtimeGetNs.Call(),
		asm.JGT.Imm(asm.R0, 5, "out"),
		asm.Call.Label("used"),
		asm.Return().WithSymbol("out"),
		asm.Mov.Imm(asm.R0, 4).WithSymbol("used"),
		asm.Return(),
	}
	got, err := prune(assemble(full))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(got, assemble(want)))
}

// TestUnderWay: calls whose return was missed are left out.
func TestUnderWay(t *testing.T) {
	call := func(start, frame uint64, parent CallID) Event {
		return Event{Start: start, Call: CallID{0xffff000000000000 + frame, start}, Parent: parent, PID: 1, TID: 2}
	}
	outer := call(10, 0x3f00, CallID{})
	inner := call(11, 0x3e00, outer.Call)
	for _, tt := range []struct {
		name  string
		calls []Event
		want  []uint64
	}{
		{"nested", []Event{outer, inner}, []uint64{10, 11}},
		{"its place is another's", []Event{inner, call(12, 0x3e80, CallID{})}, []uint64{12}},
		{"its caller is over", []Event{inner}, nil},
		{"other stacks", []Event{outer, call(12, 0x7f00, CallID{})}, []uint64{10, 12}},
	} {
		var got []uint64
		for _, e := range underWay(tt.calls, func(int, int) bool { return true }) {
			got = append(got, e.Start)
		}
		qt.Check(t, qt.DeepEquals(got, tt.want), qt.Commentf("%s", tt.name))
	}
	qt.Check(t, qt.HasLen(underWay([]Event{outer}, func(int, int) bool { return false }), 0))
}

var fuzzLayouts = []layout{
	{bytes: recordHead},
	{args: 3, slots: 16, snap: 64, stack: 4, packet: true, atSlots: recordHead + 24, atPacket: recordHead + 40, atStack: recordHead + 136, bytes: recordHead + 176},
}

// TestDecode reads a record of all parts.
func TestDecode(t *testing.T) {
	le := binary.LittleEndian
	l := fuzzLayouts[1]
	b := make([]byte, l.bytes)
	le.PutUint32(b, 1)
	b[4] = byte(Returned)
	for i, v := range []uint64{0x100, 5, 9, 0x200, 4, 0xffffffffffffffff, 7<<32 | 8} {
		le.PutUint64(b[8+8*i:], v)
	}
	copy(b[64:], "worker")
	le.PutUint32(b[80:], 3)
	le.PutUint32(b[84:], 2)
	for i := range 3 {
		le.PutUint64(b[recordHead+8*i:], uint64(i+1))
	}
	b[l.atSlots] = 42
	p := b[l.atPacket:]
	le.PutUint64(p, 77)
	le.PutUint32(p[8:], 1500)
	le.PutUint32(p[12:], 3)
	le.PutUint32(p[16:], 2)
	le.PutUint32(p[20:], 99)
	copy(p[32:], "abcdef")
	le.PutUint64(b[l.atStack:], 16)
	le.PutUint64(b[l.atStack+8:], 11)
	le.PutUint64(b[l.atStack+16:], 12)
	e, err := newDecoder(fuzzLayouts).decode(b)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(e, Event{
		Kind: Returned, Point: 1, Call: CallID{0x100, 5}, Parent: CallID{0x200, 4}, Start: 5, End: 9, CPU: 3, PID: 7, TID: 8, Comm: "worker",
		Args: []uint64{1, 2, 3}, Ret: 0xffffffffffffffff, Slots: append([]byte{42}, make([]byte, 15)...),
		Packet: &Packet{Len: 1500, Data: []byte("abc"), Ifindex: 2, Netns: 99, ID: 77}, Stack: []uint64{11, 12}, Faults: 2,
	}))
}

// FuzzDecode: no record makes the decoder fail otherwise than by an error.
func FuzzDecode(f *testing.F) {
	for _, l := range fuzzLayouts {
		f.Add(make([]byte, l.bytes))
		f.Add(bytes.Repeat([]byte{0xff}, l.bytes))
	}
	one := make([]byte, fuzzLayouts[1].bytes)
	one[0] = 1
	f.Add(one)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDecoder(fuzzLayouts)
		if e, err := d.decode(b); err == nil {
			qt.Assert(t, qt.IsTrue(e.Point < len(fuzzLayouts)))
		}
		d.unfinished(1, b)
	})
}

// FuzzPrune: no program makes it fail otherwise than by an error, and it never
// makes one longer.
func FuzzPrune(f *testing.F) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range spec.Programs {
		var b bytes.Buffer
		if err := p.Instructions.Marshal(&b, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := prune(b)
		qt.Assert(t, qt.IsTrue(err != nil || len(out) <= len(b)))
	})
}
