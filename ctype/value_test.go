package ctype

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file under testdata.
func golden(t *testing.T, name, got string) {
	path := "testdata/" + name
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(got), 0o644)))
	}
	want, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(got, string(want)))
}

// An image is a piece of kernel memory that a test fills.
type image struct {
	mem.Snapshot
	ts *Types
	t  testing.TB
}

const base = 0xffff888000001000

func newImage(t testing.TB, ts *Types) *image {
	return &image{mem.Snapshot{Base: base, Data: make([]byte, 0x1000)}, ts, t}
}

// set writes a member of the struct of a type at addr.
func (m *image) set(typ string, addr uint64, path string, v uint64) {
	s, err := m.ts.Struct(typ)
	qt.Assert(m.t, qt.IsNil(err))
	p, err := m.ts.Member(s, path)
	qt.Assert(m.t, qt.IsNil(err))
	n, err := p.Size()
	qt.Assert(m.t, qt.IsNil(err))
	b := m.Data[addr+p.Offset-base:][:n]
	mask := ^uint64(0)
	if p.BitSize != 0 {
		mask = 1<<p.BitSize - 1
	}
	for i := range b {
		for bit := range 8 {
			at := 8*i + bit - int(p.BitOffset)
			if at >= 0 && at < 64 && mask>>at&1 != 0 {
				b[i] = b[i]&^(1<<bit) | byte(v>>at&1)<<bit
			}
		}
	}
}

func (m *image) text(addr uint64, s string) { copy(m.Data[addr-base:], s) }

const (
	initTask = base
	taskA    = base + 0x200
	mmA      = base + 0x400
	label    = base + 0x500
	unmapped = 0xffffc90000000000
)

// tasks builds two tasks on a list; what the second points to is not mapped.
func tasks(t testing.TB) *image {
	m := newImage(t, fixture(t))
	list := m.ts
	off, err := list.Offsetof("struct task", "tasks")
	qt.Assert(t, qt.IsNil(err))
	for i, addr := range []uint64{initTask, taskA} {
		other := [...]uint64{taskA, initTask}[i] + uint64(off)
		m.set("task", addr, "tasks.next", other)
		m.set("task", addr, "tasks.prev", other)
		m.set("task", addr, "pid", uint64(i))
		m.set("task", addr, "parent", initTask)
	}
	m.text(initTask+20, "swapper/0")
	m.text(taskA+20, "a\"b\xc3\xa9")
	for path, v := range map[string]uint64{
		"st": ^uint64(0), "fl": 5, "state": 1<<64 - 2, "mm": mmA, "bits.a": 5, "bits.b": 31, "bits.c": 0x7f, "bits.wide": 0x9876543210,
		"bits.over": 0xabcdef, "bits.last": 1, "lo": 7, "lock.raw": 0x10001, "traced": 1, "nice": 256 - 20, "label": label,
		"matrix[1][2]": 66, "counters[0]": 3, "data": base + 8, "mac[5]": 0xff, "kind": 1, "hi": 1,
	} {
		m.set("task", initTask, path, v)
	}
	m.set("task", taskA, "mm", unmapped)
	m.set("task", taskA, "label", unmapped)
	m.set("task", taskA, "fl", 8)
	m.set("mm", mmA, "users.counter", 1<<64-3)
	m.set("mm", mmA, "pgd", unmapped)
	m.set("mm", mmA, "ranges[0].end", 4096)
	m.text(label, "the first task")
	return m
}

func (m *image) task(addr uint64, name string) Value {
	return m.ts.Object(m, must(m.ts.Struct("task")), addr, name)
}

func TestScalars(t *testing.T) {
	m := tasks(t)
	task := m.task(initTask, "init_task")
	for _, test := range []struct {
		path string
		want int64
	}{
		{"state", -2}, {"pid", 0}, {"st", -1}, {"fl", 5}, {"bits.a", 5}, {"bits.b", 31}, {"bits.c", -1},
		{"bits.wide", 0x9876543210}, {"bits.over", 0xabcdef}, {"bits.last", 1}, {"bits.tail", 0}, {"token", 1<<32 | 7}, {"lock.locked", 1},
		{"lock.tail", 1}, {"traced", 1}, {"nice", -20}, {"matrix[1][2]", 66}, {"mac[5]", 255}, {"mm.users.counter", -3}, {"second", 0},
	} {
		v := task
		var err error
		for part := range strings.SplitSeq(test.path, "mm.") {
			if part == "" {
				part = "mm"
			}
			v, err = v.Field(part)
			qt.Assert(t, qt.IsNil(err))
		}
		got, err := v.Int()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, test.want), qt.Commentf("%s", test.path))
		// The same from a copy.
		loaded, err := task.Load()
		qt.Assert(t, qt.IsNil(err))
		if !strings.HasPrefix(test.path, "mm.") {
			got, err = must(loaded.Field(test.path)).Int()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got, test.want), qt.Commentf("loaded %s", test.path))
		}
	}
}

func TestText(t *testing.T) {
	task := tasks(t).task(initTask, "init_task")
	for path, want := range map[string]string{"comm": "swapper/0", "label": "the first task", "mac": ""} {
		got, err := must(task.Field(path)).CString()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, want))
	}
	_, err := must(task.Field("counters")).CString()
	qt.Check(t, qt.ErrorMatches(err, `init_task.counters: u64\[8\] is not text`))
}

func TestNavigation(t *testing.T) {
	m := tasks(t)
	task := m.task(initTask, "init_task")
	ptr, err := task.AddrOf()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(ptr.Type().String(), "struct task *"))
	qt.Check(t, qt.Equals(ptr.Path(), "&init_task"))

	back, err := ptr.Deref()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(must(back.Addr()), uint64(initTask)))
	qt.Check(t, qt.Equals(back.Path(), "init_task"))

	end := must(must(must(must(task.Field("mm")).Field("ranges")).Index(0)).Field("end"))
	qt.Check(t, qt.Equals(end.Path(), "init_task.mm->ranges[0].end"))
	qt.Check(t, qt.Equals(must(end.Uint()), uint64(4096)))

	b := must(task.Field("bits.a"))
	_, err = b.Addr()
	qt.Check(t, qt.ErrorIs(err, ErrNotLvalue))

	u8 := must(must(task.Field("state")).Cast(Builtin("u8")))
	qt.Check(t, qt.Equals(must(u8.Uint()), uint64(0xfe)))
	qt.Check(t, qt.IsFalse(u8.IsLvalue()))
	yes := must(must(task.Field("state")).Cast(Builtin("bool")))
	qt.Check(t, qt.Equals(must(yes.Uint()), uint64(1)))

	first, err := task.FirstField("__state", "state")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(first.Path(), "init_task.state"))
	_, err = task.FirstField("__state", "status")
	qt.Check(t, qt.ErrorMatches(err, `init_task: struct task has no member "__state".*`))
}

func TestFaultsNameThePath(t *testing.T) {
	m := tasks(t)
	task := must(m.task(taskA, "a").AddrOf()).Named("task")
	pgd := must(must(task.Field("mm")).Field("pgd"))
	_, err := pgd.Uint()
	qt.Check(t, qt.ErrorMatches(err, `task->mm->pgd: virtual address 0xffffc90000000000: not mapped`))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Unmapped))
	var fault *mem.Fault
	qt.Assert(t, qt.IsTrue(errors.As(err, &fault)))
	_, err = must(task.Field("label")).CString()
	qt.Check(t, qt.ErrorMatches(err, `task->label: virtual address .*: not mapped`))
	_, err = must(must(task.Field("rows")).Index(3)).Bytes()
	qt.Check(t, qt.ErrorMatches(err, `task->rows\[3\]: virtual address 0x24: not mapped`))
}

func TestFormatTypes(t *testing.T) {
	ts := fixture(t)
	var out strings.Builder
	for i := range ts.vmlinux.offs {
		if typ := ts.vmlinux.byID(uint32(i) + 1); typ.Name() != "" && (kinds(Struct, Enum, Typedef, Func, Var).has(typ.Kind())) {
			out.WriteString(FormatType(typ) + "\n")
		}
	}
	golden(t, "types.golden", out.String())
}

func TestFormatValues(t *testing.T) {
	m := tasks(t)
	o := FormatOptions{Symbolize: func(addr uint64) string {
		if addr >= initTask && addr < taskA {
			return "init_task"
		}
		return ""
	}}
	var out strings.Builder
	for name, addr := range map[string]uint64{"init_task": initTask} {
		text, err := FormatValue(m.task(addr, name), o)
		qt.Assert(t, qt.IsNil(err))
		out.WriteString(text + "\n")
	}
	text, err := FormatValue(m.task(taskA, "a"), FormatOptions{Depth: 1, Hex: true})
	qt.Assert(t, qt.IsNil(err))
	out.WriteString(text + "\n")
	mm := must(m.ts.Struct("mm"))
	text, err = FormatValue(m.ts.Object(m, ArrayOf(mm, 2), mmA, "mms"), o)
	qt.Assert(t, qt.IsNil(err))
	out.WriteString(text + "\n")
	// The last bytes of the image: the object goes on where nothing is mapped.
	text, err = FormatValue(m.task(base+0x1000-32, "cut"), o)
	qt.Assert(t, qt.IsNil(err))
	out.WriteString(text + "\n")
	golden(t, "values.golden", out.String())

	text, err = FormatValue(m.task(unmapped, "gone"), o)
	qt.Check(t, qt.ErrorMatches(err, "gone.state: virtual address .*: not mapped"))
	qt.Check(t, qt.StringContains(text, ".pid = <not mapped>,"))
}

func TestPlain(t *testing.T) {
	m := tasks(t)
	b, err := json.MarshalIndent(m.task(initTask, "init_task").Plain(FormatOptions{}), "", " ")
	qt.Assert(t, qt.IsNil(err))
	cut, err := json.MarshalIndent(m.task(base+0x1000-24, "cut").Plain(FormatOptions{}), "", " ")
	qt.Assert(t, qt.IsNil(err))
	golden(t, "plain.golden", string(b)+"\n"+string(cut)+"\n")
}

func TestOffsetof(t *testing.T) {
	ts := fixture(t)
	for _, test := range []struct {
		typ, path string
		want      int
		err       string
	}{
		{"struct task", "tasks.prev", 48, ""},
		{"task", "matrix[1][2]", 164, ""},
		{"spinlock_t", "tail", 2, ""},
		{"struct mm", "ranges[2].end", 56, ""},
		{"struct bits", "a", 0, ".*bitfield.*"},
		{"struct task", "pid.x", 0, `int has no members.*`},
		{"struct task", "mm.pgd", 0, `struct mm \* has no members.*`},
		{"struct task", "comm[x]", 0, `array index.*`},
		{"struct task", "comm]", 0, `.*no member "comm]".*`},
		{"struct task", "comm[1", 0, `.*\[ without \]`},
		{"struct task", "", 0, ""},
		{"struct task", ".", 0, `.*no member "".*`},
		{"struct task", "comm[1]x", 0, `.*expected \. or \[.*`},
	} {
		got, err := ts.Offsetof(test.typ, test.path)
		if test.err != "" {
			qt.Check(t, qt.ErrorMatches(err, test.err))
			continue
		}
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, test.want), qt.Commentf("%s %s", test.typ, test.path))
	}
}

func TestParseType(t *testing.T) {
	ts := fixture(t)
	for _, test := range []struct{ in, want string }{
		{"struct task *", "struct task *"},
		{" const  struct task*const* ", "const struct task *const *"},
		{"long unsigned int", "unsigned long"},
		{"unsigned", "unsigned int"},
		{"long long unsigned", "unsigned long long"},
		{"signed char", "signed char"},
		{"short int", "short"},
		{"u64", "u64"},
		{"size_t", "size_t"},
		{"char[16]", "char[16]"},
		{"char *[4][2]", "char *[4][2]"},
		{"u32 (*)[3]", "u32 (*)[3]"},
		{"void **", "void **"},
		{"int (*)(struct task *, const char *s, ...)", "int (*)(struct task *, const char *, ...)"},
		{"void (*(*)(int))(u64)", "void (*(*)(int))(u64)"},
		{"void (*)(void)", "void (*)(void)"},
		{"enum state", "enum state"},
		{"struct opaque *", "struct opaque *"},
		{"atomic_t volatile *", "volatile atomic_t *"},
	} {
		typ, err := ts.ParseType(test.in)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", test.in))
		qt.Check(t, qt.Equals(typ.String(), test.want))
	}
	for in, want := range map[string]string{
		"":                  `.*column 1: expected a type`,
		"struct":            `.*expected a name after struct`,
		"struct tsk":        `no struct "tsk"; did you mean task\?`,
		"union task":        `no union "task"`,
		"u46":               `no type "u46".*`,
		"short char":        `.*"short char" is not a C type`,
		"int int":           `.*"int int" is not a C type`,
		"int *)":            `.*column 6: unexpected "\)"`,
		"int [99999999999]": `.*array length "99999999999"`,
		"int x y":           `.*column 5: unexpected "x"`,
		"3":                 `.*expected a type`,
	} {
		_, err := ts.ParseType(in)
		qt.Check(t, qt.ErrorMatches(err, want), qt.Commentf("%q", in))
	}
}
