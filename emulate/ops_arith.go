package emulate

import "github.com/ksleuth/ksleuth/x86"

var arithmeticOps = map[x86.Op]opRow{
	x86.ADD:  {exec: execAdd},
	x86.SUB:  {exec: execSub},
	x86.CMP:  {exec: execCmp},
	x86.XOR:  {exec: execXor},
	x86.AND:  {exec: execAnd},
	x86.OR:   {exec: execOr},
	x86.TEST: {exec: execTest},
}

// two reads both operands of an arithmetic instruction, in the width of the first.
func (m *Machine) two(u *uop) (a, b uint64, ok bool) {
	if b, ok = m.getSrc(u); !ok {
		return
	}
	a, ok = m.getDst(u)
	return a, b & mask(u.size), ok
}

func execAdd(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	r := a + b
	if !ok || !m.replace(u, r) {
		return false
	}
	m.setFlags(statusFlags, addFlags(a, b, r, u.size))
	return true
}

func execSub(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	r := a - b
	if !ok || !m.replace(u, r) {
		return false
	}
	m.setFlags(statusFlags, subFlags(a, b, r, u.size))
	return true
}

func execCmp(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	if ok {
		m.setFlags(statusFlags, subFlags(a, b, a-b, u.size))
	}
	return ok
}

// logic finishes and, or and xor. AF is undefined; it becomes 0.
func (m *Machine) logic(u *uop, r uint64) bool {
	if !m.replace(u, r) {
		return false
	}
	m.setFlags(statusFlags, result(r, u.size))
	return true
}

func execXor(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	return ok && m.logic(u, a^b)
}

func execAnd(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	return ok && m.logic(u, a&b)
}

func execOr(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	return ok && m.logic(u, a|b)
}

func execTest(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	if ok {
		m.setFlags(statusFlags, result(a&b, u.size))
	}
	return ok
}
