package report

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

const (
	before  = 6       // instructions shown before RIP
	after   = 3       // and behind it
	maxCode = 1 << 16 // bytes of a function decoded to find where instructions begin
)

// code disassembles around the code at fault; of a function that called
// panic(), around the call, and where RIP is no code, around what led there.
func (b *builder) code(c crash) {
	top := b.r.Frames[0].Raw
	regs := c.regs
	if m, err := b.k.Walk(top.PC); top.Exact && (err != nil || !m.Exec) {
		if len(b.r.Frames) < 2 {
			return
		}
		top, regs = b.r.Frames[1].Raw, nil
	}
	pc := top.PC
	if !top.Exact {
		pc = b.callBefore(pc)
	}
	insns, err := b.around(pc)
	if err != nil {
		b.unread("code at RIP", err)
		return
	}
	for i := range insns {
		in := &insns[i]
		line := Insn{
			Addr: mem.Addr(in.Addr), Bytes: fmt.Sprintf("% x", in.Bytes()),
			Text: string(in.AppendGNU(nil, b.symbol)), Here: in.Addr == pc,
		}
		if line.Here && regs != nil {
			line.Note = operands(in, regs)
		}
		b.r.Code = append(b.r.Code, line)
	}
}

// callBefore returns the address of the instruction that ends at a return
// address, or the return address where there is none.
func (b *builder) callBefore(ret uint64) uint64 {
	sym, off, ok := b.k.Symbolize(ret - 1) // the call may be the last of its function
	if !ok {
		return ret
	}
	at := sym.Addr
	if off >= maxCode {
		at = ret - maxCode
	}
	code, err := mem.Bytes(b.k.Mem(), at, int(ret-at))
	if err != nil {
		return ret
	}
	var in x86.Inst
	for len(code) > 0 {
		_ = in.Decode(code, at) // what cannot be decoded has a length of 1
		n := max(in.Len, 1)
		if at+uint64(n) == ret {
			return at
		}
		code, at = code[min(n, len(code)):], at+uint64(n)
	}
	return ret
}

// around decodes the instructions around pc, from the start of its function.
func (b *builder) around(pc uint64) ([]x86.Inst, error) {
	sym, off, ok := b.k.Symbolize(pc)
	if !ok {
		return nil, fmt.Errorf("0x%x is no code of this kernel", pc)
	}
	start := sym.Addr
	if off > maxCode {
		start = pc - maxCode // x86 code falls into step again after a few instructions
	}
	end := min(sym.Addr+max(sym.Size, off+x86.MaxLen), pc+(after+1)*x86.MaxLen)
	code, err := mem.Bytes(b.k.Mem(), start, int(end-start))
	if err != nil {
		return nil, err
	}
	insns, err := x86.Around(code, start, pc, before, after)
	for n := len(insns) - 1; n >= 0 && insns[n].Addr > pc && insns[n].Op == x86.BAD; n-- {
		insns = insns[:n] // cut off by the end of the code
	}
	return insns, err
}

func (b *builder) symbol(addr uint64) (string, uint64, bool) {
	s, off, ok := b.k.Symbolize(addr)
	return s.String(), off, ok
}

// operands gives the values of the registers that an instruction's memory
// operand is made of, and the address they make.
func operands(in *x86.Inst, regs *vmcore.Regs) string {
	m, size, access, ok := in.MemOperand()
	if !ok || access == 0 {
		return ""
	}
	addr, ok := x86.EffectiveAddress(m, func(r x86.Reg) (uint64, bool) { return value(regs, r) })
	if !ok {
		return ""
	}
	var parts []string
	for _, r := range m.Regs() {
		v, _ := value(regs, r)
		parts = append(parts, fmt.Sprintf("%s = %#x", regName(r), v))
	}
	verb := "reads"
	if access&x86.Write != 0 {
		verb = "writes"
	}
	return fmt.Sprintf("%s: %s %d bytes at %#x", strings.Join(parts, ", "), verb, size, addr)
}
