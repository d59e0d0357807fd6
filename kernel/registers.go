package kernel

import (
	"encoding/binary"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// Registers returns the registers that the dump recorded for a CPU.
func (k *Kernel) Registers(cpu int) (vmcore.CPU, bool) {
	regs, ok := k.registers()[cpu]
	return regs, ok
}

// loadRegisters says which CPU each note of registers is of, for the notes do
// not. QEMU writes one for every CPU that is there, in order. The kernel leaves
// out those that were offline, and those that did not answer the panic; but a
// CPU's note is a copy of its own crash_notes, which is still in memory.
func (k *Kernel) loadRegisters() map[int]vmcore.CPU {
	out := make(map[int]vmcore.CPU, len(k.cpus))
	possible, err := k.CPUs()
	if err != nil {
		return nil
	}
	next := 0
	for cpu := range possible {
		if next < len(k.cpus) && k.wroteNote(cpu, k.cpus[next]) {
			out[cpu] = k.cpus[next]
			next++
		}
	}
	if next == len(k.cpus) {
		return out
	}
	clear(out)
	present, err := k.PresentCPUs()
	if err != nil || len(k.cpus) == 0 || k.cpus[0].QEMU == nil && len(k.cpus) != len(present) {
		return nil // some CPU has no note, and which is not known
	}
	for i, cpu := range present[:min(len(present), len(k.cpus))] {
		out[cpu] = k.cpus[i]
	}
	return out
}

// wroteNote reports whether a CPU's crash_notes hold the given registers: an
// ELF note of type NT_PRSTATUS, written by crash_save_cpu.
func (k *Kernel) wroteNote(cpu int, want vmcore.CPU) bool {
	const (
		descAt  = 12 + 8 // behind the header and the name "CORE"
		pidAt   = descAt + 32
		regsAt  = descAt + 112
		noteLen = regsAt + 27*8
	)
	at, err := k.Addr("crash_notes")
	if err != nil {
		return false
	}
	notes, err := mem.U64(k.mem, at) // allocated for each CPU
	if err != nil || notes == 0 {
		return false
	}
	if at, err = k.PerCPU(notes, cpu); err != nil {
		return false
	}
	note, err := mem.Bytes(k.mem, at, noteLen)
	if err != nil || string(note[12:16]) != "CORE" {
		return false
	}
	var regs vmcore.Regs
	_, err = binary.Decode(note[regsAt:], binary.LittleEndian, &regs)
	return err == nil && regs == want.Regs && int32(binary.LittleEndian.Uint32(note[pidAt:])) == want.PID
}
