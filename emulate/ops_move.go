package emulate

import "github.com/ksleuth/ksleuth/x86"

var moveOps = map[x86.Op]opRow{
	x86.MOV:  {exec: execMov},
	x86.LEA:  {exec: execLea},
	x86.PUSH: {exec: execPush, acc: accWrite},
	x86.POP:  {exec: execPop, acc: accRead},
}

func execMov(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	return ok && m.setDst(u, v)
}

func execLea(m *Machine, u *uop) bool {
	m.setReg(u.dstKind, u.dst, u.size, m.ea(u))
	return true
}

func execPush(m *Machine, u *uop) bool {
	v := u.imm
	if u.dstKind != kImm {
		var ok bool
		if v, ok = m.getDst(u); !ok {
			return false
		}
	}
	if !m.store(m.GP[RSP]-8, v, 8) {
		return false
	}
	m.GP[RSP] -= 8
	return true
}

func execPop(m *Machine, u *uop) bool {
	v, ok := m.load(m.GP[RSP], 8)
	if !ok {
		return false
	}
	m.GP[RSP] += 8
	at := m.read
	if !m.setDst(u, v) {
		m.GP[RSP] -= 8
		return false
	}
	m.read = at
	return true
}
