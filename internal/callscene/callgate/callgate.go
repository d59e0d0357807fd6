// Package callgate is what the host and the guest of internal/callscene share:
// the code that lets a process call functions of its kernel, and what is said
// of a call.
package callgate

// Code replaces the code of getpgid(2), in hexadecimal. It jumps to the function
// that the system call's first argument names, with the other five as its
// arguments; what the function returns in RAX is the system call's answer.
//
// RDI points at struct pt_regs, whose registers have the order of
// arch/x86/include/asm/ptrace.h. The code is shorter than getpgid(2) everywhere.
const Code = "488b4770" + // mov 0x70(%rdi),%rax: di
	"488b7760" + // mov 0x60(%rdi),%rsi: dx
	"488b5738" + // mov 0x38(%rdi),%rdx: r10
	"488b4f48" + // mov 0x48(%rdi),%rcx: r8
	"4c8b4740" + // mov 0x40(%rdi),%r8: r9
	"488b7f68" + // mov 0x68(%rdi),%rdi: si
	"ffe0" // jmp *%rax

// MaxArgs is how many arguments a function can be given.
const MaxArgs = 5

// Path is the file of the guest with the records. Done is the line of the console
// that says that it is complete, Failed how the line begins that says why there
// is none.
const (
	Path   = "/calls.jsonl"
	Done   = "callscene: all calls are made"
	Failed = "callscene: failed: "
)

// A Record is one call and the kernel's answer.
type Record struct {
	Func    string   `json:"func"`
	Args    []string `json:"args"`     // the argument registers, in hexadecimal
	Ret     string   `json:"ret"`      // all of RAX
	RetSize int      `json:"ret_size"` // of the return type in bytes: 1 to 8
	RetType string   `json:"ret_type"`
	// Text is the call as the table has it, for people.
	Text    string   `json:"text"`
	Buffers []Buffer `json:"buffers,omitempty"`
	PID     int      `json:"pid"` // of the process whose main thread called
	CPU     int      `json:"cpu"`
}

// A Buffer is memory of the kernel that was made for one call.
type Buffer struct {
	Arg    int    `json:"arg"` // which argument leads to it
	Addr   string `json:"addr"`
	Before string `json:"before"` // in hexadecimal
	After  string `json:"after"`
}
