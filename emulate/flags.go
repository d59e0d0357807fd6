package emulate

import "math/bits"

// setFlags sets the flags of a mask.
func (m *Machine) setFlags(which, v uint64) { m.Flags = m.Flags&^which | v&which }

// flagIf returns bit if v holds.
func flagIf(bit uint64, v bool) uint64 {
	if v {
		return bit
	}
	return 0
}

// result returns SF, ZF and PF of a result of size bytes.
func result(v uint64, size uint8) uint64 {
	v &= mask(size)
	var f uint64
	if v == 0 {
		f = ZF
	}
	if bits.OnesCount8(uint8(v))&1 == 0 {
		f |= PF
	}
	return f | signBit(v, size)<<7
}

// addFlags returns the flags of r = a + b + carry.
func addFlags(a, b, r uint64, size uint8) uint64 {
	carry := (a&b | (a|b)&^r)
	overflow := ^(a ^ b) & (a ^ r)
	return result(r, size) | signBit(carry, size) | (a^b^r)&AF | signBit(overflow, size)<<11
}

// subFlags returns the flags of r = a - b - borrow.
func subFlags(a, b, r uint64, size uint8) uint64 {
	borrow := (^a&b | (^a|b)&r)
	overflow := (a ^ b) & (a ^ r)
	return result(r, size) | signBit(borrow, size) | (a^b^r)&AF | signBit(overflow, size)<<11
}

// cond says whether a condition holds, numbered as instructions encode it.
func (m *Machine) cond(cc uint8) bool {
	f := m.Flags
	var v bool
	switch cc >> 1 {
	case 0:
		v = f&OF != 0
	case 1:
		v = f&CF != 0
	case 2:
		v = f&ZF != 0
	case 3:
		v = f&(CF|ZF) != 0
	case 4:
		v = f&SF != 0
	case 5:
		v = f&PF != 0
	case 6:
		v = f>>7&1 != f>>11&1
	default:
		v = f&ZF != 0 || f>>7&1 != f>>11&1
	}
	return v != (cc&1 != 0)
}
