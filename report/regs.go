package report

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

// general are the registers a report shows, in the order of the encoding.
var general = []struct {
	name string
	reg  x86.Reg
	get  func(*vmcore.Regs) uint64
}{
	{"rax", x86asm.RAX, func(r *vmcore.Regs) uint64 { return r.RAX }},
	{"rcx", x86asm.RCX, func(r *vmcore.Regs) uint64 { return r.RCX }},
	{"rdx", x86asm.RDX, func(r *vmcore.Regs) uint64 { return r.RDX }},
	{"rbx", x86asm.RBX, func(r *vmcore.Regs) uint64 { return r.RBX }},
	{"rsp", x86asm.RSP, func(r *vmcore.Regs) uint64 { return r.RSP }},
	{"rbp", x86asm.RBP, func(r *vmcore.Regs) uint64 { return r.RBP }},
	{"rsi", x86asm.RSI, func(r *vmcore.Regs) uint64 { return r.RSI }},
	{"rdi", x86asm.RDI, func(r *vmcore.Regs) uint64 { return r.RDI }},
	{"r8", x86asm.R8, func(r *vmcore.Regs) uint64 { return r.R8 }},
	{"r9", x86asm.R9, func(r *vmcore.Regs) uint64 { return r.R9 }},
	{"r10", x86asm.R10, func(r *vmcore.Regs) uint64 { return r.R10 }},
	{"r11", x86asm.R11, func(r *vmcore.Regs) uint64 { return r.R11 }},
	{"r12", x86asm.R12, func(r *vmcore.Regs) uint64 { return r.R12 }},
	{"r13", x86asm.R13, func(r *vmcore.Regs) uint64 { return r.R13 }},
	{"r14", x86asm.R14, func(r *vmcore.Regs) uint64 { return r.R14 }},
	{"r15", x86asm.R15, func(r *vmcore.Regs) uint64 { return r.R15 }},
}

// value returns the value of a 64-bit register.
func value(r *vmcore.Regs, reg x86.Reg) (uint64, bool) {
	for _, g := range general {
		if g.reg == reg {
			return g.get(r), true
		}
	}
	return 0, false
}

// regName returns the name of a register as a person writes it.
func regName(reg x86.Reg) string {
	for _, g := range general {
		if g.reg == x86.Full(reg) {
			return g.name
		}
	}
	return reg.String()
}
