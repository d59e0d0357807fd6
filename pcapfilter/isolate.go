package pcapfilter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// isolate returns the program with every load by X made independent of those
// around it, by two moves before it that change nothing: A is loaded next, and
// X gets its own value. Cbpfc shares one base address between loads by the same
// X, and where paths meet that computed it for different loads, it takes the
// wrong one.
func isolate(prog []bpf.Instruction) ([]bpf.Instruction, error) {
	targets, err := checkProgram(prog)
	if err != nil {
		return nil, err
	}
	var items []item
	var load []bpf.Instruction
	at := func(pc int) label { return label(pc + 1) }
	add := func(it item) {
		it.load, load = load, nil
		items = append(items, it)
	}
	for pc, insn := range prog {
		if targets[pc] {
			if load != nil {
				add(item{t: at(pc)})
			}
			items = append(items, item{label: at(pc)})
		}
		switch i := insn.(type) {
		case bpf.Jump:
			add(item{t: at(pc + 1 + int(i.Skip))})
		case bpf.JumpIf:
			add(item{jump: i, t: at(pc + 1 + int(i.SkipTrue)), f: at(pc + 1 + int(i.SkipFalse))})
		case bpf.JumpIfX:
			add(item{jump: i, t: at(pc + 1 + int(i.SkipTrue)), f: at(pc + 1 + int(i.SkipFalse))})
		case bpf.RetA, bpf.RetConstant:
			add(item{ret: i})
		case bpf.LoadIndirect:
			load = append(load, bpf.TXA{}, bpf.TAX{}, i)
		default:
			load = append(load, i)
		}
	}
	return layout(items), nil
}

// checkProgram refuses what cannot be translated with its meaning kept, and
// returns which instructions are jumped to.
func checkProgram(prog []bpf.Instruction) (map[int]bool, error) {
	targets := make(map[int]bool)
	for pc, insn := range prog {
		var off uint32
		switch i := insn.(type) {
		case bpf.Jump:
			targets[pc+1+int(i.Skip)] = true
		case bpf.JumpIf:
			targets[pc+1+int(i.SkipTrue)], targets[pc+1+int(i.SkipFalse)] = true, true
		case bpf.JumpIfX:
			targets[pc+1+int(i.SkipTrue)], targets[pc+1+int(i.SkipFalse)] = true, true
		case bpf.LoadAbsolute:
			off = i.Off
		case bpf.LoadIndirect:
			off = i.Off
		case bpf.LoadMemShift:
			off = i.Off
		case bpf.ALUOpConstant:
			if shift := i.Op == bpf.ALUOpShiftLeft || i.Op == bpf.ALUOpShiftRight; shift && i.Val > 31 {
				return nil, fmt.Errorf("instruction %d: a shift of 32 bits by %d", pc, i.Val)
			}
		}
		if off > 0xffff-4 {
			return nil, fmt.Errorf("instruction %d: no packet has a byte %d", pc, off)
		}
	}
	for pc := range targets {
		if pc >= len(prog) {
			return nil, fmt.Errorf("a jump leads behind the program")
		}
	}
	if n := len(prog); n == 0 {
		return nil, fmt.Errorf("no instructions")
	} else if _, constant := prog[n-1].(bpf.RetConstant); !constant {
		if _, a := prog[n-1].(bpf.RetA); !a {
			return nil, fmt.Errorf("the last instruction does not return")
		}
	}
	return targets, nil
}
