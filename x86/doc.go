// Package x86 decodes x86-64 machine code as kernels contain it, formats it the
// way objdump does, and tells what an instruction does to memory and to the
// flow of control.
//
// [Inst.Effects] tells which registers, flags and memory an instruction reads and
// writes, byte by byte. Its judge is the machine of package emulate.
//
// The encodings are data: gen/insns.txt, compiled into a decision tree. The
// external judge of the package is GNU objdump (see TestObjdump). Registers are
// those of golang.org/x/arch/x86/x86asm; its decoder is not used, because it
// allocates for every memory operand and returns some instructions, endbr64
// among them, as an invalid one without an error.
package x86

//go:generate go run ./gen -o tables.go gen/insns.txt
