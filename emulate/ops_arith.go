package emulate

import (
	"errors"
	"math/bits"

	"github.com/ksleuth/ksleuth/x86"
)

var arithmeticOps = map[x86.Op]opRow{
	x86.ADD:  {exec: execAdd},
	x86.ADC:  {exec: execAdc},
	x86.SUB:  {exec: execSub},
	x86.SBB:  {exec: execSbb},
	x86.CMP:  {exec: execCmp},
	x86.INC:  {exec: execInc},
	x86.DEC:  {exec: execDec},
	x86.NEG:  {exec: execNeg},
	x86.NOT:  {exec: execNot},
	x86.XOR:  {exec: execXor},
	x86.AND:  {exec: execAnd},
	x86.OR:   {exec: execOr},
	x86.TEST: {exec: execTest},
	x86.ADCX: {exec: execAdcx},
	x86.ADOX: {exec: execAdox},
	x86.MUL:  {exec: execMul},
	x86.IMUL: {exec: execImul},
	x86.MULX: {exec: execMulx},
	x86.DIV:  {exec: execDiv},
	x86.IDIV: {exec: execIdiv},
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

func execAdc(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	r := a + b + m.Flags&CF
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

func execSbb(m *Machine, u *uop) bool {
	a, b, ok := m.two(u)
	r := a - b - m.Flags&CF
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

func execInc(m *Machine, u *uop) bool {
	a, ok := m.getDst(u)
	if !ok || !m.replace(u, a+1) {
		return false
	}
	m.setFlags(statusFlags&^CF, addFlags(a, 1, a+1, u.size))
	return true
}

func execDec(m *Machine, u *uop) bool {
	a, ok := m.getDst(u)
	if !ok || !m.replace(u, a-1) {
		return false
	}
	m.setFlags(statusFlags&^CF, subFlags(a, 1, a-1, u.size))
	return true
}

func execNeg(m *Machine, u *uop) bool {
	a, ok := m.getDst(u)
	if !ok || !m.replace(u, -a) {
		return false
	}
	m.setFlags(statusFlags, subFlags(0, a, -a, u.size))
	return true
}

func execNot(m *Machine, u *uop) bool {
	a, ok := m.getDst(u)
	return ok && m.replace(u, ^a)
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

func execAdcx(m *Machine, u *uop) bool { return m.addCarry(u, CF, 0) }
func execAdox(m *Machine, u *uop) bool { return m.addCarry(u, OF, 11) }

// addCarry adds with the carry in another flag, whose number is bit.
func (m *Machine) addCarry(u *uop, which uint64, bit uint) bool {
	a, b, ok := m.two(u)
	if !ok {
		return false
	}
	r := a + b + m.Flags>>bit&1
	m.setReg(kReg, u.dst, u.size, r)
	m.setFlags(which, addFlags(a, b, r, u.size)&CF<<bit)
	return true
}

// setWide writes a product, or a dividend's halves, to where one-operand
// multiplications and divisions have them: ax, or rdx and rax.
func (m *Machine) setWide(size uint8, lo, hi uint64) {
	if size == 1 {
		m.setReg(kReg, RAX, 2, lo&0xff|hi<<8)
		return
	}
	m.setReg(kReg, RAX, size, lo)
	m.setReg(kReg, RDX, size, hi)
}

// multiply returns both halves of a product of words of size bytes.
func multiply(a, b uint64, size uint8) (hi, lo uint64) {
	hi, lo = bits.Mul64(a, b)
	if size < 8 {
		hi, lo = lo>>(8*size), lo&mask(size)
	}
	return hi, lo
}

// productFlags sets the flags of a multiplication: CF and OF say that the upper
// half matters. The others are undefined; they are set by the lower half.
func (m *Machine) productFlags(lo uint64, size uint8, wide bool) {
	m.setFlags(statusFlags, result(lo, size)|flagIf(CF|OF, wide))
}

func execMul(m *Machine, u *uop) bool {
	b, ok := m.getDst(u)
	if !ok {
		return false
	}
	hi, lo := multiply(m.GP[RAX]&mask(u.size), b, u.size)
	m.setWide(u.size, lo, hi)
	m.productFlags(lo, u.size, hi != 0)
	return true
}

// execImul is imul with one, two and three operands.
func execImul(m *Machine, u *uop) bool {
	var a, b uint64
	ok := true
	switch {
	case u.srcKind == kNone:
		a = m.GP[RAX]
		b, ok = m.getDst(u)
	case u.thirdKind == kImm:
		b = u.imm
		a, ok = m.getSrc(u)
	default:
		a, b, ok = m.two(u)
	}
	if !ok {
		return false
	}
	a, b = sext(a, u.size), sext(b, u.size)
	hi, lo := bits.Mul64(a, b)
	hi -= a>>63*b + b>>63*a // signed
	if u.size < 8 {
		hi = lo >> (8 * u.size)
	}
	wide := sext(lo, u.size) != lo
	if u.size == 8 {
		wide = hi != -(lo >> 63)
	}
	if u.srcKind == kNone {
		m.setWide(u.size, lo, hi)
	} else {
		m.setReg(kReg, u.dst, u.size, lo)
	}
	m.productFlags(lo, u.size, wide)
	return true
}

// execMulx keeps the upper half where both operands are one register.
func execMulx(m *Machine, u *uop) bool {
	b, ok := m.getThird(u)
	if !ok {
		return false
	}
	hi, lo := multiply(m.GP[RDX]&mask(u.size), b, u.size)
	m.setReg(kReg, u.src, u.size, lo)
	m.setReg(kReg, u.dst, u.size, hi)
	return true
}

// dividend returns what a division divides.
func (m *Machine) dividend(size uint8) (hi, lo uint64) {
	if size == 1 {
		return m.GP[RAX] >> 8 & 0xff, m.GP[RAX] & 0xff
	}
	return m.GP[RDX] & mask(size), m.GP[RAX] & mask(size)
}

var errDivide = errors.New("divide error")

func (m *Machine) divideError() bool {
	return m.raise(&Exception{Vector: DivideError, Err: errDivide})
}

// divide returns hi:lo / b of words of size bytes; hi must be less than b.
func divide(hi, lo, b uint64, size uint8) (q, r uint64) {
	if size == 8 {
		return bits.Div64(hi, lo, b)
	}
	a := hi<<(8*size) | lo
	return a / b, a % b
}

// execDiv leaves the flags, which are undefined.
func execDiv(m *Machine, u *uop) bool {
	b, ok := m.getDst(u)
	if !ok {
		return false
	}
	hi, lo := m.dividend(u.size)
	if hi >= b {
		return m.divideError()
	}
	q, r := divide(hi, lo, b, u.size)
	m.setWide(u.size, q, r)
	return true
}

// execIdiv divides the absolute values: the quotient is cut towards zero and
// the remainder has the sign of the dividend. It leaves the flags, which are undefined.
func execIdiv(m *Machine, u *uop) bool {
	b, ok := m.getDst(u)
	if !ok {
		return false
	}
	hi, lo := m.dividend(u.size)
	negA, negB := signBit(hi, u.size) != 0, signBit(b, u.size) != 0
	if negA {
		lo = -lo & mask(u.size)
		hi = ^hi
		if lo == 0 {
			hi++
		}
		hi &= mask(u.size)
	}
	if negB {
		b = -b & mask(u.size)
	}
	if hi >= b {
		return m.divideError()
	}
	q, r := divide(hi, lo, b, u.size)
	limit := mask(u.size) >> 1
	if negA != negB {
		limit++
	}
	if q > limit {
		return m.divideError()
	}
	if negA != negB {
		q = -q
	}
	if negA {
		r = -r
	}
	m.setWide(u.size, q&mask(u.size), r&mask(u.size))
	return true
}
