package x86

import "golang.org/x/arch/x86/x86asm"

// Numbers of registers that instructions imply.
const (
	nRAX = 0
	nRCX = 1
	nRDX = 2
	nRBX = 3
	nRSP = 4
	nRBP = 5
	nRSI = 6
	nRDI = 7
)

// gpNumber returns the number of the general register that r is (part of), and
// the byte of it that r begins at.
func gpNumber(r Reg) (n, off uint8, ok bool) {
	if r >= x86asm.AH && r <= x86asm.BH {
		off = 1
	}
	f := Full(r)
	if f < x86asm.RAX || f > x86asm.R15 {
		return 0, 0, false
	}
	return uint8(f - x86asm.RAX), off, true
}

// vectorNumber returns the number of a vector register.
func vectorNumber(r Reg) (uint8, bool) {
	switch {
	case r >= x86asm.X0 && r <= x86asm.X31:
		return uint8(r - x86asm.X0), true
	case r >= x86asm.Y0 && r <= x86asm.Y31:
		return uint8(r - x86asm.Y0), true
	case r >= x86asm.Z0 && r <= x86asm.Z31:
		return uint8(r - x86asm.Z0), true
	}
	return 0, false
}

func gp(n, size uint8) Place         { return Place{Kind: PlaceGP, N: n, Size: size} }
func flagPlace(f uint32) Place       { return Place{Kind: PlaceFlags, Flags: f} }
func (e *Effects) addressGP(n uint8) { e.Address.GP[n&15] = 0xff }

// in makes p an input and returns its bit.
func (e *Effects) in(p Place) uint8 {
	if p.Kind == PlaceNone || p.Kind == PlaceFlags && p.Flags == 0 {
		return 0
	}
	for i := range e.In[:e.NIn] {
		if e.In[i] == p {
			return 1 << i
		}
	}
	if int(e.NIn) == len(e.In) {
		e.Known = false
		return 0
	}
	e.In[e.NIn] = p
	e.NIn++
	return 1 << (e.NIn - 1)
}

// out makes p an output. A general register of which 4 bytes are written is
// written whole, with zeros.
func (e *Effects) out(p Place, c Class, from uint8) *Output {
	if p.Kind == PlaceNone || p.Kind == PlaceFlags && p.Flags == 0 {
		return &Output{}
	}
	if int(e.NOut) == len(e.Out) {
		e.Known = false
		return &Output{}
	}
	o := &e.Out[e.NOut]
	e.NOut++
	*o = Output{Place: p, Class: c, From: from}
	if p.Kind == PlaceGP && p.Size == 4 {
		o.Size, o.Fixed = 8, 0xf0
	}
	return o
}

// access adds an access to memory and returns its place; the second of the same
// operand is the first.
func (e *Effects) access(size uint16, a Access, arg int) Place {
	for i := range e.Mem[:e.NMem] {
		if arg >= 0 && e.Mem[i].Arg == int8(arg) {
			e.Mem[i].Access |= a
			return Place{Kind: PlaceMem, N: uint8(i), Size: uint8(size)}
		}
	}
	if int(e.NMem) == len(e.Mem) {
		e.Known = false
		return Place{}
	}
	e.Mem[e.NMem] = MemAccess{Size: uint8(size), Access: a, Arg: int8(arg)}
	e.NMem++
	return Place{Kind: PlaceMem, N: e.NMem - 1, Size: uint8(size)}
}

// An effectBuilder makes the effects of one instruction.
type effectBuilder struct {
	*Effects
	inst *Inst
	row  effectRow
}

// Effects returns what the instruction reads and writes, registers and memory
// that no operand names included. It does not allocate.
func (in *Inst) Effects() Effects {
	var e Effects
	b := effectBuilder{Effects: &e, inst: in, row: in.effectRowOf()}
	b.Known = b.row.kind != 0
	for i := range in.Args[:in.NArgs] {
		if a := &in.Args[i]; a.Kind == KindMem && (a.Access != 0) {
			b.addressOf(a)
		}
	}
	b.build()
	if b.NMem == 0 {
		e.Address = RegSet{}
	}
	return e
}

// addressOf notes the registers that make the address of a memory operand.
func (b *effectBuilder) addressOf(a *Arg) {
	for _, r := range [2]Reg{a.Reg, a.Index} {
		if n, _, ok := gpNumber(r); ok && r != 0 {
			b.addressGP(n)
		}
	}
}

// place returns the place of operand i, read or written as a says.
func (b *effectBuilder) place(i int, a Access) Place {
	if i >= b.inst.NArgs {
		return Place{}
	}
	arg := &b.inst.Args[i]
	switch arg.Kind {
	case KindMem:
		return b.access(arg.Size, a, i)
	case KindReg:
		if n, off, ok := gpNumber(arg.Reg); ok {
			return Place{Kind: PlaceGP, N: n, Off: off, Size: uint8(arg.Size)}
		}
		if n, ok := vectorNumber(arg.Reg); ok && n < 16 {
			return Place{Kind: PlaceX, N: n, Size: uint8(min(arg.Size, 16))}
		}
	}
	return Place{}
}

// read makes operand i an input.
func (b *effectBuilder) read(i int) uint8 { return b.in(b.place(i, Read)) }

// write makes operand i an output.
func (b *effectBuilder) write(i int, c Class, from uint8) *Output {
	return b.out(b.place(i, Write), c, from)
}

// flags adds the outputs that the row has for flags.
func (b *effectBuilder) flags(from uint8) {
	from |= b.in(flagPlace(b.row.reads))
	class := Compute
	switch {
	case b.row.kind == efExternal:
		class = External
	case from == 0:
		class = Const
	}
	b.out(flagPlace(b.row.set), class, from)
	b.out(flagPlace(b.row.clear), Const, 0)
	b.out(flagPlace(b.row.undef), Undefined, 0)
}

// arg returns operand i, an empty one if there is none.
func (b *effectBuilder) arg(i int) *Arg {
	if i < b.inst.NArgs {
		return &b.inst.Args[i]
	}
	return &Arg{}
}

// same says whether the first two operands are one register.
func (b *effectBuilder) same() bool {
	x, y := b.arg(0), b.arg(1)
	return x.Kind == KindReg && y.Kind == KindReg && x.Reg == y.Reg
}

// push is a write to the stack, which moves.
func (b *effectBuilder) push(size uint16) Place {
	b.addressGP(nRSP)
	b.out(gp(nRSP, 8), Carry, b.in(gp(nRSP, 8)))
	return b.access(size, Write, -1)
}

// pop is a read of the stack.
func (b *effectBuilder) pop(size uint16) Place {
	b.addressGP(nRSP)
	return b.access(size, Read, -1)
}

func (b *effectBuilder) popped() { b.out(gp(nRSP, 8), Carry, b.in(gp(nRSP, 8))) }
