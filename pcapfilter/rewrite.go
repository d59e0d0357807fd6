package pcapfilter

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// A rewriter replaces cbpfc's code for access to the packet.
type rewriter struct {
	o      Options
	in     asm.Instructions
	out    asm.Instructions
	loads  int
	shifts int
	symbol string // of instructions that were dropped, for the next one
}

// A form is a sequence of instructions as cbpfc emits it, and what is emitted
// in its place. Constants and offsets may be any.
type form struct {
	insns   asm.Instructions
	replace func(r *rewriter, in asm.Instructions) asm.Instructions
}

// forms are the sequences to replace (cbpfc's insnToEBPF), the longer ones
// first.
func forms() []form {
	return []form{
		{ // packetGuardIndirect: loads check themselves
			asm.Instructions{
				asm.Mov.Reg(regSum, regX), asm.LSh.Imm(regSum, 32), asm.ArSh.Imm(regSum, 32),
				asm.Add.Imm(regSum, 0), asm.JGE.Imm(regSum, 0, ""), asm.Add.Reg(regSum, regStart),
				asm.Mov.Reg(regTmp, regSum), asm.Add.Imm(regTmp, 0), asm.JGT.Reg(regTmp, regEnd, ""),
			},
			func(_ *rewriter, in asm.Instructions) asm.Instructions { return asm.Instructions{in[0], in[3]} },
		},
		{ // packetGuardAbsolute: likewise
			asm.Instructions{asm.Mov.Reg(regTmp, regStart), asm.Add.Imm(regTmp, 0), asm.JGT.Reg(regTmp, regEnd, "")},
			func(*rewriter, asm.Instructions) asm.Instructions { return nil },
		},
		{ // LoadExtension ExtLen
			asm.Instructions{asm.Mov.Reg(regA, regEnd), asm.Sub.Reg32(regA, regStart)},
			func(*rewriter, asm.Instructions) asm.Instructions {
				return asm.Instructions{asm.LoadMem(regA, asm.RFP, frameLen, asm.Word)}
			},
		},
		{asm.Instructions{asm.LSh.Reg32(regA, regX)}, (*rewriter).shift},
		{asm.Instructions{asm.RSh.Reg32(regA, regX)}, (*rewriter).shift},
	}
}

func (r *rewriter) rewrite() error {
	forms := forms()
	for at := 0; at < len(r.in); {
		n, code := r.one(forms, r.in[at:])
		if code == nil && n == 1 {
			return fmt.Errorf("cbpfc made code that is not known here: %v", r.in[at])
		}
		if s := r.in[at].Symbol(); s != "" {
			if r.symbol != "" {
				return fmt.Errorf("cbpfc made two labels for one place: %s and %s", r.symbol, s)
			}
			r.symbol = s
		}
		if len(code) > 0 {
			code[0] = code[0].WithSymbol(r.symbol)
			r.symbol = ""
		}
		r.out = append(r.out, code...)
		at += n
	}
	return nil
}

// one returns what replaces the first n instructions; nil for one instruction
// says that it is not known.
func (r *rewriter) one(forms []form, in asm.Instructions) (n int, code asm.Instructions) {
	for _, f := range forms {
		if f.matches(in) {
			return len(f.insns), f.replace(r, in[:len(f.insns)])
		}
	}
	insn := in[0]
	if op := insn.OpCode; op.Class() == asm.LdXClass && op.Mode() == asm.MemMode && insn.Src != asm.RFP {
		r.loads++
		return 1, r.load(insn)
	}
	if insn.Src == regEnd || insn.Dst == regEnd {
		return 1, nil
	}
	return 1, asm.Instructions{insn.WithSymbol("")}
}

// matches compares the instructions but for constants; nothing may jump into
// the middle of them.
func (f form) matches(in asm.Instructions) bool {
	if len(in) < len(f.insns) {
		return false
	}
	for i, want := range f.insns {
		if in[i].OpCode != want.OpCode || in[i].Dst != want.Dst || in[i].Src != want.Src || i > 0 && in[i].Symbol() != "" {
			return false
		}
	}
	return true
}

// load reads from the packet, if that is in the head. In insn, the address is
// an offset.
func (r *rewriter) load(insn asm.Instruction) asm.Instructions {
	size := insn.OpCode.Size()
	return asm.Instructions{
		asm.Mov.Reg(asm.R3, insn.Src),
		asm.Add.Imm(asm.R3, int32(insn.Offset)),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.Add.Imm(asm.R4, int32(size.Sizeof())),
		asm.LoadMem(asm.R5, asm.RFP, frameHead, asm.Word),
		asm.JGT.Reg(asm.R4, asm.R5, r.o.label("beyond")),
		asm.LoadMem(asm.R1, asm.RFP, frameStart, asm.DWord),
		asm.Add.Reg(asm.R3, asm.R1),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, frameBytes),
		asm.Mov.Imm(asm.R2, int32(size.Sizeof())),
		asm.FnProbeReadKernel.Call(),
		asm.JNE.Imm(asm.R0, 0, r.o.label("short")),
		asm.LoadMem(insn.Dst, asm.RFP, frameBytes, size),
	}
}

// shift by 32 bits and more gives 0 in libpcap; eBPF would take the last 5 bits
// of X.
func (r *rewriter) shift(in asm.Instructions) asm.Instructions {
	r.shifts++
	label := r.o.label(fmt.Sprintf("shift_%d", r.shifts))
	return asm.Instructions{
		asm.JLT.Imm(regX, 32, label),
		asm.Mov.Imm32(regA, 0),
		in[0].WithSymbol(label),
	}
}
