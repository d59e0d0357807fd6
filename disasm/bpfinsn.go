package disasm

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// An Insn is a BPF instruction as the verifier left it.
type Insn struct {
	Index int    `json:"index"` // in the program
	Text  string `json:"text"`  // as bpftool prog dump xlated has it
}

// A bpfInsn is a struct bpf_insn (include/uapi/linux/bpf.h). The forms that
// only the kernel itself uses, which are those in its memory, and the notation
// are why no library for user space serves here.
type bpfInsn struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

const bpfInsnSize = 8

func decodeBPF(b []byte) bpfInsn {
	le := binary.LittleEndian
	return bpfInsn{b[0], b[1] & 15, b[1] >> 4, int16(le.Uint16(b[2:])), int32(le.Uint32(b[4:]))}
}

// Classes of instructions: the low three bits of the code.
const (
	classLD    = 0
	classLDX   = 1
	classST    = 2
	classSTX   = 3
	classALU   = 4
	classJMP   = 5
	classJMP32 = 6
	classALU64 = 7
)

// Modes of loads and stores: the high three bits. Those below are only the
// kernel's own (include/linux/filter.h).
const (
	modeIMM    = 0x00
	modeABS    = 0x20
	modeIND    = 0x40
	modeMEM    = 0x60
	modeMEMSX  = 0x80 // 1f9a1ea821ff, 6.6
	modeATOMIC = 0xc0

	modeProbeMem     = 0x20 // a load that may fault, 2a02759ef5f8
	modeProbeMemSX   = 0x40
	modeProbeMem32   = 0xa0 // of an arena, 2fe99eb0ccf2, 6.9
	modeProbeMem32SX = 0xc0
	modeProbeAtomic  = 0xe0 // d503a04f8bc0, 6.10
	modeNospec       = 0xc0 // of class ST: a barrier, f5e81d111750
)

// srcX is the bit of the code that tells a register operand from a constant.
const srcX = 8

// Operations: the high four bits.
const (
	aluDiv, aluNeg, aluMod, aluMov, aluEnd = 0x30, 0x80, 0x90, 0xb0, 0xd0

	jmpJA, jmpCall, jmpExit, jmpCond = 0x00, 0x80, 0x90, 0xe0
	jmpTailCall                      = 0xf0 // the kernel's own
)

var aluOps = [16]string{"+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "endian"}

var jmpOps = [16]string{1: "==", 2: ">", 3: ">=", 4: "&", 5: "!=", 6: "s>", 7: "s>=", 10: "<", 11: "<=", 12: "s<", 13: "s<="}

var (
	memSizes    = [4]string{"u32", "u16", "u8", "u64"}
	memSizesSX  = [4]string{"s32", "s16", "s8", "s64"}
	atomicOps   = map[int32]string{0x00: "+=", 0x40: "|=", 0x50: "&=", 0xa0: "^="}
	atomicNames = map[int32]string{0x01: "add", 0x41: "or", 0x51: "and", 0xa1: "xor"}
)

// Atomic operations that are none of arithmetic.
const (
	atomicXchg, atomicCmpXchg = 0xe1, 0xf1
	atomicLoad, atomicStore   = 0x100, 0x110 // 880442305a39, 6.15
)

// bpfNames names what instructions refer to; "" is unknown.
type bpfNames struct {
	call    func(i int, in bpfInsn) string    // a helper, kfunc or function
	const64 func(in bpfInsn, v uint64) string // a 64-bit constant
}

// format writes an instruction in bpftool's notation: its code, then what it
// does. hi is the second half of a 64-bit constant.
func (in bpfInsn) format(i int, hi int32, names bpfNames) string {
	text := ""
	switch in.code & 7 {
	case classALU, classALU64:
		text = in.alu()
	case classLD:
		text = in.load(hi, names)
	case classLDX:
		text = in.loadMem()
	case classST:
		if in.code&0xe0 == modeNospec && in.code>>3&3 == 0 {
			text = "nospec"
		} else {
			text = fmt.Sprintf("%s = %d", in.place(in.dst), in.imm)
		}
	case classSTX:
		text = in.store()
	default:
		text = in.jump(i, names)
	}
	if text == "" {
		text = fmt.Sprintf("BUG_%02x", in.code)
	}
	return fmt.Sprintf("(%02x) %s", in.public(), text)
}

// public returns the code that bpf(2) gives for one of the kernel's own, as
// bpf_insn_prepare_dump makes it.
func (in bpfInsn) public() uint8 {
	class, mode := in.code&7, in.code&0xe0
	switch {
	case in.code == jmpTailCall|classJMP, in.isCallArgs():
		return jmpCall | classJMP
	case class == classLDX && (mode == modeProbeMem || mode == modeProbeMem32),
		(class == classST || class == classSTX) && mode == modeProbeMem32:
		return in.code&^0xe0 | modeMEM
	case class == classLDX && (mode == modeProbeMemSX || mode == modeProbeMem32SX):
		return in.code&^0xe0 | modeMEMSX
	case class == classSTX && mode == modeProbeAtomic:
		return in.code&^0xe0 | modeATOMIC
	}
	return in.code
}

// isCallArgs recognises a call of a function by the interpreter, which has the
// code that may_goto, which the verifier replaces, has before.
func (in bpfInsn) isCallArgs() bool {
	return in.code == jmpCond|classJMP && in.src == pseudoCall
}

// reg writes a register: w for its low half.
func (in bpfInsn) reg(n uint8) string {
	if c := in.code & 7; c == classALU || c == classJMP32 {
		return "w" + strconv.Itoa(int(n))
	}
	return "r" + strconv.Itoa(int(n))
}

// place writes the memory that base and the offset address.
func (in bpfInsn) place(base uint8) string {
	sizes := &memSizes
	if m := in.code & 0xe0; in.code&7 == classLDX && (m == modeMEMSX || m == modeProbeMemSX || m == modeProbeMem32SX) {
		sizes = &memSizesSX
	}
	return fmt.Sprintf("*(%s *)(r%d %+d)", sizes[in.code>>3&3], base, in.off)
}

func (in bpfInsn) alu() string {
	op, dst, is64 := in.code&0xf0, in.reg(in.dst), in.code&7 == classALU64
	operator := aluOps[op>>4]
	switch {
	case op == aluEnd && is64:
		return fmt.Sprintf("%s = bswap%d %s", dst, in.imm, dst)
	case op == aluEnd:
		order := "le"
		if in.code&srcX != 0 {
			order = "be"
		}
		return fmt.Sprintf("r%d = %s%d r%d", in.dst, order, in.imm, in.dst)
	case op == aluNeg:
		return fmt.Sprintf("%s = -%s", dst, dst)
	case operator == "":
		return ""
	case (op == aluDiv || op == aluMod) && in.off == 1: // ec0e2da95f72, 6.6
		operator = "s" + operator
	}
	if in.code&srcX == 0 {
		return fmt.Sprintf("%s %s %d", dst, operator, in.imm)
	}
	src := in.reg(in.src)
	if op == aluMov {
		switch {
		case is64 && in.off == 1: // 6082b6c328b5, 6.9
			return fmt.Sprintf("%s = addr_space_cast(%s, %d, %d)", dst, src, uint32(in.imm)>>16, uint16(in.imm))
		case is64 && in.off == -1: // 7bdbf7446305, 6.10
			return fmt.Sprintf("%s = &(void __percpu *)(%s)", dst, src)
		case in.off == 8 || in.off == 16 || in.off == 32: // 8100928c8814, 6.6
			src = fmt.Sprintf("(s%d)%s", in.off, src)
		}
	}
	return fmt.Sprintf("%s %s %s", dst, operator, src)
}

func (in bpfInsn) load(hi int32, names bpfNames) string {
	size := memSizes[in.code>>3&3]
	switch {
	case in.code == modeIMM|classLD|0x18:
		v := uint64(uint32(in.imm)) | uint64(uint32(hi))<<32
		text := names.const64(in, v)
		if text == "" {
			text = fmt.Sprintf("%#x", v)
		}
		return fmt.Sprintf("r%d = %s", in.dst, text)
	case in.code&0xe0 == modeABS:
		return fmt.Sprintf("r0 = *(%s *)skb[%d]", size, in.imm)
	case in.code&0xe0 == modeIND:
		return fmt.Sprintf("r0 = *(%s *)skb[r%d + %d]", size, in.src, in.imm)
	}
	return ""
}

func (in bpfInsn) loadMem() string {
	return fmt.Sprintf("r%d = %s", in.dst, in.place(in.src))
}

func (in bpfInsn) store() string {
	mode := in.code & 0xe0
	if mode == modeMEM || mode == modeProbeMem32 {
		return fmt.Sprintf("%s = r%d", in.place(in.dst), in.src)
	}
	if mode != modeATOMIC && mode != modeProbeAtomic {
		return ""
	}
	size, wide := memSizes[in.code>>3&3], ""
	if size == "u64" {
		wide = "64"
	}
	place := fmt.Sprintf("(%s *)(r%d %+d)", size, in.dst, in.off)
	if op := atomicOps[in.imm]; op != "" {
		return fmt.Sprintf("lock *%s %s r%d", place, op, in.src)
	}
	if name := atomicNames[in.imm]; name != "" {
		return fmt.Sprintf("r%d = atomic%s_fetch_%s(%s, r%d)", in.src, wide, name, place, in.src)
	}
	switch in.imm {
	case atomicXchg:
		return fmt.Sprintf("r%d = atomic%s_xchg(%s, r%d)", in.src, wide, place, in.src)
	case atomicCmpXchg:
		return fmt.Sprintf("r0 = atomic%s_cmpxchg(%s, r0, r%d)", wide, place, in.src)
	case atomicLoad: // here the second register is the address
		return fmt.Sprintf("r%d = load_acquire((%s *)(r%d %+d))", in.dst, size, in.src, in.off)
	case atomicStore:
		return fmt.Sprintf("store_release(%s, r%d)", place, in.src)
	}
	return ""
}

func (in bpfInsn) jump(i int, names bpfNames) string {
	switch op := in.code & 0xf0; {
	case op == jmpCall, op == jmpTailCall, in.isCallArgs():
		return "call " + names.call(i, in)
	case op == jmpExit:
		return "exit"
	case op == jmpJA && in.code&srcX != 0: // 7.0
		return fmt.Sprintf("gotox r%d", in.dst)
	case op == jmpJA && in.code&7 == classJMP32: // 4cd58e9af8b9, 6.6
		return fmt.Sprintf("gotol pc%+d", in.imm)
	case op == jmpJA:
		return fmt.Sprintf("goto pc%+d", in.off)
	case op == jmpCond && in.src == 0: // 011832b97b31, 6.9
		return fmt.Sprintf("may_goto pc%+d", in.off)
	}
	op := jmpOps[in.code>>4]
	if op == "" {
		return ""
	}
	if in.code&srcX != 0 {
		return fmt.Sprintf("if %s %s %s goto pc%+d", in.reg(in.dst), op, in.reg(in.src), in.off)
	}
	return fmt.Sprintf("if %s %s %#x goto pc%+d", in.reg(in.dst), op, uint32(in.imm), in.off)
}
