package typeflow

import (
	"context"
	"testing"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// BenchmarkFlow runs a kernel function with a Flow, and, to compare, without.
func BenchmarkFlow(b *testing.B) {
	k := example.KernelOf(b, dumptest.Get(b, "idle-6.1.kdump"))
	env, err := ForKernel(k)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"plain", "flow"} {
		b.Run(name, func(b *testing.B) {
			memory := emulate.NewMemory(k.Mem())
			var steps uint64
			for b.Loop() {
				steps += runOnce(b, k, env, memory.Fork(), name == "flow")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/insn")
		})
	}
}

func runOnce(b *testing.B, k *kernel.Kernel, env Env, memory *emulate.Memory, flow bool) uint64 {
	m := emulate.New(memory, emulate.Options{})
	m.Mem.Map(0x10000, 0x10000)
	m.GP[emulate.RSP] = 0x1f000
	m.GSBase, _ = k.PerCPU(0, 0)
	if flow {
		f := New(env)
		f.On = func(*Event) {}
		m.Observer = f
	}
	at, err := k.Addr("si_mem_available")
	if err != nil {
		b.Fatal(err)
	}
	s := m.Call(context.Background(), at)
	if s.Outcome != emulate.Returned {
		b.Fatal(s.Err)
	}
	return s.Step
}
