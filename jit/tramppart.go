package jit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// part reads one of the things that trampolines do.
func (t *tramp) part() bool {
	return t.leave < 0 && t.clobber < 0 && t.facts() || t.arguments() || t.withCookie() ||
		t.kernelCall() || t.program() || t.function() || t.session() || t.result() || t.end()
}

// facts reads what programs are told, stored before anything is called.
func (t *tramp) facts() bool {
	if n := t.fit("(mov ${n},%eax|xor %eax,%eax); mov %rax,{off}(%rbp)"); n > 0 {
		t.nargs(n)
		return true
	}
	if n := t.fit("movq ${n},{off}(%rbp)"); n > 0 {
		t.nargs(n)
		return true
	}
	if n := t.fit("mov 0x8(%rbp),%rax; sub ${back},%rax; mov %rax,{off}(%rbp)"); n > 0 {
		t.step(n, "address of the function (bpf_get_func_ip)")
		return true
	}
	if n := t.fit("(movabs|mov) ${ip},%rax; mov %rax,{off}(%rbp)"); n > 0 {
		t.FuncIP = t.m.addr("ip")
		t.step(n, "address of the function (bpf_get_func_ip)")
		return true
	}
	return false
}

// nargs reads the number of argument words (f92c1e183604, 5.17); 7.0 keeps
// what fsession programs ask for above it.
func (t *tramp) nargs(n int) {
	const count = 0xff
	t.meta = t.m.num("off")
	v := t.m.num("n")
	if v >= 0 && v <= count {
		t.Args = int(v)
	}
	t.step(n, "number of arguments: "+decimal(v&count))
}

// argRegs are the registers of arguments, with the parts that 5.10 stores.
var argRegs = [][]string{
	{"%rdi", "%edi", "%di", "%dil"}, {"%rsi", "%esi", "%si", "%sil"}, {"%rdx", "%edx", "%dx", "%dl"},
	{"%rcx", "%ecx", "%cx", "%cl"}, {"%r8", "%r8d", "%r8w", "%r8b"}, {"%r9", "%r9d", "%r9w", "%r9b"},
}

// arguments reads the saving of the arguments, and their restoring. They come
// in their order.
func (t *tramp) arguments() bool {
	start, words, first := t.i, 0, int64(0)
	for t.i < len(t.insts) && t.fit("mov {%r},{off}(%rbp)") > 0 && t.isArg(words) {
		if words == 0 {
			first = t.m.num("off")
		}
		t.i++
		words++
	}
	for words >= len(argRegs) && t.fit("mov {from}(%rbp),%rax; mov %rax,{off}(%rbp)") > 0 && t.m.num("from") > 0 {
		t.i += 2
		words++
	}
	if words > 0 {
		t.Ctx = int(first)
		t.Args = max(t.Args, words)
		t.renote(t.i-start, fmt.Sprintf("save the arguments: the programs' context, at %s", disp(t.Ctx)))
		return true
	}
	for t.i < len(t.insts) && t.fit("(mov|movzbq|movzwq) {off}(%rbp),{%r}") > 0 && t.isArg(words) {
		t.i++
		words++
	}
	if words == 0 {
		return false
	}
	t.renote(t.i-start, "the arguments again")
	for t.fit("mov {from}(%rbp),%rax; mov %rax,{off}(%rbp)") > 0 && t.m.num("from") > 0 {
		t.step(2, "and those on the stack")
	}
	return true
}

// lose notes that the call which ends the next n instructions changes rax.
func (t *tramp) lose(n int) {
	if !t.Calls {
		t.clobber = t.i + n - 1
	}
}

// isArg says that the register of the match is that of argument word n.
func (t *tramp) isArg(n int) bool {
	r, _ := t.m.get("%r")
	return n < len(argRegs) && slices.Contains(argRegs[n], r)
}

// withCookie reads the bpf_cookie of the program that comes (2fcc82411e74, 5.19).
func (t *tramp) withCookie() bool {
	const cookie = "(xor %edi,%edi|mov ${cookie},%edi|mov ${cookie},%rdi|movabs ${cookie},%rdi); mov %rdi,{off}(%rbp)"
	if n := t.fit("NOP5; " + cookie); n > 0 {
		t.givenUp(" over the program")
	} else if n := t.fit("jmp {on}; " + cookie); n > 0 {
		t.givenUp("")
	}
	n := t.fit(cookie)
	if n == 0 {
		return false
	}
	t.cookie = t.m.addr("cookie")
	t.step(n, "bpf_cookie of the next program: "+cookieText(t.cookie))
	return true
}

// A duty is what a function that a trampoline calls is for.
type duty uint8

const (
	other duty = iota
	trampEnter
	trampExit
	progEnter
	progExit
)

// kernelCall reads a call of the functions around programs and around the
// function.
func (t *tramp) kernelCall() bool {
	n := t.fit("?movabs ${obj},%rdi; ?mov ${obj},%rdi; ?mov %rbx,%rsi; ?lea {ctx}(%rbp),%rsi; ?lea {ctx}(%rbp),%rdx; call {f}")
	if n == 0 {
		return false
	}
	f := t.m.addr("f")
	obj := t.m.addr("obj")
	switch t.duty(n) {
	case trampEnter:
		t.Enters, t.Image = true, obj
		t.lose(n)
		t.step(n, "keep this image alive while the function runs")
	case trampExit:
		t.step(n, "the image is no longer needed here")
	case progEnter:
		t.lose(n)
		t.obj = obj
		t.Runs = append(t.Runs, Run{Enter: f, Struct: obj, Cookie: t.cookie, After: t.Calls})
		t.cookie = 0
		t.step(n, enterText(t.symbol(f)))
		if n := t.fit("mov %rax,%rbx"); n > 0 {
			t.step(n, "start time, or 1 if none is taken")
		}
		if n := t.fit("test %rax,%rax; je {skip}"); n > 0 {
			t.Runs[len(t.Runs)-1].Skippable = true
			t.step(n, "0: leave the program out")
		}
	case progExit:
		t.lose(n)
		if len(t.Runs) > 0 {
			r := &t.Runs[len(t.Runs)-1]
			r.Exit = f
			r.Struct = cmp.Or(r.Struct, obj)
		}
		t.step(n, "after the program: statistics, unlock")
	default:
		return false
	}
	return true
}

// enters words what the kinds of __bpf_prog_enter do (kernel/bpf/trampoline.c).
// The first that fits counts.
var enters = []struct{ has, what string }{
	{"sleepable_recur", "before the program, which may sleep; 0 if it runs here already"},
	{"sleepable", "before the program, which may sleep"},
	{"lsm_cgroup", "before the programs of the cgroup"},
	{"recur", "before the program: lock; 0 if it runs here already"},
	{"", "before the program: lock"},
}

func enterText(name string) string {
	for _, e := range enters {
		if strings.Contains(name, e.has) {
			return e.what
		}
	}
	return ""
}

// duty tells what the call that ends the next n instructions is for: by
// name, or if there is none by what stands around it.
func (t *tramp) duty(n int) duty {
	name := t.symbol(t.m.addr("f"))
	for _, k := range []struct {
		prefix string
		is     duty
	}{
		{"__bpf_tramp_enter", trampEnter}, {"__bpf_tramp_exit", trampExit},
		{"__bpf_prog_enter", progEnter}, {"__bpf_prog_exit", progExit},
	} {
		if strings.HasPrefix(name, k.prefix) {
			return k.is
		}
	}
	if name != "" || t.opts.Sym != nil {
		return other
	}
	first := t.text[t.i]
	_, starts := t.seq(new(match), "mov %rax,%rbx", t.i+n)
	_, returns := t.seq(new(match), "mov %rax,-0x8(%rbp)", t.i+n)
	switch {
	case starts:
		return progEnter
	case n > 1 && t.text[t.i+1] == "mov %rbx,%rsi":
		return progExit
	case returns || !strings.HasPrefix(first, "mov"):
		return other
	case n == 2 && !t.Calls:
		return trampEnter
	case n == 2:
		return trampExit
	}
	return other
}

// program reads the call of a program.
func (t *tramp) program() bool {
	n := t.fit("lea {ctx}(%rbp),%rdi; ?movabs ${insns},%rsi; call {f}")
	if n == 0 {
		return false
	}
	if len(t.Runs) == 0 || t.Runs[len(t.Runs)-1].Prog != 0 {
		t.Runs = append(t.Runs, Run{After: t.Calls})
	}
	r := &t.Runs[len(t.Runs)-1]
	r.Prog = t.m.addr("f")
	t.Ctx = int(t.m.num("ctx"))
	t.lose(n)
	name := t.sym(r.Prog)
	if f, ok := functionName(t.symbol(r.Prog)); ok {
		name = f
	}
	t.step(n, "run "+name+" on the saved arguments")
	if n := t.fit("mov %rax,-0x8(%rbp)"); n > 0 {
		r.Returns = true
		t.SavesReturn = true
		t.step(n, "keep its return value")
	}
	return true
}

// function reads the call of the function, before it the load of rax.
func (t *tramp) function() bool {
	if t.saved >= 0 {
		if n := t.fit("mov {slot}(%rbp),%rax"); n > 0 && t.insts[t.i].Len == 7 && int(t.m.num("slot")) == -t.StackSize-8 {
			t.reload = t.i
			t.step(n, "the tail-call count, or the pointer to it, again")
			return true
		}
	}
	if t.Calls {
		return false
	}
	n := t.fit("mov 0x8(%rbp),%(rax|rbx); call *%(rax|rbx); mov %rax,-0x8(%rbp)")
	if n == 0 {
		if n = t.fit("call {f}; mov %rax,-0x8(%rbp)"); n == 0 {
			return false
		}
		t.Original = t.m.addr("f")
	}
	t.Calls, t.SavesReturn = true, true
	t.leave = t.i + n - 2
	what := "call the function, past its attach point"
	if t.Original == 0 {
		what = "call the function: where the return address says"
	}
	t.step(n-1, what)
	t.step(1, "keep its return value")
	t.givenUp("")
	return true
}

// givenUp reads a place that is patched when the image is given up, while
// tasks may still be in it: after the function, to the end (e21aa341785c,
// 5.12); in 7.2 before each program, over it.
func (t *tramp) givenUp(over string) bool {
	if n := t.fit("NOP5"); n > 0 {
		t.step(n, "becomes a jump"+over+" when this image is given up")
		return true
	}
	if n := t.fit("jmp {on}"); n > 0 && t.m.addr("on") > t.at(t.i) && t.m.addr("on") < t.at(len(t.insts)) {
		t.step(n, "this image was given up: leave this out")
		return true
	}
	return false
}

// session reads what fsession programs are told: whether it is the return, and
// which cookie is theirs.
func (t *tramp) session() bool {
	n := t.fit("(movabs|mov) ${v},(%rax|%eax); mov %rax,{off}(%rbp)")
	if n > 0 && t.meta != 0 && t.m.num("off") == t.meta {
		text := "for fsession programs: whose cookie is asked for"
		if t.m.num("v") < 0 {
			text = "for fsession programs: it is the return now"
		}
		t.step(n, text)
		return true
	}
	if n := t.fit("xor %eax,%eax; mov %rax,{off}(%rbp)"); n > 0 && t.m.num("off") < t.meta {
		t.step(n, "cookie of an fsession program: 0")
		return true
	}
	return false
}

// result reads the handling of the return value.
func (t *tramp) result() bool {
	if n := t.fit("xor %eax,%eax; mov %rax,-0x8(%rbp)"); n > 0 {
		t.step(n, "no return value yet: 0")
		return true
	}
	if n := t.fit("cmpq $0x0,-0x8(%rbp); jne {out}"); n > 0 {
		t.step(n, "fmod_ret: not 0, so do not call the function")
		return true
	}
	if n := t.fit("mov -0x8(%rbp),%rax"); n > 0 {
		t.step(n, "the return value")
		return true
	}
	return false
}

// end reads the end.
func (t *tramp) end() bool {
	n := t.fit("?pop %rbx; ?mov {rbx}(%rbp),%rbx; leave; ?add $0x8,%rsp; (ret|jmp {thunk}); ?int3")
	if n == 0 {
		return false
	}
	if !t.Calls {
		t.leave = t.i + n - 1
	}
	for i := range n {
		t.SkipsFrame = t.SkipsFrame || t.text[t.i+i] == "add $0x8,%rsp"
	}
	text := "return into the function"
	switch {
	case t.SkipsFrame:
		text = "return to the function's caller, over its return address"
	case t.Calls, t.opts.Kind == StructOps:
		text = "return to the caller"
	}
	t.ended = true
	t.step(n, text)
	return true
}

func cookieText(v uint64) string {
	if v == 0 {
		return "none"
	}
	return hex(v)
}
