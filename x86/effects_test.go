package x86

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func (p Place) text() string {
	switch p.Kind {
	case PlaceGP:
		return fmt.Sprintf("r%d:%d+%d", p.N, p.Off, p.Size)
	case PlaceX:
		return fmt.Sprintf("x%d:%d+%d", p.N, p.Off, p.Size)
	case PlaceFlags:
		return fmt.Sprintf("f%x", p.Flags)
	case PlaceMem:
		return fmt.Sprintf("m%d:%d+%d", p.N, p.Off, p.Size)
	}
	return "ip"
}

// text writes effects: each output with its class and inputs, those that decide
// behind a question mark; then the registers of the address.
func (e *Effects) text() string {
	var out []string
	for i := range e.Out[:e.NOut] {
		o := &e.Out[i]
		s := fmt.Sprintf("%s=%d", o.text(), o.Class)
		for in := range e.In[:e.NIn] {
			if o.From>>in&1 != 0 {
				s += " " + e.In[in].text()
			}
		}
		for in := range e.In[:e.NIn] {
			if o.Cond>>in&1 != 0 {
				s += " ?" + e.In[in].text()
			}
		}
		if o.Fixed != 0 {
			s += fmt.Sprintf(" fixed %x", o.Fixed)
		}
		if o.Same != 0 {
			s += fmt.Sprintf(" same %x", o.Same)
		}
		out = append(out, s)
	}
	for r, m := range e.Address.GP {
		if m != 0 {
			out = append(out, fmt.Sprintf("@r%d", r))
		}
	}
	return strings.Join(out, "; ")
}

// TestEffects looks at a few; package emulate has the judge of all.
func TestEffects(t *testing.T) {
	for _, c := range []struct{ name, code, want string }{
		{"xor %eax,%eax", "31c0", "r0:0+8=1 fixed f0; fc4=1; f801=1; f10=11"},
		{"mov 8(%rdi,%rcx,4),%eax", "8b448f08", "r0:0+8=2 m0:0+4 fixed f0; @r1; @r7"},
		{"movsbl %ah,%ecx", "0fbecc", "r1:0+8=4 r0:1+1 fixed f0 same 1"},
		{"push (%rbx)", "ff33", "r4:0+8=6 r4:0+8; m1:0+8=2 m0:0+8; @r3; @r4"},
		{"pop %rbp", "5d", "r4:0+8=6 r4:0+8; r5:0+8=2 m0:0+8; @r4"},
		{"and $0xff00ff,%edx", "81e2ff00ff00", "r2:0+8=5 r2:0+4 fixed fa same 5; fc4=0 r2:0+3; f801=1; f10=11"},
		{"test $0x100,%esi", "f7c600010000", "fc4=0 r6:1+1; f801=1; f10=11"},
		{"cmove %rcx,%rax", "480f44c1", "r0:0+8=2 r0:0+8 r1:0+8 ?f40"},
		{"lock cmpxchg %rdx,(%rdi)", "f0480fb117", "m0:0+8=2 m0:0+8 r2:0+8 ?m0:0+8 ?r0:0+8; r0:0+8=2 m0:0+8 r0:0+8 ?m0:0+8 ?r0:0+8; f8d5=0 m0:0+8 r0:0+8; @r7"},
		{"shr $0x10,%rax", "48c1e810", "r0:0+8=7 r0:0+8; fc5=0 r0:0+8; f810=11"},
		{"shl %cl,%eax", "d3e0", "r0:0+8=0 r0:0+4 r1:0+1 fixed f0; f8d5=0 r0:0+4 r1:0+1 f8d5"},
		{"rep movsq", "f348a5", "m1:0+8=2 m0:0+8; r6:0+8=0 f400 r1:0+8 r6:0+8; r7:0+8=0 f400 r1:0+8 r7:0+8; r1:0+8=0 r1:0+8; @r1; @r6; @r7"},
		{"call *8(%rax)", "ff5008", "ip=0 m0:0+8; r4:0+8=6 r4:0+8; m1:0+8=1; @r0; @r4"},
		{"jle", "7e00", "ip=0 f8c0"},
		{"lea 1(%rdi),%eax", "8d4701", "r0:0+8=6 r7:0+8 fixed f0"},
		{"pxor %xmm1,%xmm1", "660fefc9", "x1:0+16=1"},
		{"leave", "c9", "r4:0+8=6 r5:0+8; r5:0+8=2 m0:0+8; @r5"},
	} {
		code, err := hex.DecodeString(c.code)
		qt.Assert(t, qt.IsNil(err))
		in, err := Decode(code, 0x1000)
		qt.Assert(t, qt.IsNil(err))
		e := in.Effects()
		qt.Check(t, qt.IsTrue(e.Known))
		qt.Check(t, qt.Equals(e.text(), c.want), qt.Commentf("%s", c.name))
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		name        string
		code        string
		bytes, need uint64
	}{
		{"shr $16: byte 0 is byte 2", "48c1e810", 1, 4},
		{"shr $16: byte 7 is zero", "48c1e810", 0x80, 0},
		{"shr $12: byte 1 is of bytes 2 and 3", "48c1e80c", 2, 0xc},
		{"sar $60: the sign byte", "48c1f83c", 0xff, 0x80},
		{"rol $8 of 4 bytes", "c1c008", 1, 8},
		{"bswap %eax", "0fc8", 1, 8},
		{"bswap %eax: upper half", "0fc8", 0xf0, 0},
		{"inc: carries", "48ffc0", 4, 7},
		{"not", "48f7d0", 4, 4},
	} {
		code, err := hex.DecodeString(c.code)
		qt.Assert(t, qt.IsNil(err))
		in, err := Decode(code, 0x1000)
		qt.Assert(t, qt.IsNil(err))
		e := in.Effects()
		qt.Check(t, qt.Equals(e.Needs(&e.Out[0], c.bytes, 0, 0), c.need), qt.Commentf("%s", c.name))
	}
}

func TestEffectsDoNotAllocate(t *testing.T) {
	in, err := Decode([]byte{0xf0, 0x48, 0x0f, 0xb1, 0x17}, 0x1000)
	qt.Assert(t, qt.IsNil(err))
	n := 0
	qt.Check(t, qt.Equals(testing.AllocsPerRun(100, func() {
		e := in.Effects()
		n += int(e.NOut)
	}), 0))
}
