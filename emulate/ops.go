package emulate

import "github.com/ksleuth/ksleuth/x86"

// An exec carries out an instruction.
type exec = func(m *Machine, u *uop) bool

// An opRow says how an operation is carried out, and which memory it accesses
// without an operand saying so.
type opRow struct {
	exec exec
	acc  accesses // besides those of the operands
}

// choose gives u its exec.
func choose(u *uop, in *x86.Inst) {
	row, ok := ops[in.Op]
	if !ok {
		u.exec, u.ends = execUnsupported, true
		return
	}
	u.exec = row.exec
	u.acc |= row.acc
	specialise(u, in)
}

// specialise replaces what is executed most often by something faster.
func specialise(u *uop, in *x86.Inst) {
	rr := u.dstKind == kReg && u.srcKind == kReg && u.size == u.size2
	switch {
	case in.Op == x86.MOV && rr && u.size == 8:
		u.exec = func(m *Machine, u *uop) bool { m.GP[u.dst&15] = m.GP[u.src&15]; return true }
	case in.Op == x86.MOV && rr && u.size == 4:
		u.exec = func(m *Machine, u *uop) bool { m.GP[u.dst&15] = m.GP[u.src&15] & 0xffffffff; return true }
	case in.Op == x86.MOV && u.dstKind == kReg && u.srcKind == kMem && u.size == 8:
		u.exec = func(m *Machine, u *uop) bool {
			v, ok := m.load(m.ea(u), 8)
			if ok {
				m.GP[u.dst&15] = v
			}
			return ok
		}
	}
}

// unsupported says that an instruction, or a form of it, is not executed here.
func execUnsupported(m *Machine, u *uop) bool { return m.cannot(u, "") }

func (m *Machine) cannot(u *uop, why string) bool {
	m.stop = &Stop{Outcome: Unsupported, Err: &UnsupportedError{Inst: &m.insts[u.id], Why: why}}
	return false
}

// ops are the operations that are executed.
var ops = joinOps(moveOps, arithmeticOps, flowOps)

func joinOps(tables ...map[x86.Op]opRow) map[x86.Op]opRow {
	all := map[x86.Op]opRow{}
	for _, t := range tables {
		for op, row := range t {
			all[op] = row
		}
	}
	return all
}
