package jit

import (
	"fmt"
	"slices"
	"strings"
)

// programIdioms are the idioms of a function's body, the longer ones first.
var programIdioms = slices.Concat(tailCallIdioms, mapIdioms, probeIdioms, callIdioms, bodyIdioms)

// arrayScale multiplies the index by the size of a value. Up to 5.16 the JIT
// compiler had but the one-operand mul, which overwrites rdx.
const arrayScale = "?push %rdx; ?mov %rax,%r11; ?mov ${size},%eax; ?mul %r11; ?pop %rdx; " +
	"?shl ${bits},%rax; ?shl $1,%rax; ?shl %rax; ?imul ${size},%rax,%rax"

// mapIdioms are look-ups that the verifier wrote in place of the call
// (map_gen_lookup of kernel/bpf/{arraymap,hashtab}.c).
var mapIdioms = []idiom{
	{steps: []step{ // array
		{code: "add ${val},%rdi", note: "array look-up, inlined: to the first value"},
		{code: "mov 0x0(%rsi),%eax; cmp ${max},%rax; jae {null}", note: "the index; NULL from {dec:max} on"},
		{code: "?and ${mask},%eax", note: "Spectre v1: never beyond the array"},
		{code: arrayScale + "; add %rdi,%rax", note: "R0 = the value"},
		{code: "jmp {end}; @null; xor %eax,%eax", note: "or NULL"},
	}},
	{steps: []step{ // array of maps
		{code: "add ${val},%rdi", note: "array of maps look-up, inlined: to the first slot"},
		{code: "mov 0x0(%rsi),%eax; cmp ${max},%rax; jae {null}", note: "the index; NULL from {dec:max} on"},
		{code: "?and ${mask},%eax", note: "Spectre v1: never beyond the array"},
		{code: arrayScale + "; add %rdi,%rax; mov 0x0(%rax),%rax", note: "R0 = the map in the slot"},
		{code: "test %rax,%rax; je {null}; jmp {end}; @null; xor %eax,%eax", note: "or NULL"},
	}},
	{steps: []step{ // per-CPU array (db69718b8efa, 6.10)
		{code: "add ${val},%rdi", note: "per-CPU array look-up, inlined: to the pointers"},
		{code: "mov 0x0(%rsi),%eax; cmp ${max},%rax; jae {null}", note: "the index; NULL from {dec:max} on"},
		{code: "?and ${mask},%eax", note: "Spectre v1: never beyond the array"},
		{code: "shl $0x3,%rax; add %rdi,%rax; mov 0x0(%rax),%rax", note: "the element's per-CPU pointer"},
		{code: "add %gs:{cpu},%rax", note: "R0 = this CPU's value"},
		{code: "jmp {end}; @null; xor %eax,%eax", note: "or NULL"},
	}},
	{steps: []step{ // LRU hash
		{code: "call {find}; test %rax,%rax; je {end}", note: "LRU hash look-up, inlined: find the element"},
		{code: "movzbq {ref}(%rax),%rdi; test %rdi,%rdi; jne {set}; movb $0x1,{ref}(%rax); @set", note: "mark it as used"},
		{code: "add ${off},%rax", note: "R0 = its value, behind the key"},
	}, when: isHashFind},
	{steps: []step{ // per-CPU hash
		{code: "call {find}; test %rax,%rax; je {end}", note: "per-CPU hash look-up, inlined: find the element"},
		{code: "add ${off},%rax; mov 0x0(%rax),%rax; add %gs:{cpu},%rax", note: "R0 = its value of this CPU"},
	}, when: isHashFind},
	{steps: []step{ // hash of maps
		{code: "call {find}; test %rax,%rax; je {end}", note: "hash of maps look-up, inlined: find the element"},
		{code: "add ${off},%rax; mov 0x0(%rax),%rax", note: "R0 = the map in it"},
	}, when: isHashFind},
	{steps: []step{ // hash
		{code: "call {find}; test %rax,%rax; je {end}", note: "hash look-up, inlined: find the element"},
		{code: "add ${off},%rax", note: "R0 = its value, behind the key"},
	}, when: isHashFind},
}

func isHashFind(r *reader, _ *Prologue) bool {
	return strings.HasSuffix(r.symbol(r.m.addr("find")), "htab_map_lookup_elem")
}

// loads are the instructions of emit_ldx and emit_ldsx.
const loads = "(mov|movzbq|movzwq|movsbq|movswq|movslq|movzbl|movzwl) {disp}({%src}),{%dst}"

// probeIdioms are loads through a pointer that may be stale (BPF_PROBE_MEM):
// one that is no kernel address gives 0, and so does one that faults.
var probeIdioms = []idiom{
	{steps: []step{ // 4 different forms: 66e13b615a0c, 6.10 and stable kernels
		{code: "(movabs|mov) ${vsyscall},%r10; mov {%src},%r11; ?add ${off},%r11; sub %r10,%r11; movabs ${limit},%r10; cmp %r10,%r11; ja {load}", note: "may be a bad pointer: is {reg:%src} one into the kernel?"},
		{code: "xor {%z},{%z}; jmp {end}", note: "no: 0"},
		{code: "@load; " + loads, note: "yes: load; 0 if it faults (exception table)"},
	}},
	{steps: []step{ // 90156f4bfa21, 5.19
		{code: "movabs ${limit},%r11; cmp %r11,{%src}; jb {zero}; mov {%src},%r11; add ${off},%r11; jae {load}", note: "may be a bad pointer: is {reg:%src} one into the kernel?"},
		{code: "@zero; xor {%z},{%z}; jmp {end}", note: "no: 0"},
		{code: "@load; " + loads, note: "yes: load; 0 if it faults (exception table)"},
	}},
	{steps: []step{ // 588a25e92458, 6.3
		{code: "movabs ${limit},%r11; ?add ${off},{%src}; cmp %r11,{%src}; jae {load}", note: "may be a bad pointer: is {reg:%src} one into the kernel?"},
		{code: "xor {%z},{%z}; jmp {after}", note: "no: 0"},
		{code: "@load; " + loads + "; @after", note: "yes: load; 0 if it faults (exception table)"},
		{code: "?sub ${off},{%src}", note: "{reg:%src} as it was"},
	}},
}

// callIdioms are calls.
var callIdioms = []idiom{
	{steps: []step{
		{code: "mov {slot}(%rbp),%rax", say: sayHandOn},
		{code: "call {f}", say: sayCall},
	}, when: func(r *reader, p *Prologue) bool {
		// The JIT writes this load with 32 bits of displacement always.
		return p.CountBy != CountNone && r.insts[r.i].Len == 7
	}},
	{steps: []step{
		{code: "push %r9", note: "keep the private stack pointer"},
		{code: "call {f}", say: sayCall},
		{code: "pop %r9", note: "the private stack pointer again"},
	}, when: func(_ *reader, p *Prologue) bool { return p.PrivateStack }},
	{steps: []step{
		{code: "push %rax; push %rcx; call {f}; pop %rcx; pop %rax", note: "clear the branch history (BHI): {name:f}"},
	}, when: isClearBHB},
	{steps: []step{{code: "call {f}", say: sayCall}}},
}

func isClearBHB(r *reader, _ *Prologue) bool {
	return strings.HasPrefix(r.symbol(r.m.addr("f")), "clear_bhb_loop")
}

// sayHandOn words the load of the count before a call.
func sayHandOn(r *reader, p *Prologue) string {
	what := "the tail-call count"
	if p.CountBy == CountPointer {
		what = "the pointer to the tail-call count"
	}
	if slot := int(r.m.num("slot")); slot != p.CountSlot {
		// ff672c67ee76, 5.19: the depth was not rounded up to 8 here.
		return fmt.Sprintf("meant to be %s, which is at %s", what, disp(p.CountSlot))
	}
	if _, ok := functionName(r.symbol(r.m.addr("f"))); !ok {
		return what + " (of no use to this callee)" // before every call up to 6.5
	}
	return "hand on " + what
}

// disp formats a displacement from rbp.
func disp(off int) string {
	if off < 0 {
		return "-" + hex(uint64(-off)) + "(%rbp)"
	}
	return hex(uint64(off)) + "(%rbp)"
}

// functionName takes the function's name out of the symbol of one of a
// program's: bpf_prog_TAG_NAME.
func functionName(symbol string) (string, bool) {
	const prefix, tag = "bpf_prog_", 16
	if !strings.HasPrefix(symbol, prefix) || len(symbol) < len(prefix)+tag {
		return "", false
	}
	rest := symbol[len(prefix):]
	for _, ch := range rest[:tag] {
		if !strings.ContainsRune("0123456789abcdef", ch) {
			return "", false
		}
	}
	if len(rest) < tag+2 || rest[tag] != '_' {
		return symbol, len(rest) == tag
	}
	return rest[tag+1:], true
}

// callees are functions of the kernel with a meaning of their own.
var callees = map[string]string{
	"bpf_throw":               "throw: the stack is unwound to the main function",
	"arch_bpf_timed_may_goto": "may_goto: is the time used up?",
	"clear_bhb_loop":          "clear the branch history (BHI)",
	"clear_bhb_loop_nofence":  "clear the branch history (BHI)",
}

// mapOps are the ends of the names of map operations, which the verifier
// calls directly instead of the helper (do_misc_fixups).
var mapOps = []struct{ suffix, what string }{
	{"_lookup_elem", "map look-up, called directly"},
	{"_update_elem", "map update, called directly"},
	{"_delete_elem", "map deletion, called directly"},
	{"_push_elem", "push to the map, called directly"},
	{"_pop_elem", "pop from the map, called directly"},
	{"_peek_elem", "peek into the map, called directly"},
	{"_lookup_percpu_elem", "map look-up for a CPU, called directly"},
}

func sayCall(r *reader, _ *Prologue) string { return r.callee(r.m.addr("f")) }

// callee says what a call is for; nothing if the function has no name.
func (r *reader) callee(addr uint64) string {
	name := r.symbol(addr)
	if name == "" {
		return ""
	}
	if f, ok := functionName(name); ok {
		return "call subprogram " + f
	}
	if what, ok := callees[name]; ok {
		return what
	}
	for _, op := range mapOps {
		if strings.HasSuffix(name, op.suffix) {
			return op.what
		}
	}
	return "helper or kfunc; result in R0"
}

// division is what stands between the pushes and pops of rax and rdx.
const division = "?mov ${k},%r11; ?mov {%q},%r11; ?mov {%n},(%rax|%eax); (xor %edx,%edx|cltd|cqto); (div|idiv|divl|divq|idivl|idivq) {%v}; ?mov (%rax|%eax|%rdx|%edx),{%to}"

// multiplication is the same for mul, up to 5.16.
const multiplication = "mov {%q},%r11; ?mov ${k},%eax; ?mov ${k},%rax; ?mov {%n},(%rax|%eax); mul (%r11|%r11d); ?mov (%rax|%eax),{%to}"

// bodyIdioms are the rest.
var bodyIdioms = []idiom{
	{steps: []step{{code: "(movabs|mov) ${v},{%r}", say: func(r *reader, _ *Prologue) string {
		return r.expand("{reg:%r} = ") + r.opts.MapAt(r.m.addr("v"))
	}}}, when: func(r *reader, _ *Prologue) bool {
		return r.opts.MapAt != nil && r.opts.MapAt(r.m.addr("v")) != ""
	}},
	{steps: []step{
		{code: "(movabs|mov) ${v},{%r}; ?mov %eax,%eax; add %gs:{cpu},{%r}; mov 0x0({%r}),{%d}", say: func(r *reader, _ *Prologue) string {
			return "inlined " + perCPUHelper(r)
		}},
	}, when: func(r *reader, _ *Prologue) bool { return perCPUHelper(r) != "" }},
	{steps: []step{{code: "add %gs:{cpu},{%r}", note: "{reg:%r} = this CPU's copy of the per-CPU data"}}},
	{steps: []step{{code: "(movabs|mov) ${v},%rax; mov 0x0(%rax),%rax", note: "bpf_jiffies64() inlined"}},
		when: func(r *reader, _ *Prologue) bool { return strings.HasPrefix(r.symbol(r.m.addr("v")), "jiffies") }},
	{steps: []step{
		{code: "lfence", note: "speculation barrier"},
	}},
	{steps: []step{{code: "IBHF", note: "fence for the branch history (BHI)"}}},
	{steps: []step{ // may_goto (011832b97b31, 6.9)
		{code: "mov {off}({%fp}),%r10; test %r10,%r10; je {out}; sub $0x1,%r10; mov %r10,{off}({%fp})", note: "may_goto: leave the loop when its count is used up"},
	}},
	{steps: []step{ // may_goto by time (e723608bf4ea, 6.15)
		{code: "mov {off}({%fp}),%r10; test %r10,%r10; je {out}; sub $0x1,%r10", note: "may_goto: leave the loop when its time is used up; count"},
		{code: "test %r10,%r10; jne {more}; mov ${slot},%r10; call {f}", note: "count used up: start it again if there is time left"},
		{code: "@more; mov %r10,{off}({%fp})", note: "keep the count"},
	}},
	{steps: []step{{code: "movq $0x800000,{off}({%fp})", note: "may_goto: its count"}}, when: isMayGoto},
	{steps: []step{{code: "movq $0xffff,{off}({%fp}); movq $0x0,{time}({%fp})", note: "may_goto: its count, and when it began"}}, when: isMayGoto},
	{steps: []step{ // fixup of pointer arithmetic (979d63d50c0c, 5.0; 7fedb63a8307, 5.12)
		{code: "mov ${limit},%r10d; sub {%o},%r10; or {%o},%r10; neg %r10; sar $0x3f,%r10; and {%o},%r10", note: "Spectre v1: offset {reg:%o}, or 0 if it is beyond {limit}"},
	}},
	{steps: []step{{code: "mov ${a},%r10(d|); xor ${b},%r10(d|)", say: sayBlinded}}},
	{steps: []step{ // cast_user of an arena pointer (142fd4d2dcf5, 6.9)
		{code: "shl $0x20,{%r}; or ${hi},{%r}; rol $0x20,{%r}; xor %r11,%r11; test {%s},{%s}; cmove %r11,{%r}", note: "arena pointer {reg:%r} as the user sees it; NULL stays NULL"},
	}},
	{steps: []step{ // atomic fetch and, or, xor
		{code: "mov %rax,%r10; @again; mov {off}({%b}),%(rax|eax); mov %(rax,%r11|eax,%r11d); (and|or|xor) {%s},%(r11|r11d); lock cmpxchg %(r11|r11d),{off}({%b}); jne {again}; mov %(rax|eax),{%s}; mov %r10,%rax", note: "atomic fetch and change, repeated until no one comes between"},
	}},
	{steps: []step{{code: "push %rax; push %rdx; " + division + "; pop %rdx; pop %rax; ?mov %r11,{%res}", note: "division, which needs rax and rdx: they are kept"}}},
	{steps: []step{{code: "push %rdx; " + division + "; pop %rdx; ?mov %r11,{%res}", note: "division, which needs rdx: it is kept"}}},
	{steps: []step{{code: "push %rax; " + division + "; pop %rax; ?mov %r11,{%res}", note: "division, which needs rax: it is kept"}}},
	{steps: []step{{code: "push %rax; push %rdx; " + multiplication + "; pop %rdx; pop %rax", note: "multiplication, which needs rax and rdx: they are kept"}}},
	{steps: []step{{code: "push %rdx; " + multiplication + "; pop %rdx", note: "multiplication, which needs rdx: it is kept"}}},
	{steps: []step{{code: "push %rax; " + multiplication + "; pop %rax", note: "multiplication, which needs rax: it is kept"}}},
	{steps: []step{
		{code: "push %rcx; mov {%n},%rcx; (shl|shr|sar) %cl,{%r}; pop %rcx", note: "shift {reg:%r}; the number of bits must be in cl"},
	}},
	{steps: []step{{code: "(ror|rol) $0x8,{%w}; movzwl {%w},{%r}", note: "{reg:%r}: swap 2 bytes"}}},
	{steps: []step{
		{code: tcPops, say: sayPops},
		{code: "leave", note: "drop the frame"},
		{code: "ret; ?int3", note: "return R0"},
	}},
	{steps: []step{
		{code: tcPops, say: sayPops},
		{code: "leave", note: "drop the frame"},
		{code: "jmp {thunk}", note: "return R0, by the return thunk"},
	}, when: isReturnThunk},
	{steps: []step{{code: "int3; *int3", note: "padding"}}},
	{steps: []step{{code: "ARENA", note: "in the arena; left out if it faults (exception table)"}},
		when: func(_ *reader, p *Prologue) bool { return p.ArenaBase != 0 }},
	{steps: []step{{code: "jmp {thunk}", note: "indirect jump by a table"}}, when: func(r *reader, _ *Prologue) bool {
		return strings.Contains(r.symbol(r.m.addr("thunk")), "x86_indirect_")
	}},
}

// isMayGoto says that the word set is the count of a may_goto: it is loaded
// into r10, which no instruction of a program uses.
func isMayGoto(r *reader, _ *Prologue) bool {
	load := r.expand("mov {off}({%fp}),%r10")
	return slices.Contains(r.text[r.i:], load)
}

func isReturnThunk(r *reader, _ *Prologue) bool {
	name := r.symbol(r.m.addr("thunk"))
	return strings.Contains(name, "return_thunk") || strings.Contains(name, "_untrain_") || strings.HasPrefix(name, "srso_") || strings.HasPrefix(name, "retbleed_")
}

// perCPUHelper tells which helper is a load of a per-CPU variable.
func perCPUHelper(r *reader) string {
	if r.opts.Sym == nil {
		return ""
	}
	name, off, ok := r.opts.Sym(r.m.addr("v"))
	if !ok {
		return ""
	}
	dst, _ := r.m.get("%d")
	// struct pcpu_hot (6.2 to 6.14) begins with current_task (8), preempt_count (4) and cpu_number (4).
	switch {
	case name == "cpu_number" && off == 0, name == "pcpu_hot" && off == 12 && dst == "%eax":
		return "bpf_get_smp_processor_id()"
	case name == "current_task" && off == 0, name == "pcpu_hot" && off == 0 && dst == "%rax":
		return "bpf_get_current_task()"
	}
	return ""
}

// sayBlinded tells the constant that is put together from two random ones
// (bpf_jit_blind_insn).
func sayBlinded(r *reader, _ *Prologue) string {
	v := r.m.num("a") ^ r.m.num("b")
	if strings.HasSuffix(r.text[r.i+1], "%r10d") {
		v = int64(uint32(v))
	}
	return fmt.Sprintf("blinded constant %#x (%d)", uint64(v), v)
}
