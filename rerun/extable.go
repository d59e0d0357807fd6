package rerun

import (
	"encoding/binary"
	"errors"
	"sort"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// An exceptionTable is a sorted array of struct exception_table_entry
// (arch/x86/include/asm/extable.h): three words, of which the first two, the
// instruction and where to go on, are relative to themselves.
type exceptionTable struct {
	start, end uint64
	raw        []byte
}

const (
	entrySize  = 12
	maxEntries = 1 << 18
)

// An exceptionEntry is one entry, in the form of 5.16 and later (46d28947d987):
// before, the third word is the address of a handler.
type exceptionEntry struct {
	fixup uint64 // where to go on
	raw   uint32 // the word that fixup is made from, which BPF uses for itself
	kind  uint8
	reg   uint8
	flags uint8
	imm   int16
}

// Kinds of entries (arch/x86/include/asm/extable_fixup_types.h, 5.16).
const (
	exDefault        = 1
	exFault          = 2
	exUaccess        = 3
	exCopy           = 4
	exClearFS        = 5
	exFPURestore     = 6
	exBPF            = 7
	exWrmsr          = 8
	exRdmsr          = 9
	exWrmsrSafe      = 10
	exRdmsrSafe      = 11
	exWrmsrInMCE     = 12
	exRdmsrInMCE     = 13
	exDefaultMCESafe = 14
	exFaultMCESafe   = 15
	exPopReg         = 16
	exImmReg         = 17
	exFaultSGX       = 18
	exUcopyLen       = 19
	exZeropad        = 20
)

const (
	sgxFault = 0x40000000     // SGX_ENCLS_FAULT_FLAG
	minusEIO = ^uint64(5 - 1) // -EIO
)

// Flags of an entry.
const (
	exClearAX = 1
	exClearDX = 2
)

// handlers are the kinds by the handlers of kernels before 5.16.
var handlers = map[string]uint8{
	"ex_handler_default": exDefault, "ex_handler_fault": exFault, "ex_handler_uaccess": exUaccess,
	"ex_handler_copy": exCopy, "ex_handler_clear_fs": exClearFS, "ex_handler_fprestore": exFPURestore,
	"ex_handler_bpf": exBPF, "ex_handler_wrmsr_unsafe": exWrmsr, "ex_handler_rdmsr_unsafe": exRdmsr,
}

// findExceptionTables reads the tables of the kernel and its modules.
func (s *Session) findExceptionTables() []exceptionTable {
	var out []exceptionTable
	add := func(start, n uint64) {
		if n == 0 || n > maxEntries {
			return
		}
		if raw, err := mem.Bytes(s.view, start, int(n)*entrySize); err == nil {
			out = append(out, exceptionTable{start, start + n*entrySize, raw})
		}
	}
	syms := s.symbols()
	start, stop := syms["__start___ex_table"].Addr, syms["__stop___ex_table"].Addr
	if stop > start {
		add(start, (stop-start)/entrySize)
	}
	mods, _ := s.k.Modules()
	for _, m := range mods {
		o := s.k.Object("module", m.Addr)
		at, n := o.Ptr("extable"), o.Uint("num_exentries")
		if o.Err() == nil {
			add(at, n)
		}
	}
	return out
}

// exceptionEntry finds what the kernel has planned for a fault of the
// instruction at addr (search_exception_tables).
func (s *Session) exceptionEntry(addr uint64) (exceptionEntry, bool) {
	for _, t := range s.tables() {
		if e, ok := t.find(s, addr); ok {
			return e, true
		}
	}
	return s.bpfEntry(addr)
}

// bpfEntry looks into the table of the BPF function at addr.
func (s *Session) bpfEntry(addr uint64) (exceptionEntry, bool) {
	text, ok := s.k.BPFTextAt(addr)
	if !ok || !text.Program {
		return exceptionEntry{}, false
	}
	off, err := s.k.Offset("bpf_prog_aux", "ksym")
	if err != nil {
		return exceptionEntry{}, false
	}
	aux := s.k.Object("bpf_prog_aux", text.Ksym-off)
	at, n := aux.Ptr("extable"), aux.Uint("num_exentries")
	if aux.Err() != nil || at == 0 || n == 0 || n > maxEntries {
		return exceptionEntry{}, false
	}
	raw, err := mem.Bytes(s.view, at, int(n)*entrySize)
	if err != nil {
		return exceptionEntry{}, false
	}
	return exceptionTable{at, at + n*entrySize, raw}.find(s, addr)
}

func (t exceptionTable) word(i, part int) (v uint32, abs uint64) {
	at := i*entrySize + part*4
	v = binary.LittleEndian.Uint32(t.raw[at:])
	return v, t.start + uint64(at) + uint64(int64(int32(v)))
}

func (t exceptionTable) find(s *Session, addr uint64) (exceptionEntry, bool) {
	n := len(t.raw) / entrySize
	insn := func(i int) uint64 { _, a := t.word(i, 0); return a }
	i := sort.Search(n, func(i int) bool { return insn(i) >= addr })
	if i == n || insn(i) != addr {
		// Those of BPF programs are in the order of the code, but not sorted.
		const few = 1 << 12
		for i = 0; i < n && n <= few && insn(i) != addr; i++ {
		}
		if n > few || i == n {
			return exceptionEntry{}, false
		}
	}
	var e exceptionEntry
	e.raw, e.fixup = t.word(i, 1)
	data, handler := t.word(i, 2)
	if s.hasHandlers() {
		sym, off, ok := s.k.Symbolize(handler)
		e.kind = handlers[sym.Name]
		return e, ok && off == 0 && e.kind != 0
	}
	e.kind, e.reg, e.flags, e.imm = uint8(data), uint8(data>>8&15), uint8(data>>12&15), int16(data>>16)
	return e, true
}

// hasHandlers says whether the entries are of before 5.16.
func (s *Session) hasHandlers() bool {
	return s.k.Object("exception_table_entry", 0).Has("handler")
}

// fixup does what the kernel's fixup_exception does, and says whether the kernel
// had planned for it.
func (r *run) fixup(e *emulate.Exception, vector uint64) bool {
	if e.Inst == nil {
		return false
	}
	entry, ok := r.s.exceptionEntry(e.Inst.Addr)
	if !ok {
		return false
	}
	m := r.m
	switch entry.kind {
	case exDefault, exUaccess, exDefaultMCESafe, exFPURestore, exClearFS, exWrmsr:
	case exCopy, exFault, exFaultMCESafe:
		m.GP[emulate.RAX] = vector
	case exFaultSGX:
		m.GP[emulate.RAX] = vector | sgxFault
	case exRdmsr:
		m.GP[emulate.RAX], m.GP[emulate.RDX] = 0, 0
	case exRdmsrSafe:
		m.GP[emulate.RAX], m.GP[emulate.RDX] = 0, 0
		m.GP[entry.reg] = minusEIO
	case exWrmsrSafe:
		m.GP[entry.reg] = minusEIO
	case exPopReg, exImmReg:
		if entry.kind == exPopReg {
			m.GP[emulate.RSP] += 8
		}
		m.GP[entry.reg] = uint64(int64(entry.imm))
	case exUcopyLen:
		m.GP[emulate.RCX] = uint64(int64(entry.imm))*m.GP[emulate.RCX] + m.GP[entry.reg]
	case exZeropad:
		if !r.zeropad(e) {
			return false
		}
	case exBPF:
		// The register, by its place in pt_regs, and the instruction's length.
		if reg, ok := ptRegs[entry.raw>>8&0xff]; ok {
			m.GP[reg] = 0
		}
		m.RIP = e.Inst.Addr + uint64(entry.raw&0xff)
		return true
	default:
		return false
	}
	if entry.flags&exClearAX != 0 {
		m.GP[emulate.RAX] = 0
	}
	if entry.flags&exClearDX != 0 {
		m.GP[emulate.RDX] = 0
	}
	m.RIP = entry.fixup
	return true
}

// ptRegs are the numbers of registers by their offsets in struct pt_regs.
var ptRegs = map[uint32]int{
	0: emulate.R15, 8: emulate.R14, 16: emulate.R13, 24: emulate.R12, 32: emulate.RBP, 40: emulate.RBX,
	48: emulate.R11, 56: emulate.R10, 64: emulate.R9, 72: emulate.R8, 80: emulate.RAX, 88: emulate.RCX,
	96: emulate.RDX, 104: emulate.RSI, 112: emulate.RDI,
}

// zeropad loads a word whose end lies on a page that is not there, with zeroes
// in its place (load_unaligned_zeropad; ex_handler_zeropad).
func (r *run) zeropad(e *emulate.Exception) bool {
	var dst = -1
	var at uint64
	for _, a := range e.Inst.Args[:e.Inst.NArgs] {
		switch a.Kind {
		case x86.KindReg:
			if n, ok := emulate.RegNumber(a.Reg); ok && dst < 0 {
				dst = n
			}
		case x86.KindMem:
			at = r.m.EA(e.Inst, a)
		}
	}
	var missing *mem.Fault
	if dst < 0 || !errors.As(e.Err, &missing) || missing.Addr != at&^7+8 {
		return false
	}
	var b [8]byte
	if err := r.m.Mem.ReadMem(b[:], at&^7); err != nil {
		return false
	}
	r.m.GP[dst] = binary.LittleEndian.Uint64(b[:]) >> (8 * (at & 7))
	return true
}
