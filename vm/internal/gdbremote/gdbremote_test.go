package gdbremote

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

type stub struct {
	io.Reader
	sent bytes.Buffer
}

func (s *stub) Write(p []byte) (int, error) { return s.sent.Write(p) }

func says(s string) (*stub, *Client) {
	st := &stub{Reader: strings.NewReader(s)}
	return st, NewClient(st)
}

func TestReadMemory(t *testing.T) {
	s, c := says("+$0102ff#8f")
	p := make([]byte, 3)
	n, err := c.ReadMemory(p, 0xffffffff81000000)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 3))
	qt.Assert(t, qt.DeepEquals(p, []byte{1, 2, 0xff}))
	qt.Assert(t, qt.Equals(s.sent.String(), "$mffffffff81000000,3#85+"))
}

func TestWriteMemory(t *testing.T) {
	s, c := says("+$OK#9a+$OK#9a")
	qt.Assert(t, qt.IsNil(c.WriteMemory([]byte{0xde, 0xad}, 0x10)))
	qt.Assert(t, qt.IsNil(c.Detach()))
	qt.Assert(t, qt.Equals(s.sent.String(), "$M10,2:dead#d4+$D#44+"))
}

func TestAnswers(t *testing.T) {
	for _, test := range []struct{ name, says, want string }{
		{"refused", "+$E14#aa", `gdb stub answered "E14" to "m0,2"`},
		{"not hex", "+$zzzz#e8", `gdb stub answered "zzzz" to "m0,2"`},
		{"short", "+$01#61", `gdb stub answered "01" to "m0,2"`},
		{"resent", "-+$01#61", `gdb stub answered "01" to "m0,2"`},
		{"never acknowledged", "---", `gdb stub: packet not acknowledged`},
		{"bad checksums", "+$01#62$01#62$01#62", `gdb stub: bad checksum`},
		{"closed", "+$01", `gdb stub: EOF`},
		{"endless", "+$" + strings.Repeat("0", maxPacket+1), `gdb stub: packet of more than 65536 bytes`},
	} {
		_, c := says(test.says)
		_, err := c.ReadMemory(make([]byte, 2), 0)
		qt.Check(t, qt.ErrorMatches(err, test.want), qt.Commentf(test.name))
	}
	_, c := says("+$E22#a9")
	var refused *RefusedError
	qt.Assert(t, qt.IsTrue(errors.As(c.WriteMemory([]byte{1}, 0), &refused)))
}

func FuzzAnswers(f *testing.F) {
	f.Add("+$0102#c3")
	f.Add("-+$E14#aa")
	f.Fuzz(func(t *testing.T, s string) {
		_, c := says(s)
		p := make([]byte, 2)
		if n, err := c.ReadMemory(p, 0); (n == 2) != (err == nil) {
			t.Fatalf("read %d bytes and error %v", n, err)
		}
	})
}
