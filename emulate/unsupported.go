package emulate

import (
	"slices"

	"github.com/ksleuth/ksleuth/x86"
)

// why says why an operation, or a form of it, is not executed; "" if nobody has
// asked for it.
func why(op x86.Op) string {
	for _, r := range reasons {
		if slices.Contains(r.ops, op) {
			return r.why
		}
	}
	if _, ok := ops[op]; ok {
		return "a segment or debug register is not modelled"
	}
	switch op.String()[0] {
	case 'v':
		return whyAVX
	case 'f':
		return whyFloat
	}
	return ""
}

const (
	whyAVX        = "AVX is not modelled"
	whyVirtual    = "it is for a hypervisor"
	whyPrivileged = "it changes the state of the CPU beyond this code"
	whyDevice     = "a device would answer"
	whyUnknown    = "what it reads is not known"
	whyFloat      = "the state of the floating point unit is not modelled"
	whyCrypto     = "instructions for cryptography are not modelled"
	whyLeaves     = "control leaves the kernel, or waits"
)

var reasons = []struct {
	why string
	ops []x86.Op
}{
	{whyVirtual, []x86.Op{
		x86.VMCALL, x86.VMMCALL, x86.VMGEXIT, x86.VMLAUNCH, x86.VMRESUME, x86.VMRUN, x86.VMLOAD, x86.VMSAVE,
		x86.VMXON, x86.VMXOFF, x86.VMREAD, x86.VMWRITE, x86.VMPTRLD, x86.VMPTRST, x86.VMCLEAR, x86.VMFUNC, x86.INVEPT, x86.INVVPID,
		x86.STGI, x86.CLGI, x86.TDCALL, x86.SEAMCALL, x86.SEAMRET, x86.SEAMOPS,
		x86.PVALIDATE, x86.RMPADJUST, x86.RMPUPDATE, x86.RMPQUERY, x86.PSMASH, x86.ENCLS, x86.ENCLU, x86.ENCLV, x86.PCONFIG,
	}},
	{whyPrivileged, []x86.Op{
		x86.LGDT, x86.LIDT, x86.LLDT, x86.LTR, x86.LMSW, x86.LKGS, x86.XSETBV, x86.INVPCID, x86.INVLPG, x86.INVLPGA, x86.INVLPGB, x86.TLBSYNC,
		x86.WRPKRU, x86.WRUSSD, x86.WRUSSQ, x86.WRSSD, x86.WRSSQ, x86.WRMSRNS, x86.WRMSRLIST,
	}},
	{whyDevice, []x86.Op{x86.IN, x86.OUT, x86.INS, x86.OUTS}},
	{whyUnknown, []x86.Op{
		x86.CPUID, x86.RDPMC, x86.RDPRU, x86.RDPKRU, x86.RDRAND, x86.RDSEED, x86.XGETBV, x86.RDMSRLIST,
		x86.SGDT, x86.SIDT, x86.SLDT, x86.STR, x86.SMSW, x86.LAR, x86.VERR, x86.RDSSPD, x86.RDSSPQ,
	}},
	{whyFloat, []x86.Op{
		x86.FXSAVE, x86.FXSAVE64, x86.FXRSTOR, x86.FXRSTOR64, x86.XSAVE, x86.XSAVE64, x86.XSAVEC, x86.XSAVEC64,
		x86.XSAVEOPT, x86.XSAVEOPT64, x86.XSAVES, x86.XSAVES64, x86.XRSTOR, x86.XRSTOR64, x86.XRSTORS, x86.XRSTORS64,
		x86.FILD, x86.STMXCSR, x86.TILERELEASE,
	}},
	{whyCrypto, []x86.Op{
		x86.AESENC, x86.AESENCLAST, x86.AESDEC, x86.AESDECLAST, x86.AESIMC, x86.AESKEYGENASSIST, x86.PBLENDVB,
		x86.SHA1MSG1, x86.SHA1MSG2, x86.SHA1NEXTE, x86.SHA1RNDS4, x86.SHA256MSG1, x86.SHA256MSG2, x86.SHA256RNDS2, x86.XSHA256,
	}},
	{whyLeaves, []x86.Op{
		x86.HLT, x86.MWAIT, x86.MWAITX, x86.MONITOR, x86.MONITORX, x86.TPAUSE, x86.UMWAIT, x86.UMONITOR,
		x86.IRET, x86.IRETQ, x86.IRETW, x86.SYSCALL, x86.SYSENTER, x86.SYSRETD, x86.SYSRETQ, x86.SYSEXITD, x86.SYSEXITQ,
		x86.ERETS, x86.ERETU, x86.RETF, x86.RETFQ, x86.LJMP, x86.LCALL, x86.INT, x86.INT1, x86.RSM,
	}},
}
