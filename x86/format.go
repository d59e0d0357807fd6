package x86

import "golang.org/x/arch/x86/x86asm"

// A SymbolFunc names an address: the symbol it lies in and the offset from
// there. It may be nil where a parameter wants one: nothing is named then.
type SymbolFunc func(addr uint64) (name string, off uint64, ok bool)

// AppendGNU appends the instruction in GNU (AT&T) syntax as objdump -d prints
// it, except that a single space follows the mnemonic and that addresses carry
// 0x: "call 0xffffffff81000010 <foo+0x10>", "mov 0x8(%rip),%rax # 0x1010 <bar>".
func (in *Inst) AppendGNU(dst []byte, sym SymbolFunc) []byte {
	if in.Op == BAD {
		return append(dst, "(bad)"...)
	}
	r := &rows[in.row]
	if in.shown != 0 {
		dst = in.appendPrefixes(dst, r, in.shown&^in.hintBit)
	}
	n := in.NArgs
	dst, n = in.appendMnemonic(dst, r, r.gnu, n)
	if r.flags&(flagSuffix|flagSuffixDst|flagDef64|flagXY) != 0 {
		dst = in.appendSuffix(dst, r.flags)
	}
	if in.hint != 0 {
		dst = in.appendHint(dst)
	}
	if n == 0 {
		return dst
	}
	dst = append(dst, ' ')
	var rip *Arg
	for i := range n {
		at := n - 1 - i
		if r.flags&flagIntelOrder != 0 {
			at = i
		}
		a := &in.Args[at]
		if r.args[at] == o1 {
			continue
		}
		if i > 0 && dst[len(dst)-1] != ' ' {
			dst = append(dst, ',')
		}
		dst = in.appendArgGNU(dst, r, a, r.args[at], sym)
		if a.isRIP() {
			rip = a
		}
		if at == 0 && in.vexLen != 0 {
			dst = in.appendMask(dst, "%k")
		}
	}
	if rip != nil {
		dst = in.appendComment(dst, rip, sym)
	}
	return dst
}

// AppendIntel appends the instruction in Intel syntax as objdump -d -M intel
// prints it, with the same exceptions as [Inst.AppendGNU].
func (in *Inst) AppendIntel(dst []byte, sym SymbolFunc) []byte {
	if in.Op == BAD {
		return append(dst, "(bad)"...)
	}
	r := &rows[in.row]
	if in.shown != 0 { // hints included: Intel syntax has no other way to say them
		dst = in.appendPrefixes(dst, r, in.shown)
	}
	n := in.NArgs
	dst, n = in.appendMnemonic(dst, r, r.intel, n)
	if r.flags&flagDef64 != 0 && in.osz == 2 && in.Args[0].Kind == KindImm {
		dst = append(dst, 'w')
	}
	if r.flags&flagIntelOrder != 0 && r.op != ENTER { // monitor, mwait: fixed operands
		return dst
	}
	var rip *Arg
	for i := range n {
		a := &in.Args[i]
		if i == 0 {
			dst = append(dst, ' ')
		} else {
			dst = append(dst, ',')
		}
		dst = in.appendArgIntel(dst, a, r.args[i], sym)
		if a.isRIP() {
			rip = a
		}
		if i == 0 && in.vexLen != 0 {
			dst = in.appendMask(dst, "k")
		}
	}
	if rip != nil {
		dst = in.appendComment(dst, rip, sym)
	}
	return dst
}

// isRIP says whether a is memory relative to the instruction pointer.
func (a *Arg) isRIP() bool {
	return a.Kind == KindMem && (a.Reg == x86asm.RIP || a.Reg == x86asm.EIP)
}

func (in *Inst) appendArgGNU(dst []byte, r *row, a *Arg, o operand, sym SymbolFunc) []byte {
	switch a.Kind {
	case KindReg:
		return in.appendRegGNU(dst, r, a, o)
	case KindImm:
		dst = append(dst, '$')
		return appendHex(dst, uint64(a.Val)&mask(a.Size))
	case KindRel:
		return appendAddr(dst, uint64(a.Val), sym)
	}
	if r.flags&(flagJmp|flagCall) != 0 {
		dst = append(dst, '*')
	}
	return in.appendMemGNU(dst, a)
}

func (in *Inst) appendArgIntel(dst []byte, a *Arg, o operand, sym SymbolFunc) []byte {
	switch {
	case a.Kind == KindReg:
		return appendRegIntel(dst, a, o)
	case o == o1:
		return append(dst, '1')
	case a.Kind == KindImm:
		return appendHex(dst, uint64(a.Val)&mask(a.Size))
	case a.Kind == KindRel:
		return appendAddr(dst, uint64(a.Val), sym)
	}
	return in.appendMemIntel(dst, a, o)
}

// String returns the instruction in GNU syntax without symbols.
func (in *Inst) String() string { return string(in.AppendGNU(nil, nil)) }

// appendPrefixes names the prefix bytes that had no effect or stand apart.
func (in *Inst) appendPrefixes(dst []byte, r *row, shown uint16) []byte {
	for i := range int(in.pfxLen) {
		if shown>>i&1 == 0 {
			continue
		}
		b := in.raw[i]
		if b&0xf0 == rexBase {
			dst = appendRex(dst, b)
			continue
		}
		dst = append(dst, in.prefixName(b, r.flags)...)
		dst = append(dst, ' ')
	}
	return dst
}

func appendRex(dst []byte, b byte) []byte {
	dst = append(dst, "rex"...)
	if b&0xf != 0 {
		dst = append(dst, '.')
		for i, c := range []byte("WRXB") {
			if b<<i&8 != 0 {
				dst = append(dst, c)
			}
		}
	}
	return append(dst, ' ')
}

// prefixName names a prefix byte. F2 and F3 are called by what they mean to the
// instruction (SDM vol. 1, 16.3.7 for hardware lock elision).
func (in *Inst) prefixName(b byte, f flags) string {
	mem := in.NArgs > 0 && in.Args[0].Kind == KindMem
	hle := mem && (f&flagHLE != 0 && in.Prefix&Lock != 0 || f&flagHLEX != 0)
	switch b {
	case 0xf0:
		return "lock"
	case 0xf2:
		switch {
		case hle:
			return "xacquire"
		case f&flagBnd != 0:
			return "bnd"
		}
		return "repnz"
	case 0xf3:
		switch {
		case hle || mem && f&flagHLER != 0:
			return "xrelease"
		case f&flagRep != 0:
			return "rep"
		}
		return "repz"
	case 0x66:
		return "data16"
	case 0x67:
		return "addr32"
	case 0x26:
		return "es"
	case 0x2e:
		return "cs"
	case 0x36:
		return "ss"
	case 0x3e:
		if f&flagNotrack != 0 {
			return "notrack"
		}
		return "ds"
	case 0x64:
		return "fs"
	}
	return "gs"
}

// appendMnemonic appends the name and returns how many of the n operands are
// still to be printed: a predicate in the name stands for the last one.
func (in *Inst) appendMnemonic(dst []byte, r *row, name string, n int) ([]byte, int) {
	if r.flags&(flagPred|flagClmul) == 0 {
		return append(dst, name...), n
	}
	imm := in.Args[n-1].Val
	cut, end, word := len(name), len(name), ""
	if r.flags&flagClmul != 0 {
		if word = clmulNames[imm]; word != "" { // pclmul + lqlq + dq
			cut, end = len(name)-3, len(name)-2
		}
	} else {
		for i := range name {
			if name[i] == '{' {
				cut, end = i, i+3
				break
			}
		}
		word = in.predicate(name[cut+1], imm)
	}
	if word != "" {
		n--
	}
	dst = append(dst, name[:cut]...)
	dst = append(dst, word...)
	return append(dst, name[end:]...), n
}

func (in *Inst) predicate(kind byte, imm int64) string {
	switch {
	case kind == 'c':
		if imm >= 0 && imm < int64(len(intPredicates)) {
			return intPredicates[imm]
		}
	case imm >= 0 && imm < 8, in.vexLen != 0 && imm >= 0 && imm < int64(len(cmpPredicates)):
		return cmpPredicates[imm]
	}
	return ""
}

// appendSuffix appends the size the operands do not tell.
func (in *Inst) appendSuffix(dst []byte, f flags) []byte {
	switch {
	case f&flagSuffixDst != 0:
		return append(dst, sizeSuffix(in.Args[0].Size))
	case f&flagDef64 != 0:
		if in.osz == 2 && in.NArgs == 1 && in.Args[0].Kind != KindReg {
			return append(dst, 'w')
		}
		return dst
	}
	for i := range in.NArgs {
		a := &in.Args[i]
		if a.Kind != KindMem {
			continue
		}
		if f&flagXY == 0 {
			return append(dst, sizeSuffix(a.Size))
		}
		if a.Size == 32 {
			return append(dst, 'y')
		}
		return append(dst, 'x')
	}
	return dst
}

func (in *Inst) appendHint(dst []byte) []byte {
	if in.hint == 0x2e {
		return append(dst, ",pn"...)
	}
	return append(dst, ",pt"...)
}

func (in *Inst) appendMask(dst []byte, k string) []byte {
	if in.Mask != 0 {
		dst = append(dst, '{')
		dst = append(dst, k...)
		dst = append(dst, '0'+byte(in.Mask-x86asm.K0), '}')
	}
	if in.Zeroing {
		dst = append(dst, "{z}"...)
	}
	return dst
}

// appendAddr appends an address and the symbol it lies in.
func appendAddr(dst []byte, addr uint64, sym SymbolFunc) []byte {
	dst = appendHex(dst, addr)
	if sym == nil {
		return dst
	}
	name, off, ok := sym(addr)
	if !ok {
		return dst
	}
	dst = append(dst, " <"...)
	dst = append(dst, name...)
	if off != 0 {
		dst = append(dst, '+')
		dst = appendHex(dst, off)
	}
	return append(dst, '>')
}

// appendComment appends the address a RIP-relative operand means.
func (in *Inst) appendComment(dst []byte, a *Arg, sym SymbolFunc) []byte {
	addr := in.Addr + uint64(in.Len) + uint64(a.Val)
	if a.Reg == x86asm.EIP {
		addr &= 0xffffffff
	}
	dst = append(dst, " # "...)
	return appendAddr(dst, addr, sym)
}

// mask covers the low n bytes.
func mask(n uint16) uint64 {
	if n >= 8 {
		return 1<<64 - 1
	}
	return 1<<(8*n) - 1
}

const hexDigits = "0123456789abcdef"

// appendHex appends v as 0x and its digits.
func appendHex(dst []byte, v uint64) []byte {
	var b [18]byte
	i := len(b)
	for {
		i--
		b[i] = hexDigits[v&15]
		v >>= 4
		if v == 0 {
			break
		}
	}
	b[i-1], b[i-2] = 'x', '0'
	return append(dst, b[i-2:]...)
}

// appendDisp appends a displacement as signed hex.
func appendDisp(dst []byte, v int64) []byte {
	if v < 0 {
		dst = append(dst, '-')
		v = -v
	}
	return appendHex(dst, uint64(v))
}
