package bpf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

func programs(t *testing.T, k *kernel.Kernel) map[int]*bpf.Program {
	t.Helper()
	progs, _ := bpf.Programs(k) // the example lacks what surrounds them
	out := make(map[int]*bpf.Program)
	for _, p := range progs {
		out[p.ID] = p
	}
	return out
}

func TestPrograms(t *testing.T) {
	progs, err := bpf.Programs(example.Kernel(t))
	if err != nil { // what surrounds the programs is not in the example
		for line := range strings.Lines(err.Error()) {
			qt.Check(t, qt.Matches(line, `(?s).*excluded from the dump.*`))
		}
	}
	var got []string
	for _, p := range progs {
		line := fmt.Sprintf("%d %s %s %s", p.ID, p.Type, p.Name, p.Tag)
		for _, s := range p.Subprogs {
			line += fmt.Sprintf(" %s/%d", s.Name, s.Len)
		}
		if *p.TailCall {
			line += " tail-calls"
		}
		got = append(got, fmt.Sprint(line, " maps ", p.MapIDs))
	}
	qt.Check(t, qt.DeepEquals(got, []string{
		"2 xdp count_lo 82efbdcb650a1a38 count_lo/29 count/63 maps [5]",
		"3 sched_cls pass_all e476964e53559262 pass_all/23 count/63 maps [5]",
		"4 sched_cls drop_marked 085b81158b6fe8aa drop_marked/48 count/63 maps [5]",
		"5 sched_cls classify c2c93ce5f034ac9a classify/107 count/63 maps [3 5]",
		"6 raw_tracepoint count_syscalls 88db1087c6a00d6d count_syscalls/134 maps [4]",
		"7 tracing see_count_lo 3f839dd24b66fa05 see_count_lo/26 count/63 maps [5]",
		"9 sched_cls call_kfunc 2be77e55c77ca1bf call_kfunc/41 lookup/65 maps []",
	}))
}

// TestOwners: every byte of generated code belongs to its program.
func TestOwners(t *testing.T) {
	k := example.Kernel(t)
	for _, p := range programs(t, k) {
		for i, s := range p.Subprogs {
			for _, off := range []int{0, 1, s.Len / 2, s.Len - 1} {
				o, ok := bpf.OwnerOf(k, uint64(s.Addr)+uint64(off))
				qt.Assert(t, qt.IsTrue(ok))
				qt.Check(t, qt.Equals(o.Prog.ID, p.ID))
				qt.Check(t, qt.Equals(o.Subprog, i))
			}
		}
	}
	text, err := k.Find("_stext")
	qt.Assert(t, qt.IsNil(err))
	_, ok := bpf.OwnerOf(k, text.Addr)
	qt.Check(t, qt.IsFalse(ok))
}

// TestLines: source lines by offset; the functions of a program share a table.
func TestLines(t *testing.T) {
	k := example.Kernel(t)
	p := programs(t, k)[9]
	for _, test := range []struct {
		sub, off int
		line     int
		text     string
	}{
		{0, 0x00, 41, "int call_kfunc(struct __sk_buff *ctx)"},
		{0, 0x16, 41, "int call_kfunc(struct __sk_buff *ctx)"},
		{0, 0x17, 43, "volatile int verdict = 7;"},
		{0, 0x1a, 46, "found = lookup(ctx);"},
		{0, 0x1e, 46, "found = lookup(ctx);"}, // the last byte of the call
		{0, 0x1f, 47, "return found + verdict;"},
		{0, 0x28, 47, "return found + verdict;"},
		{1, 0x00, 28, "static __noinline int lookup(struct __sk_buff *ctx)"},
		{1, 0x24, 33, "ct = bpf_skb_ct_lookup(ctx, (struct bpf_sock_tuple *)buf, 0, (struct bpf_ct_opts *)buf, 0);"},
		{1, 0x29, 34, "if (!ct)"},
		{1, 0x40, 38, "}"},
	} {
		lines, err := bpf.Owner{Prog: p, Subprog: test.sub}.Lines(k)
		qt.Assert(t, qt.IsNil(err))
		loc, ok := lines.At(uint64(p.Subprogs[test.sub].Addr) + uint64(test.off))
		c := qt.Commentf("%s+%#x", p.Subprogs[test.sub].Name, test.off)
		qt.Assert(t, qt.IsTrue(ok), c)
		qt.Check(t, qt.Equals(loc.File, "casee.bpf.c"), c)
		qt.Check(t, qt.Equals(loc.Line, test.line), c)
		qt.Check(t, qt.Equals(loc.Text, test.text), c)
	}
	lines, err := bpf.Owner{Prog: p}.Lines(k)
	qt.Assert(t, qt.IsNil(err))
	_, ok := lines.At(uint64(p.Subprogs[0].Addr) - 1)
	qt.Check(t, qt.IsFalse(ok))
}

// TestDamaged: a program that cannot be read is named; the others are there.
func TestDamaged(t *testing.T) {
	k := example.Kernel(t)
	nine := programs(t, k)[9]
	aux := k.Object("bpf_prog", uint64(nine.Addr)).Deref("aux")
	le32 := func(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
	for _, test := range []struct {
		name   string
		change example.Change
		left   int
		err    string
	}{
		{"functions", example.Write(aux.At("func_cnt"), le32(1<<31)), 6, `(?s).*BPF program id 9: [^\n]*has 2147483648 functions: damaged.*`},
		{"maps", example.Write(aux.At("used_map_cnt"), le32(1<<31)), 6, `(?s).*BPF program id 9: [^\n]*uses 2147483648 maps: damaged.*`},
		{"function table", example.Words(aux.At("func"), 0x1000), 6, `(?s).*BPF program id 9: functions of .*not mapped.*`},
		{"page", example.Absent(uint64(nine.Addr)), 6, `(?s).*BPF program id 9: [^\n]*excluded from the dump.*`},
		{"aux", example.Words(k.Object("bpf_prog", uint64(nine.Addr)).At("aux"), 0), 6, `(?s).*BPF program id 9: .*NULL.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			progs, err := bpf.Programs(example.Kernel(t, test.change))
			qt.Check(t, qt.ErrorMatches(err, test.err))
			qt.Check(t, qt.Equals(len(progs), test.left))
		})
	}
	first, err := mem.U64(k.Mem(), aux.Ptr("func"))
	qt.Assert(t, qt.IsNil(err))
	aux = k.Object("bpf_prog", first).Deref("aux")
	for _, test := range []struct {
		name   string
		change example.Change
		err    string // "" where there is no error but no line
	}{
		{"number of lines", example.Write(aux.At("nr_linfo"), le32(1<<30)), `.*has 1073741824 lines: damaged`},
		{"line table", example.Words(aux.At("jited_linfo"), 0x1000), `jited_linfo of .*not mapped.*`},
		{"first line", example.Write(aux.At("linfo_idx"), le32(1<<30)), ``},
		{"none", example.Words(aux.At("linfo"), 0), ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := example.Kernel(t, test.change)
			progs, _ := bpf.Programs(k)
			p := progs[len(progs)-1]
			owner := bpf.Owner{Prog: p, Subprog: 0}
			lines, err := owner.Lines(k)
			if test.err != "" {
				qt.Check(t, qt.ErrorMatches(err, test.err))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			_, ok := lines.At(uint64(p.Subprogs[0].Addr))
			qt.Check(t, qt.IsFalse(ok))
		})
	}
}

func TestObjectOf(t *testing.T) {
	k := example.Kernel(t)
	nine := programs(t, k)[9]
	o, err := bpf.ObjectOf(k, "bpf_prog_fops", uint64(nine.Addr))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(o.String(), "prog 9 sched_cls call_kfunc"))
	o, err = bpf.ObjectOf(k, "ext4_file_operations", uint64(nine.Addr))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(o))
	for _, fops := range []string{"bpf_prog_fops", "bpf_map_fops", "bpf_link_fops", "btf_fops"} {
		_, err := bpf.ObjectOf(k, fops, 0x1000)
		qt.Check(t, qt.ErrorMatches(err, `(?s).*0x1000.*not mapped.*`), qt.Commentf("%s", fops))
	}
}
