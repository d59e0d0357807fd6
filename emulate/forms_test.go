package emulate

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

// formKernels are the kernels whose text must be executed.
var formKernels = []string{"5.10", "6.1", "6.12", "7.2"}

// A form is what instructions have in common that one piece of code executes:
// operation (with it the condition), opcode, prefixes, operand kinds and sizes,
// and which parts a memory operand's address has.
type form struct {
	key   formKey
	Count int        // instructions of the form
	Insts []x86.Inst // the first few different encodings
}

// keepInsts is how many encodings of a form are kept.
const keepInsts = 8

type formKey struct {
	op     x86.Op
	opcode uint8
	prefix x86.Prefix
	size   uint8 // operand size
	args   [4]formArg
}

type formArg struct {
	kind  x86.Kind
	size  uint16
	class string // of a register; of a memory operand the parts of its address
}

// Name writes the form: "cmpxchg(b1) lock m8[gs:base] r8".
func (f *form) Name() string {
	k := f.key
	var b strings.Builder
	fmt.Fprintf(&b, "%v(%02x)", k.op, k.opcode)
	for _, p := range []struct {
		bit  x86.Prefix
		name string
	}{{x86.Lock, "lock"}, {x86.Rep, "rep"}, {x86.Repne, "repne"}, {x86.Addr32, "addr32"}} {
		if k.prefix&p.bit != 0 {
			b.WriteString(" " + p.name)
		}
	}
	if k.args[0].kind == x86.KindNone {
		fmt.Fprintf(&b, " %d", k.size)
	}
	for _, a := range k.args {
		switch a.kind {
		case x86.KindReg:
			fmt.Fprintf(&b, " %s%d", a.class, a.size)
		case x86.KindMem:
			fmt.Fprintf(&b, " m%d[%s]", a.size, a.class)
		case x86.KindImm:
			fmt.Fprintf(&b, " i%d", a.size)
		case x86.KindRel:
			b.WriteString(" rel")
		}
	}
	return b.String()
}

// formOf returns the form of an instruction.
func formOf(in *x86.Inst) formKey {
	k := formKey{
		op: in.Op, opcode: in.Opcode, size: uint8(in.OperandSize()),
		prefix: in.Prefix & (x86.Lock | x86.Rep | x86.Repne | x86.Addr32),
	}
	for i := range in.Args[:in.NArgs] {
		a := &in.Args[i]
		f := formArg{kind: a.Kind, size: a.Size}
		switch a.Kind {
		case x86.KindReg:
			f.class = regClass(a.Reg)
		case x86.KindMem:
			f.class = memClass(a)
		}
		k.args[i] = f
	}
	return k
}

func regClass(r x86.Reg) string {
	switch k, _ := register(r); {
	case k == kReg:
		return "r"
	case k == kHigh:
		return "h"
	case k == kXmm:
		return "x"
	}
	return strings.TrimRight(strings.ToLower(r.String()), "0123456789")
}

func memClass(a *x86.Arg) string {
	s := ""
	if a.Seg == x86asm.FS || a.Seg == x86asm.GS {
		s = strings.ToLower(a.Seg.String()) + ":"
	}
	switch {
	case a.Reg == x86asm.RIP || a.Reg == x86asm.EIP:
		return s + "rip"
	case a.Reg == 0 && a.Index == 0:
		return s + "abs"
	case a.Reg == 0:
		return s + "index"
	case a.Index != 0:
		return s + "base+index"
	}
	return s + "base"
}

// foundForms keeps what kernelForms found: it takes seconds.
var foundForms []*form

// kernelForms returns every form in the text of the four kernels as it was in
// memory, and of JITed BPF programs, by name.
func kernelForms(t testing.TB) []*form {
	t.Helper()
	if foundForms != nil {
		return foundForms
	}
	forms := map[formKey]*form{}
	for _, version := range formKernels {
		k := formKernel(t, "idle-"+version)
		for _, r := range textRanges(t, k) {
			code, err := mem.Bytes(k.Mem(), r.Start, int(r.End-r.Start))
			qt.Assert(t, qt.IsNil(err))
			addForms(forms, code, r.Start)
		}
		for _, code := range jited(t, version) {
			addForms(forms, code, 0xffffffffc0000000)
		}
	}
	out := slices.Collect(maps.Values(forms))
	slices.SortFunc(out, func(a, b *form) int {
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.Count, b.Count))
	})
	foundForms = out
	return out
}

// formKernel opens a dump.
func formKernel(t testing.TB, scene string) *kernel.Kernel {
	t.Helper()
	core, err := vmcore.Open(dumptest.Get(t, scene+".kdump"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	k, err := kernel.FromSource(t.Context(), core)
	qt.Assert(t, qt.IsNil(err))
	return k
}

// textRanges returns where a kernel's code lies.
func textRanges(t testing.TB, k *kernel.Kernel) []kernel.Range {
	start, err := k.Addr("_stext")
	qt.Assert(t, qt.IsNil(err))
	end, err := k.Addr("_etext")
	qt.Assert(t, qt.IsNil(err))
	return []kernel.Range{{Start: start, End: end}}
}

// jited returns the machine code of the programs of the scene of BPF objects.
func jited(t testing.TB, version string) (out [][]byte) {
	f, err := os.Open(dumptest.Get(t, "bpf-"+version+".jited"))
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for d := json.NewDecoder(f); d.More(); {
		var p struct{ Code string }
		qt.Assert(t, qt.IsNil(d.Decode(&p)))
		code, err := hex.DecodeString(p.Code)
		qt.Assert(t, qt.IsNil(err))
		out = append(out, code)
	}
	return out
}

// addForms adds the forms of one piece of code.
func addForms(forms map[formKey]*form, code []byte, addr uint64) {
	var in x86.Inst
	for len(code) > 0 {
		if in.Decode(code, addr) == nil {
			k := formOf(&in)
			f := forms[k]
			if f == nil {
				f = &form{key: k}
				forms[k] = f
			}
			f.Count++
			if len(f.Insts) < keepInsts && !slices.ContainsFunc(f.Insts, func(o x86.Inst) bool {
				return string(o.Bytes()) == string(in.Bytes())
			}) {
				f.Insts = append(f.Insts, in)
			}
		}
		n := max(in.Len, 1)
		code, addr = code[n:], addr+uint64(n)
	}
}

// unexecuted are the operations in kernel text that the machine does not
// execute, with the reason.
var unexecuted = unexecutedOps()

func unexecutedOps() map[x86.Op]string {
	not := map[x86.Op]string{}
	for op := x86.BAD + 1; !strings.HasPrefix(op.String(), "Op("); op++ {
		if _, ok := ops[op]; !ok {
			not[op] = why(op)
		}
	}
	return not
}

// TestForms: every form in kernel text is executed, or is known not to be.
func TestForms(t *testing.T) {
	all := kernelForms(t)
	var missing []string
	total, without := 0, 0
	for _, f := range all {
		total += f.Count
		if _, ok := ops[f.key.op]; ok || unexecuted[f.key.op] != "" || f.Count < often {
			continue
		}
		without += f.Count
		missing = append(missing, fmt.Sprintf("%8d %s  % x", f.Count, f.Name(), f.Insts[0].Bytes()))
	}
	t.Logf("%d forms of %d instructions", len(all), total)
	if len(missing) > 0 {
		t.Errorf("%d forms, %d instructions, are not executed:\n%s", len(missing), without, strings.Join(missing, "\n"))
	}
}
