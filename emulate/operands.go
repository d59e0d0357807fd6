package emulate

// mask returns the bits of a word of size bytes.
func mask(size uint8) uint64 {
	if size >= 8 {
		return ^uint64(0)
	}
	return 1<<(8*size) - 1
}

// sext sign-extends a word of size bytes.
func sext(v uint64, size uint8) uint64 {
	s := 64 - 8*uint(size)
	return uint64(int64(v<<(s&63)) >> (s & 63))
}

// signBit returns the sign of a word of size bytes, 0 or 1.
func signBit(v uint64, size uint8) uint64 { return v >> ((8*uint(size) - 1) & 63) & 1 }

// reg reads a general register, zero-extended.
func (m *Machine) reg(k kind, r, size uint8) uint64 {
	if k == kHigh {
		return m.GP[r&15] >> 8 & 0xff
	}
	return m.GP[r&15] & mask(size)
}

// setReg writes a general register as instructions do: 4 bytes clear the upper
// half, 1 and 2 keep the rest.
func (m *Machine) setReg(k kind, r, size uint8, v uint64) {
	p := &m.GP[r&15]
	switch {
	case k == kHigh:
		*p = *p&^0xff00 | v&0xff<<8
	case size == 8:
		*p = v
	case size == 4:
		*p = v & 0xffffffff
	case size == 2:
		*p = *p&^0xffff | v&0xffff
	default:
		*p = *p&^0xff | v&0xff
	}
}

// getDst reads the first operand.
func (m *Machine) getDst(u *uop) (uint64, bool) {
	if u.dstKind == kMem {
		return m.load(m.ea(u), u.size)
	}
	return m.reg(u.dstKind, u.dst, u.size), true
}

// getSrc reads the second operand, in its own width; an immediate comes
// sign-extended.
func (m *Machine) getSrc(u *uop) (uint64, bool) {
	switch u.srcKind {
	case kMem:
		return m.load(m.ea(u), u.size2)
	case kImm:
		return u.imm, true
	}
	return m.reg(u.srcKind, u.src, u.size2), true
}

// getThird reads the third operand, in the width of the first.
func (m *Machine) getThird(u *uop) (uint64, bool) {
	switch u.thirdKind {
	case kMem:
		return m.load(m.ea(u), u.size)
	case kImm:
		return u.imm, true
	}
	return m.reg(u.thirdKind, u.third, u.size), true
}

// two reads both operands of an arithmetic instruction, in the width of the first.
func (m *Machine) two(u *uop) (a, b uint64, ok bool) {
	if b, ok = m.getSrc(u); !ok {
		return
	}
	a, ok = m.getDst(u)
	return a, b & mask(u.size), ok
}

// setDst writes the first operand.
func (m *Machine) setDst(u *uop, v uint64) bool {
	if u.dstKind == kMem {
		return m.store(m.ea(u), v, u.size)
	}
	m.setReg(u.dstKind, u.dst, u.size, v)
	return true
}

// replace is setDst after getDst: the address is known.
func (m *Machine) replace(u *uop, v uint64) bool {
	if u.dstKind == kMem {
		return m.store(m.read, v, u.size)
	}
	m.setReg(u.dstKind, u.dst, u.size, v)
	return true
}

// setSrc writes the second operand, a register.
func (m *Machine) setSrc(u *uop, v uint64) { m.setReg(u.srcKind, u.src, u.size2, v) }

// push makes room on the stack for a word and writes it.
func (m *Machine) push(v uint64, size uint8) bool {
	if !m.store(m.GP[RSP]-uint64(size), v, size) {
		return false
	}
	m.GP[RSP] -= uint64(size)
	return true
}

// pop reads a word from the stack and drops it.
func (m *Machine) pop(size uint8) (uint64, bool) {
	v, ok := m.load(m.GP[RSP], size)
	if ok {
		m.GP[RSP] += uint64(size)
	}
	return v, ok
}
