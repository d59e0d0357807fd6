package emulate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// graphs is a Control made of the functions' control flow graphs.
type graphs struct {
	t testing.TB
	k *kernel.Kernel
}

func (g graphs) Controls(entry, addr uint64) []uint64 {
	sym, off, ok := g.k.Symbolize(addr)
	qt.Assert(g.t, qt.IsTrue(ok))
	code, err := mem.Bytes(g.k.Mem(), addr-off, int(sym.Size))
	qt.Assert(g.t, qt.IsNil(err))
	graph, err := cfg.Build(code, addr-off, cfg.Options{})
	qt.Assert(g.t, qt.IsNil(err))
	return graph.Controls(addr)
}

// named is show with names for addresses of the kernel and of the buffers.
func named(k *kernel.Kernel, s *Slice) string {
	text := show(s)
	for _, st := range s.Steps {
		for _, a := range st.Inst.Args[:st.Inst.NArgs] {
			if to, ok := st.Inst.Target(); ok && a.Val == int64(to) {
				text = strings.ReplaceAll(text, fmt.Sprintf("0x%x", to), k.FormatAddr(to))
			}
		}
	}
	for addr, name := range map[uint64]string{noiseAt: "noise", sentenceAt: "sentence", copyAt: "copy"} {
		for i := range uint64(64) {
			text = strings.ReplaceAll(text, fmt.Sprintf(" %x+", addr+i), fmt.Sprintf(" %s[%d]+", name, i))
		}
	}
	return text
}

// TestKernelSlice: how functions of a kernel came to their answers, and why.
func TestKernelSlice(t *testing.T) {
	k := formKernel(t, "idle-6.1")
	for _, c := range []struct {
		name string
		args []any
		want string
	}{
		{"strcmp", []any{'S', 'C'}, `
0: copy movzbl (%rdi,%rax,1),%edx
1: compute test %dl,%dl of [0]
2: branch je strcmp+0x1f of [1] x26
3: copy movzbl (%rdi,%rax,1),%edx of [2]
4: compute cmp (%rsi,%rax,1),%dl of [3 2]
5: branch je strcmp+0x4 of [4 2] x27
6: compute sbb %eax,%eax of [5 4]
7: compute or $0x1,%eax of [6 5]
load by 0: sentence[25]+1
load by 3: sentence[26]+1
load by 4: copy[26]+1
`},
		{"_find_next_bit", []any{'B', 512, 100}, `
0: copy mov %rsi,%rax
1: copy mov %rdx,%rcx
2: compute cmp %rsi,%rdx
3: branch jae _find_next_bit+0x60 of [2] x1
4: copy mov %rdx,%r8 of [3]
5: const mov $0xffffffffffffffff,%rdx of [3]
6: compute shr $0x6,%r8 of [4 3]
7: compute shl %cl,%rdx of [5 3 1]
8: compute and (%rdi,%r8,8),%rdx of [7 3]
9: branch jne _find_next_bit+0x4d of [8 3] x1
10: compute shl $0x6,%r8 of [9 6]
11: compute tzcnt %rdx,%rdx of [9 8]
12: compute add %rdx,%r8 of [11 10 9]
13: compute cmp %r8,%rax of [12 9 0]
14: copy cmova %r8,%rax of [13 12 9]
load by 8: noise[8]+8
initial rdx rsi
`},
		{"memweight", []any{'B', 9}, `
0: compute test %rsi,%rsi
1: branch je memweight+0xa3 of [0] x1
2: copy mov %rdi,%r12 of [1]
3: copy mov %rsi,%rbp of [1]
4: compute and $0x7,%r12d of [2 1]
5: branch je memweight+0x49 of [4 1] x1
6: copy mov %rbp,%rsi of [5 3]
7: compute shr $0x3,%rsi of [6 5]
8: compute cmp $0x7,%rbp of [5 3]
9: branch jbe memweight+0x7e of [8 5] x1
10: compute shl $0x6,%esi of [9 7]
11: call call __bitmap_weight of [9]
12: compute shr $0x6,%esi of [11 10]
13: branch je __bitmap_weight+0x51 of [12] x1
14: const xor %r8d,%r8d of [13]
15: copy mov (%rdx),%rdi of [13]
16: compute popcnt %rdi,%rax of [15 13]
17: compute add %eax,%r8d of [16 14 13]
18: copy mov %r8d,%eax of [17]
19: copy mov %eax,%eax of [18 9]
20: compute add %rax,%r12 of [19 9 4]
21: compute and $0x7,%ebp of [9 3]
22: branch je memweight+0x3d of [21 9] x1
23: copy movzbl (%rbx),%edi of [22]
24: compute popcnt %edi,%eax of [23 22]
25: copy mov %eax,%eax of [24 22]
26: compute add %rax,%r12 of [25 22 20]
27: copy mov %r12,%rax of [26 22]
load by 15: noise[0]+8
load by 23: noise[8]+1
initial rsi rdi:0
`},
	} {
		x := newTainter(t, k, c.args)
		var err error
		x.entry, err = k.Addr(c.name)
		qt.Assert(t, qt.IsNil(err))
		m, ok := x.run(t, -1, 0, 0)
		qt.Assert(t, qt.IsTrue(ok))
		s := m.History().Slice(SliceOptions{Before: m.Step, Want: LocsReg(RAX, 8), Control: graphs{t, k}})
		qt.Check(t, qt.Equals(named(k, s), strings.TrimPrefix(c.want, "\n")))
	}
}

// BenchmarkSlice walks a history of four million steps.
func BenchmarkSlice(b *testing.B) {
	k := formKernel(b, "idle-6.1")
	m := kernelMachine(b, k, Options{Steps: 1 << 60, History: 4 << 20})
	call := snprintf(b, k, m)
	for m.Step < 4<<20 {
		qt.Assert(b, qt.IsNil(call().Err))
	}
	first, end := m.History().Span()
	for name, o := range map[string]SliceOptions{
		"nothing": {Want: LocsMem(slotAt, 8)},
		"memory":  {Want: LocsMem(bufferAt, 40), Address: true},
		"control": {Want: LocsMem(bufferAt, 40), Address: true, Control: noControl{}},
	} {
		b.Run(name, func(b *testing.B) {
			o.Before = end
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n = len(m.History().Slice(o).Steps)
			}
			b.ReportMetric(float64(end-first)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msteps/s")
			b.ReportMetric(float64(n), "steps")
		})
	}
}

type noControl struct{}

func (noControl) Controls(entry, addr uint64) []uint64 { return nil }
