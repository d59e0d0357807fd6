package emulate

import (
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// A kind says where an operand of a uop is.
type kind uint8

const (
	kNone kind = iota
	kReg       // a general register, its low bytes
	kHigh      // ah, ch, dh, bh
	kMem
	kImm
	kXmm
)

// noReg stands for no base or index register.
const noReg = 0xff

// The segments a uop's memory operand can have.
const (
	segNone = iota
	segFS
	segGS
)

// A uop is an instruction made ready for execution.
type uop struct {
	// exec carries it out. It reports false, and leaves the registers as they
	// were, if the run ends there: m.stop says why.
	exec func(m *Machine, u *uop) bool
	addr uint64
	next uint64 // address of the following instruction
	imm  uint64 // the immediate, sign-extended; the target of a direct branch
	disp uint64 // of the memory operand, with the base where that is rip
	stub *Stub
	id   uint32 // into Machine.insts

	size        uint8 // of the destination, in bytes (of the source if there is none)
	size2       uint8 // of the second operand
	dst, src    uint8 // register numbers of the first and second operand
	third       uint8 // register number of a third operand (shld, VEX)
	dstKind     kind
	srcKind     kind
	thirdKind   kind
	base, index uint8 // of the memory operand
	shift       uint8 // log2 of its scale
	seg         uint8
	addr32      bool
	cc          uint8 // condition; of string instructions which repeat prefix
	acc         accesses
	ends        bool // control may go elsewhere
	begins      bool // has to be the first of its block, so that Machine.Step is exact
}

// accesses says which of its memory accesses a uop leaves in the history.
type accesses uint8

const (
	accNone      accesses = 0
	accRead      accesses = 1 // at Machine.read
	accWrite     accesses = 2 // at Machine.wrote; also of what reads and writes one place
	accReadWrite accesses = 3 // of two places; of cmps, which reads twice, the second read stands as if it were the write
)

// A block is a run of instructions that control leaves only at its end.
type block struct {
	start, end uint64 // end is the address behind
	uops       []uop
	generation int
	succ       [2]*block // where control went from here
}

// next returns the block at addr if b is known to lead there.
func (b *block) next(addr uint64, generation int) *block {
	if b == nil {
		return nil
	}
	for _, s := range b.succ {
		if s != nil && s.start == addr && s.generation == generation {
			return s
		}
	}
	return nil
}

func (b *block) link(next *block) {
	if b != nil {
		b.succ[1], b.succ[0] = b.succ[0], next
	}
}

const maxBlock = 64 // instructions

// block returns the code at addr, made ready.
func (m *Machine) block(addr uint64) (*block, *Stop) {
	if b := m.code[addr]; b != nil {
		return b, nil
	}
	b := &block{start: addr, generation: m.generation}
	if s := m.stubs[addr]; s != nil {
		b.uops = []uop{m.stubUop(addr, s)}
		b.end = addr
		m.code[addr] = b
		return b, nil
	}
	for at := addr; len(b.uops) < maxBlock; {
		if at != addr && (m.breaks[at] || m.stubs[at] != nil) {
			break
		}
		in, err := m.decode(at)
		if err != nil {
			if len(b.uops) > 0 {
				break // said when control gets there
			}
			return nil, err
		}
		u := m.translate(in)
		if u.begins && len(b.uops) > 0 {
			break
		}
		b.uops = append(b.uops, u)
		at = u.next
		if u.ends {
			break
		}
	}
	b.end = b.uops[len(b.uops)-1].next
	m.code[addr] = b
	return b, nil
}

// decode reads the instruction at addr and keeps it.
func (m *Machine) decode(addr uint64) (*x86.Inst, *Stop) {
	var code [x86.MaxLen]byte
	n := len(code)
	if err := m.Mem.ReadMem(code[:], addr); err != nil {
		var f *mem.Fault
		if !errors.As(err, &f) || f.Addr <= addr {
			e := &Exception{Vector: PageFault, Addr: addr, Err: fmt.Errorf("no code there: %w", err)}
			return nil, &Stop{Outcome: Faulted, RIP: addr, Err: e}
		}
		n = int(f.Addr - addr)
	}
	m.markCode(addr, n)
	var in x86.Inst
	if err := in.Decode(code[:n], addr); err != nil {
		return nil, &Stop{Outcome: Unsupported, RIP: addr, Err: fmt.Errorf("cannot execute: %w", err)}
	}
	m.insts = append(m.insts, in)
	m.uopStub = append(m.uopStub, nil)
	return &m.insts[len(m.insts)-1], nil
}

// markCode has writes to the pages of code noticed.
func (m *Machine) markCode(addr uint64, n int) {
	for pn := addr >> pageShift; pn <= (addr+uint64(n)-1)>>pageShift; pn++ {
		if p, err := m.Mem.page(pn << pageShift); err == nil && !p.code {
			p.code = true
			m.Mem.tlb[pn%tlbSize] = tlbEntry{}
		}
	}
}

// stubUop is the uop that stands for a whole function.
func (m *Machine) stubUop(addr uint64, s *Stub) uop {
	m.insts = append(m.insts, x86.Inst{Addr: addr})
	m.uopStub = append(m.uopStub, s)
	return uop{exec: execStub, addr: addr, next: addr, stub: s, id: uint32(len(m.insts) - 1), acc: accRead, ends: true}
}

func execStub(m *Machine, u *uop) bool {
	m.RIP = u.addr
	if err := u.stub.Run(m); err != nil {
		if m.stop == nil {
			m.stop = &Stop{Outcome: Stopped, Err: fmt.Errorf("%s: %w", u.stub.Name, err)}
		}
		return false
	}
	if u.stub.Jumps {
		return true
	}
	ret, ok := m.load(m.GP[RSP], 8)
	if !ok {
		return false
	}
	m.GP[RSP] += 8
	m.RIP = ret
	m.returned()
	return true
}

// translate makes an instruction ready.
func (m *Machine) translate(in *x86.Inst) uop {
	u := uop{
		addr: in.Addr, next: in.Addr + uint64(in.Len), id: uint32(len(m.insts) - 1),
		base: noReg, index: noReg, size: uint8(in.OperandSize()),
		addr32: in.Prefix&x86.Addr32 != 0,
	}
	if cc, ok := in.Cond(); ok {
		u.cc = cc
	}
	for i := range in.Args[:in.NArgs] {
		a := &in.Args[i]
		k, r := u.operand(in, a)
		switch i {
		case 0:
			u.dstKind, u.dst = k, r
			if a.Kind != x86.KindRel && a.Size != 0 && a.Size <= 64 {
				u.size = uint8(a.Size)
			}
		case 1:
			u.srcKind, u.src, u.size2 = k, r, uint8(min(a.Size, 64))
		case 2:
			u.thirdKind, u.third = k, r
		}
		if k == kMem {
			switch a.Access {
			case x86.Read:
				u.acc |= accRead
			case x86.Write, x86.Read | x86.Write:
				u.acc |= accWrite
			}
		}
	}
	u.ends = in.Flow() != x86.FlowNext
	choose(&u, in)
	return u
}

// operand notes one operand.
func (u *uop) operand(in *x86.Inst, a *x86.Arg) (kind, uint8) {
	switch a.Kind {
	case x86.KindReg:
		return register(a.Reg)
	case x86.KindImm, x86.KindRel:
		u.imm = uint64(a.Val)
		return kImm, 0
	case x86.KindMem:
		u.disp = uint64(a.Val)
		if a.Reg == x86asm.RIP || a.Reg == x86asm.EIP {
			u.disp += u.next
		} else if k, r := register(a.Reg); k == kReg {
			u.base = r
		}
		if k, r := register(a.Index); k == kReg {
			u.index = r
			for s := a.Scale; s > 1; s >>= 1 {
				u.shift++
			}
		}
		switch a.Seg {
		case x86asm.FS:
			u.seg = segFS
		case x86asm.GS:
			u.seg = segGS
		}
		return kMem, 0
	}
	return kNone, 0
}

// register returns what kind of register r is and its number.
func register(r x86.Reg) (kind, uint8) {
	switch {
	case r >= x86asm.AL && r <= x86asm.BL:
		return kReg, uint8(r - x86asm.AL)
	case r >= x86asm.AH && r <= x86asm.BH:
		return kHigh, uint8(r - x86asm.AH)
	case r >= x86asm.SPB && r <= x86asm.DIB:
		return kReg, uint8(r-x86asm.SPB) + RSP
	case r >= x86asm.R8B && r <= x86asm.R15B:
		return kReg, uint8(r-x86asm.R8B) + R8
	case r >= x86asm.AX && r <= x86asm.R15W:
		return kReg, uint8(r - x86asm.AX)
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return kReg, uint8(r - x86asm.EAX)
	case r >= x86asm.RAX && r <= x86asm.R15:
		return kReg, uint8(r - x86asm.RAX)
	case r >= x86asm.X0 && r <= x86asm.X15:
		return kXmm, uint8(r - x86asm.X0)
	}
	return kNone, 0
}

// RegNames are the names of the general registers, by their numbers.
var RegNames = [16]string{
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
}

// ArgRegs are the registers that arguments are passed in, in order (System V
// ABI for AMD64, 3.2.3).
var ArgRegs = [6]int{RDI, RSI, RDX, RCX, R8, R9}

// RegNumber returns the number in [Regs.GP] of a general register of any width,
// and whether it is one; of ah, ch, dh and bh that of the register they are in.
func RegNumber(r x86.Reg) (int, bool) {
	k, n := register(r)
	return int(n), k == kReg || k == kHigh
}

// EA returns the address of a memory operand, by the registers as they are now.
func (m *Machine) EA(in *x86.Inst, a x86.Arg) uint64 {
	u := uop{next: in.Addr + uint64(in.Len), base: noReg, index: noReg, addr32: in.Prefix&x86.Addr32 != 0}
	u.operand(in, &a)
	return m.ea(&u)
}

// ea returns the address of u's memory operand.
func (m *Machine) ea(u *uop) uint64 {
	a := u.disp
	if u.base != noReg {
		a += m.GP[u.base&15]
	}
	if u.index != noReg {
		a += m.GP[u.index&15] << u.shift
	}
	if u.addr32 {
		a &= 0xffffffff
	}
	switch u.seg {
	case segGS:
		a += m.GSBase
	case segFS:
		a += m.FSBase
	}
	return a
}
