package emulate

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

const slotAt = 0x20000 // memory of the target, so to speak

// sliced runs code, given in hexadecimal, whose steps are then looked into. The
// data are nothing that the run writes.
func sliced(t testing.TB, code string, args ...uint64) *Machine {
	t.Helper()
	b, err := hex.DecodeString(code)
	qt.Assert(t, qt.IsNil(err))
	m := machine(b, Options{History: 1000})
	m.Mem.Map(slotAt, 0x1000)
	for i := range 8 {
		qt.Assert(t, qt.IsNil(m.Mem.WriteMem([]byte{5}, slotAt+8*uint64(i))))
	}
	s := m.Call(context.Background(), codeAt, args...)
	qt.Assert(t, qt.IsNil(s.Err))
	return m
}

// show writes a slice: the steps with what they are and use, and what is left.
func show(s *Slice) string {
	var b strings.Builder
	for i, st := range s.Steps {
		fmt.Fprintf(&b, "%d: %s", i, st.Role)
		if st.Stub != nil {
			fmt.Fprintf(&b, " %s", st.Stub.Name)
		} else {
			fmt.Fprintf(&b, " %s", st.Inst)
		}
		if len(st.From) > 0 {
			fmt.Fprintf(&b, " of %v", st.From)
		}
		if st.Instances > 0 {
			fmt.Fprintf(&b, " x%d", st.Instances)
		}
		b.WriteString("\n")
	}
	for _, l := range s.Loads {
		fmt.Fprintf(&b, "load by %d: %x+%d\n", l.Index, l.Addr, l.N)
	}
	if !s.Initial.Empty() {
		fmt.Fprintf(&b, "initial %s\n", s.Initial)
	}
	if !s.Complete {
		b.WriteString("incomplete\n")
	}
	return b.String()
}

// branches is a Control: which branches an instruction depends on.
type branches map[uint64][]uint64

func (b branches) Controls(entry, addr uint64) []uint64 {
	var out []uint64
	for _, off := range b[addr-codeAt] {
		out = append(out, codeAt+off)
	}
	return out
}

func TestSlice(t *testing.T) {
	for _, c := range []struct {
		name, code string
		args       []uint64
		o          SliceOptions
		want       string
	}{
		{name: "middle", code: middleCode, args: []uint64{0x1111111111111111, 0x22222222}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: copy push %rdi
1: copy mov %esi,0x3(%rsp)
2: copy pop %rax of [1 0]
initial rsi:0-3 rdi:0-2 rdi:7
`},
		{name: "middle bytes", code: middleCode, args: []uint64{0x1111111111111111, 0x22222222}, o: SliceOptions{Want: Locs{GP: [16]uint8{RAX: 0x87}}}, want: `
0: copy push %rdi
1: copy pop %rax of [0]
initial rdi:0-2 rdi:7
`},
		{name: "partial", code: partialCode, args: []uint64{1, 2, 3}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: copy mov %rdi,%rax
1: copy mov %bl,%ah
2: copy movzwl %dx,%ecx
3: copy mov %cl,%al of [2]
4: copy bswap %rax of [3 1 0]
initial rdx:0 rbx:0 rdi:2-7
`},
		{name: "partial high", code: partialCode, args: []uint64{1, 2, 3}, o: SliceOptions{Want: Locs{GP: [16]uint8{RAX: 0x40}}}, want: `
0: copy mov %bl,%ah
1: copy bswap %rax of [0]
initial rbx:0
`},
		{name: "spill", code: spillCode, args: []uint64{1, 2}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: copy mov %rdi,-0x8(%rsp)
1: copy mov %rsi,-0x10(%rsp)
2: copy mov -0x10(%rsp),%rcx of [1]
3: copy mov -0x8(%rsp),%rax of [0]
4: compute add %rcx,%rax of [3 2]
initial rsi rdi
`},
		{name: "rep movs", code: repmovsCode, args: []uint64{slotAt + 8, slotAt}, o: SliceOptions{Want: LocsReg(RAX, 2)}, want: `
0: copy rep movsb %ds:(%rsi),%es:(%rdi)
1: copy mov -0x3(%rdi),%ax of [0]
load by 0: 20001+2
`},
		{name: "rep movs with addresses", code: repmovsCode, args: []uint64{slotAt + 8, slotAt}, o: SliceOptions{Want: LocsReg(RAX, 2), Address: true}, want: `
0: const mov $0x4,%ecx
1: compute rep movsb %ds:(%rsi),%es:(%rdi) of [0]
2: copy mov -0x3(%rdi),%ax of [1]
load by 1: 20001+2
initial rsi rdi DF
`},
		{name: "xchg", code: xchgCode, args: []uint64{slotAt}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: copy xchg %rax,(%rdi)
load by 0: 20000+8
`},
		{name: "xchg memory", code: xchgCode, args: []uint64{slotAt}, o: SliceOptions{Want: LocsMem(slotAt, 8)}, want: `
0: const mov $0x2,%ecx
1: copy xchg %rax,%rcx of [0]
2: copy xchg %rax,(%rdi) of [1]
`},
		{name: "xchg other", code: xchgCode, args: []uint64{slotAt}, o: SliceOptions{Want: LocsReg(RCX, 8)}, want: `
0: const mov $0x1,%eax
1: copy xchg %rax,%rcx of [0]
`},
		{name: "branch", code: branchCode, args: []uint64{slotAt, 0, 9}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: const mov $0x7,%eax
`},
		{name: "branch with control", code: branchCode, args: []uint64{slotAt + 8, 1, 9}, o: SliceOptions{Want: LocsReg(RAX, 4), Control: branches{0xe: {0xc}, 0x19: {0x17}}}, want: `
0: copy mov (%rdi),%rcx
1: compute cmp $0x5,%rcx of [0]
2: branch jne 0xffffffff81000013 of [1] x1
3: call call 0xffffffff81000014 of [2]
4: compute test %rsi,%rsi of [3]
5: branch je 0xffffffff8100001b of [4] x1
6: copy mov %edx,%eax of [5]
load by 0: 20008+8
initial rdx:0-3 rsi
`},
		{name: "loop", code: loopCode, args: []uint64{slotAt, 0, 0, 2}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: const xor %eax,%eax
1: compute add (%rdi,%rcx,8),%rax of [0]
2: compute add (%rdi,%rcx,8),%rax of [1]
load by 1: 20010+8
load by 2: 20008+8
`},
		{name: "loop with control", code: loopCode, args: []uint64{slotAt, 0, 0, 3}, o: SliceOptions{Want: LocsReg(RAX, 8), Control: branches{0x2: {0x9}, 0x6: {0x9}, 0x9: {0x9}}}, want: `
0: const xor %eax,%eax
1: compute add (%rdi,%rcx,8),%rax of [0]
2: compute dec %rcx
3: compute add (%rdi,%rcx,8),%rax of [1]
4: compute dec %rcx of [2]
5: branch jne 0xffffffff81000002 of [4] x2
6: compute add (%rdi,%rcx,8),%rax of [5 3]
load by 1: 20018+8
load by 3: 20010+8
load by 6: 20008+8
initial rcx
`},
		{name: "loop, all branches", code: loopCode, args: []uint64{slotAt, 0, 0, 3}, o: SliceOptions{Want: LocsReg(RAX, 8), Control: branches{0x2: {0x9}, 0x6: {0x9}, 0x9: {0x9}}, AllBranches: true}, want: `
0: const xor %eax,%eax
1: compute add (%rdi,%rcx,8),%rax of [0]
2: compute dec %rcx
3: branch jne 0xffffffff81000002 of [2]
4: compute add (%rdi,%rcx,8),%rax of [3 1]
5: compute dec %rcx of [3 2]
6: branch jne 0xffffffff81000002 of [5 3]
7: compute add (%rdi,%rcx,8),%rax of [6 4]
load by 1: 20018+8
load by 4: 20010+8
load by 7: 20008+8
initial rcx
`},
		{name: "shift", code: shiftCode, args: []uint64{slotAt}, o: SliceOptions{Want: LocsReg(RAX, 8)}, want: `
0: copy mov (%rdi),%rax
1: copy shr $0x10,%rax of [0]
2: copy and $0xff00,%eax of [1]
3: compute or $0x1,%eax of [2]
load by 0: 20003+1
`},
		{name: "shift flags", code: shiftCode, args: []uint64{slotAt}, o: SliceOptions{Want: Locs{Flags: ZF}}, want: `
0: copy mov (%rdi),%rax
1: copy shr $0x10,%rax of [0]
2: copy and $0xff00,%eax of [1]
3: compute or $0x1,%eax of [2]
load by 0: 20003+1
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := sliced(t, c.code, c.args...)
			c.o.Before = m.Step
			qt.Check(t, qt.Equals(show(m.History().Slice(c.o)), strings.TrimPrefix(c.want, "\n")))
		})
	}
}

// The code that is sliced.
const (
	// push %rdi; movl %esi,3(%rsp); pop %rax; ret
	middleCode = "578974240358c3"
	// mov %rdi,%rax; mov %bl,%ah; movzwl %dx,%ecx; mov %cl,%al; bswap %rax; ret
	partialCode = "4889f888dc0fb7ca88c8480fc8c3"
	// mov %rdi,-8(%rsp); mov %rsi,-16(%rsp); xor %edi,%edi; mov -16(%rsp),%rcx; mov -8(%rsp),%rax; add %rcx,%rax; ret
	spillCode = "48897c24f848897424f031ff488b4c24f0488b4424f84801c8c3"
	// mov $4,%ecx; rep movsb; mov -3(%rdi),%ax; ret
	repmovsCode = "b904000000f3a4668b47fdc3"
	// mov $1,%eax; mov $2,%ecx; xchg %rax,%rcx; xchg %rax,(%rdi); ret
	xchgCode = "b801000000b9020000004891488707c3"
	// mov (%rdi),%rcx; mov $7,%eax; cmp $5,%rcx; jne 1f; call 2f; 1: ret; 2: test %rsi,%rsi; je 3f; mov %edx,%eax; 3: ret
	branchCode = "488b0fb8070000004883f9057505e801000000c34885f6740289d0c3"
	// xor %eax,%eax; 1: add (%rdi,%rcx,8),%rax; dec %rcx; jne 1b; ret
	loopCode = "31c0480304cf48ffc975f7c3"
	// mov (%rdi),%rax; shr $16,%rax; and $0xff00,%eax; or $1,%eax; ret
	shiftCode = "488b0748c1e8102500ff000083c801c3"
)

// TestStub: a stub makes what it returns of its arguments and of what it read.
func TestStub(t *testing.T) {
	// mov (%rdi),%rdi; mov %rsi,%rdx; call 0xffffffff81000100; add $1,%rax; ret
	b, err := hex.DecodeString("488b3f4889f2e8f50000004883c001c3")
	qt.Assert(t, qt.IsNil(err))
	m := machine(b, Options{History: 1000})
	m.Mem.Map(slotAt, 0x1000)
	m.SetStub(codeAt+0x100, &Stub{Name: "stub", Args: 1, Run: func(m *Machine) error {
		v, err := m.Load(slotAt+0x10, 4)
		if err != nil {
			return err
		}
		m.GP[RAX] = m.GP[RDI] + v
		return m.Store(slotAt+0x20, v, 2)
	}})
	s := m.Call(context.Background(), codeAt, slotAt, 1)
	qt.Assert(t, qt.IsNil(s.Err))
	h := m.History()
	qt.Check(t, qt.Equals(show(h.Slice(SliceOptions{Before: m.Step, Want: LocsReg(RAX, 8)})), `0: copy mov (%rdi),%rdi
1: stub stub of [0]
2: compute add $0x1,%rax of [1]
load by 0: 20000+8
load by 1: 20010+4
`))
	ev, ok := h.Writer(m.Step, &Locs{Mem: Bytes{slotAt + 0x20: 2}})
	qt.Assert(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(ev.Stub.Name, "stub"))
	qt.Check(t, qt.DeepEquals(ev.Writes, []Access{{slotAt + 0x20, 2}}))
	var steps []uint64
	for ev := range h.Backward(m.Step) {
		steps = append(steps, ev.Step)
	}
	qt.Check(t, qt.DeepEquals(steps, []uint64{5, 4, 3, 2, 1, 0}))
	qt.Check(t, qt.Equals(show(h.Slice(SliceOptions{Before: 2, Want: LocsReg(RDX, 8)})), "0: copy mov %rsi,%rdx\ninitial rsi\n"))
}

// TestCmov: a conditional move gives one of its two values; the other one is not asked for.
func TestCmov(t *testing.T) {
	// cmp %rdx,%rdi; mov %rsi,%rax; cmovb (%rcx),%rax; ret
	const code = "4839d74889f0480f4201c3"
	for _, c := range []struct {
		arg           uint64
		want, origins string
	}{
		{1, `0: compute cmp %rdx,%rdi
1: copy cmovb (%rcx),%rax of [0]
load by 1: 20000+8
initial rdx rdi
`, "rax:; load at 2: 20000+8; by cmovb (%rcx),%rax\n"},
		{9, `0: compute cmp %rdx,%rdi
1: copy mov %rsi,%rax
2: copy cmovb (%rcx),%rax of [1 0]
initial rdx rsi rdi
`, "rax:; initial rsi; by cmovb (%rcx),%rax; by mov %rsi,%rax\n"},
	} {
		m := sliced(t, code, c.arg, 7, 5, slotAt)
		qt.Check(t, qt.Equals(show(m.History().Slice(SliceOptions{Before: m.Step, Want: LocsReg(RAX, 8)})), c.want))
		qt.Check(t, qt.Equals(showOrigins(m.History().Origins(m.Step, LocsReg(RAX, 8))), c.origins))
	}
}

// TestThunk: an indirect call by way of a retpoline is one of the function that
// the register names, and where the register came from is part of why.
func TestThunk(t *testing.T) {
	// mov (%rdi),%rax; call 1f; ret; 1: call 2f; int3; 2: mov %rax,(%rsp); ret; 3: mov $1,%eax; ret
	m := machine(mustHex(t, "488b07e801000000c3e801000000cc48890424c3b801000000c3"), Options{History: 1000})
	m.Mem.Map(slotAt, 0x1000)
	qt.Assert(t, qt.IsNil(m.Store(slotAt, codeAt+0x14, 8)))
	s := m.Call(context.Background(), codeAt, slotAt)
	qt.Assert(t, qt.IsNil(s.Err))
	got := m.History().Slice(SliceOptions{Before: m.Step, Want: LocsReg(RAX, 8), Control: branches{}})
	qt.Check(t, qt.Equals(show(got), `0: copy mov (%rdi),%rax
1: call call 0xffffffff81000009
2: call call 0xffffffff8100000f of [1]
3: copy mov %rax,(%rsp) of [2 0]
4: branch ret of [3]
5: const mov $0x1,%eax of [4]
load by 0: 20000+8
`))
	qt.Check(t, qt.Equals(got.Steps[5].Entry, uint64(codeAt+0x14)))
}

func mustHex(t testing.TB, code string) []byte {
	b, err := hex.DecodeString(code)
	qt.Assert(t, qt.IsNil(err))
	return b
}

// TestOutside: what the caller of a second function sets is not what the first one left.
func TestOutside(t *testing.T) {
	m := sliced(t, spillCode, 1, 2)
	s := m.Call(context.Background(), codeAt, 3, 2)
	qt.Assert(t, qt.IsNil(s.Err))
	got := m.History().Slice(SliceOptions{Before: m.Step, Want: LocsReg(RAX, 8)})
	qt.Check(t, qt.Equals(len(got.Steps), 5))
	qt.Check(t, qt.Equals(got.Steps[0].Step, uint64(7)))
	qt.Check(t, qt.IsTrue(got.Complete))
}

// TestForgotten: beyond what is remembered nothing is claimed.
func TestForgotten(t *testing.T) {
	m := machine(sum, Options{History: 1})
	s := m.Call(context.Background(), codeAt, 30000)
	qt.Assert(t, qt.IsNil(s.Err))
	h := m.History()
	first, end := h.Span()
	qt.Check(t, qt.Equals(end, uint64(90002)))
	qt.Check(t, qt.IsTrue(h.Forgot()))
	n := 0
	for ev := range h.Forward(first) {
		qt.Assert(t, qt.Equals(ev.Step, first+uint64(n)))
		n++
	}
	qt.Check(t, qt.Equals(uint64(n), end-first))
	got := h.Slice(SliceOptions{Before: end, Want: LocsReg(RAX, 8)})
	qt.Check(t, qt.IsFalse(got.Complete))
	qt.Check(t, qt.Equals(got.Initial.String(), "rax rdi"))
	got = h.Slice(SliceOptions{Before: end, Want: LocsReg(RDI, 8), Limit: 10})
	qt.Check(t, qt.IsFalse(got.Complete))
	qt.Check(t, qt.Equals(len(got.Steps), 10))
	got = h.Slice(SliceOptions{Before: end, Want: Locs{Flags: ZF}, Limit: 10})
	qt.Check(t, qt.Equals(got.Steps[9].Inst.String(), "sub $0x1,%rdi"))
}

func showOrigins(list []Origin) string {
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s:", o.Of)
		if o.Made != nil {
			fmt.Fprintf(&b, " %s %s", o.Role, o.Made.Inst)
		}
		for _, l := range o.Loads {
			fmt.Fprintf(&b, "; load at %d: %x+%d", l.Step, l.Addr, l.N)
		}
		if !o.Initial.Empty() {
			fmt.Fprintf(&b, "; initial %s", o.Initial)
		}
		for _, c := range o.Copies {
			fmt.Fprintf(&b, "; by %s", c.Inst)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		name, code string
		want       Locs
		text       string
	}{
		{"middle", middleCode, LocsReg(RAX, 8), `
rax:0-2 rax:7:; initial rdi:0-2 rdi:7; by pop %rax; by push %rdi
rax:3-6:; initial rsi:0-3; by pop %rax; by mov %esi,0x3(%rsp)
`},
		{"partial", partialCode, LocsReg(RAX, 8), `
rax:0-5:; initial rdi:2-7; by bswap %rax; by mov %rdi,%rax
rax:6:; initial rbx:0; by bswap %rax; by mov %bl,%ah
rax:7:; initial rdx:0; by bswap %rax; by mov %cl,%al; by movzwl %dx,%ecx
`},
		{"spill", spillCode, LocsReg(RAX, 8), `
rax: compute add %rcx,%rax; initial rsi rdi
`},
		{"shift", shiftCode, LocsReg(RAX, 8), `
rax:0: compute or $0x1,%eax
rax:1:; load at 0: 20003+1; by or $0x1,%eax; by and $0xff00,%eax; by shr $0x10,%rax; by mov (%rdi),%rax
rax:2-3: const and $0xff00,%eax; by or $0x1,%eax
rax:4-7: const or $0x1,%eax
`},
		{"repmovs", repmovsCode, LocsReg(RAX, 2), `
rax:0-1:; load at 1: 20011+2; by mov -0x3(%rdi),%ax; by rep movsb %ds:(%rsi),%es:(%rdi)
`},
		{"xchg", xchgCode, LocsMem(slotAt, 8), `
[20000+8]: const mov $0x2,%ecx; by xchg %rax,(%rdi); by xchg %rax,%rcx
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := sliced(t, c.code, slotAt, slotAt+0x10, 3)
			qt.Check(t, qt.Equals(showOrigins(m.History().Origins(m.Step, c.want)), strings.TrimPrefix(c.text, "\n")))
		})
	}
}
