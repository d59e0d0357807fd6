//go:build unicorn

package emulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// TestSequencesUnicorn executes pieces of the kernels' functions where they
// stand, with registers that mostly point at memory full of such pointers, here
// and on Unicorn.
func TestSequencesUnicorn(t *testing.T) {
	n := rounds(t) * 4
	for i, version := range formKernels {
		t.Run(version, func(t *testing.T) {
			k := formKernel(t, "idle-"+version)
			var w *twin
			r := rand.New(rand.NewPCG(uint64(i), 11))
			text := textRanges(t, k)[0]
			var sequences, faults, failed int
			var total uint64
			for tries := 0; sequences < n && tries < 100*n; tries++ {
				seq := sequence(k, text, r)
				if len(seq) < 3 {
					continue
				}
				if sequences%256 == 0 { // mapping slows Unicorn with each page that it has
					w = newTwin(t, k, Options{Steps: 1 << 40})
				}
				if sequences++; sequences%16 == 1 {
					w.mix(t, r)
				}
				regs := w.aimed(seq, w.pointers(r), r)
				s, differ := w.run(seq, len(seq), regs)
				total += s.Step
				if s.Outcome == Faulted {
					faults++
				}
				if differ == "" {
					continue
				}
				if failed++; failed <= 20 {
					t.Errorf("%s: %s\n%s", k.FormatAddr(seq[0].Addr), differ, listing(seq))
				}
			}
			t.Logf("%d sequences, %d instructions, %d ended with a fault, %d differ", sequences, total, faults, failed)
		})
	}
}

// sequence picks instructions of a function between two jumps.
func sequence(k *kernel.Kernel, text kernel.Range, r *rand.Rand) []x86.Inst {
	const most = 24
	s, _, ok := k.Symbolize(text.Start + r.Uint64N(text.End-text.Start))
	if !ok || s.Size < 8 || s.Size > 1<<14 {
		return nil
	}
	code, err := mem.Bytes(k.Mem(), s.Addr, int(s.Size))
	if err != nil {
		return nil
	}
	var seq []x86.Inst
	from := s.Addr + r.Uint64N(s.Size)
	for at := s.Addr; len(code) > 0 && len(seq) < most; {
		in, err := x86.Decode(code, at)
		if err != nil {
			break
		}
		code, at = code[in.Len:], at+uint64(in.Len)
		if in.Addr < from {
			continue
		}
		if in.Flow() != x86.FlowNext || unjudged(&in) != "" || unexecuted[in.Op] != "" {
			break
		}
		// Flags that are undefined may be pushed; single steps may be popped; Unicorn
		// sees to no alignment.
		if in.Op == x86.PUSHF || in.Op == x86.POPF || aligned[in.Op] && touchesMemory(&in) {
			break
		}
		seq = append(seq, in)
	}
	return seq
}

// run executes the first n of seq on both.
func (w *twin) run(seq []x86.Inst, n int, regs Regs) (*Stop, string) {
	end := seq[n-1].Addr + uint64(seq[n-1].Len)
	var undefined uint64
	for i := range seq[:n] {
		undefined |= static(&seq[i])
	}
	m := w.m
	m.Regs, m.RIP, m.Step, m.Frames = regs, seq[0].Addr, 0, m.Frames[:0]
	m.Break(end)
	if regs.GP[R15]&1 != 0 { // as good as at random: the other way to execute a block
		m.Observer = seer{}
	}
	s := m.Run(context.Background())
	m.Observer = nil
	m.Unbreak(end)
	return s, w.compare(s, regs, seq[0].Addr, end, undefined)
}

// mix fills the buffers and the stack with words of which half are addresses
// of such words.
func (w *twin) mix(t *testing.T, r *rand.Rand) {
	t.Helper()
	for at, n := range map[uint64]int{twinStack: twinStackLen, twinBuf: twinBufLen} {
		words := make([]uint64, n/8)
		for i := range words {
			words[i] = w.pointer(r)
		}
		w.write(t, encode(words), at)
	}
}

func (w *twin) pointer(r *rand.Rand) uint64 {
	switch r.IntN(8) {
	case 0, 1, 2, 3:
		return twinBuf + 8192 + 8*r.Uint64N((twinBufLen-16384)/8)
	case 4:
		return r.Uint64()
	case 5:
		return corners[r.IntN(len(corners))]
	}
	return r.Uint64N(256)
}

// pointers returns registers of which most point at the buffers.
func (w *twin) pointers(r *rand.Rand) Regs {
	regs := w.start(r)
	for i := range regs.GP {
		regs.GP[i] = w.pointer(r)
	}
	regs.GP[RSP] = twinStack + twinStackLen/2 + 8*r.Uint64N(512)
	if r.IntN(2) == 0 {
		regs.GP[RBP] = regs.GP[RSP] + 8*r.Uint64N(64)
	}
	if c := regs.GP[RCX]; c > 256 && r.IntN(2) == 0 {
		regs.GP[RCX] = c & 63
	}
	regs.Flags |= r.Uint64() & statusFlags
	return regs
}

// aimed changes registers such that more of seq's memory operands hit memory: it
// tries on a copy of the machine.
func (w *twin) aimed(seq []x86.Inst, regs Regs, r *rand.Rand) Regs {
	end := seq[len(seq)-1].Addr + uint64(seq[len(seq)-1].Len)
	for range 6 {
		m := New(w.m.Mem.Clone(), Options{Steps: 1 << 20})
		m.Regs, m.RIP = regs, seq[0].Addr
		m.Break(end)
		s := m.Run(context.Background())
		if s.Outcome != Faulted {
			return regs
		}
		for i := range seq {
			if seq[i].Addr != s.RIP {
				continue
			}
			for _, a := range seq[i].Args[:seq[i].NArgs] {
				if a.Kind != x86.KindMem {
					continue
				}
				if k, n := register(a.Index); k == kReg {
					regs.GP[n] = r.Uint64N(64)
				}
				if k, n := register(a.Reg); k == kReg && n != RSP {
					regs.GP[n] = twinBuf + 8192 + 8*r.Uint64N((twinBufLen-16384)/8) - uint64(a.Val)
				}
			}
		}
	}
	return regs
}

// A seer is an observer that does nothing.
type seer struct{}

func (seer) Before(*Machine, *x86.Inst) {}
func (seer) Stub(*Machine, *Stub)       {}

func touchesMemory(in *x86.Inst) bool {
	_, _, access, ok := in.MemOperand()
	return ok && access != 0
}

func listing(seq []x86.Inst) string {
	var b strings.Builder
	for i := range seq {
		fmt.Fprintf(&b, "    %#x  %-24x %s\n", seq[i].Addr, seq[i].Bytes(), seq[i].String())
	}
	return b.String()
}
