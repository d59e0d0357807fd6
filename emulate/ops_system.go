package emulate

import (
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/x86"
)

var systemOps = joinOps(map[x86.Op]opRow{
	x86.CLC:  {exec: changeFlags(CF, 0)},
	x86.STC:  {exec: changeFlags(0, CF)},
	x86.CMC:  {exec: execCmc},
	x86.CLD:  {exec: changeFlags(DF, 0)},
	x86.STD:  {exec: changeFlags(0, DF)},
	x86.CLI:  {exec: changeFlags(IF, 0)},
	x86.STI:  {exec: changeFlags(0, IF)},
	x86.CLAC: {exec: changeFlags(AC, 0)},
	x86.STAC: {exec: changeFlags(0, AC)},
	x86.LAHF: {exec: execLahf},
	x86.SAHF: {exec: execSahf},

	x86.RDTSC:  {exec: execRdtsc},
	x86.RDTSCP: {exec: execRdtscp},
	x86.RDPID:  {exec: execRdpid},
	x86.LSL:    {exec: execLsl},
	x86.VERW:   {exec: execVerw},

	x86.LDMXCSR: {exec: func(m *Machine, u *uop) bool { _, ok := m.getDst(u); return ok }},

	x86.SWAPGS:   {exec: execSwapgs},
	x86.RDFSBASE: {exec: func(m *Machine, u *uop) bool { m.setReg(kReg, u.dst, u.size, m.FSBase); return true }},
	x86.RDGSBASE: {exec: func(m *Machine, u *uop) bool { m.setReg(kReg, u.dst, u.size, m.GSBase); return true }},
	x86.WRFSBASE: {exec: writeBase(func(m *Machine) *uint64 { return &m.FSBase })},
	x86.WRGSBASE: {exec: writeBase(func(m *Machine) *uint64 { return &m.GSBase })},
	x86.RDMSR:    {exec: execRdmsr},
	x86.WRMSR:    {exec: execWrmsr},
	x86.CLTS:     {exec: func(m *Machine, u *uop) bool { m.CR[0] &^= 1 << 3; return true }},
}, idle(
	// Nothing can be seen of them here: hints, the order of memory accesses, caches.
	x86.NOP, x86.ENDBR32, x86.ENDBR64, x86.PAUSE, x86.LFENCE, x86.MFENCE, x86.SFENCE, x86.SERIALIZE,
	x86.PREFETCH, x86.PREFETCHW, x86.PREFETCHNTA, x86.PREFETCHT0, x86.PREFETCHT1, x86.PREFETCHT2, x86.PREFETCHWT1,
	x86.CLFLUSH, x86.CLFLUSHOPT, x86.CLWB, x86.CLDEMOTE, x86.WBINVD, x86.WBNOINVD,
	// No state of the floating point unit is modelled, and nothing executed here asks for it.
	x86.FNINIT, x86.FNCLEX, x86.FWAIT, x86.EMMS,
))

func execNop(m *Machine, u *uop) bool { return true }

// changeFlags makes an exec that clears and sets flags.
func changeFlags(clears, sets uint64) exec {
	return func(m *Machine, u *uop) bool {
		m.Flags = m.Flags&^clears | sets
		return true
	}
}

func execCmc(m *Machine, u *uop) bool {
	m.Flags ^= CF
	return true
}

func execLahf(m *Machine, u *uop) bool {
	m.setReg(kHigh, 0, 1, m.Flags&(SF|ZF|AF|PF|CF)|fixedFlags)
	return true
}

func execSahf(m *Machine, u *uop) bool {
	m.setFlags(SF|ZF|AF|PF|CF, m.GP[RAX]>>8)
	return true
}

// execRdtsc reads a clock that goes on by 1 with each instruction and each
// reading. Its block begins with it: Machine.Step is exact.
func execRdtsc(m *Machine, u *uop) bool {
	v := m.TSC + m.Step + m.clock
	m.clock++
	m.GP[RAX], m.GP[RDX] = v&0xffffffff, v>>32
	return true
}

func execRdtscp(m *Machine, u *uop) bool {
	m.GP[RCX] = uint64(m.TSCAux)
	return execRdtsc(m, u)
}

func execRdpid(m *Machine, u *uop) bool {
	m.GP[u.dst&15] = uint64(m.TSCAux)
	return true
}

// cpuSelector is the segment whose limit Linux has tell the number of the CPU
// and the NUMA node, as TSC_AUX does: __CPUNODE_SEG.
const cpuSelector = 0x7b

func execLsl(m *Machine, u *uop) bool {
	s, ok := m.getSrc(u)
	if !ok {
		return false
	}
	if s&0xffff != cpuSelector {
		return m.cannot(u, fmt.Sprintf("the limit of segment %#x is not known", s&0xffff))
	}
	m.setReg(kReg, u.dst, u.size, uint64(m.TSCAux))
	m.setFlags(ZF, ZF)
	return true
}

// execVerw is what the kernel empties the processor's buffers with; its operand
// is a data segment, which can be written.
func execVerw(m *Machine, u *uop) bool {
	if _, ok := m.getDst(u); !ok {
		return false
	}
	m.setFlags(ZF, ZF)
	return true
}

func execSwapgs(m *Machine, u *uop) bool {
	m.GSBase, m.KernelGSBase = m.KernelGSBase, m.GSBase
	return true
}

func writeBase(base func(m *Machine) *uint64) exec {
	return func(m *Machine, u *uop) bool {
		*base(m) = m.reg(kReg, u.dst, u.size)
		return true
	}
}

// msr returns the model-specific register with the number in ecx, if the
// machine has it.
func (m *Machine) msr() *uint64 {
	switch uint32(m.GP[RCX]) {
	case 0xc0000100:
		return &m.FSBase
	case 0xc0000101:
		return &m.GSBase
	case 0xc0000102:
		return &m.KernelGSBase
	}
	return nil
}

func execRdmsr(m *Machine, u *uop) bool {
	r := m.msr()
	if r == nil {
		return m.cannot(u, fmt.Sprintf("model-specific register %#x is not known", uint32(m.GP[RCX])))
	}
	m.GP[RAX], m.GP[RDX] = *r&0xffffffff, *r>>32
	return true
}

func execWrmsr(m *Machine, u *uop) bool {
	r := m.msr()
	if r == nil {
		return m.cannot(u, fmt.Sprintf("model-specific register %#x is not known", uint32(m.GP[RCX])))
	}
	*r = m.GP[RDX]<<32 | m.GP[RAX]&0xffffffff
	return true
}

// system gives u the exec of a mov from or to a register that is not a general
// one, and of push and pop of a segment register.
func system(u *uop, in *x86.Inst) {
	for i, a := range in.Args[:min(in.NArgs, 2)] {
		if a.Kind != x86.KindReg {
			continue
		}
		switch n := a.Reg; {
		case in.Op == x86.MOV && n >= x86asm.CR0 && n <= x86asm.CR8 && i == 0:
			u.dst, u.exec = uint8(n-x86asm.CR0), execToCR
		case in.Op == x86.MOV && n >= x86asm.CR0 && n <= x86asm.CR8:
			u.src, u.exec = uint8(n-x86asm.CR0), execFromCR
		case in.Op == x86.MOV && i == 1 && (n == x86asm.CS || n == x86asm.SS):
			u.imm, u.srcKind = kernelSegments[n], kImm
		default:
			if k, _ := register(n); k == kNone {
				u.exec, u.ends = execUnsupported, true
			}
		}
	}
}

// kernelSegments are the selectors that Linux runs its code with: __KERNEL_CS
// and __KERNEL_DS. Those of the other segments are the process's.
var kernelSegments = map[x86.Reg]uint64{x86asm.CS: 0x10, x86asm.SS: 0x18}

func execFromCR(m *Machine, u *uop) bool {
	m.GP[u.dst&15] = m.CR[u.src]
	return true
}

func execToCR(m *Machine, u *uop) bool {
	if u.dst == 3 {
		return m.cannot(u, "another address space")
	}
	m.CR[u.dst] = m.GP[u.src&15]
	return true
}
