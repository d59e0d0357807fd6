package typeflow

import (
	"context"
	"testing"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
)

// BenchmarkFlow runs a kernel function with a Flow, and, to compare, without.
func BenchmarkFlow(b *testing.B) {
	k := example.KernelOf(b, dumptest.Get(b, "idle-6.1.kdump"))
	env, err := ForKernel(k)
	if err != nil {
		b.Fatal(err)
	}
	at, err := k.Addr("si_mem_available")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"plain", "flow"} {
		b.Run(name, func(b *testing.B) {
			m := emulate.New(emulate.NewMemory(k.Mem()), emulate.Options{})
			m.Mem.Map(0x10000, 0x10000)
			m.GP[emulate.RSP] = 0x1f000
			m.GSBase, _ = k.PerCPU(0, 0)
			if name == "flow" {
				f := New(env)
				f.On = func(*Event) {}
				m.Observer = f
			}
			for b.Loop() {
				if s := m.Call(context.Background(), at); s.Outcome != emulate.Returned {
					b.Fatal(s.Err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(m.Step), "ns/insn")
		})
	}
}
