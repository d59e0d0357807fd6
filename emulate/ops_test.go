package emulate

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

const dataAt = 0x20000 // of two mapped pages; around them there is no memory

// running executes code, given in hex, until its end.
func running(t *testing.T, code string, setup func(m *Machine)) (*Machine, *Stop) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(code, " ", ""))
	qt.Assert(t, qt.IsNil(err))
	m := machine(b, Options{})
	m.Mem.Map(dataAt, 2*pageSize)
	m.RIP = codeAt
	m.Break(codeAt + uint64(len(b)))
	if setup != nil {
		setup(m)
	}
	return m, m.Run(context.Background())
}

// TestOps has what processors do where Unicorn is no judge: its QEMU does them
// wrong or not at all. The results are those of an Intel Xeon.
func TestOps(t *testing.T) {
	const a, b = 0x123456789abcdef0, 0x00ff00ff0f0f3355
	for _, c := range []struct {
		name, code       string
		rax, rcx, rdx    uint64 // before
		wantAX           uint64
		flags, wantFlags uint64 // which are compared, and their values
	}{
		{"pdep %rdx,%rcx,%rax", "c4e2f3f5c2", 0, a, b, 0x9a00bc0d0e3300, 0, 0},
		{"pext %rdx,%rcx,%rax", "c4e2f2f5c2", 0, a, b, 0x3478ac6c, 0, 0},
		{"bextr %rdx,%rcx,%rax", "c4e2e8f7c1", 0, 0xffffffffffff8000, 0xff00, 0xffffffffffff8000, CF | ZF | OF, 0},
		{"bextr %rdx,%rcx,%rax", "c4e2e8f7c1", 0, a, 0x0804, 0xef, CF | ZF | OF, 0},
		{"bextr %rdx,%rcx,%rax", "c4e2e8f7c1", 0, a, 0x0880, 0, CF | ZF | OF, ZF},
		{"bzhi %rdx,%rcx,%rax", "c4e2e8f5c1", 0, a, 0x40, a, CF | ZF, CF},
		{"bzhi %rdx,%rcx,%rax", "c4e2e8f5c1", 0, a, 0x3f, a, CF | ZF, 0},
		{"blsi %rcx,%rax", "c4e2f8f3d9", 0, 0xffffffffffff8000, 0, 0x8000, CF | ZF, CF},
		{"blsi %rcx,%rax", "c4e2f8f3d9", 1, 0, 0, 0, CF | ZF, ZF},
		{"popcnt %rcx,%rax", "f3480fb8c1", 0, a, 0, 32, statusFlags, 0},
		{"cmpxchg %edx,%ecx", "0fb1d1", a, b, 5, b & 0xffffffff, ZF, 0},
		{"bsf %ecx,%eax", "0fbcc1", a, 0, 0, a, ZF, ZF},
		{"shld $20,%cx,%ax", "660fa4c814", 0x1234, 0xabcd, 0, 0xbcd1, 0, 0},
		{"shrd $20,%cx,%ax", "660facc814", 0x1234, 0xabcd, 0, 0x4abc, 0, 0},
		{"shl $0,%eax", "c1e000", a, 0, 0, a & 0xffffffff, 0, 0},
	} {
		m, s := running(t, c.code, func(m *Machine) { m.GP[RAX], m.GP[RCX], m.GP[RDX] = c.rax, c.rcx, c.rdx })
		qt.Check(t, qt.Equals(s.Outcome, Reached), qt.Commentf("%s: %v", c.name, s.Err))
		qt.Check(t, qt.Equals(m.GP[RAX], c.wantAX), qt.Commentf("%s: %#x", c.name, m.GP[RAX]))
		qt.Check(t, qt.Equals(m.Flags&c.flags, c.wantFlags), qt.Commentf("%s", c.name))
	}
	m, _ := running(t, "0fb1d1", func(m *Machine) { m.GP[RCX] = a })
	qt.Check(t, qt.Equals(m.GP[RCX], a), qt.Commentf("a failing cmpxchg changed its register"))
	m, _ = running(t, "480f38f007", func(m *Machine) { m.GP[RDI] = dataAt; _ = m.Store(dataAt, a, 8) })
	qt.Check(t, qt.Equals(m.GP[RAX], uint64(0xf0debc9a78563412)), qt.Commentf("movbe"))
}

// TestExceptions has what raises which exception, and that nothing else changes.
func TestExceptions(t *testing.T) {
	for _, c := range []struct {
		name, code string
		vector     Vector
	}{
		{"div %rcx by zero", "48f7f1", DivideError},
		{"idiv %rbx: too big", "48f7fb", DivideError},
		{"idiv %cl", "f6f9", DivideError},
		{"int3", "cc", Breakpoint},
		{"ud2", "0f0b", InvalidOpcode},
		{"ud1", "0fb9c0", InvalidOpcode},
		{"lock add %eax,%ecx", "f001c1", InvalidOpcode},
		{"mov (%rsi),%rax: not mapped", "488b06", PageFault},
		{"mov (%r8),%rax: not canonical", "498b00", GeneralProtect},
		{"cmpxchg16b 1(%rdi): not aligned", "480fc74f01", GeneralProtect},
		{"movdqa 1(%rdi),%xmm0", "660f6f4701", GeneralProtect},
		{"xadd %rax,(%rsi)", "480fc106", PageFault},
		{"pop (%rsi)", "8f06", PageFault},
		{"call *%r9 with no stack", "4c89cc ffd0", PageFault},
		{"cmps", "48a7", PageFault},
	} {
		var before Regs
		m, s := running(t, c.code, func(m *Machine) {
			m.GP = [16]uint64{RAX: 1 << 63, RBX: 2, RDX: 1 << 62, RSI: 0x40000, RDI: dataAt, R8: 0x8000000000000000, R9: 0x40000, RSP: m.GP[RSP]}
			before = m.Regs
		})
		var e *Exception
		qt.Assert(t, qt.IsTrue(errors.As(s.Err, &e)), qt.Commentf("%s: %s %v", c.name, s.Outcome, s.Err))
		qt.Check(t, qt.Equals(e.Vector, c.vector), qt.Commentf("%s", c.name))
		before.RIP, before.GP[RSP] = m.RIP, m.GP[RSP]
		qt.Check(t, qt.Equals(m.Regs, before), qt.Commentf("%s", c.name))
	}
}

// TestUnsupportedNames has what a machine says of what it cannot do.
func TestUnsupportedNames(t *testing.T) {
	for code, want := range map[string]string{
		"0fa2":     "cpuid at .*: what it reads is not known",
		"f4":       "hlt at .*: control leaves the kernel, or waits",
		"0f32":     "rdmsr at .*: model-specific register 0x0 is not known",
		"0f22d8":   `mov %rax,%cr3 at .*: another address space`,
		"c5f9efc0": "vpxor .* at .*: AVX is not modelled",
		"8cd8":     "mov %ds,%eax at .*: a segment or debug register is not modelled",
		"0f03c8":   "lsl %eax,%ecx .*: the limit of segment 0x0 is not known",
		"c8100001": "enter .*: a nested frame",
	} {
		_, s := running(t, code, nil)
		qt.Check(t, qt.Equals(s.Outcome, Unsupported))
		qt.Check(t, qt.ErrorMatches(s.Err, "cannot execute "+want))
	}
}

// TestSystem has what a machine answers from what it was told.
func TestSystem(t *testing.T) {
	// mov %cs,%eax; rdpid %rcx; mov $0x7b,%edx; lsl %dx,%ebx; swapgs; mov %cr4,%rsi; rdtsc twice, into r8d and r9d
	m, s := running(t, "8cc8 f30fc7f9 ba7b000000 0f03da 0f01f8 0f20e6 89c5 0f31 4189c0 0f31 4189c1", func(m *Machine) {
		m.TSCAux, m.KernelGSBase, m.TSC = 0x1003, 0x77, 1000
		m.CR[4] = 0x20
	})
	qt.Assert(t, qt.Equals(s.Outcome, Reached))
	qt.Check(t, qt.Equals(m.GP[RBP], uint64(0x10)))
	qt.Check(t, qt.Equals(m.GP[RCX], uint64(0x1003)))
	qt.Check(t, qt.Equals(m.GP[RBX], uint64(0x1003)))
	qt.Check(t, qt.Equals(m.GSBase, uint64(0x77)))
	qt.Check(t, qt.Equals(m.GP[RSI], uint64(0x20)))
	qt.Check(t, qt.Equals(m.GP[R8], uint64(1000+7)))
	qt.Check(t, qt.Equals(m.GP[R9], uint64(1000+9+1)))
}
