package pcapfilter

import (
	"slices"

	"golang.org/x/net/bpf"
)

// maxOffset is the last byte that an index can name: no packet is longer, and
// an index below 0 is a very large one.
const maxOffset = 0xffff - 128

// aluOps are the operators of arithmetic, all unsigned and of 32 bits.
var aluOps = map[string]bpf.ALUOp{
	"+": bpf.ALUOpAdd, "-": bpf.ALUOpSub, "*": bpf.ALUOpMul, "/": bpf.ALUOpDiv, "%": bpf.ALUOpMod,
	"&": bpf.ALUOpAnd, "|": bpf.ALUOpOr, "^": bpf.ALUOpXor, "<<": bpf.ALUOpShiftLeft, ">>": bpf.ALUOpShiftRight,
}

var relOps = map[string]bpf.JumpTest{
	"=": bpf.JumpEqual, "!=": bpf.JumpNotEqual, "<": bpf.JumpLessThan, "<=": bpf.JumpLessOrEqual,
	">": bpf.JumpGreaterThan, ">=": bpf.JumpGreaterOrEqual,
}

// relation asks first whether the packet is of the protocols that both sides
// load from, and compares then.
func (lo *lowerer) relation(n *relationNode) (cond, error) {
	var checks []cond
	for _, side := range []arith{n.l, n.r} {
		c, err := lo.checks(side)
		if err != nil {
			return nil, err
		}
		checks = append(checks, c...)
	}
	test := condTest{op: relOps[n.op]}
	code, err := lo.number(n.l, 0)
	if err != nil {
		return nil, err
	}
	if k, ok, err := lo.constant(n.r); err != nil {
		return nil, err
	} else if ok {
		test.load, test.val = code, k
	} else {
		r, err := lo.number(n.r, 1)
		if err != nil {
			return nil, err
		}
		test.withX = true
		test.load = slices.Concat(code, []bpf.Instruction{bpf.StoreScratch{Src: bpf.RegA, N: 0}}, r,
			[]bpf.Instruction{bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: 0}})
	}
	return all(append(checks, test)...), nil
}

// checks are what must hold before a number is loaded. As in libpcap (gen_arth)
// the right side of an operator adds none: "tcp[0] + ip[0]" asks for TCP, but
// "1 + tcp[0]" asks for nothing.
func (lo *lowerer) checks(a arith) ([]cond, error) {
	switch a := a.(type) {
	case *binaryArith:
		return lo.checks(a.l)
	case *negArith:
		return lo.checks(a.x)
	case *loadArith:
		inner, err := lo.checks(a.index)
		if err != nil {
			return nil, err
		}
		return lo.loadChecks(a, inner)
	}
	return nil, nil
}

func (lo *lowerer) loadChecks(a *loadArith, inner []cond) ([]cond, error) {
	t, transport := transports[a.proto]
	switch {
	case a.proto == "ether":
		return inner, nil
	case a.proto == "icmp6":
		ip, err := lo.linkType(a.pos, etherIPv6)
		return append(inner, ip, equal(lo.payload+6, 1, ipICMPv6)), err
	case transport && a.proto != "ah" && a.proto != "esp":
		ip, err := lo.linkType(a.pos, etherIPv4)
		if err != nil {
			return nil, err
		}
		first := condTest{load: []bpf.Instruction{bpf.LoadAbsolute{Off: lo.payload + 6, Size: 2}}, op: bpf.JumpBitsNotSet, val: 0x1fff}
		return slices.Concat([]cond{ip}, inner, []cond{equal(lo.payload+9, 1, t.num), first}), nil
	case slices.Contains([]string{"ip", "ip6", "arp", "rarp", "atalk", "decnet", "lat", "sca", "moprc", "mopdl"}, a.proto):
		c, err := lo.linkType(a.pos, linkProtocols[a.proto])
		return append(inner, c), err
	}
	return nil, lo.fail(a.pos, "%s[...] is not supported", a.proto)
}

// number returns code that leaves a number in A. M[depth] and those behind are
// free; X is too.
func (lo *lowerer) number(a arith, depth int) ([]bpf.Instruction, error) {
	if k, ok, err := lo.constant(a); err != nil || ok {
		return []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegA, Val: k}}, err
	}
	switch a := a.(type) {
	case *lenArith:
		return []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}, nil
	case *loadArith:
		return lo.loadNumber(a, depth)
	case *negArith:
		x, err := lo.number(a.x, depth)
		return append(x, bpf.TAX{}, bpf.LoadConstant{Dst: bpf.RegA}, bpf.ALUOpX{Op: bpf.ALUOpSub}), err
	case *binaryArith:
		return lo.binary(a, depth)
	}
	return nil, lo.fail(a.at(), "internal error: %T", a)
}

func (lo *lowerer) binary(a *binaryArith, depth int) ([]bpf.Instruction, error) {
	op := aluOps[a.op]
	l, err := lo.number(a.l, depth)
	if err != nil {
		return nil, err
	}
	k, ok, err := lo.constant(a.r)
	switch {
	case err != nil:
		return nil, err
	case ok:
		if err := lo.checkOperand(a, k); err != nil {
			return nil, err
		}
		return append(l, bpf.ALUOpConstant{Op: op, Val: k}), nil
	case depth == 15:
		return nil, lo.fail(a.pos, "the arithmetic is nested too deep: 16 numbers are kept at most")
	}
	r, err := lo.number(a.r, depth+1)
	return slices.Concat(l, []bpf.Instruction{bpf.StoreScratch{Src: bpf.RegA, N: depth}}, r,
		[]bpf.Instruction{bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: depth}, bpf.ALUOpX{Op: op}}), err
}

// checkOperand refuses what has no meaning: division by 0 and long shifts.
func (lo *lowerer) checkOperand(a *binaryArith, k uint32) error {
	switch {
	case (a.op == "/" || a.op == "%") && k == 0:
		return lo.fail(a.pos, "division by 0")
	case (a.op == "<<" || a.op == ">>") && k > 31:
		return lo.fail(a.pos, "a shift of 32 bits by %d", k)
	}
	return nil
}

// loadNumber loads from the packet. A load outside of it ends the program.
func (lo *lowerer) loadNumber(a *loadArith, depth int) ([]bpf.Instruction, error) {
	base, behindIPv4 := lo.payload, false
	switch t, transport := transports[a.proto]; {
	case a.proto == "ether":
		base = lo.header
	case a.proto == "icmp6":
		base += 40
	case transport && t.only != "ip6":
		behindIPv4 = true
	}
	size := int(a.size)
	k, ok, err := lo.constant(a.index)
	switch {
	case err != nil:
		return nil, err
	case ok && k > maxOffset:
		return nil, lo.fail(a.index.at(), "no packet has a byte %d", int32(k))
	case ok && behindIPv4:
		return []bpf.Instruction{bpf.LoadMemShift{Off: lo.payload}, bpf.LoadIndirect{Off: base + k, Size: size}}, nil
	case ok:
		return []bpf.Instruction{bpf.LoadAbsolute{Off: base + k, Size: size}}, nil
	}
	code, err := lo.number(a.index, depth)
	if behindIPv4 {
		code = append(code, bpf.LoadMemShift{Off: lo.payload}, bpf.ALUOpX{Op: bpf.ALUOpAdd})
	}
	return append(code, bpf.TAX{}, bpf.LoadIndirect{Off: base, Size: size}), err
}

// constant returns the value of what needs no packet.
func (lo *lowerer) constant(a arith) (k uint32, ok bool, err error) {
	switch a := a.(type) {
	case *numberArith:
		return a.n, true, nil
	case *negArith:
		k, ok, err = lo.constant(a.x)
		return -k, ok, err
	case *binaryArith:
		l, lok, err := lo.constant(a.l)
		if err != nil {
			return 0, false, err
		}
		r, rok, err := lo.constant(a.r)
		if err != nil || !lok || !rok {
			return 0, false, err
		}
		if err := lo.checkOperand(a, r); err != nil {
			return 0, false, err
		}
		return fold(a.op, l, r), true, nil
	}
	return 0, false, nil
}

func fold(op string, l, r uint32) uint32 {
	switch op {
	case "+":
		return l + r
	case "-":
		return l - r
	case "*":
		return l * r
	case "/":
		return l / r
	case "%":
		return l % r
	case "&":
		return l & r
	case "|":
		return l | r
	case "^":
		return l ^ r
	case "<<":
		return l << r
	}
	return l >> r
}
