package x86

func (b *effectBuilder) bitOps() {
	switch b.row.kind {
	case efShift:
		b.shift()
	case efDouble:
		b.double()
	case efBT:
		b.bitTest()
	case efScan: // a source of zero leaves the destination, also its upper half
		src := b.read(1)
		old := b.place(0, Read)
		o := b.write(0, Compute, src)
		if o.Size == 8 {
			old.Size, o.Fixed = 8, 0
		}
		o.From |= b.in(old)
		b.flags(src)
	case efFrom:
		from := b.readAll()
		o := b.write(0, Compute, from)
		switch {
		case b.inst.Op == ANDN:
			o.Class = Bitwise
		case b.inst.Op == RORX:
			o.Class, o.Shift = Rotate, -int8(b.arg(2).Val&int64(b.arg(0).Size*8-1))
		}
		b.flags(from)
	}
}

// count returns the bits that a shift by an immediate shifts by.
func (b *effectBuilder) count(i int) (int, bool) {
	a := b.arg(i)
	if a.Kind != KindImm {
		return 0, false
	}
	if b.arg(0).Size == 8 {
		return int(a.Val & 63), true
	}
	return int(a.Val & 31), true
}

// shift is for shifts and rotations. By nothing they leave the flags as they are.
func (b *effectBuilder) shift() {
	n, known := b.count(1)
	size := 8 * int(b.arg(0).Size)
	from := b.read(0)
	if known && n == 0 {
		b.write(0, Copy, from)
		return
	}
	if b.inst.Op == ROL || b.inst.Op == ROR {
		if known && n%size != 0 {
			n %= size
		}
	}
	if !known {
		all := from | b.read(1)
		b.write(0, Compute, all|b.in(flagPlace(b.row.reads)))
		b.maybeFlags(all)
		return
	}
	carry := b.in(flagPlace(b.row.reads))
	o := b.write(0, Compute, from|carry)
	switch b.inst.Op {
	case SHL:
		o.Class, o.Shift = Shift, int8(n)
	case SHR:
		o.Class, o.Shift = Shift, -int8(n)
	case SAR:
		o.Class, o.Shift = ShiftSign, -int8(n)
	case ROL:
		o.Class, o.Shift = Rotate, int8(n%size)
	case ROR:
		o.Class, o.Shift = Rotate, -int8(n%size)
	}
	b.flagsOfOne(from, n)
}

// flagsOfOne is flags for shifts: by one bit, OF is defined.
func (b *effectBuilder) flagsOfOne(from uint8, n int) {
	if n == 1 {
		b.row.set |= FlagOF
		b.row.undef &^= FlagOF
	}
	b.flags(from)
}

// maybeFlags is flags for a count in cl, which may be nothing: then they stay.
func (b *effectBuilder) maybeFlags(from uint8) {
	all := b.row.set | b.row.undef
	b.out(flagPlace(all), Compute, from|b.in(flagPlace(all|b.row.reads)))
}

func (b *effectBuilder) double() {
	n, known := b.count(2)
	from := b.read(0)
	if known && n == 0 {
		b.write(0, Copy, from)
		return
	}
	from |= b.read(1) | b.read(2)
	b.write(0, Compute, from)
	if known {
		b.flagsOfOne(from, n)
	} else {
		b.maybeFlags(from)
	}
}

// bitTest is for bt and those that change the bit. Where the bit is chosen by a
// register, which memory is accessed depends on that, too.
func (b *effectBuilder) bitTest() {
	a := b.arg(1)
	if a.Kind == KindImm {
		bit := int(a.Val) & (8*int(b.arg(0).Size) - 1)
		others := uint16(lowBytes(int(b.arg(0).Size)) &^ (1 << (bit / 8)))
		from := b.in(b.trimmed(others))
		b.place(0, Read)
		if b.inst.Op != BT {
			o := b.write(0, Bitwise, b.read(0))
			o.Same = others
		}
		b.flags(from)
		return
	}
	if n, _, ok := gpNumber(a.Reg); ok && b.arg(0).Kind == KindMem {
		b.addressGP(n)
	}
	from := b.read(0) | b.read(1)
	if b.inst.Op != BT {
		b.write(0, Compute, from)
	}
	b.flags(from)
}

func (b *effectBuilder) atomics() {
	switch b.row.kind {
	case efXadd:
		x, y := b.read(0), b.read(1)
		if b.same() {
			b.write(0, Carry, x)
		} else {
			b.write(1, Copy, x)
			b.write(0, Carry, x|y)
		}
		b.flags(x | y)
	case efCmpxchg:
		b.cmpxchg()
	case efCmpxchgWide:
		half := uint8(b.arg(0).Size / 2)
		was := b.read(0)
		cmp := b.in(gp(nRAX, half)) | b.in(gp(nRDX, half))
		with := b.in(gp(nRBX, half)) | b.in(gp(nRCX, half))
		b.write(0, Compute, was|with).Cond = cmp
		// Where they are equal, eax and edx stay, upper halves included.
		old := cmp
		if half == 4 {
			old |= b.in(gp(nRAX, 8)) | b.in(gp(nRDX, 8))
		}
		for _, n := range [2]uint8{nRAX, nRDX} {
			b.out(gp(n, half), Compute, was|old).Fixed = 0
		}
		b.flags(was | cmp)
	}
}

func (b *effectBuilder) cmpxchg() {
	size := uint8(b.arg(0).Size)
	was, with, acc := b.read(0), b.read(1), b.in(gp(nRAX, size))
	dst := b.write(0, Copy, was|with)
	dst.Cond = acc | was
	if dst.Kind == PlaceGP && size == 4 { // where they differ the destination may stay whole
		p := b.place(0, Read)
		p.Size = 8
		dst.Class, dst.Fixed = Compute, 0
		dst.From |= b.in(p)
	}
	if n := dst.N; dst.Kind != PlaceGP || n != nRAX {
		o := b.out(gp(nRAX, size), Copy, was|acc)
		o.Cond = was | acc
		if size == 4 { // where they are equal rax stays whole
			o.Class, o.Fixed = Compute, 0
			o.From |= b.in(gp(nRAX, 8))
		}
	}
	b.flags(was | acc)
}

// wide is for multiplication and division, and sign extension of rax.
func (b *effectBuilder) wide() {
	size := uint8(b.inst.OperandSize())
	switch b.row.kind {
	case efMul:
		b.multiply()
	case efMulx:
		from := b.read(2) | b.in(gp(nRDX, uint8(b.arg(0).Size)))
		b.write(0, Compute, from)
		b.write(1, Carry, from)
	case efDiv:
		size = uint8(b.arg(0).Size)
		if size == 1 {
			from := b.read(0) | b.in(gp(nRAX, 2))
			b.out(gp(nRAX, 2), Compute, from)
		} else {
			from := b.read(0) | b.in(gp(nRAX, size)) | b.in(gp(nRDX, size))
			b.out(gp(nRAX, size), Compute, from)
			b.out(gp(nRDX, size), Compute, from)
		}
		b.flags(0)
	case efAccSign:
		from := b.in(gp(nRAX, size/2))
		b.out(gp(nRAX, size), SignOf, from).Same = uint16(lowBytes(int(size / 2)))
	case efDatSign:
		b.out(gp(nRDX, size), SignOf, b.in(gp(nRAX, size)))
	}
}

func (b *effectBuilder) multiply() {
	var from uint8
	switch {
	case b.inst.NArgs == 3:
		from = b.read(1)
		b.write(0, Carry, from)
	case b.inst.NArgs == 2:
		from = b.read(0) | b.read(1)
		b.write(0, Carry, from)
	case b.arg(0).Size == 1:
		from = b.read(0) | b.in(gp(nRAX, 1))
		b.out(gp(nRAX, 2), Compute, from)
	default:
		size := uint8(b.arg(0).Size)
		from = b.read(0) | b.in(gp(nRAX, size))
		b.out(gp(nRAX, size), Carry, from)
		b.out(gp(nRDX, size), Compute, from)
	}
	b.flags(from)
}

func (b *effectBuilder) flow() {
	size := uint16(b.inst.OperandSize())
	ip := Place{Kind: PlaceIP}
	switch b.row.kind {
	case efPush:
		from := b.read(0)
		class := Copy
		if from == 0 {
			class = Const
		}
		b.out(b.push(size), class, from)
	case efPop:
		from := b.in(b.pop(size))
		if p := b.place(0, Write); p.Kind != PlaceGP || p.N != nRSP || p.Size < 8 {
			b.popped()
		}
		b.write(0, Copy, from)
	case efLeave:
		b.addressGP(nRBP)
		from := b.in(b.access(8, Read, -1))
		b.out(gp(nRSP, 8), Carry, b.in(gp(nRBP, 8)))
		b.out(gp(nRBP, 8), Copy, from)
	case efEnter:
		from := b.in(gp(nRBP, 8))
		b.out(b.push(8), Copy, from)
		b.out(gp(nRBP, 8), Carry, b.in(gp(nRSP, 8)))
	case efPushf:
		from := b.in(flagPlace(flagPopped))
		b.out(b.push(size), Compute, from)
	case efPopf:
		from := b.in(b.pop(size))
		b.popped()
		b.out(flagPlace(flagPopped), Compute, from)
	case efCall:
		b.out(ip, Compute, b.read(0))
		b.out(b.push(8), Const, 0)
	case efRet:
		from := b.in(b.pop(8))
		b.popped()
		b.out(ip, Compute, from)
	case efJump:
		b.out(ip, Compute, b.read(0))
	case efJcc:
		b.out(ip, Compute, b.in(flagPlace(b.row.reads)))
	case efJrcxz:
		n := uint8(8)
		if b.inst.Prefix&Addr32 != 0 {
			n = 4
		}
		from := b.in(gp(nRCX, n))
		if b.inst.Op != JRCXZ {
			b.out(gp(nRCX, n), Carry, from)
		}
		b.out(ip, Compute, from|b.in(flagPlace(b.row.reads)))
	}
}

// strings is for string instructions. How often a repeated one is repeated is a
// question of the address.
func (b *effectBuilder) strings() {
	rep := b.inst.Prefix&(Rep|Repne) != 0
	b.Address.Flags |= FlagDF
	df := b.in(flagPlace(FlagDF))
	switch b.row.kind {
	case efMovs:
		from := b.in(b.place(1, Read))
		b.write(0, Copy, from)
	case efStos:
		b.write(0, Copy, b.read(1))
	case efLods:
		b.write(0, Copy, b.read(1))
	case efCmps, efScas:
		from := b.read(0) | b.read(1)
		if rep { // the flags stay where rcx is 0
			from |= b.in(gp(nRCX, 8)) | b.in(flagPlace(FlagStatus))
		}
		b.out(flagPlace(FlagStatus), Compute, from)
	}
	count := uint8(0)
	if rep {
		b.addressGP(nRCX)
		for i := range b.Mem[:b.NMem] {
			b.Mem[i].Repeat = true
		}
		count = b.in(gp(nRCX, 8))
	}
	if rep && (b.row.kind == efCmps || b.row.kind == efScas) { // data decide how far they go
		count |= 1<<b.NIn - 1
	}
	for _, n := range [2]uint8{nRSI, nRDI} {
		if n == nRSI && (b.row.kind == efStos || b.row.kind == efScas) || n == nRDI && b.row.kind == efLods {
			continue
		}
		from := b.in(gp(n, 8))
		if rep {
			b.out(gp(n, 8), Compute, from|df|count)
		} else {
			b.out(gp(n, 8), Carry, from).Cond = df
		}
	}
	if !rep {
		return
	}
	b.out(gp(nRCX, 8), Compute, count) // not 0 where a fault ended it
}

func (b *effectBuilder) system() {
	switch b.row.kind {
	case efCpuid:
		b.externals(b.in(gp(nRAX, 4))|b.in(gp(nRCX, 4)), nRAX, nRBX, nRCX, nRDX)
	case efRax:
		b.externals(0, nRAX, nRDX)
	case efRaxRcx:
		b.externals(0, nRAX, nRDX, nRCX)
	case efXgetbv:
		b.externals(b.in(gp(nRCX, 4)), nRAX, nRDX)
	case efExternal:
		from := b.readAll()
		if b.arg(0).Access&Write != 0 {
			b.write(0, External, 0).Cond = from
		}
		b.flags(from)
	case efFlags:
		b.flags(0)
	case efCmc:
		b.out(flagPlace(FlagCF), Compute, b.in(flagPlace(FlagCF)))
	case efLahf:
		b.out(Place{Kind: PlaceGP, N: nRAX, Off: 1, Size: 1}, Compute, b.in(flagPlace(FlagStatus&^FlagOF)))
	case efSahf:
		b.out(flagPlace(FlagStatus&^FlagOF), Compute, b.in(Place{Kind: PlaceGP, N: nRAX, Off: 1, Size: 1}))
	}
}

// externals are registers that the processor fills in, as Cond says.
func (b *effectBuilder) externals(cond uint8, regs ...uint8) {
	for _, n := range regs {
		b.out(gp(n, 4), External, 0).Cond = cond
	}
}
