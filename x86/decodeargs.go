package x86

import "golang.org/x/arch/x86/x86asm"

func (d *decoder) isMem() bool { return d.modrm < 0xc0 }

// size resolves the size of an operand in bytes.
func (d *decoder) size(s uint8) uint16 {
	switch s {
	case szV:
		d.useOsz()
		return uint16(d.osz)
	case szZ:
		d.oszUsed = d.oszUsed || d.rex&rexW == 0
		return uint16(min(d.osz, 4))
	case szY:
		d.rexUsed |= d.rex & rexW
		if d.rex&rexW != 0 {
			return 8
		}
		return 4
	case szA:
		if d.atAddr >= 0 {
			d.addrUsed = true
			return 4
		}
		return 8
	case szX:
		return 16 << d.vecL
	case szXh:
		return 8 << d.vecL
	case szXf:
		return 4 << d.vecL
	case szXe:
		return 2 << d.vecL
	case szP:
		d.useOsz()
		return uint16(d.osz) + 2
	case szWv:
		if d.isMem() {
			return 2
		}
		d.useOsz()
		return uint16(d.osz)
	case szDb, szDw:
		if d.isMem() {
			return 1 + uint16(s-szDb)
		}
		return 4
	}
	return uint16(s)
}

// bit returns v where bit b of REX is set, and notes that it was used.
func (d *decoder) bit(b, v byte) byte {
	d.rexUsed |= d.rex & b
	if d.rex&b != 0 {
		return v
	}
	return 0
}

func (d *decoder) reg() byte { return d.modrm>>3&7 | d.bit(rexR, 8) }

func (d *decoder) rm() byte { return d.modrm&7 | d.bit(rexB, 8) }

// operand decodes operand o into a.
func (d *decoder) operand(a *Arg, o operand) {
	s := &operandSpecs[o]
	switch s.shape {
	case shE, shVecE, shMMXE, shMaskE:
		d.modRMOperand(a, s)
	case shG:
		d.gpr(a, d.reg(), d.size(s.size))
	case shImm, shImmS:
		d.immediate(a, s)
	case shRel:
		a.Kind, a.Size, a.Val = KindRel, 8, d.signed(int(s.size))
	case shZ:
		d.gpr(a, d.in.Opcode&7|d.bit(rexB, 8), d.size(s.size))
	case shFixed:
		setReg(a, s.reg, uint16(s.size))
	case shFixedV:
		d.gpr(a, 0, d.size(s.size))
	case shMoffs, shSI, shDI, shBX:
		d.implied(a, s)
	default:
		d.otherRegister(a, s)
	}
}

func setReg(a *Arg, r Reg, size uint16) { a.Kind, a.Reg, a.Size = KindReg, r, size }

// gpr sets a to general register n of the given size in bytes. With a REX
// prefix, byte registers 4 to 7 are spl to dil instead of ah to bh.
func (d *decoder) gpr(a *Arg, n byte, size uint16) {
	var r Reg
	switch size {
	case 1:
		r = x86asm.AL + Reg(n)
		if n >= 4 && d.in.Rex != 0 {
			r += 4
		}
		if n&4 != 0 && d.in.Rex != 0 {
			d.rexUsed |= rexBase
		}
	case 2:
		r = x86asm.AX + Reg(n)
	case 4:
		r = x86asm.EAX + Reg(n)
	default:
		r = x86asm.RAX + Reg(n)
	}
	setReg(a, r, size)
}

func (d *decoder) immediate(a *Arg, s *operandSpec) {
	a.Kind = KindImm
	switch {
	case s.size == 0: // the 1 of a shift by one
		a.Size, a.Val = 1, 1
	case s.shape == shImm:
		a.Size = d.size(s.size)
		a.Val = int64(d.le(int(a.Size)))
	default:
		n := d.size(s.size)
		d.useOsz()
		a.Size = uint16(d.osz)
		a.Val = d.signed(int(n))
	}
}

// implied sets a to memory without ModR/M byte: absolute addresses and strings.
func (d *decoder) implied(a *Arg, s *operandSpec) {
	a.Kind, a.Size, a.Scale = KindMem, d.size(s.size), 1
	n := d.size(szA)
	base := x86asm.RAX
	if n == 4 {
		base = x86asm.EAX
	}
	if s.shape != shDI {
		a.Seg = d.seg
		d.segUsed = s.shape != shMoffs || d.seg != 0
	}
	switch s.shape {
	case shMoffs:
		a.Val = int64(d.le(int(n)))
		d.in.hasDisp = true
		return
	case shDI:
		a.Seg, a.Reg = x86asm.ES, base+7
		return
	case shSI:
		a.Reg = base + 6
	case shBX:
		a.Reg = base + 3
	}
	if a.Seg == 0 {
		a.Seg = x86asm.DS
	}
}

// otherRegister sets a to a register that is neither in rm nor a general one in reg.
func (d *decoder) otherRegister(a *Arg, s *operandSpec) {
	switch s.shape {
	case shB:
		d.vvvvUsed = true
		d.bad = d.bad || d.vvvv > 15
		d.gpr(a, d.vvvv&15, d.size(s.size))
	case shSreg:
		n := d.modrm >> 3 & 7
		d.bad = d.bad || n > 5
		setReg(a, x86asm.ES+Reg(n&7%6), 2)
	case shCR:
		setReg(a, x86asm.CR0+Reg(d.reg()), 8)
	case shDR:
		setReg(a, x86asm.DR0+Reg(d.reg()), 8)
	case shST:
		setReg(a, x86asm.F0+Reg(d.modrm&7), 10)
	case shMMX:
		setReg(a, x86asm.M0+Reg(d.modrm>>3&7), 8)
	case shMask:
		d.bad = d.bad || d.rex&rexR != 0 || d.regHi != 0
		setReg(a, x86asm.K0+Reg(d.modrm>>3&7), 8)
	case shMaskV:
		d.vvvvUsed = true
		setReg(a, x86asm.K0+Reg(d.vvvv&7), 8)
	case shVec:
		d.vector(a, d.reg()|d.regHi, d.size(s.size))
	case shVecV:
		d.vvvvUsed = true
		d.vector(a, d.vvvv, d.size(s.size))
	case shVecI:
		d.vector(a, d.u8()>>4, d.size(s.size))
	}
}

// vector sets a to vector register n, of the class its size calls for.
func (d *decoder) vector(a *Arg, n byte, size uint16) {
	base := x86asm.X0
	switch size {
	case 32:
		base = x86asm.Y0
	case 64:
		base = x86asm.Z0
	}
	setReg(a, base+Reg(n), size)
}

// modRMOperand sets a to the register or memory operand of the ModR/M byte.
func (d *decoder) modRMOperand(a *Arg, s *operandSpec) {
	if d.isMem() {
		d.bad = d.bad || s.rm == rmReg
		size := d.size(s.size)
		if d.bcast && s.shape == shVecE {
			elem := uint16(4)
			if d.rex&rexW != 0 {
				elem = 8
			}
			d.in.Broadcast = uint8(size / elem)
			size = elem
		}
		d.memory(a, size)
		return
	}
	d.bad = d.bad || s.rm == rmMem
	switch s.shape {
	case shE:
		d.gpr(a, d.rm(), d.size(s.size))
	case shMMXE:
		setReg(a, x86asm.M0+Reg(d.modrm&7), 8)
	case shMaskE:
		setReg(a, x86asm.K0+Reg(d.modrm&7), 8)
	default:
		size := max(d.size(s.size), 16)
		d.vector(a, d.rm()|d.rmHi, size)
	}
}

// memory decodes a memory operand (SDM vol. 2, 2.1.5 and 2.2.1.6) of size bytes.
func (d *decoder) memory(a *Arg, size uint16) {
	a.Kind, a.Size, a.Scale = KindMem, size, 1
	if d.seg != 0 {
		a.Seg, d.segUsed = d.seg, true
	}
	gpr, ip := x86asm.RAX, x86asm.RIP
	d.addrUsed = true
	if d.atAddr >= 0 {
		gpr, ip = x86asm.EAX, x86asm.EIP
	}
	mod := d.modrm >> 6
	rm := d.modrm & 7
	b := d.bit(rexB, 8)
	disp := 0
	switch mod {
	case 1:
		disp = 1
	case 2:
		disp = 4
	}
	switch {
	case rm == 4:
		disp = d.sib(a, gpr, mod, disp, b)
	case rm == 5 && mod == 0:
		a.Reg, disp = ip, 4
	default:
		a.Reg = gpr + Reg(rm|b)
	}
	if disp == 0 {
		return
	}
	d.in.hasDisp = true
	a.Val = d.signed(disp)
	if disp == 1 && d.vex == 2 && size != 0 { // EVEX: the displacement counts operands (SDM vol. 2, 2.7.5)
		a.Val *= int64(size)
	}
}

// sib decodes the SIB byte into a and returns the size of the displacement.
func (d *decoder) sib(a *Arg, gpr Reg, mod byte, disp int, b byte) int {
	sib := d.u8()
	a.Scale = 1 << (sib >> 6)
	if x := sib>>3&7 | d.bit(rexX, 8); x != 4 {
		a.Index = gpr + Reg(x)
	}
	if sib&7 == 5 && mod == 0 {
		disp = 4
	} else {
		a.Reg = gpr + Reg(sib&7|b)
	}
	d.in.riz = a.Index == 0 && (a.Scale > 1 || a.Reg != 0 && sib&7 != 4 || a.Reg == 0 && d.atAddr >= 0)
	return disp
}
