package jit

import "strings"

// bpfRegs are the BPF registers that x86-64 registers stand for (reg2hex of
// bpf_jit_comp.c).
var bpfRegs = map[string]string{
	"rax": "R0", "rdi": "R1", "rsi": "R2", "rdx": "R3", "rcx": "R4", "r8": "R5",
	"rbx": "R6", "r13": "R7", "r14": "R8", "r15": "R9", "rbp": "R10",
}

// full are the 64-bit names of the 32-bit registers whose names do not tell.
var full = map[string]string{
	"eax": "rax", "edi": "rdi", "esi": "rsi", "edx": "rdx", "ecx": "rcx", "ebx": "rbx", "ebp": "rbp",
}

// fullReg returns the 64-bit name of a register of 4 or 8 bytes, without the
// percent sign: %r8d and %r8 give r8.
func fullReg(reg string) string {
	reg = strings.TrimPrefix(reg, "%")
	if f, ok := full[reg]; ok {
		return f
	}
	if strings.HasPrefix(reg, "r") && len(reg) > 2 {
		return strings.TrimSuffix(reg, "d")
	}
	return reg
}

// bpfReg names the BPF register that a register of 4 or 8 bytes holds, or the
// register itself if it holds none.
func bpfReg(reg string) string {
	r := fullReg(reg)
	if b, ok := bpfRegs[r]; ok {
		return b
	}
	return r
}
