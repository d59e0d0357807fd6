package bpfexpr

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"

	"github.com/ksleuth/ksleuth/cexpr"
)

// branch jumps to a label if the truth of n is when, else goes on.
func (g *generator) branch(n *node, when bool, to label) {
	if g.full() {
		return
	}
	switch n.op {
	case opConst:
		if (n.value != 0) == when {
			g.jump(to)
		}
	case opNot:
		g.branch(n.x, !when, to)
	case opTest:
		if n.x.logical() {
			g.branch(n.x, when, to)
			return
		}
		g.test(n.x, when, to)
	case opAnd, opOr:
		if (n.op == opOr) == when { // either operand decides
			g.branch(n.x, when, to)
			g.branch(n.y, when, to)
			return
		}
		skip := g.label()
		g.branch(n.x, !when, skip)
		g.branch(n.y, when, to)
		g.here(skip)
	case opCompare:
		g.compare(n, when, to)
	case opText:
		if !when {
			g.text(n, to)
			return
		}
		differ := g.label()
		g.text(n, differ)
		g.jump(to)
		g.here(differ)
	default:
		g.test(n, when, to)
	}
}

// test branches on a value's not being 0.
func (g *generator) test(n *node, when bool, to label) {
	g.value(n)
	op := asm.JNE
	if !when {
		op = asm.JEq
	}
	g.jumpImm(op, asm.R0, 0, to)
}

// jumpOps has the instructions of comparisons; signed ones are apart.
var jumpOps = map[cexpr.Token][2]asm.JumpOp{
	"==": {asm.JEq, asm.JEq}, "!=": {asm.JNE, asm.JNE}, "<": {asm.JLT, asm.JSLT}, "<=": {asm.JLE, asm.JSLE}, ">": {asm.JGT, asm.JSGT}, ">=": {asm.JGE, asm.JSGE},
}

var negated = map[cexpr.Token]cexpr.Token{"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}

func (g *generator) compare(n *node, when bool, to label) {
	tok := n.tok
	if !when {
		tok = negated[tok]
	}
	op := jumpOps[tok][0]
	if n.how {
		op = jumpOps[tok][1]
	}
	if g.operands(n.x, n.y) {
		g.jumpImm(op, asm.R0, int32(n.y.value), to)
		return
	}
	g.jumpReg(op, asm.R0, asm.R1, to)
}

// text jumps to differ unless text in memory is as n says. It reads no more
// than it takes to know that.
func (g *generator) text(n *node, differ label) {
	want := []byte(n.text)
	if n.array == 0 || len(want) < n.array {
		want = append(want, 0)
	}
	if n.x == nil {
		g.same(regCall, n.off, want, differ)
		return
	}
	g.value(n.x)
	fn, chunk, extra := pick(n.user, readUser, readKernel), textLen, 0
	if n.array == 0 { // reads to the NUL, and puts one at the end
		fn, chunk, extra = pick(n.user, readUserStr, readKernelStr), textLen-8, 1
	}
	if len(want) <= chunk {
		g.read(fn, textBuf, len(want)+extra)
		g.same(asm.RFP, textBuf, want, differ)
		return
	}
	tmp := g.keep()
	for off := 0; off < len(want) && !g.full(); off += chunk {
		part := want[off:min(off+chunk, len(want))]
		g.kept(tmp, asm.R0)
		g.emit(asm.Add.Imm(asm.R0, int32(off)))
		g.read(fn, textBuf, len(part)+extra)
		g.same(asm.RFP, textBuf, part, differ)
	}
	g.release()
}

// same jumps to differ unless the bytes at base+off are b.
func (g *generator) same(base asm.Register, off int, b []byte, differ label) {
	for len(b) > 0 {
		size := 8
		for size > len(b) || off%size != 0 {
			size /= 2
		}
		var word [8]byte
		copy(word[:], b[:size])
		v := binary.LittleEndian.Uint64(word[:])
		g.emit(asm.LoadMem(asm.R1, base, int16(off), sizes[size]))
		if int64(v) == int64(int32(v)) {
			g.jumpImm(asm.JNE, asm.R1, int32(v), differ)
		} else {
			g.set(asm.R2, v)
			g.jumpReg(asm.JNE, asm.R1, asm.R2, differ)
		}
		b, off = b[size:], off+size
	}
}
