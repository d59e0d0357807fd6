package disasm

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/x86"
)

// TestThunks: calls through thunks, which mitigations decide about.
func TestThunks(t *testing.T) {
	k := example.Kernel(t)
	sym, ok := k.Lookup("__x86_indirect_thunk_rcx")
	qt.Assert(t, qt.IsTrue(ok))
	for _, test := range []struct {
		what, thunk string // what stands in the thunk for rcx
		code        string // hexadecimal; T is a call, J a jump to it
		want        string
	}{
		{"retpoline", "e8 01 00 00 00 cc", "T", "retpoline: call *%rcx"},
		{"tail call", "e8 01 00 00 00 cc", "J", "retpoline: jmp *%rcx"},
		{"off", "ff e1 cc", "T", "retpoline: call *%rcx (the thunk is now: jmp *%rcx)"},
		{"fenced", "0f ae e8 ff e1", "T", "retpoline: call *%rcx (the thunk is now: lfence; jmp *%rcx)"},
		{"rewritten", "cc", "ff d1 0f 1f 00", "retpoline, replaced by a plain call"},
		{"rewritten, of a high register", "cc", "41 ff d3 66 90", "retpoline, replaced by a plain call"},
		{"a call that was never another", "cc", "ff d1 85 c0 90", ""},
		{"through memory", "cc", "ff 11 0f 1f 00", ""},
		{"no call", "cc", "85 c0 0f 1f 00", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			thunk, err := hex.DecodeString(strings.ReplaceAll(test.thunk, " ", ""))
			qt.Assert(t, qt.IsNil(err))
			d := New(example.Kernel(t, example.Write(sym.Addr, thunk)))
			at := sym.Addr + 0x1000
			code := []byte{0xe8, 0, 0, 0, 0}
			switch test.code {
			case "J":
				code[0] = 0xe9
				fallthrough
			case "T":
				rel := uint32(sym.Addr - at - 5)
				for i := range 4 {
					code[1+i] = byte(rel >> (8 * i))
				}
			default:
				code, err = hex.DecodeString(strings.ReplaceAll(test.code, " ", ""))
				qt.Assert(t, qt.IsNil(err))
			}
			in, err := x86.Decode(code, at)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(d.thunkNote(&in, code[in.Len:]), test.want))
		})
	}
}
