// Package emulate runs x86-64 machine code of a target offline: on a
// copy-on-write view of its memory, with a record of what every instruction did,
// so that for every byte of a register or of memory can be told which
// instruction made it and from which loads.
//
// A [Machine] is one CPU, a [Memory] what it sees: pages come from the target
// when first touched, and what is written stays here. A run ends with a [Stop]
// that says why: the function returned, memory was missing, an instruction
// cannot be executed, a limit was reached, the machine is in an endless loop.
//
// The package knows nothing of kernels. Package rerun calls a kernel's
// functions on it. Its external judge is Unicorn (see the tests with build tag
// unicorn). The semantics are those of the Intel SDM, volumes 1 and 2; where it
// leaves flags undefined, the package does what its comments say.
package emulate
