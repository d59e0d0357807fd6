package emulate

import (
	"context"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

const codeAt = 0xffffffff81000000

// machine returns a machine whose target has code at codeAt and whose stack is
// one page.
func machine(code []byte, o Options) *Machine {
	page := make([]byte, pageSize)
	copy(page, code)
	m := New(NewMemory(mem.Snapshot{Base: codeAt, Data: page}), o)
	m.Mem.Map(0x10000, 0x1000)
	m.GP[RSP] = 0x11000
	return m
}

// sum adds the numbers from rdi down to 1: xor eax,eax; 1: add rax,rdi; sub rdi,1; jne 1b; ret.
var sum = []byte{0x31, 0xc0, 0x48, 0x01, 0xf8, 0x48, 0x83, 0xef, 0x01, 0x75, 0xf7, 0xc3}

func TestCall(t *testing.T) {
	m := machine(sum, Options{})
	s := m.Call(context.Background(), codeAt, 100)
	qt.Assert(t, qt.Equals(s.Outcome, Returned))
	qt.Assert(t, qt.IsNil(s.Err))
	qt.Assert(t, qt.Equals(m.GP[RAX], uint64(5050)))
	qt.Assert(t, qt.Equals(s.Step, uint64(302)))
	qt.Assert(t, qt.Equals(m.GP[RSP], uint64(0x11000)))
}

func TestLoop(t *testing.T) {
	// 1: mov %rax,-8(%rsp); add $1,%al; jmp 1b: the state comes back after 256 rounds.
	m := machine([]byte{0x48, 0x89, 0x44, 0x24, 0xf8, 0x04, 0x01, 0xeb, 0xf7}, Options{})
	s := m.Call(context.Background(), codeAt)
	qt.Assert(t, qt.Equals(s.Outcome, Looped))
	qt.Assert(t, qt.Equals(s.Loop.Period, uint64(3*256)))
	qt.Assert(t, qt.Equals(s.Loop.Low, codeAt))
	qt.Assert(t, qt.Equals(s.Loop.High, codeAt+7))
}

func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name string
		o    Options
	}{{"plain", Options{Steps: 1 << 60}}, {"history", Options{Steps: 1 << 60, History: 1 << 20}}} {
		b.Run(c.name, func(b *testing.B) {
			m := machine(sum, c.o)
			for b.Loop() {
				m.Call(context.Background(), codeAt, 1000000)
			}
			b.ReportMetric(float64(m.Step)/b.Elapsed().Seconds()/1e6, "Minsn/s")
		})
	}
}

// endless is a target that has memory at every address.
type endless struct{ code []byte }

// ReadMem implements [mem.Reader].
func (e endless) ReadMem(p []byte, addr uint64) error {
	clear(p)
	if addr == codeAt {
		copy(p, e.code)
	}
	return nil
}

// TestPages: a run that goes through all of memory ends.
func TestPages(t *testing.T) {
	// 1: mov (%rdi),%eax; add $0x1000,%rdi; jmp 1b
	m := New(NewMemory(endless{[]byte{0x8b, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0, 0, 0xeb, 0xf5}}), Options{})
	m.Mem.base.most = 100
	m.Mem.Map(0x10000, 0x1000)
	m.GP[RSP] = 0x11000
	s := m.Call(context.Background(), codeAt, 0x100000)
	qt.Assert(t, qt.Equals(s.Outcome, Limited), qt.Commentf("%v", s.Err))
	qt.Assert(t, qt.ErrorMatches(s.Err, "stopped after 0 MiB of the target's memory"))
}
