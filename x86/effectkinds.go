package x86

// build fills in the inputs and outputs.
func (b *effectBuilder) build() {
	switch b.row.kind {
	case efNone:
		if b.row.set != 0 {
			b.flags(b.readAll())
		}
	case efMove, efSign, efLea, efBswap, efXlat, efMovq, efSetcc, efCmov, efSwap:
		b.moves()
	case efCarry, efUnary, efNot, efTest, efAnd, efOr, efXor:
		b.arithmetic()
	case efShift, efDouble, efBT, efScan, efFrom:
		b.bitOps()
	case efXadd, efCmpxchg, efCmpxchgWide:
		b.atomics()
	case efMul, efDiv, efMulx, efAccSign, efDatSign:
		b.wide()
	case efPush, efPop, efLeave, efEnter, efPushf, efPopf, efCall, efRet, efJump, efJcc, efJrcxz:
		b.flow()
	case efMovs, efStos, efLods, efCmps, efScas:
		b.strings()
	case efCpuid, efRax, efRaxRcx, efXgetbv, efExternal, efFlags, efCmc, efLahf, efSahf:
		b.system()
	default:
		b.operands()
	}
}

// readAll makes inputs of all operands that are read.
func (b *effectBuilder) readAll() uint8 {
	var from uint8
	for i := range b.inst.Args[:b.inst.NArgs] {
		if b.inst.Args[i].Access&Read != 0 {
			from |= b.read(i)
		}
	}
	return from
}

// zeroing says whether a vector instruction makes a constant of a register, as
// pxor and pcmpeq of one register with itself do.
func (b *effectBuilder) zeroing() bool {
	x, y := b.arg(0), b.arg(1)
	if b.inst.NArgs == 3 {
		x, y = y, b.arg(2)
	}
	if x.Kind != KindReg || y.Kind != KindReg || x.Reg != y.Reg {
		return false
	}
	switch b.inst.Op {
	case PXOR, XORPS, XORPD, VPXOR, VXORPS, VXORPD, VPXORD, VPXORQ,
		PSUBB, PSUBW, PSUBD, PSUBQ, PCMPEQB, PCMPEQW, PCMPEQD, PCMPEQQ:
		return true
	}
	return false
}

// operands has what is written depend on what is read. It is for vector
// instructions, and all there is for unknown ones.
func (b *effectBuilder) operands() {
	class := Compute
	var from uint8
	switch b.inst.Op {
	case PAND, POR, PXOR, PANDN, XORPS, ANDPS, ORPS, ANDNPS, VPAND, VPOR, VPXOR:
		class = Bitwise
	}
	if b.zeroing() {
		class = Const
	} else {
		from = b.readAll()
	}
	for i := range b.inst.Args[:b.inst.NArgs] {
		if b.inst.Args[i].Access&Write != 0 {
			b.write(i, class, from)
		}
	}
}

// moves is what copies.
func (b *effectBuilder) moves() {
	switch b.row.kind {
	case efMove, efMovq:
		b.zeroExtended(b.write2(Copy))
	case efSign:
		from := b.read(1)
		b.write(0, SignOf, from).Same = uint16(lowBytes(int(b.arg(1).Size)))
	case efLea:
		b.lea()
	case efBswap:
		if b.inst.NArgs == 1 {
			o := b.write(0, Reverse, b.read(0))
			if o.Size == 2 {
				o.Class = Undefined
			}
		} else {
			b.write2(Reverse)
		}
	case efXlat:
		b.addressGP(nRAX)
		b.out(gp(nRAX, 1), Copy, b.read(0))
	case efSetcc:
		b.write(0, Compute, b.in(flagPlace(b.row.reads)))
	case efCmov:
		old, src, cond := b.read(0), b.read(1), b.in(flagPlace(b.row.reads))
		b.write(0, Copy, old|src).Cond = cond
	case efSwap:
		x, y := b.read(0), b.read(1)
		b.write(0, Copy, y)
		b.write(1, Copy, x)
	}
}

// write2 has the first operand be made of the second one.
func (b *effectBuilder) write2(c Class) *Output {
	from := b.read(1)
	if from == 0 {
		c = Const
		if b.arg(1).Kind == KindReg {
			c = External // a segment or control register
		}
	}
	return b.write(0, c, from)
}

// zeroExtended clears what lies above a smaller source.
func (b *effectBuilder) zeroExtended(o *Output) {
	n := int(b.arg(1).Size)
	if b.arg(1).Kind == KindImm || n == 0 || o.Class != Copy || o.Kind != PlaceGP && o.Kind != PlaceX {
		return
	}
	if n < int(o.Size) {
		o.Fixed |= uint16(lowBytes(int(o.Size)) &^ lowBytes(n))
	}
}

func (b *effectBuilder) lea() {
	a := b.arg(1)
	var from uint8
	for _, r := range [2]Reg{a.Reg, a.Index} {
		if n, _, ok := gpNumber(r); ok && r != 0 {
			size := uint8(8)
			if b.inst.Prefix&Addr32 != 0 {
				size = 4
			}
			from |= b.in(gp(n, size))
		}
	}
	class := Carry
	switch {
	case from == 0:
		class = Const
	case a.Index == 0 && a.Val == 0:
		class = Copy
	}
	o := b.write(0, class, from)
	if b.inst.Prefix&Addr32 != 0 && o.Size == 8 {
		o.Fixed |= 0xf0
	}
}

// immBytes returns, of an immediate second operand, which bytes are 0 and which 0xff.
func (b *effectBuilder) immBytes() (zeros, ones uint16, ok bool) {
	a := b.arg(1)
	if a.Kind != KindImm {
		return 0, 0, false
	}
	for i := range min(int(b.arg(0).Size), 8) {
		switch uint8(a.Val >> (8 * i)) {
		case 0:
			zeros |= 1 << i
		case 0xff:
			ones |= 1 << i
		}
	}
	return zeros, ones, true
}

// trimmed returns the place of the first operand without those of its outermost
// bytes that a mask has.
func (b *effectBuilder) trimmed(without uint16) Place {
	p := b.place(0, Read)
	for p.Size > 0 && without&1 != 0 {
		p.Off, p.Size, without = p.Off+1, p.Size-1, without>>1
	}
	for p.Size > 0 && without>>(p.Size-1)&1 != 0 {
		p.Size--
	}
	if p.Size == 0 {
		return Place{}
	}
	return p
}

func (b *effectBuilder) arithmetic() {
	op := b.inst.Op
	zeros, ones, imm := b.immBytes()
	switch b.row.kind {
	case efNot:
		b.write(0, Bitwise, b.read(0))
		return
	case efUnary:
		from := b.read(0)
		b.write(0, Carry, from)
		b.flags(from)
		return
	case efTest:
		switch {
		case op == CMP && b.same():
			b.flags(0)
		case op == TEST && imm:
			b.flags(b.in(b.trimmed(zeros)))
			b.place(0, Read) // the memory is read whole
		default:
			b.flags(b.read(0) | b.read(1))
		}
		return
	}
	if b.same() && (op == XOR || op == SUB) {
		b.write(0, Const, 0)
		b.flags(0)
		return
	}
	if b.same() && op == SBB { // all bits are the carry
		b.write(0, Compute, b.in(flagPlace(FlagCF)))
		b.flags(0)
		return
	}
	from := b.read(0) | b.read(1)
	carry := b.in(flagPlace(b.row.reads))
	switch b.row.kind {
	case efCarry:
		b.write(0, Carry, from).From |= carry
		b.flags(from)
	case efXor:
		b.write(0, Bitwise, from).Same = zeros
		b.flags(from)
	case efAnd, efOr:
		if b.row.kind == efOr {
			zeros, ones = ones, zeros
		}
		o := b.write(0, Bitwise, from)
		if b.same() {
			o.Class = Copy
		}
		o.Fixed |= zeros
		o.Same = ones
		if imm {
			tested := from
			if b.row.kind == efAnd {
				tested = b.in(b.trimmed(zeros))
			} else if zeros>>(b.arg(0).Size-1)&1 != 0 && zeros&1 != 0 {
				tested = 0 // not zero, negative, and of a known lowest byte
			}
			b.flags(tested)
			return
		}
		b.flags(from)
	}
}
