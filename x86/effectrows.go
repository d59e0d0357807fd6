package x86

// An effectKind says how the results of an operation depend on its operands.
type effectKind uint8

const (
	efNone  effectKind = iota + 1 // writes nothing that is told
	efMove                        // a copy of the second operand; zeros above
	efSign                        // a sign-extended copy
	efLea                         // the address
	efCarry                       // byte i depends on bytes 0 to i: add, sub, mul by an operand
	efAnd                         // bit by bit
	efOr
	efXor
	efUnary   // the first operand, with carries: inc, dec, neg
	efNot     // the first operand, bit by bit
	efTest    // flags alone
	efBT      // bt and its kin
	efScan    // bsf, bsr: the destination stays where the source is zero
	efFrom    // the first operand, made of all of the others
	efShift   // by the second operand
	efDouble  // shld, shrd
	efSwap    // xchg
	efXadd    //
	efCmpxchg //
	efCmpxchgWide
	efBswap // and movbe
	efXlat
	efSetcc
	efCmov
	efPush
	efPop
	efLeave
	efEnter
	efPushf
	efPopf
	efCall
	efRet
	efJump
	efJcc
	efJrcxz // and loop
	efMovs
	efStos
	efLods
	efCmps
	efScas
	efMul
	efDiv
	efMulx
	efAccSign // cbw, cwde, cdqe
	efDatSign // cwd, cdq, cqo
	efCpuid
	efRax    // eax and edx come from outside
	efRaxRcx // and ecx
	efXgetbv // so they do, chosen by ecx
	efExternal
	efFlags // flags are set to constants
	efCmc
	efLahf
	efSahf
	efVector // the operands written depend on those read
	efMovq   // vector moves: zeros above a small source
)

// An effectRow is what there is to know of an operation. Of flags: which are
// computed, which become constant, which undefined, which are read.
type effectRow struct {
	kind                     effectKind
	set, clear, undef, reads uint32
}

const (
	flagsNotCF = FlagStatus &^ FlagCF
	flagsSZP   = FlagSF | FlagZF | FlagPF
	flagsCO    = FlagCF | FlagOF
	flagsSAP   = FlagSF | FlagAF | FlagPF
)

// Rows that several operations share. Sources: SDM vol. 2, "Flags Affected".
var (
	rowArith  = effectRow{kind: efCarry, set: FlagStatus}
	rowArithC = effectRow{kind: efCarry, set: FlagStatus, reads: FlagCF}
	rowShift  = effectRow{kind: efShift, set: FlagCF | flagsSZP, undef: FlagOF | FlagAF}
	rowDouble = effectRow{kind: efDouble, set: FlagCF | flagsSZP, undef: FlagOF | FlagAF}
	rowRot    = effectRow{kind: efShift, set: FlagCF, undef: FlagOF}
	rowRotC   = effectRow{kind: efShift, set: FlagCF, undef: FlagOF, reads: FlagCF}
	rowBT     = effectRow{kind: efBT, set: FlagCF, undef: FlagOF | flagsSAP}
	rowScan   = effectRow{kind: efScan, set: FlagZF, undef: flagsCO | flagsSAP}
	rowCount  = effectRow{kind: efFrom, set: FlagCF | FlagZF, undef: FlagOF | flagsSAP}
	rowMul    = effectRow{kind: efMul, set: flagsCO, undef: flagsSZP | FlagAF}
	rowDiv    = effectRow{kind: efDiv, undef: FlagStatus}
	rowBLS    = effectRow{kind: efFrom, set: FlagCF | FlagSF | FlagZF, clear: FlagOF, undef: FlagAF | FlagPF}
	rowFrom   = effectRow{kind: efFrom}
	rowMove   = effectRow{kind: efMove}
	rowMovq   = effectRow{kind: efMovq}
	rowNone   = effectRow{kind: efNone}
	rowRandom = effectRow{kind: efExternal, set: FlagCF, clear: flagsNotCF}
	rowSys    = effectRow{kind: efExternal}
)

// condReads are the flags that a condition tests, by its number without the
// last bit (SDM vol. 1, appendix B).
var condReads = [8]uint32{
	FlagOF, FlagCF, FlagZF, FlagCF | FlagZF, FlagSF, FlagPF, FlagSF | FlagOF, FlagZF | FlagSF | FlagOF,
}

// effectRows are the operations whose effects are known. Those with a condition
// and those on vector registers are added by effectRowOf.
var effectRows = [...]effectRow{
	MOV: rowMove, MOVZX: rowMove, MOVNTI: rowMove,
	MOVSX: {kind: efSign}, MOVSXD: {kind: efSign},
	MOVBE: {kind: efBswap}, BSWAP: {kind: efBswap},
	LEA: {kind: efLea}, XLAT: {kind: efXlat},

	ADD: rowArith, SUB: rowArith, ADC: rowArithC, SBB: rowArithC,
	INC: {kind: efUnary, set: flagsNotCF}, DEC: {kind: efUnary, set: flagsNotCF},
	NEG: {kind: efUnary, set: FlagStatus}, NOT: {kind: efNot},
	CMP:  {kind: efTest, set: FlagStatus},
	TEST: {kind: efTest, set: flagsSZP, clear: flagsCO, undef: FlagAF},
	AND:  {kind: efAnd, set: flagsSZP, clear: flagsCO, undef: FlagAF},
	OR:   {kind: efOr, set: flagsSZP, clear: flagsCO, undef: FlagAF},
	XOR:  {kind: efXor, set: flagsSZP, clear: flagsCO, undef: FlagAF},
	ADCX: {kind: efCarry, set: FlagCF, reads: FlagCF}, ADOX: {kind: efCarry, set: FlagOF, reads: FlagOF},
	MUL: rowMul, IMUL: rowMul, DIV: rowDiv, IDIV: rowDiv, MULX: {kind: efMulx},
	SHL: rowShift, SHR: rowShift, SAR: rowShift, SHLD: rowDouble, SHRD: rowDouble,
	ROL: rowRot, ROR: rowRot, RCL: rowRotC, RCR: rowRotC,
	SHLX: rowFrom, SHRX: rowFrom, SARX: rowFrom, RORX: rowFrom, PDEP: rowFrom, PEXT: rowFrom,
	BT: rowBT, BTS: rowBT, BTR: rowBT, BTC: rowBT,
	BSF: rowScan, BSR: rowScan, LZCNT: rowCount, TZCNT: rowCount,
	POPCNT: {kind: efFrom, set: FlagZF, clear: FlagStatus &^ FlagZF},
	ANDN:   {kind: efFrom, set: FlagSF | FlagZF, clear: flagsCO, undef: FlagAF | FlagPF},
	BLSR:   rowBLS, BLSI: rowBLS, BLSMSK: rowBLS, BZHI: rowBLS,
	BEXTR: {kind: efFrom, set: FlagZF, clear: flagsCO, undef: flagsSAP},
	CRC32: {kind: efFrom},
	CBW:   {kind: efAccSign}, CWDE: {kind: efAccSign}, CDQE: {kind: efAccSign},
	CWD: {kind: efDatSign}, CDQ: {kind: efDatSign}, CQO: {kind: efDatSign},
	XCHG: {kind: efSwap}, XADD: {kind: efXadd, set: FlagStatus},
	CMPXCHG:    {kind: efCmpxchg, set: FlagStatus},
	CMPXCHG8B:  {kind: efCmpxchgWide, set: FlagZF},
	CMPXCHG16B: {kind: efCmpxchgWide, set: FlagZF},

	PUSH: {kind: efPush}, POP: {kind: efPop}, LEAVE: {kind: efLeave},
	PUSHF: {kind: efPushf}, POPF: {kind: efPopf}, PUSHFW: {kind: efPushf}, POPFW: {kind: efPopf},
	ENTER: {kind: efEnter},
	CALL:  {kind: efCall}, RET: {kind: efRet}, JMP: {kind: efJump},
	JRCXZ: {kind: efJrcxz}, LOOP: {kind: efJrcxz},
	LOOPE: {kind: efJrcxz, reads: FlagZF}, LOOPNE: {kind: efJrcxz, reads: FlagZF},

	MOVS: {kind: efMovs}, STOS: {kind: efStos}, LODS: {kind: efLods},
	CMPS: {kind: efCmps, set: FlagStatus}, SCAS: {kind: efScas, set: FlagStatus},

	CLC: {kind: efFlags, clear: FlagCF}, STC: {kind: efFlags, clear: FlagCF}, CMC: {kind: efCmc},
	CLD: {kind: efFlags, clear: FlagDF}, STD: {kind: efFlags, clear: FlagDF},
	CLI: {kind: efFlags, clear: FlagIF}, STI: {kind: efFlags, clear: FlagIF},
	CLAC: {kind: efFlags, clear: FlagAC}, STAC: {kind: efFlags, clear: FlagAC},
	LAHF: {kind: efLahf}, SAHF: {kind: efSahf},

	CPUID: {kind: efCpuid}, RDTSC: {kind: efRax}, RDTSCP: {kind: efRaxRcx},
	RDMSR: {kind: efXgetbv}, RDPMC: {kind: efXgetbv}, XGETBV: {kind: efXgetbv}, RDPKRU: {kind: efRax},
	RDRAND: rowRandom, RDSEED: rowRandom, RDFSBASE: rowSys, RDGSBASE: rowSys, RDPID: rowSys,
	IN: rowSys, STR: rowSys, SLDT: rowSys, SMSW: rowSys,
	LAR: {kind: efExternal, set: FlagZF}, LSL: {kind: efExternal, set: FlagZF},
	VERR: {kind: efNone, set: FlagZF}, VERW: {kind: efNone, set: FlagZF},

	NOP: rowNone, ENDBR64: rowNone, PAUSE: rowNone, SERIALIZE: rowNone, FNINIT: rowNone, FNCLEX: rowNone, LDMXCSR: rowNone, LFENCE: rowNone, MFENCE: rowNone, SFENCE: rowNone,
	PREFETCHNTA: rowNone, PREFETCHT0: rowNone, PREFETCHT1: rowNone, PREFETCHT2: rowNone, PREFETCHW: rowNone,
	CLFLUSH: rowNone, CLFLUSHOPT: rowNone, CLWB: rowNone, FWAIT: rowNone,
	UD1: rowNone, UD2: rowNone, INT3: rowNone, HLT: rowNone, SWAPGS: rowNone, WRMSR: rowNone, OUT: rowNone,
	WBINVD: rowNone, INVLPG: rowNone, INVPCID: rowNone, MONITOR: rowNone, MWAIT: rowNone,
	WRFSBASE: rowNone, WRGSBASE: rowNone, WRPKRU: rowNone, XSETBV: rowNone, CLTS: rowNone,
	LGDT: rowNone, LIDT: rowNone, LLDT: rowNone, LTR: rowNone, EMMS: rowNone, VZEROUPPER: rowNone,

	MOVD: rowMovq, MOVQ: rowMovq, MOVAPS: rowMovq, MOVUPS: rowMovq, MOVAPD: rowMovq, MOVUPD: rowMovq,
	MOVDQA: rowMovq, MOVDQU: rowMovq, LDDQU: rowMovq, MOVNTDQ: rowMovq, MOVNTPS: rowMovq,
	VMOVD: rowMovq, VMOVQ: rowMovq, VMOVDQA: rowMovq, VMOVDQU: rowMovq, VMOVAPS: rowMovq, VMOVUPS: rowMovq,
	COMISS: {kind: efTest, set: FlagStatus}, COMISD: {kind: efTest, set: FlagStatus},
	UCOMISS: {kind: efTest, set: FlagStatus}, UCOMISD: {kind: efTest, set: FlagStatus},
	PTEST: {kind: efTest, set: FlagCF | FlagZF, clear: FlagStatus &^ (FlagCF | FlagZF)},
}

// effectRowOf returns the row of an instruction's operation, the zero row if
// there is none.
func (in *Inst) effectRowOf() effectRow {
	if cc, ok := in.Cond(); ok {
		r := effectRow{reads: condReads[cc>>1]}
		switch {
		case in.Flow() == FlowCondJump:
			r.kind = efJcc
		case in.NArgs == 1:
			r.kind = efSetcc
		default:
			r.kind = efCmov
		}
		return r
	}
	if int(in.Op) < len(effectRows) && effectRows[in.Op].kind != 0 {
		return effectRows[in.Op]
	}
	for i := range in.Args[:in.NArgs] {
		if _, ok := vectorNumber(in.Args[i].Reg); ok && in.Args[i].Kind == KindReg {
			return effectRow{kind: efVector}
		}
	}
	return effectRow{}
}
