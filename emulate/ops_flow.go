package emulate

import (
	"errors"

	"github.com/ksleuth/ksleuth/x86"
)

var flowOps = joinOps(map[x86.Op]opRow{
	x86.JMP:    {exec: execJmp},
	x86.CALL:   {exec: execCall, acc: accWrite},
	x86.RET:    {exec: execRet, acc: accRead},
	x86.JRCXZ:  {exec: execJrcxz},
	x86.LOOP:   {exec: loop(func(zf bool) bool { return true })},
	x86.LOOPE:  {exec: loop(func(zf bool) bool { return zf })},
	x86.LOOPNE: {exec: loop(func(zf bool) bool { return !zf })},
	x86.INT3:   {exec: trap(Breakpoint, "breakpoint")},
	x86.UD0:    {exec: trap(InvalidOpcode, "invalid opcode")},
	x86.UD1:    {exec: trap(InvalidOpcode, "invalid opcode")},
	x86.UD2:    {exec: trap(InvalidOpcode, "invalid opcode")},
}, same(execJcc,
	x86.JO, x86.JNO, x86.JB, x86.JAE, x86.JE, x86.JNE, x86.JBE, x86.JA,
	x86.JS, x86.JNS, x86.JP, x86.JNP, x86.JL, x86.JGE, x86.JLE, x86.JG,
))

func execJcc(m *Machine, u *uop) bool {
	if m.cond(u.cc) {
		m.RIP = u.imm
	}
	return true
}

// target reads where a jump or call goes.
func (m *Machine) target(u *uop) (uint64, bool) {
	if u.dstKind == kImm {
		return u.imm, true
	}
	return m.getDst(u)
}

func execJmp(m *Machine, u *uop) bool {
	t, ok := m.target(u)
	if ok {
		m.RIP = t
	}
	return ok
}

func execCall(m *Machine, u *uop) bool {
	t, ok := m.target(u)
	if !ok || !m.push(u.next, 8) {
		return false
	}
	m.RIP = t
	m.Frames = append(m.Frames, Frame{Entry: t, Ret: u.next, SP: m.GP[RSP], Step: m.Step})
	return true
}

func execRet(m *Machine, u *uop) bool {
	t, ok := m.pop(8)
	if !ok {
		return false
	}
	m.GP[RSP] += u.imm
	m.RIP = t
	m.returned()
	return true
}

// returned drops the calls that the stack pointer has left behind.
func (m *Machine) returned() {
	n := len(m.Frames)
	for n > 0 && m.Frames[n-1].SP < m.GP[RSP] {
		n--
	}
	m.Frames = m.Frames[:n]
}

func execJrcxz(m *Machine, u *uop) bool {
	if u.part(m.GP[RCX]) == 0 {
		m.RIP = u.imm
	}
	return true
}

// loop makes an exec of loop, loope or loopne: goesOn says what of ZF it wants.
func loop(goesOn func(zf bool) bool) exec {
	return func(m *Machine, u *uop) bool {
		m.GP[RCX] = u.part(m.GP[RCX] - 1)
		if m.GP[RCX] != 0 && goesOn(m.Flags&ZF != 0) {
			m.RIP = u.imm
		}
		return true
	}
}

// trap makes an exec of what raises an exception.
func trap(v Vector, text string) exec {
	err := errors.New(text)
	return func(m *Machine, u *uop) bool { return m.raise(&Exception{Vector: v, Err: err}) }
}
