// Package orc reads the kernel's ORC unwind tables, with which a stack is
// unwound without frame pointers and without debug info.
//
// objtool writes for every range of code how to find the caller's stack
// pointer and frame pointer. The entries have had four forms
// (arch/x86/include/asm/orc_types.h); here each is turned into one
// [Entry]. A table is never copied: a lookup is a binary search in the target's
// memory. Only x86-64 kernels are supported, 4.14 and later.
package orc

import (
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// A Reg is a register whose value a [Rule] starts from. Values are those of
// the frame that is being left.
type Reg uint8

// The base registers.
const (
	None   Reg = iota // no rule: the caller's value is that of this frame, or in its pt_regs
	SP                // rsp
	BP                // rbp
	PrevSP            // the caller's rsp, that is, the result of the SP rule
	AX                // rax; since 7.1
	DX                // rdx
	DI                // rdi
	R10               // r10: functions that realign their stack
	R13               // r13: the same, on some compilers
)

var regNames = [...]string{"none", "rsp", "rbp", "prev_sp", "rax", "rdx", "rdi", "r10", "r13"}

// String returns the name as assemblers write it, "prev_sp" for PrevSP.
func (r Reg) String() string {
	if int(r) < len(regNames) {
		return regNames[r]
	}
	return fmt.Sprintf("reg%d", uint8(r))
}

// A Deref says whether a rule reads memory.
type Deref uint8

// The ways to apply a rule's offset.
const (
	Direct   Deref = iota // Base + Offset
	Indirect              // the word at Base + Offset
	Through               // the word at Base, plus Offset
)

// A Rule computes one register of the caller.
type Rule struct {
	Base   Reg
	Deref  Deref
	Offset int16 // bytes
}

// String returns the rule as an expression: "rsp+8", "[rbp-16]", "[rsp]+8".
func (r Rule) String() string {
	switch {
	case r.Base == None:
		return "none"
	case r.Deref == Indirect:
		return fmt.Sprintf("[%s%+d]", r.Base, r.Offset)
	case r.Deref == Through:
		return fmt.Sprintf("[%s]%+d", r.Base, r.Offset)
	}
	return fmt.Sprintf("%s%+d", r.Base, r.Offset)
}

// A Type says what the result of the SP rule points at.
type Type uint8

// The types of entries.
const (
	Undefined   Type = iota // no unwinding from here: data between functions, or code objtool does not follow
	EndOfStack              // nothing called this code: the stack ends here
	Call                    // the caller's rsp; the return address is in the word below
	Regs                    // a complete struct pt_regs
	RegsPartial             // the end of a struct pt_regs that the CPU pushes: rip, cs, flags, rsp, ss
)

var typeNames = [...]string{"undefined", "end of stack", "call", "regs", "partial regs"}

// String returns the type in words.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// An Entry says how to leave a frame. With Type Regs the SP rule gives the
// address of a struct pt_regs, with RegsPartial that of the five words the CPU
// pushed; the caller's rsp and rip are in them.
type Entry struct {
	SP     Rule
	BP     Rule // Base None: unchanged, or, with Type Regs, in the pt_regs
	Type   Type
	Signal bool // the frame was interrupted: look its caller up at its very pc, else at pc-1
}

// String returns the entry on one line: "call sp=rsp+16 bp=[prev_sp-16]".
func (e Entry) String() string {
	if e.Type == Undefined || e.Type == EndOfStack {
		return e.Type.String()
	}
	s := fmt.Sprintf("%s sp=%s bp=%s", e.Type, e.SP, e.BP)
	if e.Signal {
		s += " signal"
	}
	return s
}

// Locations holds the run-time addresses of the kernel's own table. All are in
// kallsyms.
type Locations struct {
	IP        uint64 // __start_orc_unwind_ip
	IPEnd     uint64 // __stop_orc_unwind_ip
	Unwind    uint64 // __start_orc_unwind
	UnwindEnd uint64 // __stop_orc_unwind
	Header    uint64 // __start_orc_header; 0 before 6.4 (b9f174c811e3; backported to 6.3.10)
}

// LocationsFrom fills Locations from symbol, which returns the run-time address
// of a kernel symbol, and reports whether the kernel has ORC tables.
func LocationsFrom(symbol func(name string) (addr uint64, ok bool)) (Locations, bool) {
	var loc Locations
	var ok [4]bool
	loc.IP, ok[0] = symbol("__start_orc_unwind_ip")
	loc.IPEnd, ok[1] = symbol("__stop_orc_unwind_ip")
	loc.Unwind, ok[2] = symbol("__start_orc_unwind")
	loc.UnwindEnd, ok[3] = symbol("__stop_orc_unwind")
	loc.Header, _ = symbol("__start_orc_header")
	return loc, ok == [4]bool{true, true, true, true}
}

// A FormatError says which part of a table contradicts what a kernel writes.
type FormatError struct {
	Part string // the kernel's name of the part: ".orc_unwind"
	Addr uint64 // address of what is wrong
	Why  string
}

// Error names the part, the address and what is wrong.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%s at %#x: %s", e.Part, e.Addr, e.Why)
}

// Sizes in memory.
const (
	ipSize    = 4 // int: where the code is, relative to the word itself
	entrySize = 6 // struct orc_entry, packed
	maxOrcs   = 1 << 24
)

// A Table is the ORC table of the kernel or of one module. It is safe for
// concurrent use.
type Table struct {
	m      mem.Reader
	ip     uint64
	unwind uint64
	n      int
	layout *layout
}

// Load prepares the kernel's own table in its virtual memory m. The layout
// comes from the hash at loc.Header or, where there is none or it is unknown,
// from the entries themselves. Errors are a [*FormatError] or wrap the
// [*mem.Fault] of the read that failed.
func Load(m mem.Reader, loc Locations) (*Table, error) {
	ips, orcs := loc.IPEnd-loc.IP, loc.UnwindEnd-loc.Unwind
	switch {
	case loc.IPEnd < loc.IP || ips == 0 || ips%ipSize != 0 || ips/ipSize > maxOrcs:
		return nil, &FormatError{".orc_unwind_ip", loc.IP, fmt.Sprintf("ends at %#x", loc.IPEnd)}
	case loc.UnwindEnd < loc.Unwind || orcs%entrySize != 0 || orcs/entrySize != ips/ipSize:
		return nil, &FormatError{".orc_unwind", loc.Unwind, fmt.Sprintf("%d bytes for %d addresses", orcs, ips/ipSize)}
	}
	t := &Table{m: m, ip: loc.IP, unwind: loc.Unwind, n: int(ips / ipSize)}
	l, err := findLayout(t, loc.Header)
	if err != nil {
		return nil, err
	}
	t.layout = l
	return t, nil
}

// Module returns the table of a module of the same kernel: numOrcs, ip and orc
// are num_orcs, orc_unwind_ip and orc_unwind in its struct mod_arch_specific.
// The module loader has sorted them. A module without ORC has numOrcs 0; its
// table finds nothing.
func (t *Table) Module(numOrcs uint32, ip, orc uint64) (*Table, error) {
	if numOrcs > maxOrcs {
		return nil, &FormatError{"num_orcs", ip, fmt.Sprintf("%d entries, at most %d expected", numOrcs, maxOrcs)}
	}
	return &Table{m: t.m, ip: ip, unwind: orc, n: int(numOrcs), layout: t.layout}, nil
}

// Len returns the number of entries.
func (t *Table) Len() int { return t.n }

// Layout names the layout by the kernel version that brought it: "4.14",
// "6.3", "6.4" or "7.1".
func (t *Table) Layout() string { return t.layout.since }
