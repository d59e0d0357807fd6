package x86

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/arch/x86/x86asm"
)

// hexBytes parses "48 89 e5".
func hexBytes(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	qt.Assert(t, qt.IsNil(err))
	return b
}

func mustDecode(t testing.TB, code string, addr uint64) Inst {
	t.Helper()
	in, err := Decode(hexBytes(t, code), addr)
	qt.Assert(t, qt.IsNil(err))
	return in
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct {
		code      string
		truncated bool
	}{
		{"", true},
		{"06", false},                                // push es
		{"0f", true},                                 // map only
		{"48 8b", true},                              // no ModR/M
		{"48 8b 04", true},                           // no SIB
		{"48 8b 80 01 02 03", true},                  // displacement
		{"48 b8 01 02 03 04 05 06 07", true},         // immediate
		{"c5 f8", true},                              // no opcode
		{"c4 e2 7d", true},                           //
		{"62 f1 7c 48", true},                        //
		{"0f 04", false},                             // hole in the map
		{"66 c5 f8 28 c1", false},                    // prefix before VEX
		{"c4 e4 78 28 c1", false},                    // map 4
		{"62 f1 78 48 28 c1", false},                 // fixed bit clear
		{"c5 e8 28 c1", false},                       // vvvv used by nothing
		{strings.Repeat("66 ", 15) + "90", false},    // longer than 15
		{strings.Repeat("66 ", 14) + "48 90", false}, //
	} {
		in, err := Decode(hexBytes(t, strings.TrimSpace(tt.code)), 0x1000)
		var e *DecodeError
		qt.Assert(t, qt.IsTrue(errors.As(err, &e)), qt.Commentf("%s", tt.code))
		qt.Check(t, qt.Equals(e.Addr, uint64(0x1000)))
		qt.Check(t, qt.Equals(e.Truncated, tt.truncated), qt.Commentf("%s", tt.code))
		qt.Check(t, qt.Equals(in.Op, BAD))
		qt.Check(t, qt.Equals(in.String(), "(bad)"))
		qt.Check(t, qt.Equals(in.Flow(), FlowTrap))
	}
}

func TestMemOperand(t *testing.T) {
	regs := map[Reg]uint64{
		x86asm.RAX: 0x1000, x86asm.RBX: 0xffffffff81000000, x86asm.RCX: 2, x86asm.RSI: 0x5000, x86asm.RDI: 0x6000,
		x86asm.EAX: 0x1000, x86asm.ECX: 0xfffff000, x86asm.GS: 0xffff888000000000,
	}
	get := func(r Reg) (uint64, bool) { v, ok := regs[r]; return v, ok }
	for _, tt := range []struct {
		name, code string
		size       int
		access     Access
		addr       uint64
		known      bool
	}{
		{"load", "48 8b 40 30", 8, Read, 0x1030, true},
		{"store", "48 89 43 f8", 8, Write, 0xffffffff80fffff8, true},
		{"read-modify-write", "f0 ff 00", 4, Read | Write, 0x1000, true},
		{"compare", "80 38 00", 1, Read, 0x1000, true},
		{"scaled", "8b 44 c8 04", 4, Read, 0x1014, true},
		{"rip", "48 8b 05 10 00 00 00", 8, Read, 0x400017, true},
		{"per-cpu", "65 48 8b 04 25 28 00 00 00", 8, Read, 0xffff888000000028, true},
		{"per-cpu rip", "65 8b 05 10 00 00 00", 4, Read, 0xffff888000400017, true},
		{"address size", "67 8b 04 08", 4, Read, 0, true},
		{"lea", "48 8d 40 30", 0, 0, 0x1030, true},
		{"nop", "0f 1f 40 00", 4, 0, 0x1000, true},
		{"zero-extending load", "0f b7 00", 2, Read, 0x1000, true},
		{"string store", "f3 48 ab", 8, Write, 0x6000, true},
		{"string copy", "f3 a4", 1, Write, 0x6000, true},
		{"cmpxchg16b", "f0 48 0f c7 08", 16, Read | Write, 0x1000, true},
		{"xchg", "48 87 03", 8, Read | Write, 0xffffffff81000000, true},
		{"call through memory", "ff 50 18", 8, Read, 0x1018, true},
		{"pop to memory", "8f 00", 8, Write, 0x1000, true},
		{"setcc", "0f 94 00", 1, Write, 0x1000, true},
		{"evex compressed displacement", "62 f1 fe 48 6f 40 01", 64, Read, 0x1040, true},
		{"xsaves", "48 0f c7 28", 0, Write, 0x1000, true},
		{"moffs", "a1 00 10 00 00 00 00 00 00"[:26], 4, Read, 0x1000, true},
		{"unknown register", "48 8b 02", 8, Read, 0, false},
	} {
		in := mustDecode(t, tt.code, 0x400000)
		m, size, access, ok := in.MemOperand()
		c := qt.Commentf("%s: %s", tt.name, in.String())
		qt.Assert(t, qt.IsTrue(ok), c)
		qt.Check(t, qt.Equals(size, tt.size), c)
		qt.Check(t, qt.Equals(access, tt.access), c)
		addr, known := EffectiveAddress(m, get)
		qt.Check(t, qt.Equals(known, tt.known), c)
		qt.Check(t, qt.Equals(addr, tt.addr), c)
	}
	in := mustDecode(t, "48 89 e5", 0)
	_, _, _, ok := in.MemOperand()
	qt.Check(t, qt.IsFalse(ok))
}

func TestFlow(t *testing.T) {
	for _, tt := range []struct {
		code   string
		flow   Flow
		target uint64 // 0: none
	}{
		{"90", FlowNext, 0},
		{"e9 00 01 00 00", FlowJump, 0x1105},
		{"eb fe", FlowJump, 0x1000},
		{"ff e0", FlowIndirectJump, 0},
		{"3e ff e0", FlowIndirectJump, 0},
		{"ff 24 c5 00 00 00 00", FlowIndirectJump, 0},
		{"74 10", FlowCondJump, 0x1012},
		{"0f 85 00 01 00 00", FlowCondJump, 0x1106},
		{"e3 02", FlowCondJump, 0x1004},
		{"e8 fb ff ff ff", FlowCall, 0x1000},
		{"2e e8 fa ff ff ff", FlowCall, 0x1000},
		{"ff d0", FlowIndirectCall, 0},
		{"ff 50 08", FlowIndirectCall, 0},
		{"c3", FlowRet, 0},
		{"f3 c3", FlowRet, 0},
		{"48 cf", FlowRet, 0},
		{"48 0f 07", FlowRet, 0},
		{"f2 0f 01 ca", FlowRet, 0},
		{"cc", FlowTrap, 0},
		{"0f 0b", FlowTrap, 0},
		{"67 0f b9 40 10", FlowTrap, 0},
		{"f4", FlowHalt, 0},
	} {
		in := mustDecode(t, tt.code, 0x1000)
		c := qt.Commentf("%s", in.String())
		qt.Check(t, qt.Equals(in.Flow(), tt.flow), c)
		target, ok := in.Target()
		qt.Check(t, qt.Equals(ok, tt.target != 0), c)
		qt.Check(t, qt.Equals(target, tt.target), c)
	}
}

func TestOps(t *testing.T) {
	for code, op := range map[string]Op{
		"f3 0f 1e fa": ENDBR64, "48 b8 01 00 00 00 00 00 00 00": MOV, "0f b6 c0": MOVZX, "0f be c0": MOVSX,
		"48 63 c0": MOVSXD, "a4": MOVS, "f3 48 a5": MOVS, "f2 0f 10 00": MOVSD, "48 98": CDQE, "90": NOP, "66 90": XCHG,
		"49 90": XCHG, "f3 90": PAUSE, "0f 44 c1": CMOVE, "0f 94 c0": SETE, "74 00": JE, "0f 84 00 00 00 00": JE,
		"f0 0f b1 0f": CMPXCHG, "0f ae e8": LFENCE, "f3 48 0f ae e8": INCSSPQ, "ff 28": LJMP, "ff 20": JMP,
	} {
		in := mustDecode(t, code, 0)
		qt.Check(t, qt.Equals(in.Op, op), qt.Commentf("%s: %v", code, in.Op))
	}
	in := mustDecode(t, "0f 4e c1", 0)
	cc, ok := in.Cond()
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(cc, 14))
	in = mustDecode(t, "89 c1", 0)
	_, ok = in.Cond()
	qt.Check(t, qt.IsFalse(ok))
}

func TestFull(t *testing.T) {
	for r, full := range map[Reg]Reg{
		x86asm.AL: x86asm.RAX, x86asm.BH: x86asm.RBX, x86asm.SPB: x86asm.RSP, x86asm.DIB: x86asm.RDI, x86asm.R8B: x86asm.R8,
		x86asm.R15W: x86asm.R15, x86asm.ESI: x86asm.RSI, x86asm.R9L: x86asm.R9, x86asm.RCX: x86asm.RCX, x86asm.X3: x86asm.X3,
	} {
		qt.Check(t, qt.Equals(Full(r), full), qt.Commentf("%v", r))
	}
}

func TestSymbols(t *testing.T) {
	sym := func(addr uint64) (string, uint64, bool) { return "foo", addr - 0x1000, addr >= 0x1000 && addr < 0x2000 }
	for _, tt := range []struct{ code, gnu, intel string }{
		{"e8 0b 00 00 00", "call 0x1010 <foo+0x10>", "call 0x1010 <foo+0x10>"},
		{"e8 fb ff ff ff", "call 0x1000 <foo>", "call 0x1000 <foo>"},
		{"e8 fb ff ff 00", "call 0x1001000", "call 0x1001000"},
		{"48 8b 05 09 00 00 00", "mov 0x9(%rip),%rax # 0x1010 <foo+0x10>", "mov rax,QWORD PTR [rip+0x9] # 0x1010 <foo+0x10>"},
	} {
		in := mustDecode(t, tt.code, 0x1000)
		qt.Check(t, qt.Equals(string(in.AppendGNU([]byte("> "), sym)), "> "+tt.gnu))
		qt.Check(t, qt.Equals(string(in.AppendIntel(nil, sym)), tt.intel))
	}
}

func TestAround(t *testing.T) {
	// push %rbp; mov %rsp,%rbp; (bad); nop; call +0; jmp; data "0f 1f" swallowing what follows
	code := hexBytes(t, "55 48 89 e5 06 90 e8 00 00 00 00 b8 c3 90 90 90 90")
	texts := func(pc uint64, before, after int) []string {
		list, err := Around(code, 0x1000, pc, before, after)
		qt.Assert(t, qt.IsNil(err))
		var s []string
		for i := range list {
			s = append(s, list[i].String())
		}
		return s
	}
	qt.Check(t, qt.DeepEquals(texts(0x1006, 10, 0), []string{"push %rbp", "mov %rsp,%rbp", "(bad)", "nop", "call 0x100b"}))
	qt.Check(t, qt.DeepEquals(texts(0x1006, 2, 1), []string{"(bad)", "nop", "call 0x100b", "mov $0x909090c3,%eax"}))
	qt.Check(t, qt.DeepEquals(texts(0x100c, 1, 1), []string{"(bad)", "ret", "nop"}))
	qt.Check(t, qt.DeepEquals(texts(0x1000, 5, -1), []string{"push %rbp"}))
	qt.Check(t, qt.HasLen(texts(0x1010, 100, 100), 7))
	for _, pc := range []uint64{0xfff, 0x1011, 0} {
		_, err := Around(code, 0x1000, pc, 1, 1)
		var e *RangeError
		qt.Check(t, qt.IsTrue(errors.As(err, &e)))
	}
	for n := range 40 { // the window slides without losing or doubling one
		long := make([]byte, n+1)
		for i := range long {
			long[i] = 0x90
		}
		for before := range 5 {
			list, err := Around(long, 0, uint64(n), before, 0)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(list, min(before, n)+1))
			qt.Check(t, qt.Equals(list[0].Addr, uint64(n-min(before, n))))
		}
	}
}
