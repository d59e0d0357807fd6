package emulate

import "github.com/ksleuth/ksleuth/x86"

var flowOps = withConditions(map[x86.Op]opRow{
	x86.JMP:  {exec: execJmp},
	x86.CALL: {exec: execCall, acc: accWrite},
	x86.RET:  {exec: execRet, acc: accRead},
	x86.NOP:  {exec: execNop},
})

// withConditions adds jcc, in all its conditions.
func withConditions(t map[x86.Op]opRow) map[x86.Op]opRow {
	for _, op := range []x86.Op{
		x86.JO, x86.JNO, x86.JB, x86.JAE, x86.JE, x86.JNE, x86.JBE, x86.JA,
		x86.JS, x86.JNS, x86.JP, x86.JNP, x86.JL, x86.JGE, x86.JLE, x86.JG,
	} {
		t[op] = opRow{exec: execJcc}
	}
	return t
}

func execNop(m *Machine, u *uop) bool { return true }

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
	if !ok || !m.store(m.GP[RSP]-8, u.next, 8) {
		return false
	}
	m.GP[RSP] -= 8
	m.RIP = t
	m.Frames = append(m.Frames, Frame{Entry: t, Ret: u.next, SP: m.GP[RSP], Step: m.Step})
	return true
}

func execRet(m *Machine, u *uop) bool {
	t, ok := m.load(m.GP[RSP], 8)
	if !ok {
		return false
	}
	m.GP[RSP] += 8 + u.imm
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
