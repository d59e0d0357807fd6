package cexpr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

const (
	base     = 0xffff888000001000
	stride   = 0x200 // between tasks
	mmAddr   = base + 0xa00
	listRoot = base + 0xc00
	hashRoot = base + 0xc10
	broken   = base + 0xc20 // a list whose last next is not mapped
	circle   = base + 0xc30 // a list that never comes back to its head
	text     = base + 0xd00
	unmapped = 0xffffc90000000000
)

// A fakeEnv is the fixture's types over a few tasks.
type fakeEnv struct {
	ts  *ctype.Types
	mem mem.Snapshot
}

func (e *fakeEnv) Types() *ctype.Types { return e.ts }
func (e *fakeEnv) Mem() mem.Reader     { return e.mem }

var globals = map[string]struct {
	typ  string
	addr uint64
}{
	"init_task":  {"struct task", base},
	"list_root":  {"struct list_head", listRoot},
	"hlist_root": {"struct hlist_head", hashRoot},
	"broken":     {"struct list_head", broken},
	"circle":     {"struct list_head", circle},
	"counter":    {"u64", base + 0xe00},
}

func (e *fakeEnv) Ident(name string) (ctype.Value, error) {
	g, ok := globals[name]
	if !ok {
		return ctype.Value{}, &ctype.NotFoundError{Kind: "variable", Name: name}
	}
	t, err := e.ts.ParseType(g.typ)
	return e.ts.Object(e.mem, t, g.addr, name), err
}

func (e *fakeEnv) Suggest(name string) []string {
	var names []string
	for n := range globals {
		names = append(names, n)
	}
	return ctype.Suggest(name, names)
}

func (e *fakeEnv) PerCPU(addr uint64, cpu int) (uint64, error) {
	if cpu > 3 {
		return 0, fmt.Errorf("there is no CPU %d", cpu)
	}
	return addr + uint64(cpu)*8, nil
}

func (e *fakeEnv) Call(name string, args []ctype.Value) (Result, error) {
	if name == "nothing" {
		return Result{}, nil
	}
	if name != "task" {
		return Result{}, &ctype.NotFoundError{Kind: "function", Name: name}
	}
	pid, err := args[0].Uint()
	if err != nil {
		return Result{}, err
	}
	t, err := e.ts.ParseType("struct task *")
	return Single(e.ts.Scalar(e.mem, t, base+stride*pid, "task")), err
}

func (e *fakeEnv) put(addr uint64, typ, path string, v uint64) {
	t, err := e.ts.Lookup(typ)
	if err != nil {
		panic(err)
	}
	p, err := e.ts.Member(t, path)
	if err != nil {
		panic(err)
	}
	n, err := p.Type.Size()
	if err != nil {
		panic(err)
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	copy(e.mem.Data[addr+p.Offset-base:], b[:n])
}

// newEnv makes five tasks: all on init_task's ring, 1 to 3 on list_root, 1 and
// 2 on hlist_root, 1 and 2 on broken, 1 to 3 on circle but for its head.
func newEnv(t testing.TB) *fakeEnv {
	blob, err := os.ReadFile("../ctype/testdata/fixture.btf")
	qt.Assert(t, qt.IsNil(err))
	ts, err := ctype.New(blob)
	qt.Assert(t, qt.IsNil(err))
	e := &fakeEnv{ts, mem.Snapshot{Base: base, Data: make([]byte, 0x1000)}}
	off := func(path string) uint64 {
		n, err := ts.Offsetof("struct task", path)
		qt.Assert(t, qt.IsNil(err))
		return uint64(n)
	}
	for i := range uint64(5) {
		task := base + i*stride
		e.put(task, "task", "pid", i)
		e.put(task, "task", "nice", -i)
		e.put(task, "task", "fl", i)
		e.put(task, "task", "mm", mmAddr)
		e.put(task, "task", "parent", base)
		e.put(task, "task", "tasks.next", base+(i+1)%5*stride+off("tasks"))
		e.put(task, "task", "counters[2]", i*i)
		copy(e.mem.Data[i*stride+off("comm"):], fmt.Sprintf("task%d", i))
	}
	children := func(i uint64) uint64 { return base + i*stride + off("children") }
	e.put(listRoot, "list_head", "next", children(1))
	e.put(children(1), "list_head", "next", children(2))
	e.put(children(2), "list_head", "next", children(3))
	e.put(children(3), "list_head", "next", listRoot)
	e.put(circle, "list_head", "next", children(1))
	hash := func(i uint64) uint64 { return base + i*stride + off("hash") }
	e.put(hashRoot, "hlist_head", "first", hash(1))
	e.put(hash(1), "hlist_node", "next", hash(2))
	lost := func(i uint64) uint64 { return base + i*stride + off("counters[0]") }
	e.put(broken, "list_head", "next", lost(1))
	e.put(lost(1), "list_head", "next", lost(2))
	e.put(lost(2), "list_head", "next", unmapped)
	copy(e.mem.Data[text-base:], "hello")
	e.put(base, "task", "label", text)
	e.put(base, "task", "bits.tail", 200)
	e.put(base, "task", "state", 1<<64-1)
	e.put(base+stride, "task", "mm", unmapped)
	e.put(mmAddr, "mm", "pgd", unmapped)
	e.put(mmAddr, "mm", "ranges[1].end", 4096)
	for i := range uint64(4) {
		binary.LittleEndian.PutUint64(e.mem.Data[0xe00+8*i:], 100+i)
	}
	return e
}

// show prints a result for the tables: type and value, and what is missing.
func show(r Result) string {
	var out []string
	for _, v := range r.Values {
		if v.Type().IsRecord() {
			addr, err := v.Addr()
			out = append(out, fmt.Sprintf("%s at +%#x %v", v.Type(), addr-base, err))
			continue
		}
		if s, err := v.CString(); err == nil && v.Type().Strip().Kind() == ctype.Array {
			out = append(out, fmt.Sprintf("%q", s))
			continue
		}
		u, err := v.Uint()
		s := fmt.Sprint(int64(u))
		switch {
		case err != nil:
			s = err.Error()
		case u >= base && u < base+0x1000:
			s = fmt.Sprintf("+%#x", u-base)
		case !v.Type().IsSigned():
			s = fmt.Sprint(u)
		}
		out = append(out, fmt.Sprintf("(%s)%s", v.Type(), s))
	}
	if r.Err != nil {
		out = append(out, "! "+r.Err.Error())
	}
	return strings.Join(out, " ")
}

func TestEval(t *testing.T) {
	env := newEnv(t)
	for _, test := range []struct{ in, want string }{
		// Constants and their types.
		{"1", "(int)1"}, {"0x7fffffff", "(int)2147483647"}, {"0x80000000", "(unsigned int)2147483648"}, {"2147483648", "(long)2147483648"},
		{"010", "(int)8"}, {"0b101u", "(unsigned int)5"}, {"1ull", "(unsigned long)1"}, {"'a'", "(int)97"}, {`'\xff'`, "(int)-1"}, {`'\n'`, "(int)10"},
		{"0xffffffffffffffff", "(unsigned long)18446744073709551615"},
		// Promotions and conversions.
		{"-1 < 0u", "(int)0"}, {"-1L < 0u", "(int)1"}, {"(u8)255 + 1", "(int)256"}, {"(u8)256", "(u8)0"}, {"(s8)200", "(s8)-56"},
		{"-(u8)1", "(int)-1"}, {"~0u", "(unsigned int)4294967295"}, {"1 ? -1 : 0u", "(unsigned int)4294967295"}, {"0x7fffffff + 1", "(int)-2147483648"},
		{"-7 / 2", "(int)-3"}, {"-7 % 2", "(int)-1"}, {"-8 >> 1", "(int)-4"}, {"1u << 31", "(unsigned int)2147483648"}, {"(bool)5", "(bool)1"},
		{"2 + 3 * 4 - 10 / 5 % 3", "(int)12"}, {"1 | 2 ^ 3 & 6", "(int)1"}, {"!0 + !5", "(int)1"}, {"1 < 2 == 1", "(int)1"},
		{"0 && 1/0", "(int)0"}, {"1 || 1/0", "(int)1"}, {"1 ? 2 : 1/0", "(int)2"}, {"1 ? 2 : 1u/0", "(unsigned int)2"}, {"1 ? 2 : 1u << 40", "(unsigned int)2"}, {"sizeof(1 / 0)", "(unsigned long)4"}, {"1 ? 0 ? 1 : 2 : 3", "(int)2"},
		{"init_task.nice < 0u", "(int)0"}, {"init_task.bits.tail + 100", "(int)300"}, {"init_task.bits.a - 1 < 0", "(int)1"},
		// Members, pointers, arrays.
		{"init_task.pid", "(int)0"}, {"init_task.st", "(enum state)0"}, {"init_task.comm", `"task0"`}, {"init_task.mm->ranges[1].end", "(u64)4096"},
		{"(&init_task)->pid", "(int)0"}, {"(*&init_task).comm", `"task0"`}, {"&init_task", "(struct task *)+0x0"}, {"&init_task.pid", "(int *)+0x8"},
		{"*init_task.mm", "struct mm at +0xa00 <nil>"}, {"init_task.comm[4]", "(char)48"}, {"4[init_task.comm]", "(char)48"}, {"*(init_task.comm + 3)", "(char)107"},
		{"&init_task.counters[2] - init_task.counters", "(long)2"}, {"(char *)&init_task.pid - (char *)&init_task", "(long)8"},
		{"(void *)&init_task + 1", "(void *)+0x1"}, {"&init_task.matrix[1] - &init_task.matrix[0]", "(long)1"},
		{"&(*init_task.matrix)[1]", "(u32 *)+0x94"}, {"!init_task.ops", "(int)1"}, {"init_task.ops == NULL", "(int)1"}, {"init_task.mm && init_task.pid == 0", "(int)1"},
		{"((struct task *)0xffff888000001200)->pid", "(int)1"}, {"*(u32 *)((u64)&init_task + 8 + 512)", "(u32)1"}, {"((u64 *)task(2)->counters)[2]", "(u64)4"},
		{"init_task.state", "(volatile long)-1"}, {"(unsigned long)init_task.state", "(unsigned long)18446744073709551615"},
		{"init_task.label[1]", "(const char)101"},
		// sizeof reads nothing.
		{"sizeof(struct task)", "(unsigned long)288"}, {"sizeof init_task.comm", "(unsigned long)16"}, {"sizeof(init_task.mm->ranges)", "(unsigned long)48"},
		{"sizeof *((struct task *)0)->mm", "(unsigned long)64"}, {"sizeof(char[16])", "(unsigned long)16"}, {"sizeof(int (*)(void))", "(unsigned long)8"},
		{`sizeof "abc"`, "(unsigned long)4"}, {"sizeof(init_task.nice + 1)", "(unsigned long)4"}, {"sizeof(void)", "(unsigned long)1"},
		// Names.
		{"STATE_BUSY", "(int)5"}, {"init_task.st == STATE_BAD", "(int)0"}, {"F_READ | F_EXEC", "(int)5"}, {"init_task.fl | F_EXEC", "(unsigned int)4"}, {"true", "(bool)1"}, {"NULL", "(void *)0"},
		// Text.
		{`init_task.comm == "task0"`, "(int)1"}, {`init_task.comm != "bash"`, "(int)1"}, {`init_task.label == "hel" "lo"`, "(int)1"}, {`"a\x41\101\t"`, `"aAA\t"`},
		// Built-in functions.
		{"offsetof(struct task, comm[3])", "(unsigned long)23"}, {"offsetof(struct mm, ranges[1].end)", "(unsigned long)40"},
		{"container_of(&init_task.tasks, struct task, tasks)->pid", "(int)0"}, {"container_of(init_task.tasks.next, struct task, tasks)->comm", `"task1"`},
		{"per_cpu(counter, 2)", "(u64)102"}, {"*per_cpu_ptr(&counter, 3)", "(u64)103"}, {"task(2)->pid + 1", "(int)3"},
		// Sequences.
		{"list_for_each(&init_task.tasks, struct task, tasks)->comm", `"task1" "task2" "task3" "task4"`},
		{"list_for_each(list_root, struct task, children)->pid * 2 + 1", "(int)3 (int)5 (int)7"},
		{"100 - list_for_each(&list_root, struct task, children)->pid", "(int)99 (int)98 (int)97"},
		{"hlist_for_each(&hlist_root, struct task, hash)", "(struct task *)+0x200 (struct task *)+0x400"},
		{"*list_for_each(&list_root, struct task, children)", "struct task at +0x200 <nil> struct task at +0x400 <nil> struct task at +0x600 <nil>"},
		{`list_for_each(&list_root, struct task, children)->comm == "task2"`, "(int)0 (int)1 (int)0"},
		{"list_for_each(&list_root, struct task, children)->pid > 1 && 1", "(int)0 (int)1 (int)1"},
		{"list_for_each(&list_root, struct task, children)->fl + list_for_each(&list_root, struct task, children)->pid", "(unsigned int)2 (unsigned int)4 (unsigned int)6"},
	} {
		r, err := Eval(test.in, env)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", test.in))
		qt.Check(t, qt.Equals(show(r), test.want), qt.Commentf("%s", test.in))
	}
}

func TestErrors(t *testing.T) {
	env := newEnv(t)
	for _, test := range []struct{ in, want string }{
		{"", "column 1: expected a value, found end of expression"},
		{"1 +", "column 4: expected a value, found end of expression"},
		{"1 2", `column 3: expected an operator or the end, found "2"`},
		{"(1", `column 3: expected \), found end of expression`},
		{"a = 1", `column 3: = would change something: .*write ==\)`},
		{"a++", `column 2: \+\+ would change something.*`},
		{"1.5", `column 1: the kernel has no floating-point numbers`},
		{"08", `column 1: bad number "08"`}, {"1_0", `.*bad number.*`}, {"1lul", `.*bad number.*`}, {"0x", `.*bad number.*`},
		{"99999999999999999999", `column 1: number 99999999999999999999 does not fit in 64 bits`},
		{"'ab'", `column 1: a character constant has one character, not 2`}, {`"abc`, `column 1: no closing "`}, {`"\q"`, `column 2: unknown escape \\q`},
		{"1 @ 2", `column 3: unexpected character '@'`},
		{"(u64 + 1", `column 6: expected the end of the type, found "\+"`},
		{"(struct)0", `column 8: expected a struct's, union's or enum's name, found "\)"`},
		{"int", `column 1: "int" begins a type: put it in parentheses`},
		{"init_task.5", `column 10: expected an operator or the end, found ".5"|.*`},
		{"init_task.pid(1)", `column 14: only built-in functions can be called, by name`},
		{"task(1,)", `column 8: expected an argument, found "\)"`},
		{strings.Repeat("(", 1000), `column \d+: nested more than 250 deep`},
		{strings.Repeat("-", 1000), `column 1: -- would change.*`},
		{strings.Repeat("!", 1000) + "1", `column \d+: nested more than 250 deep`},
		{"1" + strings.Repeat("+1", 5000), `column \d+: more than 2000 operators`},

		{"init_tusk.pid", `column 1: no variable or enumerator "init_tusk"; did you mean init_task\?`},
		{"init_task.pidd", `column 11: init_task: struct task has no member "pidd"; did you mean pid\?`},
		{"init_task->pid", `column 12: struct task is not a pointer: use \. for its members`},
		{"init_task.mm.pgd", `column 14: struct mm \* is a pointer: use -> for its members`},
		{"init_task.pid.x", `column 15: init_task.pid: int has no members, so no "x"`},
		{"1 + (struct tsk *)0", `column 6: no struct "tsk"; did you mean task\?`},
		{"(int [x])0", `column 7: array length "x"`},
		{"*init_task.data", `column 1: void \* points to no known type: cast it`},
		{"&init_task.bits.a", `column 1: init_task.bits.a: not an object in memory`},
		{"&1", `column 1: 1: not an object in memory`},
		{"*1", `column 1: 1: int is not a pointer`},
		{"init_task + 1", `column 11: struct task is neither a number nor a pointer: \+ does not apply`},
		{"~init_task.mm", `column 1: struct mm \* is not a number: ~ does not apply`},
		{"&init_task * 2", `column 12: \* does not apply to struct task \* and int`},
		{"1 / 0", `column 3: division by zero`}, {"1 % (1 - 1)", `column 3: division by zero`},
		{"1 << 32", `column 3: a shift of int by 32 bits is undefined in C`}, {"1 >> -1", `.*by -1 bits is undefined in C`},
		{"(struct task)1", `column 1: 1: cannot cast int to struct task`},
		{"sizeof(init_task.bits.a)", `column 1: a bitfield has no size in bytes`},
		{"sizeof (int)1", `column 13: expected an operator or the end, found "1"`},
		{"((struct task *)0)->mm ? 1 : 0", `column 2: \(\(struct task \*\)0\)->mm: virtual address 0x48: not mapped`},
		{"list_for_each(&init_task.tasks, struct task)", `column 1: list_for_each\(head, type, member\) takes 3 arguments, not 2`},
		{"container_of(1, task, tasks)", `column 17: expected a type, as in struct task_struct`},
		{"container_of(1, struct task, 5)", `column 30: expected a member, as in .*`},
		{"container_of(1, struct task, taks)", `column 30: struct task has no member "taks"; did you mean tasks\?`},
		{"contaner_of(1, struct task, tasks)", `column 16: struct task is a type, where a value is needed`},
		{"containr_of(1)", `column 1: no function "containr_of"; did you mean container_of\?`},
		{"nothing() + 1", `column 1: the function gave 0 values`},
		{"per_cpu(counter, 9)", `column 1: there is no CPU 9`},
		{"task(1)->mm->users.counter + 1", `column 28: \(\*task\).mm->users.counter.*|column 28: task->mm->users.counter: virtual address 0xffffc90000000008: not mapped`},
		{"list_for_each((struct list_head *)0, struct task, tasks)", `column 15: list at 0x0, element 0: virtual address 0x0: not mapped`},
		{"list_for_each(&hlist_root.first->next->next, struct task, children)", `.*next at 0x.* is NULL`},
		{"list_for_each(list_root, struct task, children) ? 1 : 2", `column 1: a sequence of 3 values, where one value is needed`},
		{"list_for_each(list_root, struct task, children) == list_for_each(&init_task.tasks, struct task, tasks)", `.*sequences of 3 and of 4 values`},
	} {
		_, err := Eval(test.in, env)
		qt.Check(t, qt.ErrorMatches(err, test.want), qt.Commentf("%.60s", test.in))
		qt.Check(t, qt.IsFalse(err != nil && strings.Contains(err.Error(), "\n")))
	}
}

func TestBrokenLists(t *testing.T) {
	env := newEnv(t)
	r, err := Eval("list_for_each(&broken, struct task, counters[0])->pid", env)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorMatches(r.Err, `column 15: list at 0x.*, element 3: virtual address 0xffffc90000000000: not mapped|.*`))
	qt.Check(t, qt.Equals(mem.CauseOf(r.Err), mem.Unmapped))
	qt.Check(t, qt.IsTrue(len(r.Values) >= 2))

	r, err = Eval("list_for_each(&circle, struct task, children)->pid", env)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorMatches(r.Err, `.*runs in a circle .* leaves out its head`))
	qt.Check(t, qt.IsTrue(len(r.Values) < 20))
}

func TestCaret(t *testing.T) {
	env := newEnv(t)
	_, err := Eval("1 +\n\t  nothing_here + 2", env)
	var ee *EvalError
	qt.Assert(t, qt.IsTrue(errors.As(err, &ee)))
	qt.Check(t, qt.Equals(ee.Caret(), "\t  nothing_here + 2\n\t  ^"))
	_, err = Parse("1 + ", nil)
	var se *SyntaxError
	qt.Assert(t, qt.IsTrue(errors.As(err, &se)))
	qt.Check(t, qt.Equals(se.Caret(), "1 + \n    ^"))
}

// TestTree shows that the tree stands alone: a filter of the tracer.
func TestTree(t *testing.T) {
	x, err := Parse("skb->len > 100 && ret != -2", nil)
	qt.Assert(t, qt.IsNil(err))
	and := x.Root.(*Binary)
	qt.Check(t, qt.Equals(and.Op, "&&"))
	qt.Check(t, qt.Equals(and.OpAt, 15))
	left := and.X.(*Binary)
	m := left.X.(*Member)
	qt.Check(t, qt.Equals(m.Name, "len"))
	qt.Check(t, qt.IsTrue(m.Arrow))
	qt.Check(t, qt.Equals(m.X.(*Ident).Name, "skb"))
	qt.Check(t, qt.Equals(m.NameAt, 5))
	qt.Check(t, qt.Equals(left.Y.(*IntLit).Value, uint64(100)))
}

func FuzzEval(f *testing.F) {
	for _, s := range []string{
		"init_task.mm->ranges[1].end + (u8)~0x10 * 'a'", `list_for_each(&init_task.tasks, struct task, tasks)->comm == "x"`,
		"sizeof(int (*)(void)) ? per_cpu(counter, 2) : container_of(NULL, struct mm, users)", "((((", "(struct task *)-1 - &init_task",
	} {
		f.Add(s)
	}
	env := newEnv(f)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Eval(s, env)
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(s, "\n") {
				t.Fatalf("%q: an error of several lines: %v", s, err)
			}
			return
		}
		for _, v := range r.Values {
			_, _ = ctype.FormatValue(v, ctype.FormatOptions{})
		}
	})
}
