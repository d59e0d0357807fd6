package x86

import "golang.org/x/arch/x86/x86asm"

// appendRegGNU appends a register operand of GNU syntax: the port of in and out
// looks like memory, the target of an indirect branch has a star, and the top of
// the x87 stack is st, or st(0) where the encoding could name another.
func (in *Inst) appendRegGNU(dst []byte, r *row, a *Arg, o operand) []byte {
	switch {
	case o == oDX:
		return append(dst, "(%dx)"...)
	case o == oST:
		return append(dst, "%st"...)
	case r.flags&(flagJmp|flagCall) != 0:
		dst = append(dst, '*')
	}
	return append(dst, regNames[a.Reg]...)
}

func appendRegIntel(dst []byte, a *Arg, o operand) []byte {
	switch o {
	case oST:
		return append(dst, "st"...)
	case oDq:
		dst = append(dst, "dr"...)
		return append(dst, regNames[a.Reg][3:]...)
	}
	return append(dst, regNames[a.Reg][1:]...)
}

// appendMemGNU appends seg:disp(base,index,scale).
func (in *Inst) appendMemGNU(dst []byte, a *Arg) []byte {
	if a.Seg != 0 {
		dst = append(dst, regNames[a.Seg]...)
		dst = append(dst, ':')
	}
	if a.Reg == 0 && a.Index == 0 && !in.riz {
		return appendHex(dst, in.absolute(a))
	}
	if a.Val != 0 || in.hasDisp {
		dst = appendDisp(dst, a.Val)
	}
	dst = append(dst, '(')
	if a.Reg != 0 {
		dst = append(dst, regNames[a.Reg]...)
	}
	if a.Index != 0 || in.riz {
		dst = append(dst, ',')
		dst = append(dst, in.indexName(a)...)
		dst = append(dst, ',', '0'+a.Scale)
	}
	dst = append(dst, ')')
	return in.appendBroadcast(dst)
}

// appendMemIntel appends SIZE PTR seg:[base+index*scale+disp].
func (in *Inst) appendMemIntel(dst []byte, a *Arg, o operand) []byte {
	if in.Broadcast == 0 {
		switch {
		case o == oMp && a.Size == 10:
			dst = append(dst, "FWORD PTR "...) // objdump does not name 16:64
		case o == oMs || o == oM || o == oM6 || o == oMf || o == oOb || o == oOv:
		case in.Op == INVPCID || in.Op == WRUSSD || in.Op == WRUSSQ || in.Op == WRSSD || in.Op == WRSSQ:
		case in.Op == CMPXCHG16B || in.Op == INVEPT || in.Op == INVVPID:
			dst = append(dst, "OWORD PTR "...)
		default:
			dst = append(dst, intelPtr(a.Size)...)
		}
	} else {
		ptr := intelPtr(a.Size)
		dst = append(dst, ptr[:len(ptr)-len("PTR ")]...)
		dst = append(dst, "BCST "...)
	}
	abs := a.Reg == 0 && a.Index == 0 && !in.riz
	if a.Seg != 0 {
		dst = append(dst, regNames[a.Seg][1:]...)
		dst = append(dst, ':')
	} else if abs {
		dst = append(dst, "ds:"...)
	}
	if abs {
		return appendHex(dst, in.absolute(a))
	}
	dst = append(dst, '[')
	plus := false
	if a.Reg != 0 {
		dst = append(dst, regNames[a.Reg][1:]...)
		plus = true
	}
	if a.Index != 0 || in.riz {
		if plus {
			dst = append(dst, '+')
		}
		dst = append(dst, in.indexName(a)[1:]...)
		dst = append(dst, '*', '0'+a.Scale)
		plus = true
	}
	if a.Val != 0 || in.hasDisp {
		dst = appendDispIntel(dst, a, plus)
	}
	return append(dst, ']')
}

// absolute is the address of an operand without registers; an address size
// prefix cuts it to 32 bits.
func (in *Inst) absolute(a *Arg) uint64 {
	if in.Prefix&Addr32 != 0 {
		return uint64(uint32(a.Val))
	}
	return uint64(a.Val)
}

func (in *Inst) indexName(a *Arg) string {
	switch {
	case a.Index != 0:
		return regNames[a.Index]
	case in.Prefix&Addr32 != 0 && a.Reg < x86asm.RAX:
		return "%eiz"
	}
	return "%riz"
}

func (in *Inst) appendBroadcast(dst []byte) []byte {
	if in.Broadcast == 0 {
		return dst
	}
	dst = append(dst, "{1to"...)
	if in.Broadcast >= 10 {
		dst = append(dst, '0'+in.Broadcast/10)
	}
	dst = append(dst, '0'+in.Broadcast%10, '}')
	return dst
}

// appendDispIntel appends a displacement after the registers, if any. objdump
// writes one relative to RIP, or alone with an index, without a sign.
func appendDispIntel(dst []byte, a *Arg, plus bool) []byte {
	if a.Reg == x86asm.RIP || a.Reg == x86asm.EIP {
		return appendHex(append(dst, '+'), uint64(a.Val))
	}
	if a.Val >= 0 && plus {
		dst = append(dst, '+')
	}
	return appendDisp(dst, a.Val)
}
