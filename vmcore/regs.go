package vmcore

import (
	"encoding/binary"
	"errors"
)

// Regs holds the registers of a CPU in the order of the kernel's
// user_regs_struct (arch/x86/include/asm/user_64.h), as NT_PRSTATUS has them.
type Regs struct {
	R15, R14, R13, R12, RBP, RBX, R11, R10 uint64
	R9, R8, RAX, RCX, RDX, RSI, RDI        uint64
	OrigRAX, RIP, CS, RFLAGS, RSP, SS      uint64
	FSBase, GSBase, DS, ES, FS, GS         uint64
}

// regsSize is the size of Regs in a note.
const regsSize = 27 * 8

// A CPU is what the dump says of one processor: an NT_PRSTATUS note and, from
// QEMU, a second note.
type CPU struct {
	// Index counts the notes from 0. The kernel writes one per online CPU, so
	// it is the CPU's number only if all with lower numbers were online.
	Index int
	// PID is that of the task; in a dump by QEMU it is the CPU's number plus 1.
	PID int32
	// Regs are the registers when the CPU was stopped. QEMU fills in the
	// segment bases, the kernel need not.
	Regs Regs
	// QEMU is the state of the virtual CPU; nil in other dumps.
	QEMU *QEMUState
}

// A SegmentRegister is a segment or descriptor-table register with its hidden
// part, as QEMU dumps it.
type SegmentRegister struct {
	Selector, Limit, Flags uint32
	Base                   uint64
}

// A QEMUState is QEMU's own note about a virtual CPU, QEMUCPUState of
// target/i386/arch_dump.c, version 1.
type QEMUState struct {
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP, RFLAGS                            uint64
	CS, DS, ES, FS, GS, SS                 SegmentRegister
	LDT, TR, GDT, IDT                      SegmentRegister
	CR                                     [5]uint64 // CR0 to CR4
	// KernelGSBase is the GS base of the other side of SWAPGS: the kernel's
	// while the CPU ran user code. Only if HasKernelGSBase (QEMU 3.0).
	KernelGSBase    uint64
	HasKernelGSBase bool
}

// Sizes in a QEMU note.
const (
	qemuBase = 8 + 18*8 + 10*24 + 5*8 // up to CR4
	qemuFull = qemuBase + 8           // with kernel_gs_base
)

// Offsets in struct elf_prstatus.
const (
	prPID      = 32
	prReg      = 112
	prMinSize  = prReg + regsSize
	qemuNoteV1 = 1
)

var errShortNote = errors.New("note too short")

// parsePrstatus decodes an NT_PRSTATUS note.
func parsePrstatus(desc []byte) (pid int32, r Regs, err error) {
	if len(desc) < prMinSize {
		return 0, r, errShortNote
	}
	_, err = binary.Decode(desc[prReg:], binary.LittleEndian, &r)
	return int32(binary.LittleEndian.Uint32(desc[prPID:])), r, err
}

// parseQEMU decodes a QEMU note.
func parseQEMU(desc []byte) (*QEMUState, error) {
	if len(desc) < qemuBase {
		return nil, errShortNote
	}
	le := binary.LittleEndian
	if v := le.Uint32(desc); v != qemuNoteV1 {
		return nil, errors.New("unknown version of QEMU's note")
	}
	size := int(min(uint64(le.Uint32(desc[4:])), uint64(len(desc))))
	q := &QEMUState{}
	word := func() uint64 {
		v := le.Uint64(desc)
		desc = desc[8:]
		return v
	}
	desc = desc[8:]
	for _, r := range []*uint64{&q.RAX, &q.RBX, &q.RCX, &q.RDX, &q.RSI, &q.RDI, &q.RSP, &q.RBP,
		&q.R8, &q.R9, &q.R10, &q.R11, &q.R12, &q.R13, &q.R14, &q.R15, &q.RIP, &q.RFLAGS} {
		*r = word()
	}
	for _, s := range []*SegmentRegister{&q.CS, &q.DS, &q.ES, &q.FS, &q.GS, &q.SS, &q.LDT, &q.TR, &q.GDT, &q.IDT} {
		a, b := word(), word()
		*s = SegmentRegister{uint32(a), uint32(a >> 32), uint32(b), word()}
	}
	for i := range q.CR {
		q.CR[i] = word()
	}
	if size >= qemuFull {
		q.KernelGSBase, q.HasKernelGSBase = word(), true
	}
	return q, nil
}
