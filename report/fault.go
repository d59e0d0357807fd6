package report

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// A Fault is the exception that the crash began with, decoded.
type Fault struct {
	Kind     string   `json:"kind"`               // "page fault", "general protection fault", ...
	Access   string   `json:"access,omitempty"`   // "read", "write", "execute", for memory faults
	Addr     mem.Addr `json:"addr,omitempty"`     // the address that could not be accessed
	Why      string   `json:"why,omitempty"`      // what is wrong with it
	Register string   `json:"register,omitempty"` // the register that made the address bad
	Text     string   `json:"text"`               // the whole in a sentence
}

// vectors are the exceptions by their entry points (arch/x86/include/asm/idtentry.h)
// and what they say of the code they interrupt.
var vectors = map[string]string{
	"asm_exc_page_fault":              "page fault",
	"asm_exc_general_protection":      "general protection fault",
	"asm_exc_invalid_op":              "invalid opcode",
	"asm_exc_divide_error":            "divide error",
	"asm_exc_stack_segment":           "stack segment fault",
	"asm_exc_double_fault":            "double fault",
	"asm_exc_int3":                    "breakpoint",
	"asm_exc_bounds":                  "bounds check",
	"asm_exc_overflow":                "overflow trap",
	"asm_exc_device_not_available":    "device not available",
	"asm_exc_invalid_tss":             "invalid TSS",
	"asm_exc_segment_not_present":     "segment not present",
	"asm_exc_coprocessor_error":       "x87 error",
	"asm_exc_simd_coprocessor_error":  "SIMD error",
	"asm_exc_alignment_check":         "alignment check",
	"asm_exc_control_protection":      "control protection fault",
	"asm_exc_debug":                   "debug exception",
	"asm_exc_machine_check":           "machine check",
	"asm_exc_nmi":                     "NMI",
	"asm_sysvec_apic_timer_interrupt": "timer interrupt",
}

// fault decodes the exception.
func (b *builder) fault(c crash) {
	if c.regs == nil || c.vector == "" {
		return
	}
	f := &Fault{Kind: vectors[c.vector]}
	if f.Kind == "" {
		f.Kind = strings.TrimPrefix(c.vector, "asm_")
	}
	if c.lockup != "" {
		f.Kind = c.lockup
	}
	b.r.Fault = f
	switch f.Kind {
	case "soft lockup", "hard lockup":
		f.Why = "it kept CPU " + fmt.Sprint(c.task.CPU) + " to itself for too long; this is where the watchdog found it"
	case "double fault":
		b.doubleFault(f, c)
	case "page fault":
		b.pageFault(f, c)
	case "general protection fault", "stack segment fault":
		b.protectionFault(f, c)
	case "invalid opcode":
		b.invalidOpcode(f, c)
	}
	f.Text = f.sentence(b.where())
}

func (f *Fault) sentence(where string) string {
	switch {
	case f.Access == "execute":
		return fmt.Sprintf("%s executing %#x, %s", f.Kind, uint64(f.Addr), f.Why)
	case f.Access != "":
		verb := map[string]string{"read": "reading", "write": "writing"}[f.Access]
		return fmt.Sprintf("%s %s %#x, %s, at %s", f.Kind, verb, uint64(f.Addr), f.Why, where)
	case f.Why != "":
		return fmt.Sprintf("%s at %s: %s", f.Kind, where, f.Why)
	}
	return fmt.Sprintf("%s at %s", f.Kind, where)
}

// where names the code at fault with its source line.
func (b *builder) where() string {
	top := b.r.Frames[0]
	s := fmt.Sprintf("%s+%#x", top.Symbol, uint64(top.Offset))
	if top.Symbol == "" {
		s = top.PC.String()
	}
	if loc := top.BPF.Location(); loc != "" {
		s += "  (" + loc + ")"
	}
	return s
}

// accessOf computes the address that the instruction at RIP accesses, and the
// register it comes from.
func (b *builder) accessOf(c crash) (addr uint64, base x86.Reg, access x86.Access, ok bool) {
	in, err := x86.DecodeAt(b.k.Mem(), c.regs.RIP)
	if err != nil {
		return 0, 0, 0, false
	}
	m, _, access, ok := in.MemOperand()
	if !ok || access == 0 {
		switch in.Flow() {
		case x86.FlowCall, x86.FlowIndirectCall, x86.FlowRet:
			return c.regs.RSP, x86asm.RSP, x86.Read, true
		}
		switch in.Op {
		case x86.LEAVE:
			return c.regs.RBP, x86asm.RBP, x86.Read, true
		case x86.POP, x86.POPF:
			return c.regs.RSP, x86asm.RSP, x86.Read, true
		case x86.PUSH, x86.PUSHF:
			return c.regs.RSP - 8, x86asm.RSP, x86.Write, true
		}
		return 0, 0, 0, false
	}
	addr, ok = x86.EffectiveAddress(m, func(r x86.Reg) (uint64, bool) { return value(c.regs, r) })
	return addr, m.Base, access, ok
}

const nullPage = 4096

// pageFault finds the address and what is wrong with it. The error code is not
// in the dump: the entry code overwrites it. The instruction tells the access,
// and the page tables tell why it failed.
func (b *builder) pageFault(f *Fault, c crash) {
	addr, base, access, ok := b.accessOf(c)
	if m, err := b.k.Walk(c.regs.RIP); err != nil || !m.Exec {
		f.Access, f.Addr = "execute", mem.Addr(c.regs.RIP)
		f.Why = b.unmapped(c.regs.RIP)
		if c.regs.RIP < nullPage {
			f.Why = "a call or jump through a NULL pointer"
		} else if err == nil {
			f.Why = "not executable"
		}
		return
	}
	if !ok {
		f.Why = "which address it accessed cannot be computed from the instruction"
		return
	}
	f.Addr, f.Access = mem.Addr(addr), "read"
	if access&x86.Write != 0 {
		f.Access = "write"
	}
	if base != 0 && base != x86asm.RIP {
		f.Register = regName(base)
	}
	if addr < nullPage && f.Register != "" {
		v, _ := value(c.regs, base)
		f.Why = fmt.Sprintf("%s is %s", f.Register, nullWord(v))
		return
	}
	m, err := b.k.Walk(addr)
	switch {
	case addr>>63 == 0 && err == nil:
		f.Why = "a user address, which the kernel must not touch here (SMAP)"
	case err == nil && !m.Writable && f.Access == "write":
		f.Why = "read-only"
	default:
		f.Why = b.unmapped(addr)
	}
}

func nullWord(v uint64) string {
	if v == 0 {
		return "NULL"
	}
	return fmt.Sprintf("%#x, not a pointer", v)
}

// unmapped says what the address is, that no page table maps.
func (b *builder) unmapped(addr uint64) string {
	if addr>>63 == 0 {
		return "a user address that is not mapped"
	}
	if m, err := b.k.Walk(addr); err == nil {
		return fmt.Sprintf("not mapped then (now at physical %#x)", m.Phys)
	}
	return "not mapped"
}

func (b *builder) protectionFault(f *Fault, c crash) {
	if !b.canonical(c.regs.RIP) {
		f.Access, f.Addr, f.Why = "execute", mem.Addr(c.regs.RIP), "no canonical address: a jump, call or return to a wrong one"
		return
	}
	addr, base, access, ok := b.accessOf(c)
	if !ok || b.canonical(addr) {
		f.Why = "the instruction or a segment it names is not permitted"
		return
	}
	f.Addr, f.Access = mem.Addr(addr), "read"
	if access&x86.Write != 0 {
		f.Access = "write"
	}
	f.Why = "no canonical address"
	if base != 0 && base != x86asm.RIP {
		v, _ := value(c.regs, base)
		f.Register = regName(base)
		f.Why += fmt.Sprintf(": %s is %#x", f.Register, v)
		if p := poison(v); p != "" {
			f.Why += ", " + p
		}
	}
}

// doubleFault tells a stack that is used up or lost, by far the most frequent
// reason: the CPU could not push the frame of the first fault.
func (b *builder) doubleFault(f *Fault, c crash) {
	sp := c.regs.RSP
	if m, err := b.k.Walk(sp - 8); err == nil && m.Writable {
		return
	}
	f.Register = "rsp"
	f.Why = fmt.Sprintf("the stack pointer is %#x, where no stack is", sp)
	if m, err := b.k.Walk((sp + stackSize - 1) &^ (stackSize - 1)); err == nil && m.Writable {
		f.Why = fmt.Sprintf("the stack overflowed: its pointer is %#x, below the stack's end", sp)
	}
}

// canonical says whether an address can be used at all, with the page tables
// that the kernel has.
func (b *builder) canonical(addr uint64) bool {
	if l5, ok := b.k.Info().Number("pgtable_l5_enabled"); ok && l5 == 0 {
		return uint64(int64(addr<<16)>>16) == addr
	}
	return canonical(addr)
}

// canonical is builder.canonical with 5-level page tables.
func canonical(addr uint64) bool { return uint64(int64(addr<<7)>>7) == addr }

// poisons are values the kernel writes into memory that must not be used any
// more (include/linux/poison.h; with POISON_POINTER_DELTA of x86-64).
var poisons = []struct {
	value, mask uint64
	why         string
}{
	{0xdead000000000100, ^uint64(0xff), "LIST_POISON: the node was already removed from its list"},
	{0x6b6b6b6b6b6b6b6b, ^uint64(0xff), "slab poison: the object was freed"},
	{0x5a5a5a5a5a5a5a5a, ^uint64(0xff), "slab poison: the object was never initialised"},
}

func poison(v uint64) string {
	for _, p := range poisons {
		if v&p.mask == p.value&p.mask {
			return p.why
		}
	}
	return ""
}

// invalidOpcode tells the kernel's own assertions, which are a ud2, from code
// that is none. The log line before the oops names file and line.
func (b *builder) invalidOpcode(f *Fault, c crash) {
	if code, err := mem.U16(b.k.Mem(), c.regs.RIP); err != nil || code != 0x0b0f {
		f.Why = "the bytes at RIP are no valid instruction"
		return
	}
	f.Kind = "BUG"
	f.Why = "an assertion of the kernel failed (ud2)"
	for _, rec := range b.log {
		if at, ok := strings.CutPrefix(rec.Text, "kernel BUG at "); ok {
			f.Why = "an assertion of the kernel failed, " + strings.TrimSuffix(strings.TrimSpace(at), "!")
		}
	}
}
