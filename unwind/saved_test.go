package unwind

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/x86"
)

// atCalls returns what is known before each call of a function, by address.
func atCalls(t *testing.T, code []byte, entry uint64) map[uint64]*state {
	t.Helper()
	g, err := cfg.Build(code, entry, cfg.Options{})
	qt.Assert(t, qt.IsNil(err))
	at := flow(g)
	out := make(map[uint64]*state)
	for i, b := range g.Blocks {
		for pc := b.Start; pc < b.End; {
			in, err := x86.Decode(code[pc-entry:], pc)
			qt.Assert(t, qt.IsNil(err))
			if f := in.Flow(); f == x86.FlowCall || f == x86.FlowIndirectCall {
				st, ok := before(g, at[i], i, pc)
				qt.Assert(t, qt.IsTrue(ok))
				out[pc] = st
			}
			pc += uint64(in.Len)
		}
	}
	return out
}

// places says where a register's value at the entry is.
func places(st *state, reg x86.Reg) string {
	var out []string
	mine := value{entryOf, int64(reg)}
	for _, r := range calleeSaved {
		if st.get(r) == mine {
			out = append(out, strings.ToLower(r.String()))
		}
	}
	for _, c := range st.cells {
		base := "base"
		if c.base == fromCFA {
			base = "cfa"
		}
		if c.v == mine {
			out = append(out, fmt.Sprintf("%s%+d", base, c.off))
		}
	}
	if out == nil {
		return "?"
	}
	return strings.Join(out, " ")
}

// TestPlaces: where the caller's rbx is before the last call of code that does
// one thing with it.
func TestPlaces(t *testing.T) {
	for _, test := range []struct{ name, code, text, want string }{
		{"push", "53e8002000005bc3", "push %rbx; call far; pop %rbx; ret", "rbx cfa-16"},
		{"popped", "534889fb5be800200000c3", "push %rbx; mov %rdi,%rbx; pop %rbx; call far; ret", "rbx"},
		{"shrink-wrapped", "4885ff740a534889fbe8002000005bc3", "test %rdi,%rdi; je 1f; push %rbx; mov %rdi,%rbx; call far; pop %rbx; 1: ret", "cfa-16"},
		{"behind it", "4885ff7406534889fb905be800200000c3", "test %rdi,%rdi; je 1f; push %rbx; mov %rdi,%rbx; nop; pop %rbx; 1: call far; ret", "rbx"},
		{"spill", "4883ec2848895c24104889fbe800200000c3", "sub $0x28,%rsp; mov %rbx,0x10(%rsp); mov %rdi,%rbx; call far; ret", "cfa-32"},
		{"reload", "4883ec2848895c24104889fb488b5c241048897c2410e800200000c3", "sub $0x28,%rsp; mov %rbx,0x10(%rsp); mov %rdi,%rbx; mov 0x10(%rsp),%rbx; mov %rdi,0x10(%rsp); call far; ret", "rbx"},
		{"overwritten", "4883ec2848895c24104889fbc744241400000000e800200000c3", "sub $0x28,%rsp; mov %rbx,0x10(%rsp); mov %rdi,%rbx; movl $0,0x14(%rsp); call far; ret", "?"},
		{"beside it", "4883ec2848895c24104889fb48c74424180000000048c744240800000000e800200000c3", "sub $0x28,%rsp; mov %rbx,0x10(%rsp); mov %rdi,%rbx; movq $0,0x18(%rsp); movq $0,0x8(%rsp); call far; ret", "cfa-32"},
		{"in one way only", "4885ff74034889fbe800200000c3", "test %rdi,%rdi; je 1f; mov %rdi,%rbx; 1: call far; ret", "?"},
		{"in two places", "4883ec284885ff740748895c2410eb0548895c24184889fbe800200000c3", "sub $0x28,%rsp; test %rdi,%rdi; je 1f; mov %rbx,0x10(%rsp); jmp 2f; 1: mov %rbx,0x18(%rsp); 2: mov %rdi,%rbx; call far; ret", "?"},
		{"loop", "534889fbe80020000048ffcb75f65bc3", "push %rbx; mov %rdi,%rbx; 1: call far; dec %rbx; jne 1b; pop %rbx; ret", "cfa-16"},
		{"changed in a loop", "e80020000048ffcb75f6c3", "1: call far; dec %rbx; jne 1b; ret", "?"},
		{"in another register", "4989dc4889fbe800200000c3", "mov %rbx,%r12; mov %rdi,%rbx; call far; ret", "r12"},
		{"in one that calls change", "4989da4889fbe800200000e800100000c3", "mov %rbx,%r10; mov %rdi,%rbx; call far; call far2; ret", "?"},
		{"half", "89fbe800200000c3", "mov %edi,%ebx; call far; ret", "?"},
		{"byte", "0f95c7e800200000c3", "setne %bh; call far; ret", "?"},
		{"cpuid", "530fa2e800200000c3", "push %rbx; cpuid; call far; ret", "cfa-16"},
		{"frame pointer", "554889e54883ec2048895df831dbe800200000c9c3", "push %rbp; mov %rsp,%rbp; sub $0x20,%rsp; mov %rbx,-8(%rbp); xor %ebx,%ebx; call far; leave; ret", "cfa-24"},
		{"aligned", "4c8d5424084883e4c041ff72f8554889e55331db4829c4e800200000c3", "lea 8(%rsp),%r10; and $-64,%rsp; push -8(%r10); push %rbp; mov %rsp,%rbp; push %rbx; xor %ebx,%ebx; sub %rax,%rsp; call far; ret", "base-24"},
		{"another stack", "534889fb4889234889dce800200000c3", "push %rbx; mov %rdi,%rbx; mov %rsp,(%rbx); mov %rbx,%rsp; call far; ret", "cfa-16"},
		{"back from it", "534889fb4889234889dc5ce800200000c3", "push %rbx; mov %rdi,%rbx; mov %rsp,(%rbx); mov %rbx,%rsp; pop %rsp; call far; ret", "cfa-16"},
		{"stack from memory", "5331db488b6708e800200000c3", "push %rbx; xor %ebx,%ebx; mov 8(%rdi),%rsp; call far; ret", "?"},
		{"below the stack", "5331db4883c408e800200000c3", "push %rbx; xor %ebx,%ebx; add $8,%rsp; call far; ret", "?"},
		{"exchanged", "415448871c24e800200000c3", "push %r12; xchg %rbx,(%rsp); call far; ret", "?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, err := hex.DecodeString(test.code)
			qt.Assert(t, qt.IsNil(err))
			calls := atCalls(t, code, 0x1000)
			last := uint64(0)
			for pc := range calls {
				last = max(last, pc)
			}
			qt.Check(t, qt.Equals(places(calls[last], x86asm.RBX), test.want), qt.Commentf("%s", test.text))
		})
	}
}

// TestPlacesInGenerated: in code that kernels generated all registers are known
// before every call, rbp where the prologue pushes it, and rbx the code's text
// and the depth of the stack there say that it is put.
func TestPlacesInGenerated(t *testing.T) {
	files, err := filepath.Glob("testdata/depth/*.txt")
	qt.Assert(t, qt.IsNil(err))
	saving, all := 0, 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		f := parseDepths(t, string(raw))
		depth := depths(f.code, f.entry)
		rbx := ""
		for _, l := range f.lines {
			n := depth[l.off].bytes
			if _, err := fmt.Sscanf(l.txt, "mov %%rbx,-0x%x(%%rbp)", &n); rbx == "" && (err == nil || l.txt == "push %rbx") {
				rbx = fmt.Sprintf("cfa-%d", 16+n)
				saving++
			}
		}
		calls := atCalls(t, f.code, f.entry)
		all += len(calls)
		for pc, st := range calls {
			for _, reg := range calleeSaved {
				got := places(st, reg)
				where := qt.Commentf("%s of %s+%#x", reg, file, pc-f.entry)
				qt.Check(t, qt.Not(qt.Equals(got, "?")), where)
				if reg == x86asm.RBP {
					qt.Check(t, qt.Equals(got, "cfa-16"), where)
				}
				if reg == x86asm.RBX && rbx != "" {
					qt.Check(t, qt.StringContains(got, rbx), where)
				}
			}
		}
	}
	qt.Check(t, qt.IsTrue(saving >= 5), qt.Commentf("%d", saving))
	qt.Check(t, qt.IsTrue(all >= 20), qt.Commentf("%d calls", all))
}

func crashedTask(t *testing.T, k *kernel.Kernel) Stack {
	t.Helper()
	cpu, ok := k.Registers(1)
	qt.Assert(t, qt.IsTrue(ok))
	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	return From(k, task, cpu.Regs)
}

// TestCallee: the registers of a crash. The BPF program that faulted is called
// by bpf_test_run with what it runs in registers: the program and its first
// instruction.
func TestCallee(t *testing.T) {
	k := example.Kernel(t)
	s := crashedTask(t, k)
	all := CalleeAll(k, s)
	qt.Assert(t, qt.HasLen(all, len(s.Frames)))
	for i, f := range s.Frames {
		qt.Check(t, qt.Equals(Callee(k, s, i), all[i]))
		qt.Check(t, qt.Equals(all[i].RSP, Saved{Value: f.SP, Known: true}))
	}
	at := slices.IndexFunc(s.Frames, func(f Frame) bool { return f.Kind == kernel.KindBPF && f.Regs != nil })
	f := s.Frames[at]
	qt.Check(t, qt.Equals(all[at].RBP, Saved{Value: f.Regs.RBP, Cell: f.RegsAddr + 4*8, Known: true})) // damaged, as it is
	qt.Check(t, qt.Equals(all[at].R15, Saved{Value: f.Regs.R15, Cell: f.RegsAddr, Known: true}))
	caller := all[at+1]
	sym, _, _ := k.Symbolize(f.PC)
	owner, ok := bpf.OwnerOf(k, sym.Addr)
	qt.Assert(t, qt.IsTrue(ok))
	insns, err := k.Offset("bpf_prog", "insnsi")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(caller.RBX.Value, uint64(owner.Prog.Addr)))
	qt.Check(t, qt.Equals(caller.R12.Value, uint64(owner.Prog.Addr)+insns))
	qt.Check(t, qt.Equals(caller.RBP.Cell, f.CFA-16)) // pushed by the program
	for _, reg := range calleeSaved {
		qt.Check(t, qt.IsTrue(caller.Reg(reg).Known))
	}
	// The code of what the exception called is not in this dump.
	qt.Check(t, qt.IsFalse(all[at-1].RBX.Known))
	qt.Check(t, qt.Equals(Callee(k, s, -1), Registers{}))
	qt.Check(t, qt.Equals(Callee(k, s, len(s.Frames)), Registers{}))
	qt.Check(t, qt.Equals(caller.Reg(x86asm.RAX), Saved{}))
}

// TestCalleeOfSleeping: the innermost frame of a task that sleeps has what the
// switch saved, and a copy that cannot be read is not known.
func TestCalleeOfSleeping(t *testing.T) {
	k := example.Kernel(t)
	task, err := kobj.FindTask(k, 1)
	qt.Assert(t, qt.IsNil(err))
	s := Task(k, uint64(task.Addr))
	qt.Assert(t, qt.IsNil(s.End))
	r := Callee(k, s, 0)
	frame := k.Object("inactive_task_frame", s.Frames[0].SP-k.Sizeof("inactive_task_frame"))
	for reg, member := range map[x86.Reg]string{x86asm.RBX: "bx", x86asm.RBP: "bp", x86asm.R12: "r12", x86asm.R15: "r15"} {
		qt.Check(t, qt.Equals(r.Reg(reg).Value, frame.Uint(member)))
		qt.Check(t, qt.IsTrue(r.Reg(reg).Known))
	}
	qt.Check(t, qt.IsNil(frame.Err()))

	k = example.Kernel(t, example.Absent(s.Frames[0].SP))
	qt.Check(t, qt.Equals(Callee(k, s, 0).RBX, Saved{}))
}

// TestCalleeAfterJump: a jump through a bad pointer changes no register.
func TestCalleeAfterJump(t *testing.T) {
	k := example.Kernel(t)
	s := crashedTask(t, k)
	at := slices.IndexFunc(s.Frames, func(f Frame) bool { return f.Kind == kernel.KindBPF && f.Regs != nil })
	regs := *s.Frames[at].Regs
	regs.RIP, regs.RSP, regs.R14 = 0, s.Frames[at].CFA-8, 0x1234
	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	got := CalleeAll(k, From(k, task, regs))
	qt.Check(t, qt.Equals(got[1].R14, Saved{Value: 0x1234, Known: true}))
	qt.Check(t, qt.Equals(got[1].RSP.Value, s.Frames[at].CFA))
}

// TestColdParts: a place in a part of a function that lies apart is found from
// the function's entry.
func TestColdParts(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "idle-6.1.elf"))
	parts, err := k.Match("*" + coldSuffix)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(parts) > 1000))
	all, found := 0, 0
	for i := 0; i < len(parts); i += len(parts) / 25 {
		all++
		c := follower{k: k}
		if st, ok := c.follow(Frame{PC: parts[i].Addr, Exact: true}); ok {
			found++
			qt.Check(t, qt.Equals(st.at, parts[i].Addr))
		} else {
			t.Logf("%s: not reached from its function", parts[i].Name)
		}
	}
	qt.Check(t, qt.IsTrue(found*10 >= all*9), qt.Commentf("%d of %d", found, all))
}

// TestManyBlocks: more code than any kernel function has.
func TestManyBlocks(t *testing.T) {
	for _, piece := range [][]byte{{0x75, 0x00}, {0x53, 0x75, 0xfb}, {0x48, 0x89, 0x5c, 0x24, 0x08, 0x75, 0x77}} {
		g, err := cfg.Build(slices.Repeat(piece, 1<<17/len(piece)), 0x1000, cfg.Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(flow(g), len(g.Blocks)))
	}
}

// FuzzSaved: code can be any bytes.
func FuzzSaved(f *testing.F) {
	f.Add([]byte{0x53, 0x48, 0x89, 0xfb, 0x48, 0x89, 0x23, 0x48, 0x89, 0xdc, 0x5c, 0xc3})
	f.Add([]byte{0x74, 0x02, 0x53, 0x50, 0x75, 0xfa, 0xc9, 0xc3})
	f.Add([]byte{0x48, 0x83, 0xe4, 0xf0, 0x53, 0xeb, 0xf9})
	f.Fuzz(func(t *testing.T, code []byte) {
		const entry = 0x1000
		g, err := cfg.Build(code, entry, cfg.Options{})
		if err != nil {
			return
		}
		at := flow(g)
		for i, b := range g.Blocks {
			qt.Assert(t, qt.IsNotNil(at[i]))
			st, ok := before(g, at[i], i, b.End)
			qt.Assert(t, qt.IsTrue(ok))
			qt.Assert(t, qt.IsTrue(len(st.cells) <= maxCells))
		}
	})
}
