package jit

import (
	"fmt"

	"github.com/ksleuth/ksleuth/x86"
)

// A TrampolineCode is what a trampoline's code does (arch_prepare_bpf_trampoline).
type TrampolineCode struct {
	Len       int // bytes, without padding
	StackSize int
	// Args is how many words of arguments it saves, which are the context of
	// its programs; Ctx is where, an offset from rbp.
	Args int
	Ctx  int
	// FuncIP is the address of the traced function, where the code has it for
	// bpf_get_func_ip; 0 if not.
	FuncIP uint64
	// Enters: it keeps its image alive while the function runs
	// (__bpf_tramp_enter, __bpf_tramp_exit); e21aa341785c, 5.12 and stable.
	Enters bool
	// Image is the struct bpf_tramp_image it tells them, or 0.
	Image uint64
	Runs  []Run // in the order of the code
	// Calls: it calls the function it hangs on. Original is where it enters
	// it; 0 if it reads that from the stack.
	Calls    bool
	Original uint64
	// SavesReturn: it keeps the return value of the function, or of the
	// program that stands for it.
	SavesReturn bool
	// SkipsFrame: it returns to the caller of the function. Otherwise it
	// returns into the function, or the function's caller jumped here.
	SkipsFrame bool
	// KeepsTailCalls: it saves rax, the tail-call count of BPF code, when it
	// begins and loads it again before it goes to the function (2b5dcb31a19a,
	// 6.7). A trampoline of kernel code does not, on any kernel, nor one of
	// BPF code that makes no tail calls. It is nil where the question does
	// not arise: it goes to no function, or the options say that the function
	// takes no count.
	KeepsTailCalls *bool
	// Evidence are the instructions that tell so, formatted; EvidenceAt where
	// they are. A trampoline that loses the count: the call that changes rax
	// last, if there is one, and the one that goes to the function.
	Evidence   []string
	EvidenceAt []uint64
}

// A Run is one program that a trampoline runs.
type Run struct {
	Enter  uint64 // the function called before it
	Prog   uint64 // where the program's code is called
	Exit   uint64 // the function called after it
	Struct uint64 // the struct bpf_prog it tells them, or 0
	Cookie uint64 // bpf_cookie of its link (2fcc82411e74, 5.19)
	// After: it runs after the function was called.
	After bool
	// Returns: its return value is kept, as of fmod_ret programs.
	Returns bool
	// May be left out: Enter says so by returning 0 (ca06f55b9002, 5.12).
	Skippable bool
}

// A NotTrampolineError says that code is no trampoline this package knows.
type NotTrampolineError struct {
	Addr uint64 // where it ceases to be one
	What string
}

// Error says where and what.
func (e *NotTrampolineError) Error() string {
	return fmt.Sprintf("no trampoline of BPF: at %#x: %s", e.Addr, e.What)
}

// ReadTrampoline reads the code of a trampoline at addr, which may be followed
// by padding. Of the options, Sym must name the kernel's functions, or only
// part of the code is understood. With an error, which is a
// [*NotTrampolineError], comes what was read.
func ReadTrampoline(b []byte, addr uint64, o Options) (TrampolineCode, error) {
	c, _ := decode(b, addr, o)
	return c.trampoline(nil)
}

// A tramp walks through a trampoline.
type tramp struct {
	reader
	TrampolineCode
	meta    int64  // offset of the number of arguments
	obj     uint64 // struct bpf_prog of the run begun last
	cookie  uint64
	saved   int // instruction that saves rax, -1 if none
	reload  int // the last that loads it again
	clobber int // the last call before the function, after which rax is something else
	leave   int // the call of the function, or the return into it
	ended   bool
}

func (c *code) trampoline(notes *[]Note) (TrampolineCode, error) {
	t := &tramp{reader: reader{code: c, m: new(match), notes: notes}, saved: -1, reload: -1, clobber: -1, leave: -1}
	err := t.read()
	if err != nil {
		if notes != nil {
			*notes = (*notes)[:0]
		}
		return t.TrampolineCode, err
	}
	t.verdict()
	return t.TrampolineCode, nil
}

func (t *tramp) read() error {
	t.entry()
	if !t.take("push %rbp; mov %rsp,%rbp", "set up the frame") {
		return t.no("it does not set up a frame")
	}
	n := t.fit("sub ${stack},%rsp")
	if n == 0 {
		return t.no("it makes no room on the stack")
	}
	t.StackSize = int(t.m.num("stack"))
	t.step(n, "room for arguments, return value and more")
	t.saves()
	for !t.ended {
		if t.i >= len(t.insts) {
			return t.no("it does not return")
		}
		if t.part() {
			continue
		}
		if t.insts[t.i].Flow() != x86.FlowNext {
			return t.no("not what a trampoline has: " + t.text[t.i])
		}
		t.i++
	}
	if len(t.Runs) == 0 || t.Runs[0].Prog == 0 {
		return t.no("it runs no program")
	}
	t.Len = t.off(t.i)
	t.take("int3; *int3", "padding")
	return nil
}

func (t *tramp) no(what string) error { return &NotTrampolineError{t.at(t.i), what} }

// entry reads what may stand before the frame: what an indirect call of a
// struct_ops image needs, and the accounting of call depth.
func (t *tramp) entry() {
	if t.endbr("indirect calls come here (CET)") {
		t.take("sub ${hash},%eax; jne {bad}", "FineIBT: is it a call of this type?")
		t.endbr("")
	}
	t.take("sarq $0x5,%gs:{depth}", "call depth accounting")
}

// saves reads what is put on the stack before all else.
func (t *tramp) saves() {
	const rbx = "keep rbx, which will hold a start time"
	for {
		switch {
		case t.saved < 0 && t.take("push %rax", "keep the tail-call count, or the pointer to it"):
			t.saved = t.i - 1
		case t.take("push %rbx", rbx):
		case t.fit("mov %rbx,{rbx}(%rbp)") > 0:
			t.step(1, rbx)
		default:
			return
		}
	}
}

// verdict says whether the trampoline keeps the tail-call count.
func (t *tramp) verdict() {
	if t.opts.Kind == StructOps || t.leave < 0 {
		return
	}
	keeps := t.saved >= 0 && t.reload > t.clobber && t.reload < t.leave
	if !keeps && !t.wantsCount() {
		return
	}
	t.KeepsTailCalls = &keeps
	show := []int{t.clobber, t.leave}
	if keeps {
		show = []int{t.saved, t.reload, t.leave}
	}
	for _, i := range show {
		if i >= 0 {
			t.Evidence = append(t.Evidence, t.show(i))
			t.EvidenceAt = append(t.EvidenceAt, t.at(i))
		}
	}
}

// wantsCount says that the function is known to take a tail-call count: the
// options say so, or it is BPF code, which the options do not deny.
func (t *tramp) wantsCount() bool {
	if t.opts.TailCallReachable != nil {
		return *t.opts.TailCallReachable
	}
	if t.opts.Sym == nil || t.Original == 0 {
		return false
	}
	name, _, ok := t.opts.Sym(t.Original)
	if !ok {
		return false
	}
	_, ok = functionName(name)
	return ok
}
