package emulate

import (
	"encoding/binary"
	"fmt"

	"github.com/ksleuth/ksleuth/x86"
)

var stringOps = map[x86.Op]opRow{
	x86.MOVS: {exec: execMovs},
	x86.STOS: {exec: execStos},
	x86.LODS: {exec: execLods},
	x86.SCAS: {exec: execScas},
	x86.CMPS: {exec: execCmps, acc: accWrite}, // see accReadWrite
}

// What repeats a string instruction, in uop.cc.
const (
	repNone  = iota
	repEqual // rep and repe
	repNotEqual
)

// part cuts an address, or a count, as an address-size prefix does.
func (u *uop) part(a uint64) uint64 {
	if u.addr32 {
		return a & 0xffffffff
	}
	return a
}

// inSegment returns where the source of a string instruction is.
func (m *Machine) inSegment(u *uop, a uint64) uint64 {
	switch u.seg {
	case segGS:
		a += m.GSBase
	case segFS:
		a += m.FSBase
	}
	return a
}

// advance moves a pointer by n elements, or as many back if DF is set.
func (m *Machine) advance(u *uop, r int, n uint64) {
	n *= uint64(u.size)
	if m.Flags&DF != 0 {
		n = -n
	}
	m.GP[r] = u.part(m.GP[r] + n)
}

// freeRounds is how often an instruction may be repeated whatever the limit says.
const freeRounds = 1 << 16

// A round carries out some rounds of a string instruction, at most max, and
// returns how many; 0 after a fault. more says whether to go on.
type round = func(m *Machine, u *uop, max uint64) (n uint64, more bool)

// repeat executes a string instruction, whose source is at the register reads.
//
// As on a processor, a fault leaves the registers as they were before the round
// that did it: the kernel's copy functions read from rcx how far they came. What
// was done until then counts as an instruction.
func (m *Machine) repeat(u *uop, reads int, do round) bool {
	if u.cc == repNone {
		n, _ := do(m, u, 1)
		return n != 0
	}
	from, to := u.part(m.GP[reads]), m.GP[RDI]
	if reads == RSI {
		from = m.inSegment(u, from)
	}
	total := uint64(0)
	for more := true; more && u.part(m.GP[RCX]) != 0; {
		n := uint64(0)
		if total < freeRounds || m.Step+m.repeats < m.opt.Steps {
			n, more = do(m, u, u.part(m.GP[RCX]))
		} else {
			m.stop = &Stop{Outcome: Limited, Err: &LimitError{fmt.Sprintf("%d instructions, of which %d are repetitions", m.Step+m.repeats, m.repeats)}}
		}
		if n == 0 {
			m.interrupted(u, from, to, total)
			return false
		}
		m.GP[RCX] = u.part(m.GP[RCX] - n)
		m.repeats += n
		total += n
	}
	if u.addr32 && total == 0 {
		m.GP[RCX] &= 0xffffffff
	}
	m.accessed(u, from, to, total)
	return true
}

// interrupted has the history know of the rounds before a fault.
func (m *Machine) interrupted(u *uop, from, to, rounds uint64) {
	if rounds == 0 {
		return
	}
	if m.hist != nil {
		m.accessed(u, from, to, rounds)
		m.hist.add(m, u)
	}
	m.Step++
}

// accessed tells the history what a repeated instruction accessed: the lowest
// addresses, read and written (by cmps: read), and the bytes at each.
func (m *Machine) accessed(u *uop, from, to, rounds uint64) {
	if rounds == 0 {
		m.n = noAccess
		return
	}
	if m.Flags&DF != 0 {
		back := (rounds - 1) * uint64(u.size)
		from, to = from-back, to-back
	}
	m.read, m.wrote = from, u.part(to)
	m.n = uint32(min(rounds*uint64(u.size), uint64(noAccess-1)))
}

// bulk returns how many elements, at most max, lie before the end of the page
// of each address, for instructions that go forward.
func (m *Machine) bulk(u *uop, max uint64, addrs ...uint64) uint64 {
	if m.Flags&DF != 0 {
		return 0
	}
	for _, a := range addrs {
		max = min(max, (pageSize-a&pageMask)/uint64(u.size))
	}
	return max
}

func execMovs(m *Machine, u *uop) bool { return m.repeat(u, RSI, roundMovs) }

func roundMovs(m *Machine, u *uop, max uint64) (uint64, bool) {
	from, to := m.inSegment(u, u.part(m.GP[RSI])), u.part(m.GP[RDI])
	n := uint64(1)
	if k := m.bulk(u, max, from, to); k > 1 && (to <= from || to-from >= k*uint64(u.size)) {
		n = k
		p, err := m.Mem.page(from)
		if err != nil {
			m.fault(from, false, err)
			return 0, false
		}
		off := from & pageMask
		if !m.storeBytes(p.data[off:off+n*uint64(u.size)], to) {
			return 0, false
		}
	} else {
		v, ok := m.load(from, u.size)
		if !ok || !m.store(to, v, u.size) {
			return 0, false
		}
	}
	m.advance(u, RSI, n)
	m.advance(u, RDI, n)
	return n, true
}

func execStos(m *Machine, u *uop) bool { return m.repeat(u, RSI, roundStos) }

const fillSize = 512

func roundStos(m *Machine, u *uop, max uint64) (uint64, bool) {
	to := u.part(m.GP[RDI])
	v := m.GP[RAX]
	n := uint64(1)
	if k := min(m.bulk(u, max, to), fillSize/uint64(u.size)); k > 1 {
		n = k
		var b [fillSize]byte
		switch u.size {
		case 1:
			v = v & 0xff * 0x0101010101010101
		case 2:
			v = v & 0xffff * 0x0001000100010001
		case 4:
			v = v & 0xffffffff * 0x0000000100000001
		}
		size := n * uint64(u.size)
		for i := uint64(0); i < size; i += 8 {
			binary.LittleEndian.PutUint64(b[i:], v)
		}
		if !m.storeBytes(b[:size], to) {
			return 0, false
		}
	} else if !m.store(to, v, u.size) {
		return 0, false
	}
	m.advance(u, RDI, n)
	return n, true
}

func execLods(m *Machine, u *uop) bool { return m.repeat(u, RSI, roundLods) }

func roundLods(m *Machine, u *uop, _ uint64) (uint64, bool) {
	v, ok := m.load(m.inSegment(u, u.part(m.GP[RSI])), u.size)
	if !ok {
		return 0, false
	}
	m.setReg(kReg, RAX, u.size, v)
	m.advance(u, RSI, 1)
	return 1, true
}

// compared sets the flags of a comparison and says whether a repeated one goes on.
func (m *Machine) compared(u *uop, a, b uint64) bool {
	m.setFlags(statusFlags, subFlags(a, b, a-b, u.size))
	return (a == b) == (u.cc == repEqual)
}

func execScas(m *Machine, u *uop) bool { return m.repeat(u, RDI, roundScas) }

func roundScas(m *Machine, u *uop, _ uint64) (uint64, bool) {
	b, ok := m.load(u.part(m.GP[RDI]), u.size)
	if !ok {
		return 0, false
	}
	m.advance(u, RDI, 1)
	return 1, m.compared(u, m.GP[RAX]&mask(u.size), b)
}

func execCmps(m *Machine, u *uop) bool { return m.repeat(u, RSI, roundCmps) }

func roundCmps(m *Machine, u *uop, _ uint64) (uint64, bool) {
	from, to := m.inSegment(u, u.part(m.GP[RSI])), u.part(m.GP[RDI])
	a, ok := m.load(from, u.size)
	if !ok {
		return 0, false
	}
	b, ok := m.load(to, u.size)
	if !ok {
		return 0, false
	}
	m.read, m.wrote = from, to
	m.advance(u, RSI, 1)
	m.advance(u, RDI, 1)
	return 1, m.compared(u, a, b)
}
