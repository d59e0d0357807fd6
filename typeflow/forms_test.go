package typeflow

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/mem"
)

// oneFunc is an Env of one function, f(struct sk_buff *skb).
type oneFunc struct {
	types *ctype.Types
	proto *ctype.Type
}

const funcAt, skbAt = 0xffffffff81000000, 0x20000

func (e oneFunc) Types() *ctype.Types                  { return e.types }
func (e oneFunc) Func(addr uint64) (Func, bool)        { return Func{"f", e.proto, true}, addr == funcAt }
func (e oneFunc) Variable(uint64) (v Variable, b bool) { return }
func (e oneFunc) Symbol(uint64) string                 { return "" }

// TestForms follows single forms of code. In the code <path> stands for the
// offset of a member of struct sk_buff, <-path> for its negative, <path+1> for the byte
// behind, and {path} for the bit of a bitfield in its byte.
func TestForms(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "idle-6.1.kdump"))
	types, err := k.Types()
	qt.Assert(t, qt.IsNil(err))
	skb, err := types.Struct("sk_buff")
	qt.Assert(t, qt.IsNil(err))
	env := oneFunc{types, ctype.FuncOf(ctype.Builtin("u64"), []ctype.Param{{Name: "skb", Type: ctype.PointerTo(skb)}})}

	for _, test := range []struct{ name, code, want string }{
		{"test of a bitfield", "f687<cloned>{cloned} 7400", "skb->cloned (0x1) != 0"},
		{"bitfield moved down", "0fb687<cloned> c0e8[cloned] 83e001 85c0 7400", "skb->cloned (0x1) != 0"},
		{"spill", "488b87<dev> 50 31c0 59 4885c9 7400", "skb->dev (0x12345678) != NULL"},
		{"from a member to its record", "488d97<truesize> 488b82<dev-truesize> 4885c0 7400", "skb->dev (0x12345678) != NULL"},
		{"wrapped number", "8b87<users.refs.counter> 83f803 7400", "skb->users (0) != 3"},
		{"part of a number", "0fb687<len+1> 3c12 7400", "(u8)(skb->len >> 8) == 0x12"},
		{"low part, the rest not zero", "0fb687<len> 3c12 7400", "(u8)skb->len (0x34) != 0x12"},
		{"flag in a byte of a number", "f687<len+1>02 7400", "skb->len & 0x200 (0x200)"},
		{"unsigned order", "8b87<len> 3b87<data_len> 7700", "skb->len (0x1234) > skb->data_len (0x0)"},
		{"element", "0fb687<cb+3> 84c0 7400", "skb->cb[3] (8) != 0"},
		{"difference", "488b87<data_len> 8b87<len> 2b87<data_len> 83c0f6 85c0 7400", "skb->len - skb->data_len - 10 (0x122a) != 0"},
		{"a constant moved up by a byte", "0fb68f<cb+3> b840000000 d3e0 83e801 39f8 7600", "(64 << skb->cb[3]) - 1 (0x3fff) <= skb (0x20000)"},
		{"error pointer", "488b87<dev> 483d00f0ffff 7700", "!IS_ERR(skb->dev) (0x12345678)"},
		{"a pointer's flags masked", "488b87<dev> 4883e0fc 4885c0 7400", "skb->dev (0x12345678) != NULL"},
		{"truth value tested", "31c0 83bf<len>05 0f94c0 84c0 7500", "skb->len (0x1234) != 5"},
		{"overwritten by what is not followed", "488b87<dev> f3480fb8c0 4885c0 7400", ""},
		{"not a pointer to it any more", "488b87<dev> 480fc8 8b08 85c9 7400", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := assemble(t, types, skb, test.code)
			m := emulate.New(emulate.NewMemory(mem.Snapshot{Base: funcAt, Data: append(code, make([]byte, 4096)...)[:4096]}), emulate.Options{})
			m.Mem.Map(0x10000, 0x1000)
			m.Mem.Map(skbAt, 0x1000)
			m.GP[emulate.RSP] = 0x11000
			for path, v := range map[string]uint64{"len": 0x1234, "dev": 0x12345678} {
				p, err := types.Member(skb, path)
				qt.Assert(t, qt.IsNil(err))
				n, err := p.Size()
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(m.Store(skbAt+p.Offset, v, n)))
			}
			cb, err := types.Member(skb, "cb[3]")
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(m.Store(skbAt+cb.Offset, 8, 1)))
			p, err := types.Member(skb, "cloned")
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(m.Store(skbAt+p.Offset, 1<<p.BitOffset, 1)))

			f := New(env)
			got := "(no branch)"
			f.On = func(e *Event) {
				if e.Kind == Branch && strings.HasPrefix(e.Inst.Op.String(), "j") {
					got = ""
					if e.Cond.Known() {
						got = f.Text(e.Cond, e.Frame)
					}
				}
			}
			m.Observer = f
			s := m.Call(context.Background(), funcAt, skbAt)
			if s.Outcome == emulate.Faulted && test.want == "" {
				return
			}
			qt.Assert(t, qt.Equals(s.Outcome, emulate.Returned), qt.Commentf("%v", s.Err))
			qt.Check(t, qt.Equals(got, test.want))
		})
	}
}

// assemble fills in the members' offsets, and adds a ret.
func assemble(t *testing.T, types *ctype.Types, rec *ctype.Type, code string) []byte {
	t.Helper()
	place := func(path string) ctype.Place {
		p, err := types.Member(rec, path)
		qt.Assert(t, qt.IsNil(err))
		return p
	}
	var out []byte
	for code != "" {
		i := strings.IndexAny(code, "<{[ ")
		if i != 0 {
			if i < 0 {
				i = len(code)
			}
			b, err := hex.DecodeString(code[:i])
			qt.Assert(t, qt.IsNil(err))
			out, code = append(out, b...), code[i:]
			continue
		}
		if code[0] == ' ' {
			code = code[1:]
			continue
		}
		end := strings.IndexAny(code, ">}]")
		name := code[1:end]
		switch code[0] {
		case '{':
			out = append(out, 1<<place(name).BitOffset)
		case '[':
			out = append(out, place(name).BitOffset)
		default:
			var off uint64
			path, rest, plus := strings.Cut(name, "+")
			if plus {
				off = uint64(rest[0] - '0')
			}
			path, less, minus := strings.Cut(path, "-")
			if off += place(path).Offset; minus {
				off -= place(less).Offset
			}
			out = binary.LittleEndian.AppendUint32(out, uint32(off))
		}
		code = code[end+1:]
	}
	return append(out, 0xc3)
}
