package jit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/jit"
)

// TestKeepsTailCalls is case A: which kernels hand the count on. 6.1 has the
// fix from its stable releases.
func TestKeepsTailCalls(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		fixture string
		reaches *bool // what the options say of the function
		want    string
		show    string // in the evidence
	}{
		{"5.10/caseA-fexit", nil, "false", "call __bpf_tramp_enter"},
		{"5.10/caseA-fentry-fexit", nil, "false", "call __bpf_prog_exit"},
		{"5.10/caseA-fexit", &no, "does not arise", ""},
		{"5.10/caseA-fentry", nil, "does not arise", ""}, // the code does not tell where it returns to
		{"5.10/caseA-fentry", &yes, "false", "call __bpf_prog_exit"},
		{"6.1/caseA-fexit", nil, "true", "push %rax"},
		{"6.1/caseA-fentry", nil, "true", "push %rax"},
		{"6.12/caseA-fexit", nil, "true", "mov -0x38(%rbp),%rax"},
		{"7.2/caseA-fentry-fexit", nil, "true", "mov -0x38(%rbp),%rax"},
		{"6.1/trampoline-2", nil, "does not arise", ""}, // of a kernel function
		{"6.12/trampoline-1", nil, "does not arise", ""},
		{"6.12/struct_ops-ssthresh", &yes, "does not arise", ""},
	} {
		t.Run(c.fixture+" "+c.want, func(t *testing.T) {
			x := readFixture(t, "testdata/"+c.fixture+".code")
			o := x.options()
			o.TailCallReachable = c.reaches
			got, err := jit.ReadTrampoline(x.code, x.addr, o)
			qt.Assert(t, qt.IsNil(err))
			keeps := "does not arise"
			if got.KeepsTailCalls != nil {
				keeps = fmt.Sprint(*got.KeepsTailCalls)
			}
			qt.Assert(t, qt.Equals(keeps, c.want))
			qt.Assert(t, qt.StringContains(strings.Join(got.Evidence, "\n"), c.show))
			qt.Assert(t, qt.Equals(len(got.Evidence) > 0, got.KeepsTailCalls != nil))
		})
	}
}

// TestPrograms: the programs of trampolines with as many as kernels take, in
// order.
func TestPrograms(t *testing.T) {
	for _, c := range []struct {
		fixture       string
		before, after int
	}{
		{"5.10/trampoline-1", 1, 0}, {"5.10/trampoline-2", 1, 1}, {"5.10/trampoline-38", 19, 19},
		{"6.1/trampoline-1", 1, 0}, {"6.1/trampoline-2", 1, 1}, {"6.1/trampoline-38", 19, 19},
		{"6.12/trampoline-1", 1, 0}, {"6.12/trampoline-2", 1, 1}, {"6.12/trampoline-38", 19, 19},
		{"7.2/trampoline-1", 1, 0}, {"7.2/trampoline-2", 1, 1}, {"7.2/trampoline-36", 18, 18},
		{"7.2/trampoline-fsession", 2, 1},
		{"6.12/trampoline-fmod_ret", 3, 1},
	} {
		t.Run(c.fixture, func(t *testing.T) {
			x := readFixture(t, "testdata/"+c.fixture+".code")
			got, err := jit.ReadTrampoline(x.code, x.addr, x.options())
			qt.Assert(t, qt.IsNil(err))
			before, after := 0, 0
			for _, r := range got.Runs {
				qt.Check(t, qt.IsTrue(strings.HasPrefix(x.syms[r.Prog], "bpf_prog_")))
				qt.Check(t, qt.IsTrue(strings.HasPrefix(x.syms[r.Enter], "__bpf_prog_enter")))
				qt.Check(t, qt.IsTrue(strings.HasPrefix(x.syms[r.Exit], "__bpf_prog_exit")))
				qt.Check(t, qt.Not(qt.Equals(r.Struct, 0)))
				if r.After {
					after++
				} else {
					before++
				}
			}
			qt.Check(t, qt.Equals(before, c.before))
			qt.Check(t, qt.Equals(after, c.after))
			qt.Check(t, qt.Equals(got.Calls, c.after > 0))
			qt.Check(t, qt.Equals(got.Enters, c.after > 0))
		})
	}
}

// TestPadding: what follows the code in its page does not matter.
func TestPadding(t *testing.T) {
	for _, x := range fixtures(t, "*/trampoline-*") {
		want, err := jit.ReadTrampoline(x.code, x.addr, x.options())
		qt.Assert(t, qt.IsNil(err))
		for _, pad := range []byte{0x00, 0xcc, 0x90} {
			code := append([]byte(nil), x.code...)
			for range 300 {
				code = append(code, pad)
			}
			got, err := jit.ReadTrampoline(code, x.addr, x.options())
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(got.Len == want.Len || pad == 0xcc && got.Len == want.Len+1), qt.Commentf("%s padded with %#x", x.path, pad))
			qt.Check(t, qt.DeepEquals(got.Runs, want.Runs))
		}
	}
}

// TestTruncated: a trampoline that ends early is an error that says where, with
// what was read.
func TestTruncated(t *testing.T) {
	for _, x := range fixtures(t, "*/trampoline-2") {
		whole, err := jit.ReadTrampoline(x.code, x.addr, x.options())
		qt.Assert(t, qt.IsNil(err))
		for n := range len(x.code) - 1 {
			got, err := jit.ReadTrampoline(x.code[:n], x.addr, x.options())
			if err == nil { // the int3 behind the return is not needed
				qt.Check(t, qt.IsTrue(n >= whole.Len-1), qt.Commentf("%s cut to %d bytes", x.path, n))
				continue
			}
			var no *jit.NotTrampolineError
			qt.Assert(t, qt.IsTrue(errors.As(err, &no)))
			qt.Check(t, qt.IsTrue(no.Addr >= x.addr && no.Addr <= x.addr+uint64(n)), qt.Commentf("%v", err))
			qt.Check(t, qt.IsTrue(len(got.Runs) <= len(whole.Runs)))
		}
	}
}

func TestPrologues(t *testing.T) {
	for _, c := range []struct {
		fixture string
		want    jit.Prologue
	}{
		{"5.10/caseA-stub", jit.Prologue{Len: 0x13, CountBy: jit.CountValue, CountSlot: -16, StackSize: 8, TailCallEntry: 11}},
		{"5.10/caseD-entry", jit.Prologue{Len: 0xd, Resets: true, CountBy: jit.CountValue, CountSlot: -8, Saved: []string{"rbx"}, TailCallEntry: 11}},
		{"6.12/caseD-entry", jit.Prologue{Len: 0x23, Endbr: true, Resets: true, CountBy: jit.CountPointer, CountSlot: -16, Saved: []string{"rbx"}, TailCallEntry: 16}},
		{"7.2/caseD-subprog_a", jit.Prologue{Len: 0x1d, Endbr: true, CountBy: jit.CountPointer, CountSlot: -24, StackSize: 8, TailCallEntry: 16}},
		{"7.2/private-stack", jit.Prologue{Len: 0x27, Endbr: true, PrivateStack: true, TailCallEntry: 16}},
		{"7.2/throw-callback", jit.Prologue{Len: 0x22, Endbr: true, Exception: true, TailCallEntry: 0x1e}},
		{"6.1/classic", jit.Prologue{Len: 0x10, Classic: true, Saved: []string{"rbx", "r13", "r14", "r15"}, TailCallEntry: 9}},
	} {
		t.Run(c.fixture, func(t *testing.T) {
			x := readFixture(t, "testdata/"+c.fixture+".code")
			got, ok := jit.ReadPrologue(x.code, x.addr)
			qt.Assert(t, qt.IsTrue(ok))
			got.Attach = jit.AttachPoint{} // in the golden files
			qt.Assert(t, qt.DeepEquals(got, c.want))
		})
	}
}
