package emulate

import (
	"math/bits"

	"github.com/ksleuth/ksleuth/x86"
)

var bitOps = map[x86.Op]opRow{
	x86.BT:     {exec: execBt},
	x86.BTS:    {exec: bitChange(func(v, bit uint64) uint64 { return v | bit })},
	x86.BTR:    {exec: bitChange(func(v, bit uint64) uint64 { return v &^ bit })},
	x86.BTC:    {exec: bitChange(func(v, bit uint64) uint64 { return v ^ bit })},
	x86.BSF:    {exec: bitScan(func(v uint64) int { return bits.TrailingZeros64(v) })},
	x86.BSR:    {exec: bitScan(func(v uint64) int { return 63 - bits.LeadingZeros64(v) })},
	x86.TZCNT:  {exec: execTzcnt},
	x86.LZCNT:  {exec: execLzcnt},
	x86.POPCNT: {exec: execPopcnt},
	x86.CRC32:  {exec: execCRC32},
	x86.ANDN:   {exec: execAndn},
	x86.BEXTR:  {exec: execBextr},
	x86.BZHI:   {exec: execBzhi},
	x86.BLSI:   {exec: lowest(func(v uint64) uint64 { return -v & v }, false)},
	x86.BLSMSK: {exec: lowest(func(v uint64) uint64 { return v - 1 ^ v }, true)},
	x86.BLSR:   {exec: lowest(func(v uint64) uint64 { return (v - 1) & v }, true)},
	x86.PDEP:   {exec: execPdep},
	x86.PEXT:   {exec: execPext},
}

// bit returns which bit, of which word, a bt, bts, btr or btc is about, with
// the word. A register may name a bit beyond the word that a memory operand is:
// it counts, signed, from the start of that word. at is the address of the word.
func (m *Machine) bit(u *uop) (v uint64, n uint, at uint64, ok bool) {
	off := u.imm
	if u.srcKind == kReg {
		off = sext(m.GP[u.src&15], u.size)
	}
	w := 8 * uint64(u.size)
	n = uint(off & (w - 1))
	if u.dstKind != kMem {
		return m.reg(u.dstKind, u.dst, u.size), n, 0, true
	}
	at = m.ea(u)
	if u.srcKind == kReg {
		at += uint64(int64(off)>>3) &^ uint64(u.size-1)
	}
	v, ok = m.load(at, u.size)
	return v, n, at, ok
}

// execBt sets CF and leaves the other flags, of which all but ZF are undefined.
func execBt(m *Machine, u *uop) bool {
	v, n, _, ok := m.bit(u)
	if ok {
		m.setFlags(CF, v>>n)
	}
	return ok
}

// bitChange makes an exec of bts, btr or btc. It writes also what does not change.
func bitChange(f func(v, bit uint64) uint64) exec {
	return func(m *Machine, u *uop) bool {
		v, n, at, ok := m.bit(u)
		if !ok {
			return false
		}
		r := f(v, 1<<n)
		if u.dstKind != kMem {
			m.setReg(kReg, u.dst, u.size, r)
		} else if !m.store(at, r, u.size) {
			return false
		}
		m.setFlags(CF, v>>n)
		return true
	}
}

// bitScan makes an exec of bsf or bsr. Of zero the result is undefined: the
// register stays, all of it, as on today's processors. Flags other than ZF are
// undefined and stay.
func bitScan(f func(v uint64) int) exec {
	return func(m *Machine, u *uop) bool {
		v, ok := m.getSrc(u)
		if !ok {
			return false
		}
		if v != 0 {
			m.setReg(kReg, u.dst, u.size, uint64(f(v)))
		}
		m.setFlags(ZF, flagIf(ZF, v == 0))
		return true
	}
}

func execTzcnt(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	return ok && m.counts(u, v, min(bits.TrailingZeros64(v), 8*int(u.size)))
}

func execLzcnt(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	return ok && m.counts(u, v, bits.LeadingZeros64(v)-64+8*int(u.size))
}

// counts ends tzcnt and lzcnt; OF, SF, PF and AF are undefined and stay.
func (m *Machine) counts(u *uop, v uint64, r int) bool {
	m.setReg(kReg, u.dst, u.size, uint64(r))
	m.setFlags(CF|ZF, flagIf(CF, v == 0)|flagIf(ZF, r == 0))
	return true
}

func execPopcnt(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	if ok {
		m.setReg(kReg, u.dst, u.size, uint64(bits.OnesCount64(v)))
		m.setFlags(statusFlags, flagIf(ZF, v == 0))
	}
	return ok
}

// castagnoli is the polynomial of crc32, bits reversed.
const castagnoli = 0x82f63b78

func execCRC32(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	if !ok {
		return false
	}
	// The register and the data are polynomials over GF(2), lowest bit first.
	v ^= m.GP[u.dst&15] & 0xffffffff
	for range 8 * int(u.size2) {
		v = v>>1 ^ -(v&1)&castagnoli
	}
	m.GP[u.dst&15] = v & 0xffffffff
	return true
}

// bitFlags sets the flags of BMI instructions. AF and PF are undefined: the
// former becomes 0, the latter that of the result.
func (m *Machine) bitFlags(u *uop, r uint64, carry bool) bool {
	m.setReg(kReg, u.dst, u.size, r)
	m.setFlags(statusFlags, result(r, u.size)|flagIf(CF, carry))
	return true
}

func execAndn(m *Machine, u *uop) bool {
	b, ok := m.getThird(u)
	return ok && m.bitFlags(u, ^m.GP[u.src&15]&b, false)
}

// lowest makes an exec of blsi, blsmsk or blsr. CF says whether the source is
// zero, of blsi that it is not.
func lowest(f func(v uint64) uint64, carryOfZero bool) exec {
	return func(m *Machine, u *uop) bool {
		v, ok := m.getSrc(u)
		return ok && m.bitFlags(u, f(v), (v == 0) == carryOfZero)
	}
}

func execBextr(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	if !ok {
		return false
	}
	c := m.GP[u.third&15]
	r := v >> (c & 0xff)
	if n := c >> 8 & 0xff; n < 64 {
		r &= 1<<n - 1
	}
	return m.bitFlags(u, r, false)
}

func execBzhi(m *Machine, u *uop) bool {
	v, ok := m.getSrc(u)
	if !ok {
		return false
	}
	n := m.GP[u.third&15] & 0xff
	over := n >= 8*uint64(u.size)
	if !over {
		v &= 1<<n - 1
	}
	return m.bitFlags(u, v, over)
}

func execPdep(m *Machine, u *uop) bool {
	bitsOf, ok := m.getThird(u)
	if !ok {
		return false
	}
	v, r := m.GP[u.src&15], uint64(0)
	for ; bitsOf != 0; bitsOf &= bitsOf - 1 {
		r |= -(v & 1) & (bitsOf & -bitsOf)
		v >>= 1
	}
	m.setReg(kReg, u.dst, u.size, r)
	return true
}

func execPext(m *Machine, u *uop) bool {
	bitsOf, ok := m.getThird(u)
	if !ok {
		return false
	}
	v, r := m.GP[u.src&15], uint64(0)
	for n := uint(0); bitsOf != 0; bitsOf &= bitsOf - 1 {
		r |= v >> bits.TrailingZeros64(bitsOf) & 1 << n
		n++
	}
	m.setReg(kReg, u.dst, u.size, r)
	return true
}
