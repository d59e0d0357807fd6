package emulate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestRepeat compares repeated string instructions, which go page by page, with
// loops of single ones: the same registers, memory and accesses.
func TestRepeat(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var data [2 * pageSize]byte
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for _, c := range []struct {
		name, once, rep string
		size            uint64
	}{
		// 1: jrcxz 2f; once; dec %rcx; jmp 1b; 2:
		{"movsb", "a4", "f3a4", 1},
		{"movsq", "48a5", "f348a5", 8},
		{"stosw", "66ab", "f366ab", 2},
		{"stosq", "48ab", "f348ab", 8},
		{"lodsl", "ad", "f3ad", 4},
	} {
		for range 200 {
			n := r.Uint64N(pageSize / 2)
			if r.IntN(2) == 0 {
				n %= 40
			}
			n = min(n, (2*pageSize-64)/c.size)
			room := 2*pageSize - n*c.size
			from, to := dataAt+r.Uint64N(room), dataAt+r.Uint64N(room)
			if r.IntN(3) == 0 {
				to = min(from+r.Uint64N(16), dataAt+room) // they overlap
			}
			down := r.IntN(4) == 0
			setup := func(m *Machine) {
				_ = m.Mem.WriteMem(data[:], dataAt)
				m.GP[RSI], m.GP[RDI], m.GP[RCX], m.GP[RAX] = from, to, n, 0x1122334455667788
				if down {
					m.Flags |= DF
					m.GP[RSI], m.GP[RDI] = from+(n-1)*c.size, to+(n-1)*c.size
					if n == 0 {
						m.GP[RSI], m.GP[RDI] = from, to
					}
				}
			}
			loop := fmt.Sprintf("e3%02x %s 48ffc9 eb%02x", len(c.once)/2+5, c.once, 0x100-7-len(c.once)/2)
			a, sa := running(t, loop, setup)
			b, sb := running(t, c.rep, setup)
			at := fmt.Sprintf("%s from %#x to %#x, %d times, down %v", c.name, from, to, n, down)
			qt.Assert(t, qt.Equals(sa.Outcome, Reached), qt.Commentf("%s: %v", at, sa.Err))
			qt.Assert(t, qt.Equals(sb.Outcome, Reached), qt.Commentf("%s: %v", at, sb.Err))
			qt.Assert(t, qt.Equals(b.GP[RSI], a.GP[RSI]), qt.Commentf("%s", at))
			qt.Assert(t, qt.Equals(b.GP[RDI], a.GP[RDI]), qt.Commentf("%s", at))
			qt.Assert(t, qt.Equals(b.GP[RCX], 0), qt.Commentf("%s", at))
			qt.Assert(t, qt.Equals(b.GP[RAX], a.GP[RAX]), qt.Commentf("%s", at))
			qt.Assert(t, qt.IsTrue(a.Mem.equal(b.Mem)), qt.Commentf("%s", at))
			if n == 0 {
				qt.Assert(t, qt.Equals(b.n, noAccess))
				continue
			}
			qt.Assert(t, qt.Equals(b.n, uint32(n*c.size)))
			qt.Assert(t, qt.Equals(b.repeats, n))
			if c.name != "stosw" && c.name != "stosq" {
				qt.Assert(t, qt.Equals(b.read, from), qt.Commentf("%s", at))
			}
			if c.name != "lodsl" {
				qt.Assert(t, qt.Equals(b.wrote, to), qt.Commentf("%s", at))
			}
		}
	}
}

// TestRepeatFault: a copy that comes to the end of memory leaves the registers
// as the kernel's fixups expect them.
func TestRepeatFault(t *testing.T) {
	const end = dataAt + 2*pageSize
	m, s := running(t, "f3a4", func(m *Machine) {
		m.GP[RSI], m.GP[RDI], m.GP[RCX] = dataAt, end-100, 150
	})
	qt.Assert(t, qt.Equals(s.Outcome, Faulted))
	qt.Assert(t, qt.Equals(m.GP[RCX], 50))
	qt.Assert(t, qt.Equals(m.GP[RDI], end))
	qt.Assert(t, qt.Equals(m.GP[RSI], dataAt+100))
	qt.Assert(t, qt.Equals(m.RIP, codeAt))
	m, s = running(t, "f348ab", func(m *Machine) { m.GP[RDI], m.GP[RCX] = end-20, 1<<60 })
	qt.Assert(t, qt.Equals(s.Outcome, Faulted))
	qt.Assert(t, qt.Equals(m.GP[RDI], end-4))
	qt.Assert(t, qt.Equals(m.GP[RCX], 1<<60-2))
}

// TestRepeatFaultHistory: the history has what was copied before the fault.
func TestRepeatFaultHistory(t *testing.T) {
	m, _ := running(t, "f3a4", func(m *Machine) {
		m.hist = newHistory(m, 100)
		m.GP[RSI], m.GP[RDI], m.GP[RCX] = dataAt, dataAt+2*pageSize-100, 150
	})
	qt.Assert(t, qt.Equals(m.Step, 1))
	c := m.hist.cur
	qt.Assert(t, qt.Equals(c.n, 2))
	qt.Assert(t, qt.Equals(c.rec[0].addr, dataAt))
	qt.Assert(t, qt.Equals(c.rec[1].addr, dataAt+2*pageSize-100))
	qt.Assert(t, qt.Equals(c.rec[1].n, 100))
}

// TestRepeatLimit: repetitions count.
func TestRepeatLimit(t *testing.T) {
	m, s := running(t, "f3ac", func(m *Machine) {
		m.opt.Steps = 1e6
		m.Mem.Map(dataAt, 4<<20)
		m.GP[RSI], m.GP[RCX] = dataAt, 1<<60
	})
	qt.Assert(t, qt.Equals(s.Outcome, Limited))
	qt.Assert(t, qt.Equals(m.repeats, 1e6))
}

// TestScan has what cmps and scas leave: flags, and where they looked.
func TestScan(t *testing.T) {
	text := func(m *Machine) {
		_ = m.Mem.WriteMem([]byte("the same text\x00"), dataAt)
		_ = m.Mem.WriteMem([]byte("the same test\x00"), dataAt+100)
		m.GP[RSI], m.GP[RDI], m.GP[RCX], m.GP[RAX] = dataAt, dataAt+100, 50, 's'
	}
	m, _ := running(t, "f3a6", text) // repe cmpsb
	qt.Check(t, qt.Equals(m.GP[RCX], 50-12))
	qt.Check(t, qt.Equals(m.Flags&(ZF|CF), 0)) // x > s
	qt.Check(t, qt.Equals(m.n, 12))
	qt.Check(t, qt.Equals(m.read, dataAt))
	qt.Check(t, qt.Equals(m.wrote, dataAt+100))
	m, _ = running(t, "f2ae", text) // repne scasb
	qt.Check(t, qt.Equals(m.GP[RDI], dataAt+105))
	qt.Check(t, qt.Equals(m.Flags&ZF, ZF))
	qt.Check(t, qt.Equals(m.n, 5))
	qt.Check(t, qt.Equals(m.read, dataAt+100))
}
