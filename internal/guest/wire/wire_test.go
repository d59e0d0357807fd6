package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestRoundTrip(t *testing.T) {
	frames := []Frame{
		{Hello, 0, []byte(`{"Release":"6.1"}`)},
		{Stdout, 7, bytes.Repeat([]byte{0, 1, 0xff}, 5000)},
		{Exit, 1<<32 - 1, []byte{}},
	}
	var b bytes.Buffer
	for _, f := range frames {
		qt.Assert(t, qt.IsNil(Write(&b, f)))
	}
	for _, f := range frames {
		got, err := Read(&b)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(got, f))
	}
	_, err := Read(&b)
	qt.Assert(t, qt.Equals(err, io.EOF))
}

func TestReadDamaged(t *testing.T) {
	for name, b := range map[string][]byte{
		"kind 0":       {0, 0, 0, 0, 0, 0, 0, 0, 0},
		"unknown kind": {99, 0, 0, 0, 0, 0, 0, 0, 0},
		"too long":     {5, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f},
	} {
		_, err := Read(bytes.NewReader(b))
		var e *Error
		qt.Check(t, qt.IsTrue(errors.As(err, &e)), qt.Commentf("%s: %v", name, err))
	}
	for _, b := range [][]byte{{5}, {5, 0, 0, 0, 0, 3, 0, 0, 0, 'x'}, {5, 0, 0, 0, 0, 3, 0, 0, 0}} {
		_, err := Read(bytes.NewReader(b))
		qt.Check(t, qt.ErrorIs(err, io.ErrUnexpectedEOF))
	}
}

func TestWriteTooLong(t *testing.T) {
	err := Write(io.Discard, Frame{Kind: Stdout, Payload: make([]byte, MaxPayload+1)})
	qt.Assert(t, qt.ErrorMatches(err, `not a frame: kind 5, 16385 bytes of payload`))
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	_ = Write(&b, Frame{Started, 3, []byte("12")})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			fr, err := Read(r)
			if err != nil {
				return
			}
			if len(fr.Payload) > MaxPayload {
				t.Fatalf("payload of %d bytes", len(fr.Payload))
			}
		}
	})
}
