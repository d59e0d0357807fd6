package emulate

import "encoding/binary"

// A machine has one CPU: what is atomic is nothing special.

func execXchg(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	if !ok || !m.replace(u, b) {
		return false
	}
	m.setSrc(u, a)
	return true
}

// execXadd leaves the sum where both operands are one register.
func execXadd(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	if !ok {
		return false
	}
	r := a + b
	if u.dstKind == kMem {
		if !m.replace(u, r) {
			return false
		}
		m.setSrc(u, a)
	} else {
		m.setSrc(u, a)
		m.replace(u, r)
	}
	m.setFlags(statusFlags, addFlags(a, b, r, u.size))
	return true
}

// execCmpxchg writes its first operand also where it differs, if it is memory:
// with what it was. A register stays then, with its upper half.
func execCmpxchg(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	if !ok {
		return false
	}
	acc := m.GP[RAX] & mask(u.size)
	switch {
	case acc == a:
		ok = m.replace(u, b)
	case u.dstKind == kMem:
		ok = m.replace(u, a)
	}
	if !ok {
		return false
	}
	if acc != a {
		m.setReg(kReg, RAX, u.size, a)
	}
	m.setFlags(statusFlags, subFlags(acc, a, acc-a, u.size))
	return true
}

func execCmpxchg8b(m *Machine, u *uop) bool {
	a, ok := m.load(m.ea(u), 8)
	if !ok {
		return false
	}
	v := a
	same := a == m.GP[RDX]<<32|m.GP[RAX]&0xffffffff
	if same {
		v = m.GP[RCX]<<32 | m.GP[RBX]&0xffffffff
	}
	if !m.store(m.read, v, 8) {
		return false
	}
	if !same {
		m.GP[RAX], m.GP[RDX] = a&0xffffffff, a>>32
	}
	m.setFlags(ZF, flagIf(ZF, same))
	return true
}

func execCmpxchg16b(m *Machine, u *uop) bool {
	var b [16]byte
	at := m.ea(u)
	if at&15 != 0 {
		return m.misaligned(at)
	}
	if !m.loadBytes(b[:], at) {
		return false
	}
	lo, hi := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	same := lo == m.GP[RAX] && hi == m.GP[RDX]
	if same {
		binary.LittleEndian.PutUint64(b[:], m.GP[RBX])
		binary.LittleEndian.PutUint64(b[8:], m.GP[RCX])
	}
	if !m.storeBytes(b[:], at) {
		return false
	}
	if !same {
		m.GP[RAX], m.GP[RDX] = lo, hi
	}
	m.setFlags(ZF, flagIf(ZF, same))
	return true
}
