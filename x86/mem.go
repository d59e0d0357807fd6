package x86

import "golang.org/x/arch/x86/x86asm"

// A Mem is a memory operand: the address is Seg's base + Base + Index*Scale + Disp.
type Mem struct {
	Seg   Reg // FS, GS, or what a string instruction implies; 0 otherwise
	Base  Reg // 0 if none, RIP or EIP for an address relative to the instruction's end
	Index Reg // 0 if none
	Scale uint8
	Disp  int64

	// Next is the address of the following instruction, what RIP stands for.
	Next uint64
	// Addr32 says that the address is cut to 32 bits (prefix 67).
	Addr32 bool
}

// Mem returns the address form of a memory operand, the zero Mem for others.
func (in *Inst) Mem(a Arg) Mem {
	if a.Kind != KindMem {
		return Mem{}
	}
	return Mem{
		Seg: a.Seg, Base: a.Reg, Index: a.Index, Scale: a.Scale, Disp: a.Val,
		Next: in.Addr + uint64(in.Len), Addr32: in.Prefix&Addr32 != 0,
	}
}

// MemOperand returns the memory operand of the instruction, its width in bytes
// (0 where not fixed) and what is done to it: nothing by lea, nop and prefetch.
// Of the two of movs and cmps it is the destination. Memory an instruction
// addresses without saying so, the stack above all, is not an operand.
func (in *Inst) MemOperand() (m Mem, size int, access Access, ok bool) {
	for _, a := range in.Args[:in.NArgs] {
		if a.Kind == KindMem {
			return in.Mem(a), int(a.Size), a.Access, true
		}
	}
	return Mem{}, 0, 0, false
}

// EffectiveAddress computes the linear address of m. It asks regs for the
// registers by their 64-bit (or, with an address size prefix, 32-bit) names, and
// for FS and GS expects the base of the segment; the bases of the other segments
// are zero in 64-bit mode. It fails if regs does not know one of them.
func EffectiveAddress(m Mem, regs func(Reg) (uint64, bool)) (addr uint64, ok bool) {
	addr = uint64(m.Disp)
	switch m.Base {
	case 0:
	case x86asm.RIP, x86asm.EIP:
		addr += m.Next
	default:
		v, ok := regs(m.Base)
		if !ok {
			return 0, false
		}
		addr += v
	}
	if m.Index != 0 {
		v, ok := regs(m.Index)
		if !ok {
			return 0, false
		}
		addr += v * uint64(m.Scale)
	}
	if m.Addr32 {
		addr &= 0xffffffff
	}
	if m.Seg == x86asm.FS || m.Seg == x86asm.GS {
		v, ok := regs(m.Seg)
		if !ok {
			return 0, false
		}
		addr += v
	}
	return addr, true
}

// Regs returns the registers m needs, the segment included: those
// [EffectiveAddress] asks for.
func (m Mem) Regs() []Reg {
	var r []Reg
	if m.Base != 0 && m.Base != x86asm.RIP && m.Base != x86asm.EIP {
		r = append(r, m.Base)
	}
	if m.Index != 0 {
		r = append(r, m.Index)
	}
	if m.Seg == x86asm.FS || m.Seg == x86asm.GS {
		r = append(r, m.Seg)
	}
	return r
}

// Full returns the 64-bit register that r is part of, r itself if it is none
// of the general ones.
func Full(r Reg) Reg {
	switch {
	case r >= x86asm.AL && r <= x86asm.BL:
		return x86asm.RAX + r - x86asm.AL
	case r >= x86asm.AH && r <= x86asm.BH:
		return x86asm.RAX + r - x86asm.AH
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return x86asm.RSP + r - x86asm.SPB
	case r >= x86asm.AX && r <= x86asm.R15W:
		return x86asm.RAX + r - x86asm.AX
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return x86asm.RAX + r - x86asm.EAX
	}
	return r
}
