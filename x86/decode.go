package x86

import "golang.org/x/arch/x86/x86asm"

// The bits of a REX byte.
const (
	rexB = 1 << iota
	rexX
	rexR
	rexW
	rexBase = 0x40
)

// A decoder holds what is known while one instruction is decoded.
type decoder struct {
	in    *Inst
	code  []byte // at most MaxLen bytes
	pos   int
	short bool // read past the end of code
	bad   bool // an operand does not exist

	rex, rexUsed byte
	modrm        byte
	hasModRM     bool
	osz          uint8 // operand size in bytes
	oszUsed      bool
	fixed64      bool  // REX.W changes nothing
	pp           uint8 // 0 none, 1 66, 2 F3, 3 F2
	ppUsed       bool
	segUsed      bool
	addrUsed     bool

	// Positions of the last prefix of its kind, -1 if none.
	atData, atRep, atSeg, atAddr, atRex int8
	seg                                 Reg // FS or GS, where overridden

	vex  uint8 // 0 legacy, 1 VEX, 2 EVEX
	vecL uint8 // 0 128, 1 256, 2 512 bits
	vvvv uint8 // the extra operand, 5 bits
	// EVEX only.
	regHi, rmHi, idxHi uint8 // bit 4 of the register numbers
	bcast              bool
	vvvvUsed           bool
}

func (d *decoder) u8() byte {
	if d.pos >= len(d.code) {
		d.short = true
		return 0
	}
	b := d.code[d.pos]
	d.pos++
	return b
}

// le reads n little-endian bytes: 1, 2, 4 or 8.
func (d *decoder) le(n int) uint64 {
	if d.pos+n > len(d.code) {
		d.short = true
		return 0
	}
	var v uint64
	for i := n - 1; i >= 0; i-- {
		v = v<<8 | uint64(d.code[d.pos+i])
	}
	d.pos += n
	return v
}

// signed reads n little-endian bytes and extends the sign.
func (d *decoder) signed(n int) int64 {
	v := d.le(n)
	shift := 64 - 8*uint(n)
	return int64(v<<shift) >> shift
}

func (d *decoder) decode(addr uint64) bool {
	in := d.in
	*in = Inst{Addr: addr}
	d.atData, d.atRep, d.atSeg, d.atAddr, d.atRex = -1, -1, -1, -1, -1
	d.prefixes()
	section := d.opcodeMap()
	op := d.u8()
	if d.short {
		return false
	}
	in.Opcode = op
	d.setOperandSize()
	d.peekModRM()
	n := d.walk(tree[section<<8|int(op)], op)
	if n == 0 || d.short {
		return false
	}
	r := &rows[n]
	in.row, in.Op = n, r.op
	if r.flags&flagModRM != 0 {
		if !d.hasModRM {
			d.short = true
			return false
		}
		d.pos++
		if r.flags&flagMod3 != 0 {
			d.modrm |= 0xc0
		}
	}
	d.sizeForRow(r.flags)
	d.operands(r)
	if d.short || d.bad || d.vex != 0 && !d.vvvvUsed && d.vvvv != 0 {
		return false
	}
	in.Len = d.pos
	copy(in.raw[:], d.code[:d.pos])
	in.osz = d.osz
	in.vexLen = 0
	if d.vex != 0 {
		in.vexLen = 16 << d.vecL
	}
	d.finishPrefixes(r.flags)
	d.finishTargets(r)
	return true
}

// prefixes reads the legacy prefixes and REX. A REX byte counts only directly
// before the opcode (SDM vol. 2, 2.2.1).
func (d *decoder) prefixes() {
	in := d.in
	for d.pos < len(d.code) {
		b := d.code[d.pos]
		p := prefixOf[b]
		if p == 0 {
			break
		}
		at := int8(d.pos)
		if p != isRex {
			d.rex, d.atRex = 0, -1
			in.Prefix |= p
		}
		switch b {
		case 0xf2, 0xf3:
			d.atRep = at
		case 0x66:
			d.atData = at
		case 0x67:
			d.atAddr = at
		case 0x64:
			d.atSeg, d.seg = at, x86asm.FS
		case 0x65:
			d.atSeg, d.seg = at, x86asm.GS
		case 0x26, 0x2e, 0x36, 0x3e: // ignored in 64-bit mode
			d.atSeg = at
		case 0xf0:
		default:
			d.rex, d.atRex = b, at
		}
		d.pos++
	}
	in.Rex = d.rex
	in.pfxLen = uint8(d.pos)
	in.shown = 1<<d.pos - 1
	switch {
	case d.atRep >= 0 && d.code[d.atRep] == 0xf3:
		d.pp = 2
	case d.atRep >= 0:
		d.pp = 3
	case d.atData >= 0:
		d.pp = 1
	}
}

const isRex Prefix = 1 << 15

// prefixOf tells which prefix a byte is, 0 if none.
var prefixOf = [256]Prefix{
	0xf0: Lock, 0xf3: Rep, 0xf2: Repne, 0x66: Data16, 0x67: Addr32,
	0x26: SegES, 0x2e: SegCS, 0x36: SegSS, 0x3e: SegDS, 0x64: SegFS, 0x65: SegGS,
	0x40: isRex, 0x41: isRex, 0x42: isRex, 0x43: isRex, 0x44: isRex, 0x45: isRex, 0x46: isRex, 0x47: isRex,
	0x48: isRex, 0x49: isRex, 0x4a: isRex, 0x4b: isRex, 0x4c: isRex, 0x4d: isRex, 0x4e: isRex, 0x4f: isRex,
}

// Sections of the tree, in the order gen writes them.
const (
	map1 = iota
	map0F
	map0F38
	map0F3A
	vexBase  // then 0F, 0F38, 0F3A
	evexBase = vexBase + 3
	noMap    = -1
)

// opcodeMap reads the escape bytes before the opcode and returns the section.
func (d *decoder) opcodeMap() int {
	if d.pos >= len(d.code) {
		return map1
	}
	switch d.code[d.pos] {
	case 0x0f:
		d.pos++
		if d.pos < len(d.code) {
			switch d.code[d.pos] {
			case 0x38:
				d.pos++
				return map0F38
			case 0x3a:
				d.pos++
				return map0F3A
			}
		}
		return map0F
	case 0xc4, 0xc5, 0x62:
		return d.vexPrefix()
	}
	return map1
}

// vexPrefix reads a VEX or EVEX prefix (SDM vol. 2, 2.3.5 and 2.7.1) and
// returns the section; where it cannot be one, the read of the opcode fails.
func (d *decoder) vexPrefix() int {
	if d.rex != 0 || d.in.Prefix&(Lock|Rep|Repne|Data16) != 0 {
		d.bad = true
	}
	kind := d.u8()
	p0 := d.u8()
	d.vex = 1
	mmm, base := byte(1), vexBase
	switch kind {
	case 0xc5:
		d.rex = ^p0 >> 5 & rexR
		d.vexFields(p0)
	case 0xc4:
		d.rex = ^p0 >> 5 & (rexR | rexX | rexB)
		mmm = p0 & 0x1f
		p1 := d.u8()
		d.rex |= p1 >> 4 & rexW
		d.vexFields(p1)
	default:
		d.vex, base = 2, evexBase
		d.rex = ^p0 >> 5 & (rexR | rexX | rexB)
		d.regHi = ^p0 & 0x10
		mmm = p0 & 0xf
		d.evexFields(d.u8(), d.u8())
	}
	if mmm < 1 || mmm > 3 {
		d.bad = true
		mmm = 1
	}
	d.rexUsed = d.rex
	return base + int(mmm) - 1
}

func (d *decoder) vexFields(p byte) {
	d.vvvv = ^p >> 3 & 0xf
	d.vecL = p >> 2 & 1
	d.setPP(p)
}

func (d *decoder) setPP(p byte) {
	d.pp = p & 3
}

func (d *decoder) evexFields(p1, p2 byte) {
	d.rex |= p1 >> 4 & rexW
	if p1&4 == 0 {
		d.bad = true
	}
	d.setPP(p1)
	d.vvvv = ^p1>>3&0xf | ^p2<<1&0x10
	d.vecL = p2 >> 5 & 3
	d.bcast = p2&0x10 != 0
	d.idxHi = ^p2 << 1 & 0x10
	d.rmHi = d.rex << 3 & 0x10 // X extends the register in rm
	if k := p2 & 7; k != 0 {
		d.in.Mask = x86asm.K0 + Reg(k)
	}
	d.in.Zeroing = p2&0x80 != 0
}

func (d *decoder) setOperandSize() {
	d.osz = 4
	switch {
	case d.rex&rexW != 0:
		d.osz = 8
	case d.atData >= 0:
		d.osz = 2
	}
}

func (d *decoder) peekModRM() {
	if d.pos < len(d.code) {
		d.modrm = d.code[d.pos]
		d.hasModRM = true
	}
}

// walk follows the decision tree from node to a row, 0 if there is none.
func (d *decoder) walk(node uint16, op byte) uint16 {
	for node >= 0x8000 {
		at := int(node & 0x7fff)
		v := 0
		switch tree[at] {
		case splitMod:
			d.short = d.short || !d.hasModRM
			if d.modrm >= 0xc0 {
				v = 1
			}
		case splitReg:
			d.short = d.short || !d.hasModRM
			v = int(d.modrm >> 3 & 7)
		case splitRM:
			v = int(d.modrm & 7)
		case splitPP:
			v = int(d.pp)
			// xchg %r8,%rax shares its opcode with nop and pause.
			if op == 0x90 && d.rex&rexB != 0 && d.vex == 0 {
				return tree[0x91]
			}
			next := tree[at+1+v]
			d.ppUsed = d.ppUsed || next != tree[at+1]
		case splitOsz:
			v = int(d.osz >> 2)
			d.useOsz()
		case splitW:
			v = int(d.rex >> 3 & 1)
			d.rexUsed |= d.rex & rexW
		case splitL:
			v = int(d.vecL)
			if v > 2 {
				return 0
			}
		}
		node = tree[at+1+v]
	}
	return node
}

// useOsz notes that the operand size matters: REX.W or else 66 took effect.
func (d *decoder) useOsz() {
	if d.fixed64 {
		return
	}
	if d.rex&rexW != 0 {
		d.rexUsed |= rexW
	} else {
		d.oszUsed = true
	}
}

// sizeForRow applies the operand size rules of 64-bit mode (SDM vol. 1, table 3-4).
func (d *decoder) sizeForRow(f flags) {
	d.fixed64 = f&(flagForce64|flagDef64) != 0
	switch {
	case f&flagForce64 != 0:
		d.osz = 8
	case f&flagDef64 != 0:
		if d.osz == 4 {
			d.osz = 8
		}
		d.oszUsed = d.osz == 2
	}
}

// operands decodes the operands of r. The memory operand's displacement comes
// before any immediate, so it is read first.
func (d *decoder) operands(r *row) {
	in := d.in
	for i, o := range r.args {
		if o == 0 {
			break
		}
		in.NArgs = i + 1
		d.operand(&in.Args[i], o)
	}
	d.accesses(r.flags)
}

// accesses sets what the instruction does to its operands.
func (d *decoder) accesses(f flags) {
	in := d.in
	for i := range in.NArgs {
		a := &in.Args[i]
		a.Access = Read
		switch {
		case a.Kind == KindImm || a.Kind == KindRel:
		case f&flagNoAccess != 0 && a.Kind == KindMem:
			a.Access = 0
		case f&flagR != 0:
		case f&flagX != 0 && i < 2:
			a.Access = Read | Write
		case f&flagWW != 0 && i < 2:
			a.Access = Write
		case i == 0 && f&flagW != 0:
			a.Access = Write
			if in.Mask != 0 && !in.Zeroing {
				a.Access = Read | Write
			}
		case i == 0:
			a.Access = Read | Write
		}
	}
}

// finishPrefixes decides which prefix bytes did nothing and are to be printed.
func (d *decoder) finishPrefixes(f flags) {
	in := d.in
	if in.pfxLen == 0 {
		return
	}
	hide := func(at int8) {
		if at >= 0 {
			in.shown &^= 1 << uint(at)
		}
	}
	if d.rex&^d.rexUsed&0xf == 0 && (d.rex&0xf != 0 || d.rexUsed&rexBase != 0) {
		hide(d.atRex)
	}
	if d.segUsed {
		hide(d.atSeg)
	}
	if d.addrUsed {
		hide(d.atAddr)
	}
	if d.ppUsed && d.vex == 0 {
		if d.pp == 1 {
			hide(d.atData)
		} else if d.pp > 1 {
			hide(d.atRep)
		}
	}
	if d.oszUsed && d.osz == 2 {
		hide(d.atData)
	}
	if f&flagJcc != 0 {
		d.branchHint()
	}
}

// branchHint turns a lone CS or DS prefix of a conditional jump into a hint.
func (d *decoder) branchHint() {
	in := d.in
	switch in.Prefix & (SegCS | SegDS) {
	case SegCS:
		in.hint = 0x2e
	case SegDS:
		in.hint = 0x3e
	default:
		return
	}
	in.hintBit = 1 << uint(d.atSeg)
}

// finishTargets makes branch displacements absolute; they count from the end.
func (d *decoder) finishTargets(r *row) {
	if r.flags&(flagJmp|flagJcc|flagCall) == 0 {
		return
	}
	in := d.in
	if a := &in.Args[0]; a.Kind == KindRel {
		a.Val += int64(in.Addr) + int64(in.Len)
	}
}
