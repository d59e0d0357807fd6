package unwind

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/orc"
	"github.com/ksleuth/ksleuth/x86"
)

// A Saved is what a register held in a frame.
type Saved struct {
	Value uint64
	// Cell is the address of the copy that Value was read from, 0 where it is
	// the CPU's own, or computed (rsp).
	Cell  uint64
	Known bool
}

// Registers are the registers that the calling convention makes a function
// keep for its caller (System V ABI for AMD64, 3.2.1), as they were in a frame.
type Registers struct {
	RBX, RBP, RSP, R12, R13, R14, R15 Saved
}

// calleeSaved are the registers of [Registers] but rsp, which is known anyhow.
var calleeSaved = [...]x86.Reg{x86asm.RBX, x86asm.RBP, x86asm.R12, x86asm.R13, x86asm.R14, x86asm.R15}

// Reg returns a register by its 64-bit name; one that is not callee-saved is
// not known.
func (r *Registers) Reg(reg x86.Reg) Saved {
	if p := r.at(reg); p != nil {
		return *p
	}
	return Saved{}
}

func (r *Registers) at(reg x86.Reg) *Saved {
	switch reg {
	case x86asm.RBX:
		return &r.RBX
	case x86asm.RBP:
		return &r.RBP
	case x86asm.RSP:
		return &r.RSP
	case x86asm.R12:
		return &r.R12
	case x86asm.R13:
		return &r.R13
	case x86asm.R14:
		return &r.R14
	case x86asm.R15:
		return &r.R15
	}
	return nil
}

// Callee returns the callee-saved registers in frame i of a stack: those that an
// exception or a sleeping task's switch saved, and in callers of such frames
// what the functions in between saved of them. Each function's code is followed
// from its entry to its place, and tells where its caller's registers are there;
// where it does not, they are left unknown.
//
// A saved copy is given as it stands, damaged or not. This reads and follows
// code and so is not part of unwinding.
func Callee(k *kernel.Kernel, s Stack, i int) Registers {
	if i < 0 || i >= len(s.Frames) {
		return Registers{}
	}
	from := i
	for from > 0 && s.Frames[from].Regs == nil {
		from--
	}
	c := follower{k: k, s: s}
	r := c.start(from)
	for from < i {
		r = c.caller(from, r)
		from++
	}
	return r
}

// CalleeAll returns what [Callee] does for each frame.
func CalleeAll(k *kernel.Kernel, s Stack) []Registers {
	c := follower{k: k, s: s}
	out := make([]Registers, len(s.Frames))
	for i, f := range s.Frames {
		if i == 0 || f.Regs != nil {
			out[i] = c.start(i)
		} else {
			out[i] = c.caller(i-1, out[i-1])
		}
	}
	return out
}

// A follower follows the registers of a stack outwards.
type follower struct {
	k       *kernel.Kernel
	s       Stack
	decoded int // bytes of code followed so far: see maxDecoded
}

// start returns the registers of a frame that does not depend on those below.
func (c *follower) start(i int) Registers {
	f := c.s.Frames[i]
	r := Registers{RSP: Saved{Value: f.SP, Known: true}}
	if f.Regs == nil {
		c.switched(f, &r)
		return r
	}
	if i > 0 && f.RegsAddr != 0 && c.partial(c.s.Frames[i-1]) {
		return r
	}
	for _, p := range []struct {
		reg   *Saved
		value uint64
		word  uint64 // in struct pt_regs
	}{
		{&r.R15, f.Regs.R15, 0}, {&r.R14, f.Regs.R14, 1}, {&r.R13, f.Regs.R13, 2}, {&r.R12, f.Regs.R12, 3},
		{&r.RBP, f.Regs.RBP, 4}, {&r.RBX, f.Regs.RBX, 5},
	} {
		*p.reg = Saved{Value: p.value, Known: true}
		if f.RegsAddr != 0 {
			p.reg.Cell = f.RegsAddr + 8*p.word
		}
	}
	return r
}

// partial says whether a frame is entry code that has not yet saved more than
// the CPU itself does.
func (c *follower) partial(f Frame) bool {
	e, ok, err := c.k.ORC(f.Lookup())
	return err != nil || !ok || e.Type == orc.RegsPartial
}

// switched reads the registers of a sleeping task's innermost frame: its struct
// inactive_task_frame lies below (arch/x86/include/asm/switch_to.h).
func (c *follower) switched(f Frame, r *Registers) {
	const name = "inactive_task_frame"
	base := f.SP - c.k.Sizeof(name)
	for _, p := range []struct {
		reg    *Saved
		member string
	}{{&r.RBX, "bx"}, {&r.RBP, "bp"}, {&r.R12, "r12"}, {&r.R13, "r13"}, {&r.R14, "r14"}, {&r.R15, "r15"}} {
		if off, err := c.k.Offset(name, p.member); err == nil {
			*p.reg = c.read(base + off)
		}
	}
}

func (c *follower) read(cell uint64) Saved {
	v, err := mem.U64(c.k.Mem(), cell)
	if err != nil {
		return Saved{}
	}
	return Saved{Value: v, Cell: cell, Known: true}
}

// caller returns the registers of the caller of frame i, which has the given ones.
func (c *follower) caller(i int, regs Registers) Registers {
	f := c.s.Frames[i]
	r := Registers{RSP: Saved{Value: c.s.Frames[i+1].SP, Known: true}}
	if c.nowhere(f) {
		regs.RSP = r.RSP // nothing has run that could change the others
		return regs
	}
	if st, ok := c.follow(f); ok {
		c.locate(f, st, &regs, &r)
	}
	if cell := c.savedBP(f); !r.RBP.Known && cell != 0 {
		r.RBP = c.read(cell)
	}
	return r
}

// nowhere says whether a frame is a jump to where no code is.
func (c *follower) nowhere(f Frame) bool {
	_, _, ok := c.k.Symbolize(f.PC)
	return f.Exact && f.CFA == f.SP+8 && (!ok || !(&unwinder{k: c.k, exact: true}).executable(f.PC))
}

// savedBP returns where the ORC tables say that a function has saved the frame
// pointer of its caller, 0 if they do not.
func (c *follower) savedBP(f Frame) uint64 {
	if f.Kind != kernel.KindKernel && f.Kind != kernel.KindModule || f.CFA == 0 {
		return 0
	}
	e, ok, err := c.k.ORC(f.Lookup())
	if err != nil || !ok || e.Type != orc.Call || e.BP.Base != orc.PrevSP {
		return 0
	}
	return f.CFA + uint64(int64(e.BP.Offset))
}

// locate finds the caller's registers by where a function keeps them.
func (c *follower) locate(f Frame, st *state, regs, r *Registers) {
	bases := c.bases(f, st, regs)
	if bases == nil {
		return
	}
	for _, reg := range calleeSaved {
		want := value{entryOf, int64(reg)}
		to := r.at(reg)
		for _, cell := range st.cells {
			if base, ok := bases[cell.base]; ok && cell.v == want && !to.Known {
				*to = c.read(base + uint64(cell.off))
			}
		}
		for _, holder := range calleeSaved {
			if !to.Known && st.get(holder) == want {
				*to = regs.Reg(holder)
			}
		}
	}
}

// bases returns the addresses that the places of a state are relative to, as
// far as they are known; nil if the state does not fit the frame.
func (c *follower) bases(f Frame, st *state, regs *Registers) map[origin]uint64 {
	out := make(map[origin]uint64)
	if f.CFA != 0 {
		out[fromCFA] = f.CFA
	}
	add := func(v value, is uint64) bool {
		if v.of < fromCFA {
			return true
		}
		base := is - uint64(v.n)
		was, ok := out[v.of]
		out[v.of] = base
		return !ok || was == base
	}
	if !add(st.get(x86asm.RSP), f.SP) {
		return nil
	}
	// A frame pointer tells where rsp does not; it may be damaged, and counts
	// for nothing where rsp does.
	if v := st.get(x86asm.RBP); regs.RBP.Known {
		if _, ok := out[v.of]; !ok {
			add(v, regs.RBP.Value)
		}
	}
	return out
}
