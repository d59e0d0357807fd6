package emulate

import (
	"math/bits"

	"github.com/ksleuth/ksleuth/x86"
)

// Most of what a kernel executes are a few forms, of 4 and 8 bytes. This file has them
// again, for speed alone: each does what the exec of its operation does.

// A fastForm is a form that has an exec of its own.
type fastForm struct {
	op       x86.Op
	dst, src kind
	size     uint8
}

// kPlace is a memory operand that is but a register and a displacement.
const kPlace = kMem | 0x80

// specialise replaces what is executed most often by something faster.
func specialise(u *uop, in *x86.Inst) {
	if in.Prefix&x86.Lock != 0 && u.dstKind != kMem || u.srcKind == kReg && u.size2 != u.size {
		return
	}
	f := fastForm{in.Op, u.dstKind, u.srcKind, u.size}
	if u.base != noReg && u.index == noReg && u.seg == segNone && !u.addr32 {
		place := f
		if place.dst == kMem {
			place.dst = kPlace
		}
		if place.src == kMem {
			place.src = kPlace
		}
		if e := fast[place]; e != nil {
			u.exec = e
			return
		}
	}
	if e := fast[f]; e != nil {
		u.exec = e
	}
}

var fast = joinFast(fastForms[uint32](4), fastForms[uint64](8), map[fastForm]exec{
	{x86.PUSH, kReg, kNone, 8}: func(m *Machine, u *uop) bool { return m.push(m.GP[u.dst&15], 8) },
	{x86.POP, kReg, kNone, 8}:  fastPop,
})

func joinFast(tables ...map[fastForm]exec) map[fastForm]exec {
	all := map[fastForm]exec{}
	for _, t := range tables {
		for f, e := range t {
			all[f] = e
		}
	}
	return all
}

// A wordType is a word of 4 or 8 bytes.
type wordType interface{ uint32 | uint64 }

// fastForms returns the forms of one operand size, in bytes.
func fastForms[T wordType](size uint8) map[fastForm]exec {
	t := map[fastForm]exec{
		{x86.MOV, kReg, kReg, size}:   func(m *Machine, u *uop) bool { m.GP[u.dst&15] = uint64(T(m.GP[u.src&15])); return true },
		{x86.MOV, kReg, kImm, size}:   func(m *Machine, u *uop) bool { m.GP[u.dst&15] = uint64(T(u.imm)); return true },
		{x86.MOV, kReg, kMem, size}:   func(m *Machine, u *uop) bool { return m.loadInto(u.dst, m.ea(u), size) },
		{x86.MOV, kReg, kPlace, size}: func(m *Machine, u *uop) bool { return m.loadInto(u.dst, m.GP[u.base&15]+u.disp, size) },
		{x86.MOV, kMem, kReg, size}:   func(m *Machine, u *uop) bool { return m.store(m.ea(u), m.GP[u.src&15], size) },
		{x86.MOV, kPlace, kReg, size}: func(m *Machine, u *uop) bool { return m.store(m.GP[u.base&15]+u.disp, m.GP[u.src&15], size) },
		{x86.MOV, kMem, kImm, size}:   func(m *Machine, u *uop) bool { return m.store(m.ea(u), u.imm, size) },
		{x86.LEA, kReg, kMem, size}:   func(m *Machine, u *uop) bool { m.GP[u.dst&15] = uint64(T(m.ea(u))); return true },
		{x86.LEA, kReg, kPlace, size}: func(m *Machine, u *uop) bool { m.GP[u.dst&15] = uint64(T(m.GP[u.base&15] + u.disp)); return true },
		{x86.MOVZX, kReg, kMem, size}: func(m *Machine, u *uop) bool { return m.loadInto(u.dst, m.ea(u), u.size2) },
		// Of a jump the operand size is that of its encoding, and means nothing.
		{x86.JE, kImm, kNone, size}:  jump(ZF, ZF),
		{x86.JNE, kImm, kNone, size}: jump(ZF, 0),
		{x86.JB, kImm, kNone, size}:  jump(CF, CF),
		{x86.JAE, kImm, kNone, size}: jump(CF, 0),
		{x86.JS, kImm, kNone, size}:  jump(SF, SF),
		{x86.JNS, kImm, kNone, size}: jump(SF, 0),
		{x86.INC, kReg, kNone, size}: fastCount[T](1),
		{x86.DEC, kReg, kNone, size}: fastCount[T](^T(0)),
	}
	for _, o := range []struct {
		op     x86.Op
		f      func(m *Machine, a, b T) T
		writes bool
	}{
		{x86.ADD, fastAdd[T], true}, {x86.SUB, fastSub[T], true}, {x86.CMP, fastSub[T], false},
		{x86.AND, fastAnd[T], true}, {x86.TEST, fastAnd[T], false},
		{x86.OR, fastOr[T], true}, {x86.XOR, fastXor[T], true},
	} {
		t[fastForm{o.op, kReg, kReg, size}] = regReg(o.f, o.writes)
		t[fastForm{o.op, kReg, kImm, size}] = regImm(o.f, o.writes)
		t[fastForm{o.op, kReg, kMem, size}] = regMem(o.f, o.writes, size)
		if !o.writes {
			t[fastForm{o.op, kMem, kImm, size}] = memImm(o.f, size)
		}
	}
	return t
}

// loadInto loads size bytes, zero-extended, into a register.
func (m *Machine) loadInto(r uint8, addr uint64, size uint8) bool {
	v, ok := m.load(addr, size)
	if ok {
		m.GP[r&15] = v
	}
	return ok
}

func regReg[T wordType](f func(m *Machine, a, b T) T, writes bool) exec {
	if !writes {
		return func(m *Machine, u *uop) bool {
			f(m, T(m.GP[u.dst&15]), T(m.GP[u.src&15]))
			return true
		}
	}
	return func(m *Machine, u *uop) bool {
		p := &m.GP[u.dst&15]
		*p = uint64(f(m, T(*p), T(m.GP[u.src&15])))
		return true
	}
}

func regImm[T wordType](f func(m *Machine, a, b T) T, writes bool) exec {
	if !writes {
		return func(m *Machine, u *uop) bool {
			f(m, T(m.GP[u.dst&15]), T(u.imm))
			return true
		}
	}
	return func(m *Machine, u *uop) bool {
		p := &m.GP[u.dst&15]
		*p = uint64(f(m, T(*p), T(u.imm)))
		return true
	}
}

func regMem[T wordType](f func(m *Machine, a, b T) T, writes bool, size uint8) exec {
	return func(m *Machine, u *uop) bool {
		b, ok := m.load(m.ea(u), size)
		if !ok {
			return false
		}
		p := &m.GP[u.dst&15]
		if r := uint64(f(m, T(*p), T(b))); writes {
			*p = r
		}
		return true
	}
}

func memImm[T wordType](f func(m *Machine, a, b T) T, size uint8) exec {
	return func(m *Machine, u *uop) bool {
		a, ok := m.load(m.ea(u), size)
		if ok {
			f(m, T(a), T(u.imm))
		}
		return ok
	}
}

// status returns SF, ZF and PF of a result.
func status[T wordType](r T) uint64 {
	f := uint64(parity[uint8(r)])
	if r == 0 {
		f |= ZF
	}
	return f | uint64(r>>(bits.Len64(uint64(^T(0)))-8))&SF
}

// parity is PF of each low byte.
var parity = func() (t [256]uint8) {
	for i := range t {
		if bits.OnesCount8(uint8(i))&1 == 0 {
			t[i] = PF
		}
	}
	return t
}()

func fastAdd[T wordType](m *Machine, a, b T) T {
	r := a + b
	top := bits.Len64(uint64(^T(0))) - 1
	f := status(r) | uint64(a^b^r)&AF | uint64((^(a^b)&(a^r))>>top)<<11
	if r < a {
		f |= CF
	}
	m.Flags = m.Flags&^statusFlags | f
	return r
}

func fastSub[T wordType](m *Machine, a, b T) T {
	r := a - b
	top := bits.Len64(uint64(^T(0))) - 1
	f := status(r) | uint64(a^b^r)&AF | uint64(((a^b)&(a^r))>>top)<<11
	if a < b {
		f |= CF
	}
	m.Flags = m.Flags&^statusFlags | f
	return r
}

func fastAnd[T wordType](m *Machine, a, b T) T { return fastLogic(m, a&b) }
func fastOr[T wordType](m *Machine, a, b T) T  { return fastLogic(m, a|b) }
func fastXor[T wordType](m *Machine, a, b T) T { return fastLogic(m, a^b) }

func fastLogic[T wordType](m *Machine, r T) T {
	m.Flags = m.Flags&^statusFlags | status(r)
	return r
}

// fastCount is inc, and dec, which adds -1: CF stays. To AF adding and
// subtracting are not the same.
func fastCount[T wordType](n T) exec {
	top := bits.Len64(uint64(^T(0))) - 1
	return func(m *Machine, u *uop) bool {
		a := T(m.GP[u.dst&15])
		r := a + n
		m.GP[u.dst&15] = uint64(r)
		m.Flags = m.Flags&^(statusFlags&^CF) | status(r) | uint64(a^1^r)&AF | uint64((^(a^n)&(a^r))>>top)<<11
		return true
	}
}

func fastPop(m *Machine, u *uop) bool {
	v, ok := m.pop(8)
	if ok {
		m.GP[u.dst&15] = v
	}
	return ok
}

// jump makes an exec of a conditional jump that looks at one flag.
func jump(flag, taken uint64) exec {
	return func(m *Machine, u *uop) bool {
		if m.Flags&flag == taken {
			m.RIP = u.imm
		}
		return true
	}
}
