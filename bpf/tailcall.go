package bpf

import (
	"encoding/binary"
	"slices"
)

// A TailCall is a place in a program from which another is entered in its
// stead, by bpf_tail_call.
type TailCall struct {
	Insn int // index in the instructions given
	// Map is the program array: its id in code that bpf(2) handed out, the
	// address of its struct bpf_map in code read from memory; 0 if the code
	// does not tell.
	Map   uint64
	Index int // of its element; -1 if the code computes it, or does not tell
}

// TailCalls finds the tail calls in BPF instructions, as the verifier left
// them. A map or an index is told where the instructions in front of the call
// set it and nothing can jump in between; then it is certain.
func TailCalls(insns []byte) []TailCall {
	c := tailCode(insns)
	var out []TailCall
	var entered map[int]bool
	for i := range c.len() {
		if !c.isTailCall(i) {
			continue
		}
		if entered == nil {
			entered = c.jumpTargets()
		}
		t := TailCall{Insn: i, Index: -1}
		if v, ok := c.constant(i, 2, entered); ok {
			t.Map = v
		}
		if v, ok := c.constant(i, 3, entered); ok && v < 1<<31 {
			t.Index = int(v)
		}
		out = append(out, t)
	}
	return out
}

// tailCode are instructions: struct bpf_insn of include/uapi/linux/bpf.h.
type tailCode []byte

func (c tailCode) len() int { return len(c) / insnSize }

func (c tailCode) code(i int) byte { return c[i*insnSize] }
func (c tailCode) dst(i int) byte  { return c[i*insnSize+1] & 15 }
func (c tailCode) src(i int) byte  { return c[i*insnSize+1] >> 4 }
func (c tailCode) off(i int) int   { return int(int16(binary.LittleEndian.Uint16(c[i*insnSize+2:]))) }
func (c tailCode) imm(i int) int32 { return int32(binary.LittleEndian.Uint32(c[i*insnSize+4:])) }

// Codes of instructions.
const (
	opLoad64      = 0x18 // of two slots: a constant, a map's address
	opMov64       = 0xb7
	opMov32       = 0xb4
	opMov64Reg    = 0xbf
	opMov32Reg    = 0xbc
	opJump        = 0x05
	opJump32      = 0x06 // gotol, whose distance is the constant
	opCall        = 0x85
	opTailCall    = 0xf5 // the kernel's own form of it
	helperTail    = 12   // BPF_FUNC_tail_call
	opExit        = 0x95
	classMask     = 7
	classStore    = 2
	classStoreReg = 3
	classJump     = 5
	classJump32   = 6
	modeAtomic    = 0xc0
)

func (c tailCode) isTailCall(i int) bool {
	return c.code(i) == opTailCall || c.code(i) == opCall && c.src(i) == 0 && c.imm(i) == helperTail
}

// jumpTargets are the instructions that a jump leads to.
func (c tailCode) jumpTargets() map[int]bool {
	to := make(map[int]bool)
	for i := range c.len() {
		switch class := c.code(i) & classMask; {
		case c.code(i) == opCall, c.code(i) == opExit, c.code(i) == opTailCall:
		case c.code(i) == opJump32:
			to[i+1+int(c.imm(i))] = true
		case class == classJump, class == classJump32:
			to[i+1+c.off(i)] = true
		}
	}
	return to
}

// Unavoidable reports whether every way through a function, from its first
// instruction to its end, comes by one of its tail calls. The instructions are
// the function's alone.
func Unavoidable(insns []byte) bool {
	c := tailCode(insns)
	seen := make([]bool, c.len())
	todo := []int{0}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if i < 0 || i >= c.len() {
			return false // not the code of one function
		}
		if seen[i] || c.isTailCall(i) {
			continue
		}
		seen[i] = true
		if c.code(i) == opExit {
			return false
		}
		todo = append(todo, c.follow(i)...)
	}
	return true
}

// follow returns the instructions that can come after one.
func (c tailCode) follow(i int) []int {
	switch class := c.code(i) & classMask; {
	case c.code(i) == opCall:
		return []int{i + 1}
	case c.code(i) == opJump:
		return []int{i + 1 + c.off(i)}
	case c.code(i) == opJump32:
		return []int{i + 1 + int(c.imm(i))}
	case class == classJump, class == classJump32:
		return []int{i + 1, i + 1 + c.off(i)}
	case c.code(i) == opLoad64:
		return []int{i + 2}
	}
	return []int{i + 1}
}

// Callees returns the functions of the program that instructions call, by
// number, each once.
func Callees(insns []byte) []int {
	c := tailCode(insns)
	var out []int
	for i := range c.len() {
		// pseudo calls (BPF_PSEUDO_CALL) of code that has been compiled have the
		// number of the function (1c2a088a6626, 4.16)
		if n := int(c.imm(i)); c.code(i) == opCall && c.src(i) == 1 && !c.second(i) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// constant goes back from instruction i to what a register was set to.
func (c tailCode) constant(i int, reg byte, entered map[int]bool) (uint64, bool) {
	for {
		if entered[i] || i == 0 {
			return 0, false
		}
		i--
		if c.second(i) {
			i--
		}
		code := c.code(i)
		switch class := code & classMask; {
		case code == opJump, code == opJump32, code == opExit, code == opTailCall:
			return 0, false // what stands behind is entered from elsewhere
		case code == opCall:
			if reg <= 5 {
				return 0, false
			}
		case class == classStoreReg && code&0xe0 == modeAtomic && c.src(i) == reg:
			return 0, false // it may fetch
		case class == classJump, class == classJump32, class == classStore, class == classStoreReg:
		case c.dst(i) != reg:
		case code == opLoad64 && i+1 < c.len():
			return uint64(uint32(c.imm(i))) | uint64(uint32(c.imm(i+1)))<<32, true
		case code == opMov64:
			return uint64(int64(c.imm(i))), true
		case code == opMov32:
			return uint64(uint32(c.imm(i))), true
		case (code == opMov64Reg || code == opMov32Reg) && c.off(i) == 0:
			reg = c.src(i)
		default:
			return 0, false
		}
	}
}

// second reports whether a slot is the second half of a constant.
func (c tailCode) second(i int) bool {
	return i > 0 && c.code(i) == 0 && c.code(i-1) == opLoad64
}
