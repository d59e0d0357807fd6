package unwind

import (
	"encoding/binary"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// struct pt_regs has 21 words in the order of [vmcore.Regs]; the last five are
// what the CPU pushes itself (arch/x86/include/asm/ptrace.h).
const (
	ptRegsWords = 21
	iretWords   = 5
)

// ReadRegs reads the struct pt_regs at addr.
func ReadRegs(m mem.Reader, addr uint64) (vmcore.Regs, error) {
	var w [ptRegsWords]uint64
	if err := readWords(m, addr, w[:]); err != nil {
		return vmcore.Regs{}, fmt.Errorf("pt_regs: %w", err)
	}
	return vmcore.Regs{
		R15: w[0], R14: w[1], R13: w[2], R12: w[3], RBP: w[4], RBX: w[5],
		R11: w[6], R10: w[7], R9: w[8], R8: w[9], RAX: w[10], RCX: w[11],
		RDX: w[12], RSI: w[13], RDI: w[14], OrigRAX: w[15],
		RIP: w[16], CS: w[17] & 0xffff, RFLAGS: w[18], RSP: w[19], SS: w[20] & 0xffff, // FRED keeps flags above bit 15
	}, nil
}

func readWords(m mem.Reader, addr uint64, w []uint64) error {
	b := make([]byte, 8*len(w))
	if err := m.ReadMem(b, addr); err != nil {
		return err
	}
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}

// interrupted makes the code that an exception, interrupt or system call
// entered from the current frame. Only the return frame of the CPU is there
// while the entry code has not yet saved the rest (partial).
func (u *unwinder) interrupted(addr uint64, partial bool) error {
	if partial {
		var w [iretWords]uint64
		if err := readWords(u.k.Mem(), addr, w[:]); err != nil {
			return fmt.Errorf("interrupt frame: %w", err)
		}
		u.regs = &vmcore.Regs{RIP: w[0], CS: w[1] & 0xffff, RFLAGS: w[2], RSP: w[3], SS: w[4] & 0xffff, RBP: u.bp}
	} else {
		r, err := ReadRegs(u.k.Mem(), addr)
		if err != nil {
			return err
		}
		u.regs = &r
		u.bp, u.bpCell = r.RBP, 0
	}
	u.regsAddr = addr
	u.pc, u.sp, u.exact = u.regs.RIP, u.regs.RSP, true
	return nil
}

// Entry returns the entry point of the exception that interrupted the kernel
// where regs were, if these are what it saved: it lies just below the stack
// they stood on, followed by the return address of the handler's call. (Not
// for exceptions with a stack of their own, and not where the stack below has
// been used again.)
func Entry(k *kernel.Kernel, regs vmcore.Regs) (name string, ok bool) {
	const aligned = 16 // the CPU aligns the stack first
	at := regs.RSP&^(aligned-1) - 8*ptRegsWords
	saved, err := ReadRegs(k.Mem(), at)
	if err != nil || saved.RIP != regs.RIP || saved.RSP != regs.RSP || saved.RBP != regs.RBP || saved.RFLAGS != regs.RFLAGS {
		return "", false
	}
	ret, err := mem.U64(k.Mem(), at-8)
	if err != nil {
		return "", false
	}
	s, _, ok := k.Symbolize(ret - 1)
	return s.Name, ok && s.Kind == kernel.KindKernel
}
