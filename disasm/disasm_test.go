package disasm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

func list(t *testing.T, k *kernel.Kernel, what string, o disasm.Options) []disasm.Listing {
	t.Helper()
	d := disasm.New(k)
	code, err := d.Find(what, o)
	qt.Assert(t, qt.IsNil(err))
	var out []disasm.Listing
	for _, c := range code {
		l, err := d.Disassemble(c, o)
		qt.Assert(t, qt.IsNil(err))
		out = append(out, l)
	}
	return out
}

// TestProgram: instructions with the source lines that begin at them.
func TestProgram(t *testing.T) {
	k := example.Kernel(t)
	got := list(t, k, "prog:9", disasm.Options{})
	qt.Assert(t, qt.HasLen(got, 2))
	var lines []string
	for _, l := range got[0].Lines {
		if l.Source != nil {
			lines = append(lines, fmt.Sprintf("%s:%d", l.Source.File, l.Source.Line))
		}
		lines = append(lines, l.Offset.String()+" "+l.Text)
	}
	qt.Check(t, qt.Equals(strings.ReplaceAll(strings.Join(lines, "\n"), got[1].Addr.String(), "LOOKUP"), `casee.bpf.c:41
0x0 nopl 0x0(%rax,%rax,1)
0x5 xchg %ax,%ax
0x7 push %rbp
0x8 mov %rsp,%rbp
0xb sub $0x8,%rsp
0x12 mov $0x7,%esi
casee.bpf.c:43
0x17 mov %esi,-0x4(%rbp)
casee.bpf.c:46
0x1a call LOOKUP <bpf_prog_46535d100e342878_lookup>
casee.bpf.c:47
0x1f mov -0x4(%rbp),%edi
0x22 add %eax,%edi
0x24 mov %edi,%eax
0x26 leave
0x27 ret
0x28 int3`))
	qt.Check(t, qt.Equals(got[1].Name, "lookup"))
	qt.Check(t, qt.Equals(got[1].Kind, kernel.KindBPF))

	// One function of it, by name and by number, and by its address.
	for _, what := range []string{"prog:9/lookup", "prog:9/1"} {
		one := list(t, k, what, disasm.Options{})
		qt.Assert(t, qt.HasLen(one, 1))
		qt.Check(t, qt.DeepEquals(one[0], got[1]))
	}
	byAddr := list(t, k, got[1].Addr.String(), disasm.Options{})
	qt.Check(t, qt.Equals(byAddr[0].Lines[0].Source.Line, 28))
}

func TestFind(t *testing.T) {
	k := example.Kernel(t)
	sym, err := k.Find("bpf_test_run")
	qt.Assert(t, qt.IsNil(err))
	for _, test := range []struct {
		what string
		opts disasm.Options
		addr uint64
		len  int
		name string
	}{
		{"bpf_test_run", disasm.Options{}, sym.Addr, int(sym.Size), "bpf_test_run"},
		{"bpf_test_run", disasm.Options{Len: 5}, sym.Addr, 5, "bpf_test_run"},
		{fmt.Sprintf("%#x", sym.Addr), disasm.Options{}, sym.Addr, int(sym.Size), "bpf_test_run"},
		{fmt.Sprintf("%#x", sym.Addr+4), disasm.Options{}, sym.Addr + 4, 64, "bpf_test_run+0x4"},
		{"0x1000", disasm.Options{}, 0x1000, 64, "0x1000"},
		{fmt.Sprintf("tramp:%#x", sym.Addr), disasm.Options{Len: 1 << 40}, sym.Addr, 16 << 20, "bpf_test_run"},
	} {
		code, err := disasm.New(k).Find(test.what, test.opts)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", test.what))
		qt.Check(t, qt.Equals(code[0].Start, test.addr))
		qt.Check(t, qt.Equals(code[0].Len, test.len))
		qt.Check(t, qt.Equals(code[0].Name, test.name))
	}
	var none *disasm.NotFoundError
	for what, says := range map[string]string{
		"prog:x":         `there is no BPF program called "x"`,
		"prog:lokup":     `there is no BPF program called "lokup"`,
		"prog:clasify":   `there is no BPF program called "clasify" \(did you mean classify\?\)`,
		"prog:8":         `there is no BPF program with id 8; the nearest are 5 classify, 6 count_syscalls, 7 see_count_lo, 9 call_kfunc`,
		"prog:9/nowhere": `program 9 has no function "nowhere"; it has call_kfunc, lookup`,
	} {
		_, err := disasm.New(k).Find(what, disasm.Options{})
		qt.Check(t, qt.ErrorMatches(err, says))
		qt.Check(t, qt.IsTrue(errors.As(err, &none)))
	}
	var symbol *kernel.NoSymbolError
	_, err = disasm.New(k).Find("no_such_function", disasm.Options{})
	qt.Check(t, qt.IsTrue(errors.As(err, &symbol)))

	// If a program could not be read, it may be the one.
	idr, err := k.Addr("prog_idr")
	qt.Assert(t, qt.IsNil(err))
	var first uint64
	for e, err := range k.XArray(idr) {
		qt.Assert(t, qt.IsNil(err))
		first = e.Entry
		break
	}
	_, err = disasm.New(example.Kernel(t, example.Absent(first))).Find("prog:2", disasm.Options{})
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Excluded))
	qt.Check(t, qt.IsFalse(errors.As(err, &none)))
}

// TestUnreadable: a listing goes as far as memory does; where there is none at
// all it is an error.
func TestUnreadable(t *testing.T) {
	k := example.Kernel(t)
	sym, err := k.Find("bpf_test_run")
	qt.Assert(t, qt.IsNil(err))
	end := (sym.Addr + 4095) &^ 4095
	k = example.Kernel(t, example.Absent(sym.Addr), example.Write(end, []byte{0x90}))
	c := disasm.Code{Name: "x", Start: sym.Addr, Len: 16}
	_, err = disasm.New(k).Disassemble(c, disasm.Options{})
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Excluded))

	k = example.Kernel(t, example.Absent(sym.Addr))
	c.Start = sym.Addr&^4095 - 5
	l, err := disasm.New(k).Disassemble(c, disasm.Options{})
	if err == nil { // the page before is in the example
		qt.Check(t, qt.StringContains(l.Err, "excluded from the dump"))
		last := l.Lines[len(l.Lines)-1]
		qt.Check(t, qt.IsTrue(uint64(last.Addr) < sym.Addr&^4095))
	}
}

// TestBytes: whatever the bytes, each is listed once.
func TestBytes(t *testing.T) {
	k := example.Kernel(t)
	sym, err := k.Find("bpf_test_run")
	qt.Assert(t, qt.IsNil(err))
	k = example.Kernel(t, example.Write(sym.Addr, []byte{0x06, 0xff, 0xff, 0x0f, 0x0b, 0x0f}))
	l, err := disasm.New(k).Disassemble(disasm.Code{Name: "x", Start: sym.Addr, Len: 6}, disasm.Options{Intel: true})
	qt.Assert(t, qt.IsNil(err))
	n := 0
	for _, line := range l.Lines {
		n += len(strings.Fields(line.Bytes))
	}
	qt.Check(t, qt.Equals(n, 6))
	qt.Check(t, qt.Equals(l.Lines[0].Text, "(bad)"))
}
