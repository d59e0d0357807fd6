package pcapfilter

import "golang.org/x/net/bpf"

// A cond is a decision tree: what a packet is asked, in which order. The order
// counts, since a load outside of the packet ends the program with no match,
// under not as well.
type cond interface{}

type (
	condAnd   struct{ l, r cond }
	condOr    struct{ l, r cond }
	condNot   struct{ x cond }
	condConst bool
	// A condTest loads a number into A and compares it with a constant or with X.
	condTest struct {
		load  []bpf.Instruction
		op    bpf.JumpTest
		val   uint32
		withX bool
	}
)

// all is true if all are, asked in this order.
func all(conds ...cond) cond {
	c := conds[0]
	for _, next := range conds[1:] {
		c = condAnd{c, next}
	}
	return c
}

// anyOf is true if one is, asked in this order.
func anyOf(conds ...cond) cond {
	c := conds[0]
	for _, next := range conds[1:] {
		c = condOr{c, next}
	}
	return c
}

// field is a condition on a number at a fixed place.
func field(off uint32, size int, op bpf.JumpTest, val uint32) cond {
	return condTest{load: []bpf.Instruction{bpf.LoadAbsolute{Off: off, Size: size}}, op: op, val: val}
}

// equal compares a field.
func equal(off uint32, size int, val uint32) cond { return field(off, size, bpf.JumpEqual, val) }

// masked compares some bits of a field. Without bits it is true, and the field
// is not even loaded, as tcpdump's optimizer has it.
func masked(off uint32, size int, val, mask uint32) cond {
	switch mask {
	case 0:
		return condConst(val == 0)
	case 1<<(8*size) - 1:
		return equal(off, size, val)
	}
	return condTest{
		load: []bpf.Instruction{bpf.LoadAbsolute{Off: off, Size: size}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask}},
		op:   bpf.JumpEqual, val: val,
	}
}

// bytesEqual compares 6 or 8 bytes in the order that libpcap does: the last
// ones first.
func bytesEqual(off uint32, b []byte) cond {
	var conds []cond
	for len(b) > 0 {
		n := min(4, len(b))
		tail := b[len(b)-n:]
		b = b[:len(b)-n]
		var v uint32
		for _, x := range tail {
			v = v<<8 | uint32(x)
		}
		conds = append(conds, equal(off+uint32(len(b)), n, v))
	}
	return all(conds...)
}
