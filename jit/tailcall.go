package jit

import (
	"fmt"
	"strings"
)

// Parts of the tail calls: emit_bpf_tail_call_indirect and _direct.
const (
	tcBounds = "mov %edx,%edx; cmp %edx,{max}(%rsi); jbe {end}"
	// By value: at most 33 calls either way (ebf7f6f0a6cd, 5.17, changed the
	// test to agree with MAX_TAIL_CALL_CNT 33).
	tcValue      = "mov {slot}(%rbp),%eax; cmp ${limit},%eax; (ja|jae) {end}"
	tcValueCount = "add $0x1,%eax; mov %eax,{slot}(%rbp)"
	tcPtr        = "mov {slot}(%rbp),%rax; cmpq ${limit},(%rax); jae {end}"
	tcPtrCount   = "addq $0x1,(%rax)"
	tcSlot       = "mov {ptrs}(%rsi,%rdx,8),%rcx; test %rcx,%rcx; je {end}"
	// The registers come back in the opposite order of their pushes.
	tcPops   = "?pop %r15; ?pop %r14; ?pop %r13; ?pop %rbx; ?pop %r12"
	tcPopOne = "pop %rax; ?add ${stack},%rsp"
	tcPopTwo = "pop %rax; pop %rax; ?add ${stack},%rsp"
	tcEntry  = "mov {func}(%rcx),%rcx; add ${past},%rcx"
)

// tcJumps are the ways of the indirect jump at the end (emit_indirect_jump).
var tcJumps = []step{
	{code: "jmp {thunk}", note: "jump to it: {name:thunk}"},
	{code: "lfence; jmp *%rcx", note: "jump to it, after a speculation barrier"},
	{code: "jmp *%rcx; ?int3", note: "jump to it"},
	// A retpoline of its own, before 5.15.
	{code: "call {do}; @spin; pause; lfence; jmp {spin}; @do; mov %rcx,(%rsp); ret", note: "jump to it, by a retpoline"},
}

var tailCallIdioms = buildTailCalls()

// buildTailCalls puts the tail calls together: indirect or direct, the count
// by value or by pointer.
func buildTailCalls() []idiom {
	var out []idiom
	bounds := step{code: tcBounds, say: sayBounds}
	slot := step{code: tcSlot, note: "take the program in the slot; go on if it is empty"}
	entry := step{code: tcEntry, say: sayEntry}
	pops := step{code: tcPops, say: sayPops}
	value := step{code: tcValue, say: sayLimit}
	valueCount := step{code: tcValueCount, note: "count this tail call"}
	valueFrame := step{code: tcPopOne, note: "count goes on in rax; give up the frame"}
	ptr := step{code: tcPtr, say: sayLimit}
	ptrCount := step{code: tcPtrCount, note: "count this tail call"}
	ptrFrame := step{code: tcPopTwo, note: "pointer to the count goes on in rax; give up the frame"}
	for _, jump := range tcJumps {
		out = append(out,
			idiom{steps: []step{bounds, value, valueCount, slot, pops, valueFrame, entry, jump}, when: isTailCall},
			idiom{steps: []step{bounds, ptr, slot, ptrCount, pops, ptrFrame, entry, jump}, when: isTailCall})
	}
	bypasses := []step{
		{code: "jmp {end}", note: "poke site: no program in the slot, go on"},
		{code: "NOP5", note: "poke site: there is a program in the slot"},
	}
	targets := []step{
		{code: "NOP5", note: "poke site: the jump to the slot's program comes here"},
		{code: "jmp {target}", say: sayTarget},
	}
	for _, bypass := range bypasses {
		for _, target := range targets {
			out = append(out,
				idiom{steps: []step{value, valueCount, bypass, pops, valueFrame, target}, when: isTailCall},
				idiom{steps: []step{ptr, bypass, ptrCount, pops, ptrFrame, target}, when: isTailCall})
		}
	}
	return out
}

// isTailCall checks what must hold of a tail call beyond its instructions: the
// count lies where the prologue put it, and the frame is given up as a whole.
func isTailCall(r *reader, p *Prologue) bool {
	if int(r.m.num("stack")) != p.StackSize {
		return false
	}
	slot := int(r.m.num("slot"))
	if p.CountBy == CountValue {
		// The count is an int: the upper half of what push %rax put there.
		return slot == p.CountSlot+4
	}
	return p.CountBy == CountPointer && slot == p.CountSlot
}

func sayBounds(r *reader, _ *Prologue) string {
	return "tail call: index (R3) below max_entries" + r.ofMap()
}

// ofMap names the map whose address was last loaded into R2, close before.
func (r *reader) ofMap() string {
	if s, ok := r.before("%rsi", 8); ok && r.opts.MapAt != nil {
		if name := r.opts.MapAt(number64(s)); name != "" {
			return " of " + name
		}
	}
	return ""
}

// before returns the constant that a register was loaded with within the last
// instructions.
func (r *reader) before(reg string, back int) (string, bool) {
	for i := r.i - 1; i >= max(r.i-back, 0); i-- {
		m := new(match)
		if r.insn(m, "(movabs|mov) ${k},"+reg, i) {
			return m.get("k")
		}
		if strings.HasSuffix(r.text[i], ","+reg) {
			return "", false // loaded with something else
		}
	}
	return "", false
}

// sayLimit words the test of the count: the instructions are load, cmp and a
// jump that is taken at (jae) or only above (ja) the number.
func sayLimit(r *reader, p *Prologue) string {
	limit := r.m.num("limit")
	if strings.HasPrefix(r.text[r.i+2], "ja ") {
		limit++
	}
	what := ""
	if !r.m.has("max") {
		what = "tail call"
		if key, ok := r.before("%edx", 8); ok {
			what += fmt.Sprintf(" to slot %d%s", number(key), r.ofMap())
		}
		what += ", "
	}
	return fmt.Sprintf("%sif fewer than %d came before it", what, limit)
}

func sayPops(r *reader, p *Prologue) string { return "restore " + bpfNames(p.Saved) }

func sayEntry(r *reader, p *Prologue) string {
	return fmt.Sprintf("its code, past attach point and count reset (+%d)", r.m.num("past"))
}

func sayTarget(r *reader, _ *Prologue) string {
	return "poke site: to " + r.sym(r.m.addr("target"))
}

// bpfNames names registers for BPF: R6 R7.
func bpfNames(regs []string) string {
	out := make([]string, len(regs))
	for i, r := range regs {
		out[i] = bpfReg(r)
	}
	return strings.Join(out, " ")
}
