package x86

import "golang.org/x/arch/x86/x86asm"

// An operand is an operand code of gen/insns.txt, after the opcode maps of the
// SDM (vol. 2, A.2). Capitals say where it is encoded, small letters its size:
// E ModR/M register or memory, G ModR/M register, R only a register in rm, M only
// memory there, Z register in the opcode, I immediate, J jump, O absolute address, X and
// Y the string operands, B the GPR in VEX.vvvv; P Q N the MMX, V W H the vector
// ones of G E B; K mask registers; b w d q o y t 1 2 4 8 16 32 10 bytes,
// h f e a half, a quarter, an eighth of a vector; v operand size, z that but at
// most 4, y (after E G R B) 4 or 8, a address size.
type operand uint8

const (
	_ operand = iota
	// Fixed operands.
	oAL
	oCL
	oDX
	oAX
	oECX
	oEDX
	oEAX
	oEBX
	oaAX
	orAX
	ozAX
	oFS
	oGS
	oST
	oX0
	o1
	// General registers and memory.
	oEb
	oEw
	oEd
	oEq
	oEv
	oEy
	oEwv // register of operand size, memory of 2 bytes
	oEdb // 32-bit register, memory of 1 byte
	oEdw // 32-bit register, memory of 2 bytes
	oGb
	oGd
	oGq
	oGv
	oGy
	oGa
	oRd
	oRq
	oRv
	oRy
	oRa
	oBy
	oSw
	oCq
	oDq
	oZb
	oZv
	// Immediates and addresses.
	oIb
	oIbs // one byte, sign-extended to the operand size
	oIw
	oIz
	oIv
	oJb
	oJz
	oOb
	oOv
	oXb
	oXv
	oXz
	oXl // xlat
	oYb
	oYv
	oYz
	// Memory only.
	oM
	oMb
	oMd
	oMw
	oMq
	oMo
	oMy
	oMt
	oMp // far pointer
	oMs // descriptor table register
	oMf // fxsave area
	oM6 // 64 bytes
	oMx // vector length
	// x87, MMX, vectors, masks.
	oSTi
	oPq
	oQq
	oQd
	oNq
	oV
	oVo
	oH
	oHo
	oW
	oWo
	oWx // the count of a vector shift: as oWo
	oWb
	oWw
	oWd
	oWq
	oWh
	oWf
	oWe
	oWy
	oL // register in the immediate's high bits
	oKg
	oKv
	oKr
	oKb
	oKw
	oKd
	oKq
	numOperands
)

// A shape tells how an operand is taken apart.
type shape uint8

const (
	shFixed  shape = iota
	shFixedV       // accumulator of operand size
	shG            // general register in reg
	shE            // general register or memory in rm
	shB            // general register in vvvv
	shZ            // general register in the opcode
	shSreg         // segment register in reg
	shCR           // control register in reg
	shDR           // debug register in reg
	shImm          // immediate
	shImmS         // immediate, sign-extended to the operand size
	shRel          // jump
	shMoffs        // absolute address
	shSI           // string source
	shDI           // string destination
	shBX           // xlat
	shST           // x87 register in rm
	shMMX          // MMX register in reg
	shMMXE         // MMX register or memory in rm
	shVec          // vector register in reg
	shVecV         // vector register in vvvv
	shVecE         // vector register or memory in rm
	shVecI         // vector register in an immediate
	shMask         // mask register in reg
	shMaskV        // mask register in vvvv
	shMaskE        // mask register or memory in rm
)

// Sizes below 0x80 are bytes, the others depend on the instruction.
const (
	szV  = 0x80 + iota // operand size
	szZ                // operand size, at most 4
	szY                // 4, or 8 with REX.W
	szA                // address size
	szX                // vector length
	szXh               // half
	szXf               // a quarter
	szXe               // an eighth
	szP                // far pointer: 2 and operand size
	szWv               // operand size for a register, 2 for memory
	szDb               // 4 for a register, 1 for memory
	szDw               // 4 for a register, 2 for memory
)

// What rm must be.
const (
	rmAny = iota
	rmMem
	rmReg
)

type operandSpec struct {
	shape shape
	size  uint8
	rm    uint8
	reg   Reg // of shFixed
}

var operandSpecs = [numOperands]operandSpec{
	oAL: {shape: shFixed, size: 1, reg: x86asm.AL}, oCL: {shape: shFixed, size: 1, reg: x86asm.CL},
	oDX: {shape: shFixed, size: 2, reg: x86asm.DX}, oAX: {shape: shFixed, size: 2, reg: x86asm.AX},
	oECX: {shape: shFixed, size: 4, reg: x86asm.ECX}, oEDX: {shape: shFixed, size: 4, reg: x86asm.EDX},
	oEAX: {shape: shFixed, size: 4, reg: x86asm.EAX}, oEBX: {shape: shFixed, size: 4, reg: x86asm.EBX},
	oFS: {shape: shFixed, size: 2, reg: x86asm.FS}, oGS: {shape: shFixed, size: 2, reg: x86asm.GS},
	oST: {shape: shFixed, size: 10, reg: x86asm.F0}, oX0: {shape: shFixed, size: 16, reg: x86asm.X0},
	oaAX: {shape: shFixedV, size: szA}, orAX: {shape: shFixedV, size: szV}, ozAX: {shape: shFixedV, size: szZ},
	o1: {shape: shImm},

	oEb: {shape: shE, size: 1}, oEw: {shape: shE, size: 2}, oEd: {shape: shE, size: 4}, oEq: {shape: shE, size: 8},
	oEv: {shape: shE, size: szV}, oEy: {shape: shE, size: szY},
	oEwv: {shape: shE, size: szWv}, oEdb: {shape: shE, size: szDb}, oEdw: {shape: shE, size: szDw},
	oGb: {shape: shG, size: 1}, oGd: {shape: shG, size: 4}, oGq: {shape: shG, size: 8},
	oGv: {shape: shG, size: szV}, oGy: {shape: shG, size: szY}, oGa: {shape: shG, size: szA},
	oRd: {shape: shE, size: 4, rm: rmReg}, oRq: {shape: shE, size: 8, rm: rmReg}, oRv: {shape: shE, size: szV, rm: rmReg},
	oRy: {shape: shE, size: szY, rm: rmReg}, oRa: {shape: shE, size: szA, rm: rmReg},
	oBy: {shape: shB, size: szY},
	oSw: {shape: shSreg, size: 2}, oCq: {shape: shCR, size: 8}, oDq: {shape: shDR, size: 8},
	oZb: {shape: shZ, size: 1}, oZv: {shape: shZ, size: szV},

	oIb: {shape: shImm, size: 1}, oIw: {shape: shImm, size: 2}, oIv: {shape: shImm, size: szV},
	oIbs: {shape: shImmS, size: 1}, oIz: {shape: shImmS, size: szZ},
	oJb: {shape: shRel, size: 1}, oJz: {shape: shRel, size: 4},
	oOb: {shape: shMoffs, size: 1}, oOv: {shape: shMoffs, size: szV},
	oXb: {shape: shSI, size: 1}, oXv: {shape: shSI, size: szV}, oXz: {shape: shSI, size: szZ}, oXl: {shape: shBX, size: 1},
	oYb: {shape: shDI, size: 1}, oYv: {shape: shDI, size: szV}, oYz: {shape: shDI, size: szZ},

	oM: {shape: shE, rm: rmMem}, oMb: {shape: shE, size: 1, rm: rmMem}, oMw: {shape: shE, size: 2, rm: rmMem},
	oMd: {shape: shE, size: 4, rm: rmMem}, oMq: {shape: shE, size: 8, rm: rmMem}, oMo: {shape: shE, size: 16, rm: rmMem},
	oMy: {shape: shE, size: 32, rm: rmMem}, oMt: {shape: shE, size: 10, rm: rmMem}, oMp: {shape: shE, size: szP, rm: rmMem},
	oMs: {shape: shE, size: 10, rm: rmMem}, oMf: {shape: shE, size: 0, rm: rmMem}, oM6: {shape: shE, size: 64, rm: rmMem},
	oMx: {shape: shVecE, size: szX, rm: rmMem},

	oSTi: {shape: shST, size: 10},
	oPq:  {shape: shMMX, size: 8}, oQq: {shape: shMMXE, size: 8}, oQd: {shape: shMMXE, size: 4}, oNq: {shape: shMMXE, size: 8, rm: rmReg},
	oV: {shape: shVec, size: szX}, oVo: {shape: shVec, size: 16}, oH: {shape: shVecV, size: szX}, oHo: {shape: shVecV, size: 16},
	oW: {shape: shVecE, size: szX}, oWo: {shape: shVecE, size: 16}, oWx: {shape: shVecE, size: 16},
	oWb: {shape: shVecE, size: 1}, oWw: {shape: shVecE, size: 2}, oWd: {shape: shVecE, size: 4}, oWq: {shape: shVecE, size: 8},
	oWh: {shape: shVecE, size: szXh}, oWf: {shape: shVecE, size: szXf}, oWe: {shape: shVecE, size: szXe},
	oWy: {shape: shVecE, size: 32}, oL: {shape: shVecI, size: szX},
	oKg: {shape: shMask, size: 8}, oKv: {shape: shMaskV, size: 8}, oKr: {shape: shMaskE, size: 8, rm: rmReg},
	oKb: {shape: shMaskE, size: 1}, oKw: {shape: shMaskE, size: 2}, oKd: {shape: shMaskE, size: 4}, oKq: {shape: shMaskE, size: 8},
}
