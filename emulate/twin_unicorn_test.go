//go:build unicorn

package emulate

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/unicorn"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/x86"
)

// Where a twin's stack and buffers are. No kernel has anything there.
const (
	twinStack    = 0xffff7f0000000000
	twinStackLen = 16 * pageSize
	twinBuf      = 0xffff7f0000100000
	twinBufLen   = 32 * pageSize
)

// A twin is a Machine and a Unicorn that see the memory of one dump, whose
// pages come in when they are touched.
type twin struct {
	k     *kernel.Kernel
	m     *Machine
	uc    *unicorn.Engine
	count *unicorn.Counter
	gs    uint64
	buf   uint64 // the next free byte of the buffers
}

func newTwin(t testing.TB, k *kernel.Kernel, o Options) *twin {
	t.Helper()
	w := &twin{k: k, m: New(NewMemory(k.Mem()), o), uc: newUnicorn(t)}
	w.uc.Unmapped = w.bring
	for at, n := range map[uint64]int{twinStack: twinStackLen, twinBuf: twinBufLen} {
		_, err := w.uc.Map(at, n)
		qt.Assert(t, qt.IsNil(err))
		w.m.Mem.Map(at, uint64(n))
	}
	var err error
	w.count, err = w.uc.CountInstructions(false)
	qt.Assert(t, qt.IsNil(err))
	w.gs, err = k.PerCPU(0, 0)
	qt.Assert(t, qt.IsNil(err))
	return w
}

// bring maps the page of addr as the dump has it.
func (w *twin) bring(addr uint64) bool {
	p, err := w.m.Mem.base.page(addr >> pageShift)
	if err != nil {
		return false
	}
	b, err := w.uc.Map(addr&^pageMask, pageSize)
	if err != nil {
		return false
	}
	copy(b, p[:])
	return true
}

// put puts data into the buffers of both and returns its address.
func (w *twin) put(t testing.TB, data []byte) uint64 {
	t.Helper()
	at := w.buf
	w.buf += uint64(len(data)+15) &^ 15
	qt.Assert(t, qt.IsTrue(w.buf <= twinBuf+twinBufLen))
	w.write(t, data, at)
	return at
}

// write writes data to the buffers or the stack of both.
func (w *twin) write(t testing.TB, data []byte, at uint64) {
	t.Helper()
	qt.Assert(t, qt.IsNil(w.m.Mem.WriteMem(data, at)))
	w.uc.Pages(func(addr uint64, b []byte) {
		if at >= addr && at < addr+uint64(len(b)) {
			copy(b[at-addr:], data)
		}
	})
}

// start returns registers as a kernel function finds them.
func (w *twin) start(r *rand.Rand) Regs {
	var regs Regs
	for i := range regs.GP {
		regs.GP[i] = r.Uint64()
	}
	regs.GP[RSP] = twinStack + twinStackLen - 4096
	regs.GSBase = w.gs
	regs.Flags = fixedFlags | IF
	return regs
}

// call calls the function at addr on both, and says in what they differ.
// Undefined flags are not compared.
func (w *twin) call(regs Regs, addr uint64, args ...uint64) (s *Stop, differ string) {
	for i, r := range [...]int{RDI, RSI, RDX, RCX, R8, R9} {
		if i < len(args) {
			regs.GP[r] = args[i]
		}
	}
	for i := len(args); i > 6; i-- {
		regs.GP[RSP] -= 8
		w.both(regs.GP[RSP], args[i-1])
	}
	w.m.Regs = regs
	w.m.Step = 0
	s = w.m.Call(context.Background(), addr, args[:min(6, len(args))]...)
	regs.GP[RSP] -= 8
	w.both(regs.GP[RSP], exitAddr)
	return s, w.compare(s, regs, addr, exitAddr, statusFlags)
}

// both writes a word to the stack of both.
func (w *twin) both(addr, v uint64) {
	b := []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24), byte(v >> 32), byte(v >> 40), byte(v >> 48), byte(v >> 56)}
	_ = w.m.Mem.WriteMem(b, addr) // it is mapped
	w.uc.Pages(func(at uint64, p []byte) {
		if at == twinStack {
			copy(p[addr-at:], b)
		}
	})
}

// compare runs Unicorn as the machine has run, from begin to end, and compares.
func (w *twin) compare(s *Stop, regs Regs, begin, end, undefined uint64) string {
	switch s.Outcome {
	case Unsupported, Limited, Looped, Stopped: // Unicorn would go on
		w.pages(true)
		return fmt.Sprintf("%s at %s: %v", s.Outcome, w.k.FormatAddr(s.RIP), s.Err)
	}
	want := unicorn.Regs{GP: regs.GP, Flags: regs.Flags, FSBase: regs.FSBase, GSBase: regs.GSBase, X: regs.X}
	executed, err := w.unicorn(&want, begin, end)
	if v := sameOutcome(s, err, w.uc.Vector); v != agree {
		w.pages(true)
		return fmt.Sprintf("%s, at %s, Unicorn at %s", v, w.k.FormatAddr(s.RIP), w.k.FormatAddr(want.RIP))
	}
	out := registersDiffer(w.m, &want, undefined)
	if s.Outcome == Faulted || s.Outcome == Trapped {
		executed-- // the one that was not
	}
	if s.Outcome == Faulted && s.Step == executed+1 && w.repeats(s.RIP) {
		executed++ // it counts a string instruction that has come some way
	}
	if s.Step != executed {
		out = append(out, fmt.Sprintf("%d instructions, want %d", s.Step, executed))
	}
	return strings.Join(append(out, w.pages(false)...), "; ")
}

// unicorn runs Unicorn with registers r, which become what they are at the end,
// and returns how many instructions it began.
func (w *twin) unicorn(r *unicorn.Regs, begin, end uint64) (executed uint64, err error) {
	w.count.Take()
	for r.RIP = begin; ; {
		if err := w.uc.SetRegs(r); err != nil {
			return 0, err
		}
		err = w.uc.Start(r.RIP, end, 0)
		if e := w.uc.Regs(r); e != nil {
			return 0, e
		}
		if !w.popcnt(err, r) {
			break
		}
		if err = nil; r.RIP == end {
			break
		}
	}
	return w.count.Take(), err
}

// repeats says whether the instruction at addr is a repeated one.
func (w *twin) repeats(addr uint64) bool {
	var code [x86.MaxLen]byte
	_ = w.m.Mem.ReadMem(code[:], addr) // near the end of memory zeros remain
	in, err := x86.Decode(code[:], addr)
	return err == nil && repeated(&in)
}

// popcnt carries out the popcnt that Unicorn has stopped at, because its CPU
// lacks it.
func (w *twin) popcnt(err error, r *unicorn.Regs) bool {
	if err != unicorn.InsnInvalid {
		return false
	}
	var code [x86.MaxLen]byte
	if w.m.Mem.ReadMem(code[:], r.RIP) != nil {
		return false
	}
	in, err := x86.Decode(code[:], r.RIP)
	_, dst := register(in.Args[0].Reg)
	k, src := register(in.Args[1].Reg)
	if err != nil || in.Op != x86.POPCNT || k != kReg || in.Args[1].Kind != x86.KindReg {
		return false
	}
	n := uint64(bits.OnesCount64(r.GP[src] & mask(uint8(in.Args[1].Size))))
	r.GP[dst], r.Flags = n, r.Flags&^statusFlags
	if n == 0 {
		r.Flags |= ZF
	}
	r.RIP += uint64(in.Len)
	return true
}

// pages says where the memory differs, and makes Unicorn's what the machine's is.
func (w *twin) pages(quiet bool) (out []string) {
	seen := map[uint64]bool{}
	w.uc.Pages(func(addr uint64, b []byte) {
		for off := 0; off < len(b); off += pageSize {
			pn := addr>>pageShift + uint64(off>>pageShift)
			seen[pn] = true
			ours := w.ours(pn)
			if ours == nil || bytes.Equal(ours[:], b[off:off+pageSize]) {
				continue
			}
			i := 0
			for ours[i] == b[off+i] {
				i++
			}
			i &^= 7
			out = append(out, fmt.Sprintf("memory at %#x: % x, want % x", pn<<pageShift+uint64(i), ours[i:i+8], b[off+i:off+i+8]))
			copy(b[off:], ours[:])
		}
	})
	for _, pn := range w.m.Mem.written {
		if p := w.m.Mem.pages[pn]; !seen[pn] && *p.data != *p.orig {
			out = append(out, fmt.Sprintf("the page %#x was written, and is not by Unicorn", pn<<pageShift))
		}
	}
	if quiet {
		return nil
	}
	slices.Sort(out)
	return out
}

// ours returns a page as the machine sees it.
func (w *twin) ours(pn uint64) *pageData {
	if p := w.m.Mem.pages[pn]; p != nil {
		return p.data
	}
	p, err := w.m.Mem.base.page(pn)
	if err != nil {
		return nil
	}
	return p
}

// static returns the flags an instruction may leave undefined whatever its operands.
func static(in *x86.Inst) uint64 {
	switch in.Op {
	case x86.SHL, x86.SHR, x86.SAR, x86.SHLD, x86.SHRD:
		return AF | OF | CF
	case x86.ROL, x86.ROR, x86.RCL, x86.RCR:
		return OF
	}
	return undefinedFlags(in, &Regs{})
}
