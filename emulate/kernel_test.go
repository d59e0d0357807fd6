package emulate

import (
	"context"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

const (
	stackAt  = 0xffffc8fffff00000 // where no kernel of the dumps has memory
	bufferAt = 0xffffc8ffffe00000
)

// kernelMachine returns a machine that sees a kernel, with a stack and a buffer
// of a page, on its first CPU.
func kernelMachine(t testing.TB, k *kernel.Kernel, o Options) *Machine {
	m := New(NewMemory(k.Mem()), o)
	m.Mem.Map(stackAt, 4*pageSize)
	m.Mem.Map(bufferAt, 4*pageSize)
	m.GP[RSP] = stackAt + 4*pageSize
	offset, err := k.Addr("__per_cpu_offset")
	qt.Assert(t, qt.IsNil(err))
	m.GSBase, err = mem.U64(k.Mem(), offset)
	qt.Assert(t, qt.IsNil(err))
	return m
}

// TestSnprintf runs a big function of each kernel.
func TestSnprintf(t *testing.T) {
	for _, version := range formKernels {
		t.Run(version, func(t *testing.T) {
			k := formKernel(t, "idle-"+version)
			m := kernelMachine(t, k, Options{})
			s := snprintf(t, k, m)()
			qt.Assert(t, qt.IsNil(s.Err))
			text, err := mem.CString(m.Mem, bufferAt, 100)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(text, want))
			qt.Assert(t, qt.Equals(m.GP[RAX], uint64(len(want))))
		})
	}
}

const (
	format = "%-6s|%5d|%#llx"
	want   = "word  |  -42|0xdeadbeef12345678"
)

// snprintf has the kernel's function write the text.
func snprintf(t testing.TB, k *kernel.Kernel, m *Machine) func() *Stop {
	f, err := k.Addr("snprintf")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(m.Mem.WriteMem([]byte(format+"\x00word\x00"), bufferAt+pageSize)))
	minus42 := -int64(42)
	return func() *Stop {
		m.GP[RAX] = 0
		return m.Call(context.Background(), f, bufferAt, 100, bufferAt+pageSize, bufferAt+pageSize+uint64(len(format))+1, uint64(minus42), 0xdeadbeef12345678)
	}
}

// BenchmarkKernel runs kernel code.
func BenchmarkKernel(b *testing.B) {
	k := formKernel(b, "idle-6.1")
	for _, c := range []struct {
		name string
		o    Options
	}{{"plain", Options{Steps: 1 << 60}}, {"history", Options{Steps: 1 << 60, History: 1 << 20}}} {
		b.Run(c.name, func(b *testing.B) {
			m := kernelMachine(b, k, c.o)
			call := snprintf(b, k, m)
			b.ReportAllocs()
			for b.Loop() {
				if s := call(); s.Err != nil {
					b.Fatal(s.Err)
				}
			}
			b.ReportMetric(float64(m.Step)/b.Elapsed().Seconds()/1e6, "Minsn/s")
		})
	}
}
