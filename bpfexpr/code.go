package bpfexpr

import (
	"errors"

	"github.com/cilium/ebpf/asm"
)

// A label is a place in code to jump to.
type label int

// none is the label of instructions that do not jump.
const none label = -1

type instruction struct {
	asm.Instruction
	to label
}

// A code is instructions with labels. In the end jumps get offsets, not
// symbols: those would have to be unique in the program the code gets into.
type code struct {
	insns  []instruction
	labels []int // label: index of the instruction behind it
}

// maxInstructions bounds a function; jumps reach half as far as 16 bits.
const maxInstructions = 1 << 15

// full says that nothing will come of it.
func (c *code) full() bool { return len(c.insns) > maxInstructions }

func (c *code) emit(insns ...asm.Instruction) {
	for _, i := range insns {
		c.insns = append(c.insns, instruction{i, none})
	}
}

func (c *code) label() label {
	c.labels = append(c.labels, -1)
	return label(len(c.labels) - 1)
}

// here puts a label at the end of the code.
func (c *code) here(l label) { c.labels[l] = len(c.insns) }

func (c *code) jump(to label) {
	c.insns = append(c.insns, instruction{asm.Ja.Label(""), to})
}

// jumpImm jumps if dst stands in a relation to a constant that fits.
func (c *code) jumpImm(op asm.JumpOp, dst asm.Register, v int32, to label) {
	c.insns = append(c.insns, instruction{op.Imm(dst, v, ""), to})
}

func (c *code) jumpReg(op asm.JumpOp, dst, src asm.Register, to label) {
	c.insns = append(c.insns, instruction{op.Reg(dst, src, ""), to})
}

// set loads a constant.
func (c *code) set(dst asm.Register, v uint64) {
	if int64(v) == int64(int32(v)) {
		c.emit(asm.Mov.Imm(dst, int32(v)))
		return
	}
	c.emit(asm.LoadImm(dst, int64(v), asm.DWord))
}

// finish returns the code that can be reached: the verifier of 5.10 refuses
// what cannot.
func (c *code) finish() (asm.Instructions, error) {
	if c.full() {
		return nil, errors.New("the expressions are too large for the kernel")
	}
	reached := c.reached()
	for i := len(c.insns) - 1; i >= 0; i-- { // drop jumps to what comes next
		if !reached[i] || !isJa(c.insns[i]) {
			continue
		}
		next := i + 1
		for next < len(c.insns) && !reached[next] {
			next++
		}
		if to := c.labels[c.insns[i].to]; to > i && to <= next {
			reached[i] = false
		}
	}
	at := make([]int, len(c.insns)+1) // in units of 8 bytes
	for i, in := range c.insns {
		at[i+1] = at[i]
		if reached[i] {
			at[i+1] += int(in.Size()) / asm.InstructionSize
		}
	}
	out := make(asm.Instructions, 0, len(c.insns))
	for i, in := range c.insns {
		if !reached[i] {
			continue
		}
		if in.to != none {
			off := at[c.labels[in.to]] - at[i+1]
			if off != int(int16(off)) {
				return nil, errors.New("the expressions are too large for the kernel")
			}
			in.Offset = int16(off)
		}
		out = append(out, in.Instruction)
	}
	return out, nil
}

func isJa(in instruction) bool { return in.OpCode.JumpOp() == asm.Ja && in.OpCode.Class().IsJump() }

func (c *code) reached() []bool {
	reached := make([]bool, len(c.insns))
	todo := []int{0}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for i < len(c.insns) && !reached[i] {
			reached[i] = true
			in := c.insns[i]
			if in.to != none {
				todo = append(todo, c.labels[in.to])
			}
			if isJa(in) || in.OpCode.JumpOp() == asm.Exit && in.OpCode.Class().IsJump() {
				break
			}
			i++
		}
	}
	return reached
}
