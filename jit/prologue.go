package jit

import (
	"fmt"
	"strings"
)

// CountBy tells how a function gets the number of tail calls made so far.
type CountBy uint8

// The ways of the tail-call count.
const (
	CountNone    CountBy = iota // it makes no tail calls and needs no count
	CountValue                  // rax is the count; each function has its own copy (ebf7d1f508a7, 5.10)
	CountPointer                // rax is a pointer to the one count (116e04ba1459, 6.12)
)

// String returns "none", "value" or "pointer".
func (c CountBy) String() string {
	switch c {
	case CountValue:
		return "value"
	case CountPointer:
		return "pointer"
	}
	return "none"
}

// An AttachPoint is the place in a function that the kernel patches to have a
// trampoline, or the program that replaces the function, run.
type AttachPoint struct {
	Addr   uint64
	Patch  string // "nop": nothing attached; "call" or "jmp"
	Target uint64 // where call or jmp go
}

// A Prologue is the entry of a function of a program (emit_prologue).
type Prologue struct {
	Len    int  // bytes
	Endbr  bool // begins with endbr64, or its poisoned form
	Attach AttachPoint
	// Classic: there is no room for the reset of the count, as in programs
	// made from classic filters.
	Classic bool
	// Resets: it sets the count to 0, as the main function of a program that
	// is tail-call reachable does.
	Resets  bool
	CountBy CountBy
	// CountSlot is where the count, or the pointer to it, is kept: an offset
	// from rbp.
	CountSlot int
	StackSize int      // bytes of BPF stack below rbp
	Saved     []string // callee-saved registers pushed: rbx, r13, ...
	// Exception: the entry of a callback of bpf_throw, which takes over the
	// frame of the main function.
	Exception bool
	// ArenaBase is the address of the arena that r12 is loaded with, or 0.
	ArenaBase uint64
	// PrivateStack: the BPF stack is per-CPU memory that r9 points to
	// (7d1cd70d4b16, 6.13).
	PrivateStack bool
	// TailCallEntry is the offset at which tail calls enter: past attach point
	// and reset (X86_TAIL_CALL_OFFSET).
	TailCallEntry int
}

// ReadPrologue reads the entry of a function at addr. It tells false if the
// code does not begin as the functions of a program do.
func ReadPrologue(b []byte, addr uint64) (Prologue, bool) {
	const enough = 160 // more than any prologue
	c, _ := decode(b[:min(len(b), enough)], addr, Options{})
	p, _, ok := c.prologue(nil)
	return p, ok
}

// A reader walks through code and writes notes.
type reader struct {
	*code
	m     *match
	i     int
	notes *[]Note
}

// take matches instructions and steps past them, with a note if text says one.
func (r *reader) take(pattern, text string) bool {
	n, ok := r.seq(r.m, pattern, r.i)
	if !ok || n == 0 {
		return false
	}
	r.note(n, text)
	r.i += n
	return true
}

// note writes a note on the next n instructions.
func (r *reader) note(n int, text string) {
	if r.notes != nil && text != "" {
		*r.notes = append(*r.notes, Note{r.off(r.i), r.off(r.i+n) - r.off(r.i), text})
	}
}

// endbrs are the forms of endbr64, and the nops it is made where no indirect
// branch may come (gen_endbr_poison).
var endbrs = []string{"endbr64", "nopw (%rax)", "nopl -0x2a(%rax)"}

func (r *reader) endbr(text string) bool {
	for _, p := range endbrs {
		if r.take(p, text) {
			return true
		}
	}
	return false
}

// prologue reads the entry, and returns the number of its instructions.
func (c *code) prologue(notes *[]Note) (p Prologue, n int, ok bool) {
	r := &reader{code: c, m: new(match), notes: notes}
	p.Endbr = r.endbr("indirect calls may come here (CET)")
	if !r.attach(&p) {
		return p, 0, false
	}
	by, reset, nreset := r.reset(&p)
	switch {
	case r.take("push %rbp; mov %rsp,%rbp", "set up the frame"):
		p.TailCallEntry = r.off(r.i)
		entry := "tail calls come in here"
		if c.opts.Kind != Program || p.Classic {
			entry = "" // none can: it is there for the same layout
		}
		r.endbr(entry)
	case r.take("mov %rsi,%rsp; mov %rdx,%rbp", "callback of bpf_throw: take over the main function's frame") &&
		r.take("pop %r15; pop %r14; pop %r13; pop %rbx; pop %r12", "restore what the main function saved") &&
		r.take("mov %rbp,%rsp", "reuse its frame"):
		p.Exception = true
		p.TailCallEntry = r.off(r.i)
		r.endbr("")
	default:
		return p, 0, false
	}
	r.frame(&p, by)
	if p.Classic && !r.classic() {
		return p, 0, false
	}
	r.resetNote(&p, reset, nreset)
	p.Len = r.off(r.i)
	return p, r.i, true
}

// classic says that the body begins as that of a program made from a classic
// filter does: A and X, which are R0 and R7, are 0, and R6 is the context
// (bpf_convert_filter). Much code of compilers has the rest of the entry.
func (r *reader) classic() bool {
	_, ok := r.seq(new(match), "xor (%eax,%eax|%rax,%rax); xor (%r13d,%r13d|%r13,%r13); mov %rdi,%rbx", r.i)
	return ok
}

// attach reads the attach point.
func (r *reader) attach(p *Prologue) bool {
	p.Attach = AttachPoint{Addr: r.at(r.i), Patch: "nop"}
	if r.take("NOP5", "attach point: nothing attached") {
		return true
	}
	for _, patch := range []string{"call", "jmp"} {
		n, ok := r.seq(r.m, patch+" {tramp}", r.i)
		if !ok || r.insts[r.i].Len != 5 {
			continue
		}
		p.Attach.Patch, p.Attach.Target = patch, r.m.addr("tramp")
		what := "attach point: to "
		if patch == "jmp" && !isTrampoline(r.symbol(p.Attach.Target)) {
			what = "attach point: replaced by "
		}
		r.note(n, what+r.sym(p.Attach.Target))
		r.i += n
		return true
	}
	return false
}

// isTrampoline tells a trampoline by its symbol; one without a symbol may be
// any.
func isTrampoline(symbol string) bool {
	return symbol == "" || strings.HasPrefix(symbol, "bpf_trampoline_")
}

// resets are what stands between attach point and frame: room for the reset of
// the count, and how functions of that kernel get the count if they need one.
var resets = []struct {
	code  string
	zero  bool
	count CountBy
}{
	{"xor %eax,%eax", true, CountValue}, // ebf7d1f508a7, 5.10
	{"NOP2", false, CountValue},
	{"xor %rax,%rax", true, CountPointer}, // 116e04ba1459, 6.12
	{"NOP3", false, CountPointer},
}

// reset reads the room for the reset of the count. In main functions the note
// stands at once; what the room of others means, resetNote tells when it is
// known whether they need the count.
func (r *reader) reset(p *Prologue) (by CountBy, at, n int) {
	for _, f := range resets {
		at, n = r.i, 1
		if r.take(f.code, "") {
			p.Resets = f.zero
			return f.count, at, n
		}
	}
	p.Classic = true
	return CountNone, r.i, 0
}

func (r *reader) resetNote(p *Prologue, at, n int) {
	if n == 0 {
		return
	}
	text := "no tail-call count to reset"
	switch {
	case p.Resets:
		text = "tail-call count = 0, unless it came in by a tail call"
	case p.CountBy != CountNone:
		text = "no reset: the tail-call count is the caller's"
	}
	r.i, at = at, r.i
	r.note(n, text)
	r.i = at
}

// frame reads the rest: stack, count, saved registers.
func (r *reader) frame(p *Prologue, by CountBy) {
	if r.take("sub ${stack},%rsp", "") {
		p.StackSize = int(r.m.num("stack"))
		r.renote(1, fmt.Sprintf("BPF stack: %d bytes", p.StackSize))
	}
	r.countInit(p, by)
	r.saved(p)
	if n, ok := r.seq(r.m, "(movabs|mov) ${arena},%r12", r.i); ok && contains(p.Saved, "r12") {
		p.ArenaBase = r.m.addr("arena")
		r.note(n, "r12 = base of the arena in the kernel")
		r.i += n
	}
	if r.take("(movabs|mov) ${priv},%r9; add %gs:{off},%r9", "r9 = private stack of this CPU, in place of R10") {
		p.PrivateStack = true
	}
}

// countInit reads where the count is put. The first instruction of the body can
// be a push of rax too: that of a division.
func (r *reader) countInit(p *Prologue, by CountBy) {
	const main = "cmp $0x21,%rax; ja {ptr}; push %rax; mov %rsp,%rax; jmp {both}; @ptr; push %rax; @both; push %rax"
	needs := p.Resets || r.opts.Kind != Program
	if _, ok := r.seq(new(match), main, r.i); ok && by == CountPointer {
		r.take("cmp $0x21,%rax; ja {ptr}", "rax above 33 points to the tail-call count")
		r.take("push %rax; mov %rsp,%rax; jmp {both}", "else rax is the count: put it here and point to it")
		r.take("push %rax", "(same layout)")
		r.take("push %rax", "keep the pointer to the tail-call count")
		p.CountBy, p.CountSlot = CountPointer, -p.StackSize-16
		return
	}
	if !needs || by == CountNone {
		return
	}
	_, div := r.seq(new(match), "push %rax; push %rdx", r.i)
	_, divRdx := r.seq(new(match), "push %rax; ?mov {%s},%r11; ?mov ${k},%r11; mov (%edx,%eax|%rdx,%rax)", r.i)
	switch {
	case by == CountPointer && !p.Resets && r.take("push %rax; push %rax", "keep the pointer to the tail-call count"):
		p.CountBy, p.CountSlot = CountPointer, -p.StackSize-16
	case by == CountValue && (p.Resets || !div && !divRdx) && r.take("push %rax", "keep the tail-call count"):
		p.CountBy, p.CountSlot = CountValue, -p.StackSize-8
	}
}

// saved reads the pushes of callee-saved registers, which come in one order
// and each at most once.
func (r *reader) saved(p *Prologue) {
	start := r.i
	for _, reg := range []string{"r12", "rbx", "r13", "r14", "r15"} {
		if r.take("push %"+reg, "") {
			p.Saved = append(p.Saved, reg)
		}
	}
	n := r.i - start
	if n == 0 {
		return
	}
	r.i = start
	text := "save " + savedNames(p.Saved)
	if len(p.Saved) == 5 {
		text += ": all, for bpf_throw"
	}
	r.note(n, text)
	r.i += n
}

func savedNames(regs []string) string {
	out := make([]string, len(regs))
	for i, reg := range regs {
		out[i] = reg
		if b, ok := bpfRegs[reg]; ok {
			out[i] += "=" + b
		}
	}
	return strings.Join(out, " ")
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// renote writes a note on the n instructions just taken.
func (r *reader) renote(n int, text string) {
	r.i -= n
	r.note(n, text)
	r.i += n
}
