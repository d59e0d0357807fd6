// Package typeflow follows, beside a run of machine code, which typed C expression
// each register and each stack cell holds: that rax is
// cpu_buffer->head_page->read, and not only that it is 0xff0.
//
// A [Flow] is an [emulate.Observer]. Types come in with the prototypes of the
// functions that are entered, with variables, and with `current`; they flow
// through loads, spills, pointer arithmetic, masks, calls and returns. What
// comes out are events (loads, stores, calls, returns, conditions), each
// with its operands as C.
//
// Nothing is guessed. The machine runs, so every abstract value is checked
// against the register or the memory it stands for, and dropped where they
// differ. What has no certain type keeps the name of its origin:
// *(u32 *)(x + 0x18).
package typeflow
