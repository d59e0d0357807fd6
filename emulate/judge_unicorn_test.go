//go:build unicorn

package emulate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/internal/unicorn"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// The memory that operands lie in. Around it there is none.
const (
	areaAt  = 0xffff888000100000
	lowAt   = 0x20000000 // for addresses cut to 32 bits
	areaLen = 4 * pageSize
	codeLen = 2 * pageSize // what an instruction can lie across
)

// A judge runs one instruction on Unicorn and on a Machine, each with memory of
// its own that holds the same.
type judge struct {
	uc    *unicorn.Engine
	m     *Machine
	areas []judgeArea
	code  uint64 // page of the code mapped now, 0 if none
	r     *rand.Rand
}

type judgeArea struct {
	at uint64
	uc []byte
}

// nothing is a target without memory.
type nothing struct{}

func (nothing) ReadMem(b []byte, addr uint64) error {
	return &mem.Fault{Space: mem.Virtual, Addr: addr, Cause: mem.Unmapped}
}

func newJudge(t testing.TB) *judge {
	t.Helper()
	uc := newUnicorn(t)
	j := &judge{uc: uc, m: New(NewMemory(nothing{}), Options{})}
	for _, at := range []uint64{areaAt, lowAt} {
		b, err := uc.MapData(at, areaLen)
		qt.Assert(t, qt.IsNil(err))
		j.areas = append(j.areas, judgeArea{at, b})
		j.m.Mem.Map(at, areaLen)
	}
	return j
}

func newUnicorn(t testing.TB) *unicorn.Engine {
	t.Helper()
	uc, err := unicorn.New()
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { uc.Close() })
	return uc
}

// place puts code at addr, for both.
func (j *judge) place(t testing.TB, code []byte, addr uint64) {
	t.Helper()
	if j.code != 0 {
		qt.Assert(t, qt.IsNil(j.uc.Unmap(j.code)))
		delete(j.m.Mem.pages, j.code>>pageShift)
		delete(j.m.Mem.pages, j.code>>pageShift+1)
	}
	j.code = addr &^ pageMask
	b, err := j.uc.Map(j.code, codeLen)
	qt.Assert(t, qt.IsNil(err))
	for i := range b {
		b[i] = 0x90
	}
	copy(b[addr-j.code:], code)
	j.m.Mem.Map(j.code, codeLen)
	qt.Assert(t, qt.IsNil(j.m.Mem.WriteMem(b, j.code)))
	j.m.forget()
}

// fill gives an area new contents.
func (j *judge) fill() {
	var b [areaLen]byte
	for i := 0; i < areaLen; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], j.value())
	}
	for _, a := range j.areas {
		j.write(a.at, b[:])
	}
}

// write writes to an area of both.
func (j *judge) write(addr uint64, data []byte) {
	for _, a := range j.areas {
		if addr >= a.at && addr+uint64(len(data)) <= a.at+areaLen {
			copy(a.uc[addr-a.at:], data)
			_ = j.m.Mem.WriteMem(data, addr) // it is mapped
		}
	}
}

// restore makes Unicorn's areas what the machine's are.
func (j *judge) restore() {
	for _, a := range j.areas {
		for off := uint64(0); off < areaLen; off += pageSize {
			copy(a.uc[off:], j.m.Mem.pages[(a.at+off)>>pageShift].data[:])
		}
	}
}

// differs says where the areas of the two differ first, and makes them the same.
func (j *judge) differs() string {
	for _, a := range j.areas {
		for off := uint64(0); off < areaLen; off += pageSize {
			ours, theirs := j.m.Mem.pages[(a.at+off)>>pageShift].data, a.uc[off:off+pageSize]
			if bytes.Equal(ours[:], theirs) {
				continue
			}
			i := 0
			for ours[i] == theirs[i] {
				i++
			}
			w := i &^ 7
			s := fmt.Sprintf("memory at %#x: % x, want % x", a.at+off+uint64(w), ours[w:w+8], theirs[w:w+8])
			copy(ours[:], theirs)
			return s
		}
	}
	return ""
}

// corners are the values at which instructions do something else.
var corners = []uint64{
	0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 0x7f, 0x80, 0x81, 0xfe, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
	0x10000, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff, 1 << 32, 1<<63 - 1, 1 << 63, 1<<63 + 1, ^uint64(1), ^uint64(0),
	^uint64(0x7f), ^uint64(0x7fff), ^uint64(0x7fffffff),
}

// value returns a number, as often as not one at which something happens.
func (j *judge) value() uint64 {
	switch j.r.IntN(6) {
	case 0, 1:
		return corners[j.r.IntN(len(corners))]
	case 2:
		return uint64(j.r.IntN(256))
	case 3:
		return 1 << j.r.IntN(64)
	case 4:
		return uint64(int64(int32(j.r.Uint32())))
	}
	return j.r.Uint64()
}

// registers returns random registers. Some are equal, rsp lies in an area.
func (j *judge) registers() Regs {
	var r Regs
	pool := [3]uint64{j.value(), j.value(), j.value()}
	for i := range r.GP {
		if k := j.r.IntN(5); k < len(pool) {
			r.GP[i] = pool[k]
		} else {
			r.GP[i] = j.value()
		}
	}
	for i := range r.X {
		r.X[i] = [2]uint64{j.value(), j.value()}
	}
	r.GP[RSP] = j.target(8)
	if j.r.IntN(2) == 0 {
		r.GP[RBP] = j.target(8)
	}
	r.Flags = fixedFlags | j.r.Uint64()&(statusFlags|DF|IF)
	r.FSBase = 0x7f0000000000 + uint64(j.r.IntN(1<<20))
	r.GSBase = 0xffff888000000000 + uint64(j.r.IntN(1<<30))
	return r
}

// target returns an address that size bytes fit at; rarely one at the end of
// the memory, where they do not.
func (j *judge) target(size int) uint64 {
	const margin = 512 // for strings and bit strings
	off := margin + j.r.IntN(areaLen-2*margin)
	switch j.r.IntN(16) {
	case 0:
		off = pageSize*(1+j.r.IntN(3)) - j.r.IntN(size+1)
	case 1:
		if j.r.IntN(8) == 0 {
			off = areaLen - j.r.IntN(size+1)
		}
	case 2, 3, 4, 5, 6, 7:
		off &^= 7
	case 8, 9, 10, 11:
		off &^= 15
	}
	return areaAt + uint64(off)
}

// repeated says whether in is a string instruction with a prefix that repeats it.
func repeated(in *x86.Inst) bool {
	switch in.Op {
	case x86.MOVS, x86.STOS, x86.LODS, x86.CMPS, x86.SCAS:
		return in.Prefix&(x86.Rep|x86.Repne) != 0
	}
	return false
}

// A verdict is what a comparison came to.
type verdict string

const (
	agree   verdict = ""
	missing verdict = "not executed here"
)

// step executes the one instruction at regs.RIP on both and compares. undefined
// are flags that may differ.
func (j *judge) step(in *x86.Inst, before Regs, undefined uint64) verdict {
	m := j.m
	next := in.Addr + uint64(in.Len)
	m.Regs = before
	m.RIP = in.Addr
	m.Step, m.Frames = 0, m.Frames[:0]
	m.opt.Steps = 1
	until, count := next, 0
	if _, direct := in.Target(); direct {
		until, count = 0, 1
	} else if in.Flow() != x86.FlowNext {
		until = 0 // the target is not mapped, or is data. Counting makes the library crash.
	}
	clear(m.breaks)
	m.breaks[next] = true
	s := m.Run(context.Background())
	want := unicorn.Regs{GP: before.GP, Flags: before.Flags, FSBase: before.FSBase, GSBase: before.GSBase, X: before.X}
	if err := j.uc.SetRegs(&want); err != nil {
		return verdict(err.Error())
	}
	err := j.uc.Start(in.Addr, until, count)
	if e := j.uc.Regs(&want); e != nil {
		return verdict(e.Error())
	}
	if v := sameOutcome(s, err, j.uc.Vector); v != agree {
		j.differs()
		return v
	}
	rep := repeated(in)
	if s.Outcome == Faulted {
		j.restore() // Unicorn, unlike a processor, writes the part that is on a mapped page
	}
	if (s.Outcome == Faulted || s.Outcome == Trapped) && !rep { // of a string instruction some rounds were done
		want = unicorn.Regs{GP: before.GP, RIP: in.Addr, Flags: before.Flags, FSBase: before.FSBase, GSBase: before.GSBase, X: before.X}
	}
	correct(in, &before, &want)
	out := registersDiffer(m, &want, undefined)
	if d := j.differs(); d != "" {
		out = append(out, d)
	}
	return verdict(strings.Join(out, "; "))
}

// registersDiffer says in which registers a machine is not as it should be.
func registersDiffer(m *Machine, want *unicorn.Regs, undefined uint64) (out []string) {
	for i := range want.GP {
		if m.GP[i] != want.GP[i] {
			out = append(out, fmt.Sprintf("%s = %#x, want %#x", gpNames[i], m.GP[i], want.GP[i]))
		}
	}
	for i := range want.X {
		if m.X[i] != want.X[i] {
			out = append(out, fmt.Sprintf("xmm%d = %#x, want %#x", i, m.X[i], want.X[i]))
		}
	}
	if m.RIP != want.RIP {
		out = append(out, fmt.Sprintf("rip = %#x, want %#x", m.RIP, want.RIP))
	}
	if d := (m.Flags ^ want.Flags) & (statusFlags | DF | IF) &^ undefined; d != 0 {
		out = append(out, fmt.Sprintf("flags = %s, want %s", flagString(m.Flags), flagString(want.Flags)))
	}
	if m.GSBase != want.GSBase || m.FSBase != want.FSBase {
		out = append(out, fmt.Sprintf("gs base = %#x, want %#x; fs base = %#x, want %#x", m.GSBase, want.GSBase, m.FSBase, want.FSBase))
	}
	return out
}

// sameOutcome compares the way the two ended.
func sameOutcome(s *Stop, err error, vector int) verdict {
	var e *Exception
	errors.As(s.Err, &e)
	ours, theirs := string(s.Outcome), "executed"
	switch s.Outcome {
	case Returned, Reached, Limited, Looped:
		ours = "executed"
	case Faulted:
		ours = "fault"
	case Trapped:
		if e != nil {
			ours = fmt.Sprintf("exception %d", e.Vector)
		}
	}
	var ue unicorn.Error
	switch errors.As(err, &ue); {
	case vector >= 0:
		theirs = fmt.Sprintf("exception %d", vector)
	case ue == unicorn.InsnInvalid:
		theirs = "exception 6"
	case ue == unicorn.ReadUnmapped || ue == unicorn.WriteUnmapped:
		theirs = "fault"
	case ue == unicorn.FetchUnmapped || ue == unicorn.FetchProt: // of the instruction jumped to
	case err != nil:
		theirs = err.Error()
	}
	if s.Outcome == Unsupported {
		return missing
	}
	if ours != theirs {
		if s.Err != nil {
			ours += " (" + s.Err.Error() + ")"
		}
		return verdict("ended with: " + ours + ", want " + theirs)
	}
	return agree
}

func flagString(f uint64) string {
	s := ""
	for _, x := range []struct {
		bit  uint64
		name string
	}{{OF, "O"}, {DF, "D"}, {IF, "I"}, {SF, "S"}, {ZF, "Z"}, {AF, "A"}, {PF, "P"}, {CF, "C"}} {
		if f&x.bit != 0 {
			s += x.name
		} else {
			s += "-"
		}
	}
	return s
}

// aim sets the registers that address in's memory operands so that they lie in
// memory, and returns the addresses and where the code must lie if in addresses
// relative to it (else 0). Of placed code the place remains.
func (j *judge) aim(in *x86.Inst, r *Regs, placed bool) (targets []uint64, code uint64) {
	for i := range in.Args[:in.NArgs] {
		a := &in.Args[i]
		if a.Kind != x86.KindMem || a.Access == 0 {
			continue
		}
		t := j.target(max(1, int(a.Size)))
		if aligned[in.Op] {
			t &^= 15
		}
		if in.Prefix&x86.Addr32 != 0 {
			t = t - areaAt + lowAt
		}
		seg := uint64(0)
		switch a.Seg {
		case x86asm.GS:
			seg = r.GSBase
		case x86asm.FS:
			seg = r.FSBase
		}
		rest := t - uint64(a.Val) - seg // what base and index must make
		_, base := register(a.Reg)
		_, index := register(a.Index)
		scale := uint64(a.Scale)
		switch {
		case a.Reg == x86asm.RIP || a.Reg == x86asm.EIP:
			switch a.Seg {
			case x86asm.GS:
				r.GSBase = t - uint64(a.Val) - in.Addr - uint64(in.Len)
			case x86asm.FS:
				r.FSBase = t - uint64(a.Val) - in.Addr - uint64(in.Len)
			default:
				if d := a.Val; placed || d < 1<<16 && d > -1<<16 { // near: of the code itself
					t = in.Addr + uint64(in.Len) + uint64(a.Val)
				}
				code = t - uint64(a.Val) - uint64(in.Len)
			}
		case a.Reg == 0 && a.Index == 0:
			switch a.Seg {
			case x86asm.GS:
				r.GSBase = t - uint64(a.Val)
			case x86asm.FS:
				r.FSBase = t - uint64(a.Val)
			}
		case a.Index == 0:
			r.GP[base] = rest
		case a.Reg == 0:
			t -= rest % scale
			r.GP[index] = (t - uint64(a.Val) - seg) / scale
		case base == index && scale == 1:
			t -= rest & 1
			r.GP[base] = (t - uint64(a.Val) - seg) / 2
		case base == index:
			r.GP[base] = rest * inverse(scale+1)
		default:
			r.GP[base] = rest - r.GP[index]*scale
		}
		targets = append(targets, t)
	}
	return targets, code
}

// inverse returns the inverse of an odd number modulo 2^64.
func inverse(n uint64) uint64 {
	x := n
	for range 6 {
		x *= 2 - n*x
	}
	return x
}
