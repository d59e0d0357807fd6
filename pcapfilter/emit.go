package pcapfilter

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// maxInsns is how many instructions the kernel takes in a classic program
// (BPF_MAXINSNS, include/uapi/linux/bpf_common.h).
const maxInsns = 4096

// An item is a test, a jump, a return, or a label. All jumps lead forward.
type item struct {
	load  []bpf.Instruction // done before it
	jump  bpf.Instruction   // a test's JumpIf or JumpIfX without its distances
	t, f  label             // of a test; t alone is of a jump
	ret   bpf.Instruction
	label label // a label's place
}

type label int // 0 is none

type emitter struct {
	items []item
	last  label
}

func (e *emitter) newLabel() label {
	e.last++
	return e.last
}

func (e *emitter) place(l label) { e.items = append(e.items, item{label: l}) }

// branch emits code that goes to t if the condition holds, else to f.
func (e *emitter) branch(c cond, t, f label) {
	switch c := c.(type) {
	case condAnd:
		next := e.newLabel()
		e.branch(c.l, next, f)
		e.place(next)
		e.branch(c.r, t, f)
	case condOr:
		next := e.newLabel()
		e.branch(c.l, t, next)
		e.place(next)
		e.branch(c.r, t, f)
	case condNot:
		e.branch(c.x, f, t)
	case condConst:
		if !c {
			t = f
		}
		e.items = append(e.items, item{t: t})
	case condTest:
		if native, turned := turnedTests[c.op]; turned {
			c.op, t, f = native, f, t
		}
		var jump bpf.Instruction = bpf.JumpIf{Cond: c.op, Val: c.val}
		if c.withX {
			jump = bpf.JumpIfX{Cond: c.op}
		}
		e.items = append(e.items, item{load: c.load, jump: jump, t: t, f: f})
	}
}

// turnedTests are those that BPF has only the opposite of.
var turnedTests = map[bpf.JumpTest]bpf.JumpTest{
	bpf.JumpNotEqual: bpf.JumpEqual, bpf.JumpLessThan: bpf.JumpGreaterOrEqual,
	bpf.JumpLessOrEqual: bpf.JumpGreaterThan, bpf.JumpBitsNotSet: bpf.JumpBitsSet,
}

// simplify drops what no path leads to, since the kernel's verifier of eBPF
// takes no dead code, and loads of what every path has just loaded.
func simplify(items []item) []item {
	var out []item
	loaded := make(map[label][]bpf.Instruction) // by the last test before a jump there
	var now []bpf.Instruction
	alive := true
	reach := func(l label, load []bpf.Instruction) {
		if before, seen := loaded[l]; seen && !slices.Equal(before, load) {
			load = nil
		}
		loaded[l] = load
	}
	for _, it := range items {
		if it.label != 0 {
			if alive {
				reach(it.label, now)
			}
			now, alive = loaded[it.label]
		}
		switch {
		case !alive:
			continue
		case it.jump != nil:
			it.load, now = remaining(it.load, now), it.load
			reach(it.t, now)
			reach(it.f, now)
			alive = false
		case it.t != 0:
			reach(it.t, now)
			alive = false
		case it.ret != nil:
			alive = false
		}
		out = append(out, it)
	}
	return out
}

// remaining returns what of a load has to be done after the one before.
func remaining(load, before []bpf.Instruction) []bpf.Instruction {
	if slices.Equal(load, before) {
		return nil
	}
	// X still has the length of the IPv4 header.
	if len(load) == 2 && len(before) == 2 && load[0] == before[0] {
		if _, header := load[0].(bpf.LoadMemShift); header {
			return load[1:]
		}
	}
	return load
}

// far is the distance from which on a conditional jump goes by a Jump behind
// it: conditional ones have 8 bits, of which two such Jumps may cost two.
const far = 250

// layout turns labels into distances, from the end to the start, so that the
// distance to every target is known when a jump to it is met.
func layout(items []item) []bpf.Instruction {
	var rev []bpf.Instruction     // the program from its end
	behind := make(map[label]int) // instructions from a label to the end
	jump := func(to int) int {    // returns the place of a jump there
		rev = append(rev, bpf.Jump{Skip: uint32(len(rev) - to)})
		return len(rev)
	}
	for i := len(items) - 1; i >= 0; i-- {
		it := items[i]
		switch {
		case it.label != 0:
			behind[it.label] = len(rev)
		case it.ret != nil:
			rev = append(rev, it.ret)
		case it.jump == nil:
			if to := behind[it.t]; to != len(rev) {
				jump(to)
			}
		default:
			t, f := behind[it.t], behind[it.f]
			if len(rev)-f > far {
				f = jump(f)
			}
			if len(rev)-t > far {
				t = jump(t)
			}
			rev = append(rev, withSkips(it.jump, len(rev)-t, len(rev)-f))
		}
		for _, insn := range slices.Backward(it.load) {
			rev = append(rev, insn)
		}
	}
	out := make([]bpf.Instruction, len(rev))
	for i, insn := range rev {
		out[len(rev)-1-i] = insn
	}
	return out
}

func withSkips(jump bpf.Instruction, t, f int) bpf.Instruction {
	switch j := jump.(type) {
	case bpf.JumpIf:
		j.SkipTrue, j.SkipFalse = uint8(t), uint8(f)
		return j
	case bpf.JumpIfX:
		j.SkipTrue, j.SkipFalse = uint8(t), uint8(f)
		return j
	}
	return jump
}

// program returns the instructions for a condition; nil is every packet.
func program(expr string, c cond) ([]bpf.Instruction, error) {
	if c == nil {
		c = condConst(true)
	}
	var e emitter
	match, no := e.newLabel(), e.newLabel()
	e.branch(c, match, no)
	e.place(match)
	e.items = append(e.items, item{ret: bpf.RetConstant{Val: Match}})
	e.place(no)
	e.items = append(e.items, item{ret: bpf.RetConstant{Val: 0}})
	insns := layout(simplify(merge(thread(e.items))))
	if len(insns) > maxInsns {
		return nil, &Error{expr, 0, fmt.Sprintf("the filter takes %d instructions, and the kernel takes %d at most", len(insns), maxInsns)}
	}
	return insns, nil
}
