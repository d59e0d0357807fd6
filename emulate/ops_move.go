package emulate

import (
	"math/bits"

	"github.com/ksleuth/ksleuth/x86"
)

var moveOps = joinOps(map[x86.Op]opRow{
	x86.MOV:    {exec: execMov},
	x86.MOVNTI: {exec: execMov},
	x86.MOVZX:  {exec: execMov},
	x86.MOVSX:  {exec: execMovsx},
	x86.MOVSXD: {exec: execMovsx},
	x86.MOVBE:  {exec: execMovbe},
	x86.LEA:    {exec: execLea},
	x86.BSWAP:  {exec: execBswap},
	x86.XLAT:   {exec: execXlat},
	x86.CBW:    {exec: execWiden},
	x86.CWDE:   {exec: execWiden},
	x86.CDQE:   {exec: execWiden},
	x86.CWD:    {exec: execSpreadSign},
	x86.CDQ:    {exec: execSpreadSign},
	x86.CQO:    {exec: execSpreadSign},

	x86.XCHG:       {exec: execXchg},
	x86.XADD:       {exec: execXadd},
	x86.CMPXCHG:    {exec: execCmpxchg},
	x86.CMPXCHG8B:  {exec: execCmpxchg8b},
	x86.CMPXCHG16B: {exec: execCmpxchg16b},

	x86.PUSH:   {exec: execPush, acc: accWrite},
	x86.POP:    {exec: execPop, acc: accRead},
	x86.PUSHF:  {exec: execPushf, acc: accWrite},
	x86.PUSHFW: {exec: execPushf, acc: accWrite},
	x86.POPF:   {exec: execPopf, acc: accRead},
	x86.POPFW:  {exec: execPopf, acc: accRead},
	x86.ENTER:  {exec: execEnter, acc: accWrite},
	x86.LEAVE:  {exec: execLeave, acc: accRead},
}, same(execCmov,
	x86.CMOVO, x86.CMOVNO, x86.CMOVB, x86.CMOVAE, x86.CMOVE, x86.CMOVNE, x86.CMOVBE, x86.CMOVA,
	x86.CMOVS, x86.CMOVNS, x86.CMOVP, x86.CMOVNP, x86.CMOVL, x86.CMOVGE, x86.CMOVLE, x86.CMOVG,
), same(execSetcc,
	x86.SETO, x86.SETNO, x86.SETB, x86.SETAE, x86.SETE, x86.SETNE, x86.SETBE, x86.SETA,
	x86.SETS, x86.SETNS, x86.SETP, x86.SETNP, x86.SETL, x86.SETGE, x86.SETLE, x86.SETG,
))

// execMov also is movzx: what is read is zero-extended already.
func execMov(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	return ok && m.setDst(u, v)
}

func execMovsx(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	return ok && m.setDst(u, sext(v, u.size2))
}

// swapBytes reverses the bytes of a word of size bytes.
func swapBytes(v uint64, size uint8) uint64 { return bits.ReverseBytes64(v) >> (64 - 8*uint(size)) }

func execMovbe(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	return ok && m.setDst(u, swapBytes(v, u.size))
}

// execBswap of 2 bytes is undefined; it makes 0, as processors do.
func execBswap(m *Machine, u *uop) bool {
	v := m.reg(u.dstKind, u.dst, u.size)
	if u.size == 2 {
		v = 0
	}
	m.setReg(u.dstKind, u.dst, u.size, swapBytes(v, u.size))
	return true
}

func execLea(m *Machine, u *uop) bool {
	m.setReg(u.dstKind, u.dst, u.size, m.ea(u))
	return true
}

func execXlat(m *Machine, u *uop) bool {
	a := u.part(m.GP[RBX] + m.GP[RAX]&0xff)
	v, ok := m.load(m.inSegment(u, a), 1)
	if ok {
		m.setReg(kReg, RAX, 1, v)
	}
	return ok
}

// execWiden is cbw, cwde and cdqe.
func execWiden(m *Machine, u *uop) bool {
	m.setReg(kReg, RAX, u.size, sext(m.GP[RAX], u.size/2))
	return true
}

// execSpreadSign is cwd, cdq and cqo.
func execSpreadSign(m *Machine, u *uop) bool {
	m.setReg(kReg, RDX, u.size, -signBit(m.GP[RAX], u.size))
	return true
}

// execCmov reads, and in 32 bits clears the upper half, also where the
// condition does not hold.
func execCmov(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	if !ok {
		return false
	}
	if !m.cond(u.cc) {
		v = m.GP[u.dst&15]
		m.n = noAccess // the history wants to know which value it was
	}
	m.setReg(kReg, u.dst, u.size, v)
	return true
}

func execSetcc(m *Machine, u *uop) bool { return m.setDst(u, flagIf(1, m.cond(u.cc))) }

func execPush(m *Machine, u *uop) bool {
	v := u.imm
	if u.dstKind != kImm {
		var ok bool
		if v, ok = m.getDst(u); !ok {
			return false
		}
	}
	return m.push(v, u.size)
}

// execPop computes the address of its operand with the stack pointer as it is
// after the pop.
func execPop(m *Machine, u *uop) bool {
	v, ok := m.pop(u.size)
	if !ok {
		return false
	}
	if !m.setDst(u, v) {
		m.GP[RSP] -= uint64(u.size)
		return false
	}
	return true
}

// Bits of RFLAGS that popf sets in kernel mode, beside the status flags: TF, IF, DF,
// IOPL, NT, AC and ID.
const systemFlags = TF | IF | DF | 3<<12 | 1<<14 | AC | 1<<21

func execPushf(m *Machine, u *uop) bool { return m.push(m.Flags, u.size) }

func execPopf(m *Machine, u *uop) bool {
	v, ok := m.pop(u.size)
	if ok {
		m.setFlags((statusFlags|systemFlags)&mask(u.size), v)
	}
	return ok
}

// execEnter has the size of the frame in imm, and the nesting level above.
func execEnter(m *Machine, u *uop) bool {
	if u.imm>>16 != 0 {
		return m.cannot(u, "a nested frame")
	}
	sp := m.GP[RSP] - 8
	if !m.store(sp, m.GP[RBP], 8) {
		return false
	}
	m.GP[RBP] = sp
	m.GP[RSP] = sp - u.imm
	return true
}

func execLeave(m *Machine, u *uop) bool {
	v, ok := m.load(m.GP[RBP], 8)
	if ok {
		m.GP[RSP] = m.GP[RBP] + 8
		m.GP[RBP] = v
	}
	return ok
}
