package pcapfilter_test

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// A machine runs a classic program as libpcap's bpf_filter does. It is beside
// x/net's because that one has no NEG, and to tell what a program looks at.
type machine struct {
	a, x    uint32
	m       [16]uint32
	visit   func(insn bpf.Instruction, pkt []byte, m *machine) // before each
	where   int                                                // offset and size of what A was loaded from; -1 for nowhere
	size    int
	mask    uint32
	program []bpf.Instruction
	head    int  // bytes of the packet that can be read; 0 for all
	short   bool // others were asked for
}

func (m *machine) run(pkt []byte) uint32 {
	m.a, m.x, m.where, m.short = 0, 0, -1, false
	for pc := 0; pc < len(m.program); pc++ {
		insn := m.program[pc]
		if m.visit != nil {
			m.visit(insn, pkt, m)
		}
		switch i := insn.(type) {
		case bpf.RetConstant:
			return i.Val
		case bpf.RetA:
			return m.a
		case bpf.Jump:
			pc += int(i.Skip)
		case bpf.JumpIf:
			pc += skip(compare(i.Cond, m.a, i.Val), i.SkipTrue, i.SkipFalse)
		case bpf.JumpIfX:
			pc += skip(compare(i.Cond, m.a, m.x), i.SkipTrue, i.SkipFalse)
		default:
			if !m.step(insn, pkt) {
				return 0
			}
		}
	}
	panic("the program has no end")
}

func (m *machine) step(insn bpf.Instruction, pkt []byte) bool {
	where := m.where
	m.where = -1
	switch i := insn.(type) {
	case bpf.LoadConstant:
		*m.reg(i.Dst) = i.Val
	case bpf.LoadScratch:
		*m.reg(i.Dst) = m.m[i.N]
	case bpf.StoreScratch:
		m.m[i.N] = *m.reg(i.Src)
	case bpf.LoadAbsolute:
		return m.load(pkt, uint64(i.Off), i.Size)
	case bpf.LoadIndirect:
		return m.load(pkt, uint64(i.Off)+uint64(m.x), i.Size)
	case bpf.LoadMemShift:
		if !m.readable(pkt, uint64(i.Off), 1) {
			return false
		}
		m.x = uint32(pkt[i.Off]&15) * 4
	case bpf.LoadExtension:
		m.a = uint32(len(pkt))
	case bpf.TAX:
		m.x = m.a
	case bpf.TXA:
		m.a = m.x
	case bpf.NegateA:
		m.a = -m.a
	case bpf.ALUOpConstant:
		if i.Op == bpf.ALUOpAnd && where >= 0 {
			m.where, m.mask = where, m.mask&i.Val
		}
		return m.alu(i.Op, i.Val)
	case bpf.ALUOpX:
		return m.alu(i.Op, m.x)
	default:
		panic(fmt.Sprintf("%T", insn))
	}
	return true
}

func (m *machine) reg(r bpf.Register) *uint32 {
	if r == bpf.RegX {
		return &m.x
	}
	return &m.a
}

func (m *machine) readable(pkt []byte, off uint64, size int) bool {
	end := off + uint64(size)
	m.short = m.head > 0 && end > uint64(m.head) && end <= uint64(len(pkt))
	return !m.short && end <= uint64(len(pkt))
}

func (m *machine) load(pkt []byte, off uint64, size int) bool {
	if !m.readable(pkt, off, size) {
		return false
	}
	var b [4]byte
	copy(b[4-size:], pkt[off:off+uint64(size)])
	m.a, m.where, m.size, m.mask = binary.BigEndian.Uint32(b[:]), int(off), size, 0xffffffff
	return true
}

func (m *machine) alu(op bpf.ALUOp, v uint32) bool {
	switch op {
	case bpf.ALUOpAdd:
		m.a += v
	case bpf.ALUOpSub:
		m.a -= v
	case bpf.ALUOpMul:
		m.a *= v
	case bpf.ALUOpDiv, bpf.ALUOpMod:
		if v == 0 {
			return false
		}
		if op == bpf.ALUOpDiv {
			m.a /= v
		} else {
			m.a %= v
		}
	case bpf.ALUOpAnd:
		m.a &= v
	case bpf.ALUOpOr:
		m.a |= v
	case bpf.ALUOpXor:
		m.a ^= v
	case bpf.ALUOpShiftLeft:
		m.a <<= v
	case bpf.ALUOpShiftRight:
		m.a >>= v
	default:
		panic(fmt.Sprint(op))
	}
	return true
}

func compare(c bpf.JumpTest, a, v uint32) bool {
	switch c {
	case bpf.JumpEqual:
		return a == v
	case bpf.JumpNotEqual:
		return a != v
	case bpf.JumpGreaterThan:
		return a > v
	case bpf.JumpLessThan:
		return a < v
	case bpf.JumpGreaterOrEqual:
		return a >= v
	case bpf.JumpLessOrEqual:
		return a <= v
	case bpf.JumpBitsSet:
		return a&v != 0
	case bpf.JumpBitsNotSet:
		return a&v == 0
	}
	panic(fmt.Sprint(c))
}

func skip(taken bool, t, f uint8) int {
	if taken {
		return int(t)
	}
	return int(f)
}

// aim changes the packet while the program looks at it, so that half of the
// comparisons come out the way that they would not by chance.
func aim(program []bpf.Instruction, pkt []byte, coin func(n int) int) {
	m := machine{program: program}
	m.visit = func(insn bpf.Instruction, pkt []byte, m *machine) {
		j, ok := insn.(bpf.JumpIf)
		if !ok || m.where < 0 || coin(2) == 0 {
			return
		}
		v := m.a&^m.mask | j.Val&m.mask
		switch coin(8) {
		case 0:
			v++
		case 1:
			v--
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], v)
		copy(pkt[m.where:], b[4-m.size:])
		m.a = v & m.mask & (1<<(8*m.size) - 1)
	}
	m.run(pkt)
}
