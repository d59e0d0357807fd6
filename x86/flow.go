package x86

// A Flow tells where control goes after an instruction.
type Flow uint8

// The classes of control flow.
const (
	FlowNext         Flow = iota // to the following instruction
	FlowJump                     // to Target
	FlowIndirectJump             // to where a register or memory says
	FlowCondJump                 // to Target or on: jcc, loop, jrcxz, xbegin
	FlowCall                     // to Target, and back
	FlowIndirectCall             // to where a register or memory says, and back
	FlowRet                      // to the caller or the interrupted code: ret, iret, sysret, eretu
	FlowTrap                     // into the kernel: ud2, ud1, int3, int, syscall
	FlowHalt                     // hlt: on, after an interrupt
)

// Flow returns the class of the instruction; that of [BAD] is FlowTrap.
func (in *Inst) Flow() Flow {
	f := rows[in.row].flags
	if f&(flagJmp|flagJcc|flagCall|flagRet|flagTrap|flagHalt) == 0 {
		if in.Op == BAD {
			return FlowTrap
		}
		return FlowNext
	}
	direct := in.NArgs > 0 && in.Args[0].Kind == KindRel
	switch {
	case f&flagJcc != 0:
		return FlowCondJump
	case f&flagJmp != 0 && direct:
		return FlowJump
	case f&flagJmp != 0:
		return FlowIndirectJump
	case f&flagCall != 0 && direct:
		return FlowCall
	case f&flagCall != 0:
		return FlowIndirectCall
	case f&flagRet != 0:
		return FlowRet
	case f&flagHalt != 0:
		return FlowHalt
	}
	return FlowTrap
}

// Target returns the address a direct jump or call goes to.
func (in *Inst) Target() (addr uint64, ok bool) {
	if in.NArgs > 0 && in.Args[0].Kind == KindRel {
		return uint64(in.Args[0].Val), true
	}
	return 0, false
}

// Cond returns the condition of jcc, setcc and cmovcc as the processor encodes
// it (SDM vol. 1, appendix B): 0 o, 2 b, 4 e, 6 be, 8 s, 10 p, 12 l, 14 le; odd is the opposite.
func (in *Inst) Cond() (cc uint8, ok bool) {
	return in.Opcode & 0xf, rows[in.row].flags&flagCC != 0
}

// OperandSize returns the operand size of the instruction in bytes: 2, 4 or 8.
func (in *Inst) OperandSize() int { return int(in.osz) }

// VectorLen returns the vector length in bytes of a VEX or EVEX encoding, else 0.
func (in *Inst) VectorLen() int { return int(in.vexLen) }
