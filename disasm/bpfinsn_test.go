package disasm

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestBPFInsn: instructions as the kernel has them, in bpftool's notation.
func TestBPFInsn(t *testing.T) {
	names := bpfNames{
		call:    func(i int, in bpfInsn) string { return fmt.Sprintf("f%d#%d", i, in.imm) },
		const64: func(bpfInsn, uint64) string { return "" },
	}
	for _, test := range []struct{ code, want string }{
		{"bf16000000000000", "(bf) r6 = r1"},
		{"bc16000000000000", "(bc) w6 = w1"},
		{"b7000000ffffffff", "(b7) r0 = -1"},
		{"07020000f8ffffff", "(07) r2 += -8"},
		{"0f21000000000000", "(0f) r1 += r2"},
		{"5700000003000000", "(57) r0 &= 3"},
		{"c701000020000000", "(c7) r1 s>>= 32"},
		{"8700000000000000", "(87) r0 = -r0"},
		{"8400000000000000", "(84) w0 = -w0"},
		{"3f21000000000000", "(3f) r1 /= r2"},
		{"3f21010000000000", "(3f) r1 s/= r2"},
		{"9721010005000000", "(97) r1 s%= 5"},
		{"bf21080000000000", "(bf) r1 = (s8)r2"},
		{"bc21100000000000", "(bc) w1 = (s16)w2"},
		{"bf21ffff00000000", "(bf) r1 = &(void __percpu *)(r2)"},
		{"bf21010001000000", "(bf) r1 = addr_space_cast(r2, 0, 1)"},
		{"dc01000010000000", "(dc) r1 = be16 r1"},
		{"d401000040000000", "(d4) r1 = le64 r1"},
		{"d701000020000000", "(d7) r1 = bswap32 r1"},
		{"61a1fcff00000000", "(61) r1 = *(u32 *)(r10 -4)"},
		{"7911080000000000", "(79) r1 = *(u64 *)(r1 +8)"},
		{"8111080000000000", "(81) r1 = *(s32 *)(r1 +8)"},
		{"3911080000000000", "(79) r1 = *(u64 *)(r1 +8)"}, // may fault
		{"5111080000000000", "(91) r1 = *(s8 *)(r1 +8)"},
		{"b111080000000000", "(71) r1 = *(u8 *)(r1 +8)"}, // of an arena
		{"7b1af8ff00000000", "(7b) *(u64 *)(r10 -8) = r1"},
		{"620afcff07000000", "(62) *(u32 *)(r10 -4) = 7"},
		{"bb12080000000000", "(7b) *(u64 *)(r2 +8) = r1"},
		{"c200000000000000", "(c2) nospec"},
		{"db10000000000000", "(db) lock *(u64 *)(r0 +0) += r1"},
		{"c310000001000000", "(c3) r1 = atomic_fetch_add((u32 *)(r0 +0), r1)"},
		{"db10000051000000", "(db) r1 = atomic64_fetch_and((u64 *)(r0 +0), r1)"},
		{"db100000e1000000", "(db) r1 = atomic64_xchg((u64 *)(r0 +0), r1)"},
		{"db100000f1000000", "(db) r0 = atomic64_cmpxchg((u64 *)(r0 +0), r0, r1)"},
		{"db10080000010000", "(db) r0 = load_acquire((u64 *)(r1 +8))"},
		{"db10080010010000", "(db) store_release((u64 *)(r0 +8), r1)"},
		{"300000000e000000", "(30) r0 = *(u8 *)skb[14]"},
		{"4810000002000000", "(48) r0 = *(u16 *)skb[r1 + 2]"},
		{"1801000078563412 00000000f0debc9a", "(18) r1 = 0x9abcdef012345678"},
		{"8500000001000000", "(85) call f0#1"},
		{"f500000000000000", "(85) call f0#0"},
		{"e510030001000000", "(85) call f0#1"}, // by the interpreter
		{"9500000000000000", "(95) exit"},
		{"05000300ffffffff", "(05) goto pc+3"},
		{"060000000500fcff", "(06) gotol pc-262139"},
		{"e500020000000000", "(e5) may_goto pc+2"},
		{"0d01000000000000", "(0d) gotox r1"},
		{"1500fdff00000000", "(15) if r0 == 0x0 goto pc-3"},
		{"5600010004000000", "(56) if w0 != 0x4 goto pc+1"},
		{"c5000100ffffffff", "(c5) if r0 s< 0xffffffff goto pc+1"},
		{"2d21010000000000", "(2d) if r1 > r2 goto pc+1"},
		{"8f00000000000000", "(8f) r0 = -r0"},
		{"e700000000000000", "(e7) BUG_e7"},
		{"f700000000000000", "(f7) BUG_f7"},
		{"c310000077000000", "(c3) BUG_c3"},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(test.code, " ", ""))
		qt.Assert(t, qt.IsNil(err))
		hi := int32(0)
		if len(b) > bpfInsnSize {
			hi = decodeBPF(b[bpfInsnSize:]).imm
		}
		qt.Check(t, qt.Equals(decodeBPF(b).format(0, hi, names), test.want), qt.Commentf("%s", test.code))
	}
}

// FuzzBPFInsn: any eight bytes have a text.
func FuzzBPFInsn(f *testing.F) {
	f.Add([]byte{0xbf, 0x16, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < bpfInsnSize {
			return
		}
		names := bpfNames{
			call:    func(int, bpfInsn) string { return "f" },
			const64: func(bpfInsn, uint64) string { return "" },
		}
		text := decodeBPF(b).format(0, 0, names)
		if len(text) < len("(00) x") || strings.HasSuffix(text, " ") {
			t.Errorf("% x: %q", b, text)
		}
	})
}
