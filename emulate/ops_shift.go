package emulate

import "github.com/ksleuth/ksleuth/x86"

var shiftOps = map[x86.Op]opRow{
	x86.SHL:  {exec: shift(shl)},
	x86.SHR:  {exec: shift(shr)},
	x86.SAR:  {exec: shift(sar)},
	x86.ROL:  {exec: rotate(rol)},
	x86.ROR:  {exec: rotate(ror)},
	x86.RCL:  {exec: rotate(rcl)},
	x86.RCR:  {exec: rotate(rcr)},
	x86.SHLD: {exec: double(shld)},
	x86.SHRD: {exec: double(shrd)},
	x86.SHLX: {exec: shiftX(func(a uint64, n uint, size uint8) uint64 { return a << n })},
	x86.SHRX: {exec: shiftX(func(a uint64, n uint, size uint8) uint64 { return a >> n })},
	x86.SARX: {exec: shiftX(func(a uint64, n uint, size uint8) uint64 { return uint64(int64(sext(a, size)) >> n) })},
	x86.RORX: {exec: shiftX(func(a uint64, n uint, size uint8) uint64 { return a>>n | a<<(8*uint(size)-n) })},
}

// count cuts a count of a shift to what processors look at.
func count(n uint64, size uint8) uint {
	if size == 8 {
		return uint(n & 63)
	}
	return uint(n & 31)
}

// counted reads the operands of a shift or rotation.
func (m *Machine) counted(u *uop) (a uint64, n uint, ok bool) {
	c := u.imm
	if u.srcKind == kReg {
		c = m.GP[RCX]
	}
	a, ok = m.getDst(u)
	return a, count(c, u.size), ok
}

// shift makes an exec of f, which shifts by n, at least 1, and says what the
// result would be a bit earlier, and the last bit shifted out.
//
// OF, which is defined for shifts by 1 only, is set as if the last of the n
// bits were shifted alone; AF, which is undefined, becomes 0. A shift by 0
// leaves the flags, but writes.
func shift(f func(a uint64, n uint, size uint8) (r, before, out uint64)) exec {
	return func(m *Machine, u *uop) bool {
		a, n, ok := m.counted(u)
		if !ok {
			return false
		}
		if n == 0 {
			return m.replace(u, a)
		}
		r, before, out := f(a, n, u.size)
		if !m.replace(u, r) {
			return false
		}
		m.setFlags(statusFlags, result(r, u.size)|out|signBit(before^r, u.size)<<11)
		return true
	}
}

func shl(a uint64, n uint, size uint8) (r, before, out uint64) {
	before = a << (n - 1)
	return before << 1, before, signBit(before, size)
}

func shr(a uint64, n uint, size uint8) (r, before, out uint64) {
	before = a >> (n - 1)
	return before >> 1, before, before & 1
}

func sar(a uint64, n uint, size uint8) (r, before, out uint64) {
	before = uint64(int64(sext(a, size)) >> (n - 1))
	return uint64(int64(before) >> 1), before, before & 1
}

// rotate makes an exec of f, which rotates by n, at least 1, with a carry, and
// returns CF and OF. OF is defined for rotations by 1 only; it is set alike for all.
func rotate(f func(a uint64, n uint, size uint8, carry uint64) (r, cf, of uint64)) exec {
	return func(m *Machine, u *uop) bool {
		a, n, ok := m.counted(u)
		if !ok {
			return false
		}
		if n == 0 {
			return m.replace(u, a)
		}
		r, cf, of := f(a, n, u.size, m.Flags&CF)
		if !m.replace(u, r) {
			return false
		}
		m.setFlags(CF|OF, cf|of<<11)
		return true
	}
}

func rol(a uint64, n uint, size uint8, _ uint64) (r, cf, of uint64) {
	w := 8 * uint(size)
	n %= w
	r = a<<n | a>>(w-n)
	return r, r & 1, signBit(r, size) ^ r&1
}

func ror(a uint64, n uint, size uint8, _ uint64) (r, cf, of uint64) {
	w := 8 * uint(size)
	n %= w
	r = a>>n | a<<(w-n)
	return r, signBit(r, size), signBit(r^r<<1, size)
}

func rcl(a uint64, n uint, size uint8, carry uint64) (r, cf, of uint64) {
	for ; n > 0; n-- {
		out := signBit(a, size)
		a = a<<1 | carry
		carry = out
	}
	return a, carry, signBit(a, size) ^ carry
}

func rcr(a uint64, n uint, size uint8, carry uint64) (r, cf, of uint64) {
	for ; n > 0; n-- {
		out := a & 1
		a = a&mask(size)>>1 | carry<<(8*uint(size)-1)
		carry = out
	}
	return a, carry, signBit(a^a<<1, size)
}

// double makes an exec of f, which shifts bits of b into a. The flags are as of shift.
func double(f func(a, b uint64, n uint, size uint8) (r, before, out uint64)) exec {
	return func(m *Machine, u *uop) bool {
		a, b, ok := m.two(u)
		if !ok {
			return false
		}
		c := u.imm
		if u.thirdKind == kReg {
			c = m.GP[RCX]
		}
		n := count(c, u.size)
		if n == 0 {
			return m.replace(u, a)
		}
		r, before, out := f(a, b, n, u.size)
		if !m.replace(u, r) {
			return false
		}
		m.setFlags(statusFlags, result(r, u.size)|out|signBit(before^r, u.size)<<11)
		return true
	}
}

// shld shifts 2 bytes by more than 16, which is undefined, as Intel's
// processors do: a follows b again.
func shld(a, b uint64, n uint, size uint8) (r, before, out uint64) {
	w := 8 * uint(size)
	step := func(n uint) uint64 {
		if size == 2 {
			return (a<<32 | b<<16 | a) << n >> 32
		}
		return a<<n | b>>(w-n)
	}
	before = step(n - 1)
	return step(n), before, signBit(before, size)
}

// shrd does as shld with 2 bytes.
func shrd(a, b uint64, n uint, size uint8) (r, before, out uint64) {
	w := 8 * uint(size)
	step := func(n uint) uint64 {
		if size == 2 {
			return (a<<32 | b<<16 | a) >> n
		}
		return a>>n | b<<(w-n)
	}
	before = step(n - 1)
	return step(n), before, before & 1
}

// shiftX makes an exec of a shift that leaves the flags.
func shiftX(f func(a uint64, n uint, size uint8) uint64) exec {
	return func(m *Machine, u *uop) bool {
		a, ok := m.getSrc(u)
		if !ok {
			return false
		}
		n, _ := m.getThird(u)
		m.setReg(kReg, u.dst, u.size, f(a, count(n, u.size), u.size))
		return true
	}
}
