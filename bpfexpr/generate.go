package bpfexpr

import (
	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/cexpr"
)

// Registers of a function. R0 is the value that is being computed, R1 to R5
// are for a moment; the first values that are kept meanwhile are in R6 and R7,
// others on the stack.
const (
	regCall  = asm.R9 // struct call
	regSlots = asm.R8
)

// The stack of a function, at offsets from its end: 200 bytes in all.
const (
	readBuf  = -16  // 16 bytes: what was read
	firstTmp = -24  // downwards to textBuf
	textBuf  = -200 // 72 bytes: text that is compared
	textLen  = 72
)

// Error numbers of what is no read of memory, as math(3) has them.
const (
	edom      = 33 // a division by zero
	eoverflow = 75 // a shift that C does not define
)

// Helpers that a read of memory needs (5.5).
const (
	readUser      = asm.FnProbeReadUser
	readKernel    = asm.FnProbeReadKernel
	readUserStr   = asm.FnProbeReadUserStr
	readKernelStr = asm.FnProbeReadKernelStr
)

// A generator makes the instructions of one function.
type generator struct {
	code
	fault  label // where to go, with a negative errno in R0, if there is no value
	tmps   int   // values that are kept
	faults int16 // of the counter in struct call
}

func newGenerator(faults int16) *generator {
	g := &generator{faults: faults}
	g.emit(asm.Mov.Reg(regCall, asm.R1), asm.Mov.Reg(regSlots, asm.R2))
	return g
}

// count adds 1 to the faults. The verifier forgets what an atomic operation
// leaves behind, or it would follow each number of faults apart.
func (g *generator) count() {
	g.emit(asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(regCall, asm.R1, asm.Word, g.faults))
}

// value computes a node into R0.
func (g *generator) value(n *node) {
	if g.full() {
		return
	}
	switch n.op {
	case opConst, opHeld:
		g.leaf(n, asm.R0)
	case opFrame:
		g.frame(n, asm.R0)
	case opLoad:
		g.load(n)
	case opArith:
		g.arith(n)
	case opNegate:
		g.value(n.x)
		g.emit(asm.Neg.Imm(asm.R0, 0))
	case opInvert:
		g.value(n.x)
		g.emit(asm.Xor.Imm(asm.R0, -1))
	case opExtend:
		g.value(n.x)
		g.extend(asm.R0, n.width, n.signed)
	case opCond:
		other, end := g.label(), g.label()
		g.branch(n.x, false, other)
		g.value(n.y)
		g.jump(end)
		g.here(other)
		g.value(n.z)
		g.here(end)
	default:
		no, end := g.label(), g.label()
		g.branch(n, false, no)
		g.set(asm.R0, 1)
		g.jump(end)
		g.here(no)
		g.set(asm.R0, 0)
		g.here(end)
	}
}

// leaf loads a value that takes no call into a register.
func (g *generator) leaf(n *node, dst asm.Register) {
	switch n.op {
	case opConst:
		g.set(dst, n.value)
	case opFrame:
		g.frame(n, dst)
	case opHeld: // its status comes first
		g.emit(asm.LoadMem(dst, regSlots, int16(n.off), asm.DWord))
		g.failUnless(asm.JEq, dst, 0, func() { g.emit(asm.Mov.Reg(asm.R0, dst)) })
		g.emit(asm.LoadMem(dst, regSlots, int16(n.off+8), asm.DWord))
	}
}

// failUnless goes to the fault, with the errno that set leaves in R0.
func (g *generator) failUnless(op asm.JumpOp, dst asm.Register, v int32, set func()) {
	ok := g.label()
	g.jumpImm(op, dst, v, ok)
	set()
	g.jump(g.fault)
	g.here(ok)
}

// extend cuts a register to its low bits and extends them.
func (g *generator) extend(dst asm.Register, width int, signed bool) {
	switch {
	case width >= 64:
	case signed:
		g.emit(asm.LSh.Imm(dst, int32(64-width)), asm.ArSh.Imm(dst, int32(64-width)))
	case width == 32:
		g.emit(asm.Mov.Reg32(dst, dst))
	case width < 32:
		g.emit(asm.And.Imm(dst, 1<<width-1))
	default:
		g.emit(asm.LSh.Imm(dst, int32(64-width)), asm.RSh.Imm(dst, int32(64-width)))
	}
}

var sizes = map[int]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word, 8: asm.DWord}

// frame loads from struct call.
func (g *generator) frame(n *node, dst asm.Register) {
	g.emit(asm.LoadMem(dst, regCall, int16(n.off), sizes[n.size]))
	if n.shift != 0 {
		g.emit(asm.RSh.Imm(dst, int32(n.shift)))
	}
	g.bits(n, dst)
}

// bits takes a value out of the bytes that were loaded.
func (g *generator) bits(n *node, dst asm.Register) {
	if n.bitSize == 0 {
		if n.signed || n.width < 8*n.size {
			g.extend(dst, n.width, n.signed)
		}
		return
	}
	if left := 64 - n.bitOff - n.bitSize; left > 0 {
		g.emit(asm.LSh.Imm(dst, int32(left)))
	}
	g.right(dst, 64-n.bitSize, n.signed)
}

func (g *generator) right(dst asm.Register, by int, signed bool) {
	switch {
	case by == 0:
	case signed:
		g.emit(asm.ArSh.Imm(dst, int32(by)))
	default:
		g.emit(asm.RSh.Imm(dst, int32(by)))
	}
}

// read reads memory at the address in R0 to the stack, or goes to the fault.
func (g *generator) read(fn asm.BuiltinFunc, buf, size int) { g.readTo(fn, asm.RFP, buf, size) }

// readTo reads memory at the address in R0 to base+off, or goes to the fault.
func (g *generator) readTo(fn asm.BuiltinFunc, base asm.Register, off, size int) {
	g.emit(
		asm.Mov.Reg(asm.R3, asm.R0),
		asm.Mov.Imm(asm.R2, int32(size)),
		asm.Mov.Reg(asm.R1, base),
		asm.Add.Imm(asm.R1, int32(off)),
		fn.Call(),
	)
	op := asm.JNE
	if fn == readKernelStr || fn == readUserStr { // they return a length
		op = asm.JSLT
	}
	g.jumpImm(op, asm.R0, 0, g.fault)
}

func pick(user bool, ofUser, ofKernel asm.BuiltinFunc) asm.BuiltinFunc {
	if user {
		return ofUser
	}
	return ofKernel
}

// zero clears 8 bytes of memory.
func zero(base asm.Register, off int) asm.Instruction {
	return asm.Instruction{OpCode: asm.StoreImmOp(asm.DWord), Dst: base, Offset: int16(off)}
}

// load reads a scalar from memory.
func (g *generator) load(n *node) {
	g.value(n.x)
	size, ok := sizes[n.size]
	if !ok { // a bitfield: also what is not read has to be known
		g.emit(zero(asm.RFP, readBuf), zero(asm.RFP, readBuf+8))
		size = asm.DWord
	}
	g.read(pick(n.user, readUser, readKernel), readBuf, n.size)
	g.emit(asm.LoadMem(asm.R0, asm.RFP, readBuf, size))
	if n.size <= 8 {
		g.bits(n, asm.R0)
		return
	}
	g.emit(
		asm.RSh.Imm(asm.R0, int32(n.bitOff)),
		asm.LoadMem(asm.R1, asm.RFP, readBuf+8, asm.Byte),
		asm.LSh.Imm(asm.R1, int32(64-n.bitOff)),
		asm.Or.Reg(asm.R0, asm.R1),
	)
	g.extend(asm.R0, n.bitSize, n.signed)
}

// keep saves R0 and returns where, for kept; release ends that.
func (g *generator) keep() (tmp int) {
	tmp = g.tmps
	g.tmps++
	if tmp < 2 {
		g.emit(asm.Mov.Reg(asm.R6+asm.Register(tmp), asm.R0))
	} else {
		g.emit(asm.StoreMem(asm.RFP, int16(firstTmp-8*(tmp-2)), asm.R0, asm.DWord))
	}
	return tmp
}

func (g *generator) kept(tmp int, dst asm.Register) {
	if tmp < 2 {
		g.emit(asm.Mov.Reg(dst, asm.R6+asm.Register(tmp)))
	} else {
		g.emit(asm.LoadMem(dst, asm.RFP, int16(firstTmp-8*(tmp-2)), asm.DWord))
	}
}

func (g *generator) release() { g.tmps-- }

// operands computes x into R0 and y into R1, if it is no small constant.
func (g *generator) operands(x, y *node) (imm bool) {
	switch {
	case y.small():
		g.value(x)
		return true
	case y.leaf():
		g.value(x)
		g.leaf(y, asm.R1)
	case x.leaf():
		g.value(y)
		g.emit(asm.Mov.Reg(asm.R1, asm.R0))
		g.leaf(x, asm.R0)
	case y.temps > x.temps:
		g.value(y)
		tmp := g.keep()
		g.value(x)
		g.kept(tmp, asm.R1)
		g.release()
	default:
		g.value(x)
		tmp := g.keep()
		g.value(y)
		g.emit(asm.Mov.Reg(asm.R1, asm.R0))
		g.kept(tmp, asm.R0)
		g.release()
	}
	return false
}

// aluOps has the operators that are one instruction.
var aluOps = map[cexpr.Token]asm.ALUOp{
	"+": asm.Add, "-": asm.Sub, "*": asm.Mul, "&": asm.And, "|": asm.Or, "^": asm.Xor, "/": asm.Div, "%": asm.Mod, "<<": asm.LSh, ">>": asm.RSh,
}

func (g *generator) arith(n *node) {
	imm := g.operands(n.x, n.y)
	op := aluOps[n.tok]
	switch n.tok {
	case "/", "%":
		g.divide(n, imm)
		return
	case "<<", ">>":
		if n.limit != 0 {
			g.failUnless(asm.JLT, asm.R1, int32(n.limit), func() { g.emit(asm.Mov.Imm(asm.R0, -eoverflow)) })
		}
		if n.tok == ">>" && n.how {
			op = asm.ArSh
		}
	}
	if imm {
		g.emit(op.Imm(asm.R0, int32(n.y.value)))
		return
	}
	g.emit(op.Reg(asm.R0, asm.R1))
}

// divide divides R0 by R1 or a constant. BPF has no signed division before 6.6:
// absolute values are divided, and the result gets its sign.
func (g *generator) divide(n *node, imm bool) {
	op := aluOps[n.tok]
	if !imm && !n.y.isConst() {
		g.failUnless(asm.JNE, asm.R1, 0, func() { g.emit(asm.Mov.Imm(asm.R0, -edom)) })
	}
	if n.how {
		g.emit(asm.Mov.Reg(asm.R2, asm.R0)) // % has the sign of its left operand
		switch {
		case imm && n.tok == "/" && int64(n.y.value) < 0:
			g.emit(asm.Xor.Imm(asm.R2, -1))
		case !imm && n.tok == "/":
			g.emit(asm.Xor.Reg(asm.R2, asm.R1))
		}
		g.emit(asm.ArSh.Imm(asm.R2, 63)) // -1 if the result is negative
		g.absolute(asm.R0)
		if !imm {
			g.absolute(asm.R1)
		}
	}
	divisor := int32(n.y.value)
	switch {
	case imm && n.how && divisor == -1<<31:
		g.set(asm.R1, 1<<31)
		g.emit(op.Reg(asm.R0, asm.R1))
	case imm && n.how && divisor < 0:
		g.emit(op.Imm(asm.R0, -divisor))
	case imm && divisor < 0: // a large unsigned one
		g.set(asm.R1, n.y.value)
		g.emit(op.Reg(asm.R0, asm.R1))
	case imm:
		g.emit(op.Imm(asm.R0, divisor))
	default:
		g.emit(op.Reg(asm.R0, asm.R1))
	}
	if n.how {
		g.emit(asm.Xor.Reg(asm.R0, asm.R2), asm.Sub.Reg(asm.R0, asm.R2))
	}
}

// absolute makes the absolute value of a register, by way of R3.
func (g *generator) absolute(r asm.Register) {
	g.emit(asm.Mov.Reg(asm.R3, r), asm.ArSh.Imm(asm.R3, 63), asm.Xor.Reg(r, asm.R3), asm.Sub.Reg(r, asm.R3))
}
