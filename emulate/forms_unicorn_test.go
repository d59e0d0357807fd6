//go:build unicorn

package emulate

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/unicorn"
	"github.com/ksleuth/ksleuth/x86"
)

// rounds is how often a form is executed, shared among its encodings.
// KSLEUTH_ROUNDS asks for more.
func rounds(t testing.TB) int {
	if s := os.Getenv("KSLEUTH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		qt.Assert(t, qt.IsNil(err))
		return n
	}
	return 320
}

// aligned are operations whose memory operand must be aligned to 16 bytes.
// Unicorn does not see to it for all of them.
var aligned = map[x86.Op]bool{
	x86.CMPXCHG16B: true, x86.MOVAPS: true, x86.MOVAPD: true, x86.MOVDQA: true, x86.MOVNTDQ: true,
	x86.PADDD: true, x86.PADDQ: true, x86.PXOR: true, x86.POR: true, x86.PAND: true, x86.PSHUFB: true,
	x86.PSHUFD: true, x86.AESENC: true, x86.AESENCLAST: true, x86.AESDEC: true, x86.AESDECLAST: true,
	x86.FXSAVE64: true, x86.FXRSTOR64: true,
}

// undefinedFlags returns the flags that the SDM (vol. 2, "Flags Affected" of
// each instruction) leaves undefined.
func undefinedFlags(in *x86.Inst, before *Regs) uint64 {
	switch in.Op {
	case x86.AND, x86.OR, x86.XOR, x86.TEST:
		return AF
	case x86.MUL, x86.IMUL:
		return SF | ZF | AF | PF
	case x86.DIV, x86.IDIV:
		return statusFlags
	case x86.BSF, x86.BSR:
		return CF | OF | SF | AF | PF
	case x86.BT, x86.BTS, x86.BTR, x86.BTC:
		return OF | SF | AF | PF
	case x86.TZCNT, x86.LZCNT:
		return OF | SF | AF | PF
	case x86.ANDN, x86.BZHI, x86.BLSI, x86.BLSR, x86.BLSMSK:
		return AF | PF
	case x86.BEXTR:
		return AF | SF | PF
	case x86.SHL, x86.SHR, x86.SAR, x86.SHLD, x86.SHRD:
		return undefinedShift(in, shiftCount(in, before))
	case x86.ROL, x86.ROR, x86.RCL, x86.RCR:
		if n := shiftCount(in, before); n > 1 {
			return OF
		}
	}
	return 0
}

func undefinedShift(in *x86.Inst, n uint64) uint64 {
	u := uint64(0)
	if n > 0 {
		u = AF
	}
	if n > 1 {
		u |= OF
	}
	if n >= uint64(in.Args[0].Size)*8 && in.Op != x86.SAR {
		u |= CF
	}
	if n > uint64(in.Args[0].Size)*8 && (in.Op == x86.SHLD || in.Op == x86.SHRD) {
		u = statusFlags
	}
	return u
}

// shiftCount returns the count of a shift or rotation, masked as the processor does.
func shiftCount(in *x86.Inst, before *Regs) uint64 {
	n := uint64(1)
	if in.NArgs > 1 {
		switch last := &in.Args[in.NArgs-1]; last.Kind {
		case x86.KindImm:
			n = uint64(last.Val)
		case x86.KindReg:
			n = before.GP[RCX]
		}
	}
	if in.Args[0].Size == 8 {
		return n & 63
	}
	return n & 31
}

// unjudged says why Unicorn cannot judge an instruction, or "".
func unjudged(in *x86.Inst) string {
	if in.VectorLen() > 0 && !bmi[in.Op] {
		return "QEMU 5, which Unicorn 2 is made of, has no AVX"
	}
	for _, a := range in.Args[:in.NArgs] {
		if a.Kind == x86.KindReg {
			switch regClass(a.Reg) {
			case "r", "h", "x":
			default:
				return "control, debug, segment and FPU registers are not compared"
			}
		}
	}
	return beyond[in.Op]
}

// bmi are the VEX encoded instructions on general registers.
var bmi = map[x86.Op]bool{
	x86.ANDN: true, x86.BEXTR: true, x86.BLSI: true, x86.BLSR: true, x86.BLSMSK: true, x86.BZHI: true,
	x86.MULX: true, x86.PDEP: true, x86.PEXT: true, x86.RORX: true, x86.SARX: true, x86.SHLX: true, x86.SHRX: true,
}

// beyond are operations that cannot be compared, with the reason.
var beyond = map[x86.Op]string{
	x86.POPCNT: noModel, x86.PCLMULQDQ: noModel, x86.CLFLUSHOPT: noModel, x86.CLWB: noModel, x86.SERIALIZE: noModel,
	x86.RDFSBASE: noModel, x86.RDGSBASE: noModel, x86.WRFSBASE: noModel, x86.WRGSBASE: noModel,
	x86.RDTSC: "the clocks differ", x86.RDTSCP: "the clocks differ",
	x86.SWAPGS: noMSR,
	x86.RDMSR:  noMSR, x86.WRMSR: noMSR,
	x86.LSL: "Unicorn has no descriptor tables", x86.LAR: "Unicorn has no descriptor tables",
	x86.VERW: "Unicorn has no descriptor tables", x86.VERR: "Unicorn has no descriptor tables",
}

const (
	noModel = "Unicorn's CPU lacks the instruction"
	noMSR   = "model-specific registers are not exchanged with the library"
)

// correct mends what Unicorn's QEMU does wrong; each was tried on a processor.
func correct(in *x86.Inst, before *Regs, want *unicorn.Regs) {
	a := in.Args[0]
	switch {
	case in.Op == x86.CMPXCHG && a.Size == 4 && want.Flags&ZF != 0:
		// It clears the upper half of rax also where the operands are equal.
		want.GP[RAX] = before.GP[RAX]
	case in.Op == x86.CMPXCHG && a.Size == 4 && a.Kind == x86.KindReg:
		// It clears the upper half of a first operand that stays as it is.
		_, dst := register(a.Reg)
		if dst != RAX {
			want.GP[dst] = before.GP[dst]
		}
	case (in.Op == x86.BSF || in.Op == x86.BSR) && want.Flags&ZF != 0:
		// It clears the upper half of a register that stays as it is.
		_, dst := register(a.Reg)
		want.GP[dst] = before.GP[dst]
	case in.Op == x86.BZHI && in.Args[1].Kind == x86.KindReg:
		// It takes the index of the top bit, too, for one beyond the operand, and
		// clears that bit for those.
		_, src := register(in.Args[1].Reg)
		_, index := register(in.Args[2].Reg)
		_, dst := register(a.Reg)
		switch n, w := before.GP[index]&0xff, uint64(a.Size)*8; {
		case n == w-1:
			want.Flags &^= CF
		case n >= w:
			v := before.GP[src] & mask(uint8(a.Size))
			want.GP[dst] = v
			want.Flags = want.Flags&^(SF|ZF) | CF | result(v, uint8(a.Size))&(SF|ZF)
		}
	}
}

// prepare makes the registers such that in does something worth comparing.
func (j *judge) prepare(in *x86.Inst, r *Regs) {
	if repeated(in) {
		r.GP[RCX] = uint64(j.r.IntN(20))
	}
	switch in.Op {
	case x86.DIV, x86.IDIV:
		switch j.r.IntN(4) {
		case 0, 1:
			r.GP[RDX] = 0
			if in.Op == x86.IDIV {
				r.GP[RDX] = uint64(int64(r.GP[RAX]<<(64-8*in.Args[0].Size)) >> 63)
			}
		case 2:
			r.GP[RDX] = uint64(j.r.IntN(16))
		}
	case x86.BT, x86.BTS, x86.BTR, x86.BTC:
		if in.Args[0].Kind == x86.KindMem && in.Args[1].Kind == x86.KindReg {
			_, n := register(in.Args[1].Reg)
			r.GP[n] = uint64(j.r.IntN(2048) - 1024)
		}
	case x86.LEAVE:
		r.GP[RBP] = j.target(8)
	}
}

// TestFormsUnicorn executes every form found in kernel text with random
// registers, flags and memory, here and on Unicorn.
func TestFormsUnicorn(t *testing.T) {
	j := newJudge(t)
	n := rounds(t)
	judged, runs, bad, without := 0, 0, 0, map[x86.Op]int{}
	only := os.Getenv("KSLEUTH_FORM")
	skipped := map[string]int{}
	for _, f := range kernelForms(t) {
		if only != "" && !strings.Contains(f.Name(), only) {
			continue
		}
		if why := unjudged(&f.Insts[0]); why != "" {
			skipped[why]++
			continue
		}
		if unexecuted[f.key.op] != "" {
			skipped["it is not executed: "+unexecuted[f.key.op]]++
			continue
		}
		h := fnv.New64a()
		h.Write(append([]byte(f.Name()), f.key.size))
		j.r = rand.New(rand.NewPCG(h.Sum64(), 1))
		j.fill()
		judged++
		failed, first := 0, ""
		for i := range f.Insts {
			per := max(1, n/len(f.Insts))
			runs += per
			k, why := j.encoding(t, &f.Insts[i], per)
			if failed += k; first == "" {
				first = why
			}
		}
		if first == string(missing) {
			without[f.key.op]++
			continue
		}
		if failed > 0 {
			bad++
			t.Errorf("%s: %d times\n  %s", f.Name(), failed, first)
		}
	}
	if len(without) > 0 {
		t.Errorf("forms of these operations are not executed here: %v", without)
	}
	t.Logf("%d forms executed %d times, %d differ", judged, runs, bad)
	for why, n := range skipped {
		t.Logf("%d forms not judged: %s", n, why)
	}
}

// encoding executes one encoding n times, and returns how often it went wrong
// and how the first time.
func (j *judge) encoding(t *testing.T, given *x86.Inst, n int) (failed int, first string) {
	in := *given
	at := 0xffffffff80000000 + uint64(j.r.IntN(1<<28))
	placed := uint64(0)
	for range n {
		before := j.registers()
		j.prepare(&in, &before)
		if placed == 0 {
			qt.Assert(t, qt.IsNil(in.Decode(given.Bytes(), at)))
		}
		targets, code := j.aim(&in, &before, placed != 0)
		if placed == 0 {
			if code != 0 {
				at = code
			}
			raw := append([]byte(nil), in.Bytes()...)
			qt.Assert(t, qt.IsNil(in.Decode(raw, at)))
			j.place(t, raw, at)
			placed = at
		}
		for _, a := range targets {
			if j.r.IntN(3) > 0 {
				var b [16]byte
				binary.LittleEndian.PutUint64(b[:], before.GP[j.r.IntN(16)])
				binary.LittleEndian.PutUint64(b[8:], before.GP[j.r.IntN(16)])
				j.write(a, b[:])
			}
		}
		v := j.step(&in, before, undefinedFlags(&in, &before))
		if v == agree {
			continue
		}
		failed++
		if v == missing {
			return 1, string(missing)
		}
		if first == "" {
			first = fmt.Sprintf("%s (% x) at %#x: %s\n  before: %s", in.String(), in.Bytes(), in.Addr, v, j.describe(&in, &before))
		}
	}
	return failed, first
}

// describe writes the registers before an instruction, as far as they matter.
func (j *judge) describe(in *x86.Inst, r *Regs) string {
	var b strings.Builder
	for i, v := range r.GP {
		fmt.Fprintf(&b, "%s=%#x ", gpNames[i], v)
	}
	fmt.Fprintf(&b, "flags=%s gs=%#x", flagString(r.Flags), r.GSBase)
	for i := range in.Args[:in.NArgs] {
		if k, n := register(in.Args[i].Reg); k == kXmm {
			fmt.Fprintf(&b, " xmm%d=%#x", n, r.X[n])
		}
	}
	return b.String()
}
