package mem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

func TestWords(t *testing.T) {
	m := mem.Snapshot{Base: 0x1000, Data: []byte{1, 2, 3, 4, 5, 6, 7, 0x88}}
	b, err := mem.U8(m, 0x1007)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(b, 0x88))
	h, err := mem.U16(m, 0x1000)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(h, 0x0201))
	w, err := mem.U32(m, 0x1001)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w, 0x05040302))
	d, err := mem.U64(m, 0x1000)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(d, 0x8807060504030201))
	_, err = mem.U64(m, 0x1004)
	qt.Check(t, qt.ErrorMatches(err, `virtual address 0x1008: not mapped`))
	_, err = mem.U8(m, 0xfff)
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Unmapped))
	_, err = mem.Bytes(m, ^uint64(0)-3, 8)
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Unmapped))
}

func TestCString(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, test := range []struct {
		name  string
		base  uint64
		data  string
		limit int
		want  string
		fault uint64 // address, 0 for none
	}{
		{"short", 0x1000, "abc\x00def", 16, "abc", 0},
		{"empty", 0x1000, "\x00", 16, "", 0},
		{"over chunks", 0x1030, long + "\x00", 1000, long, 0},
		{"at the end of memory", 0x1000, strings.Repeat("y", 63) + "\x00", 1000, strings.Repeat("y", 63), 0},
		{"cut at the limit", 0x1000, long, 100, long[:100], 0},
		{"no NUL before the end", 0x1000, long, 1000, long, 0x1000 + 200},
		{"limit 0", 0x1000, "abc", 0, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mem.CString(mem.Snapshot{Base: test.base, Data: []byte(test.data)}, test.base, test.limit)
			qt.Check(t, qt.Equals(got, test.want))
			if test.fault == 0 {
				qt.Check(t, qt.IsNil(err))
				return
			}
			var f *mem.Fault
			qt.Assert(t, qt.IsTrue(errors.As(err, &f)))
			qt.Check(t, qt.Equals(f.Addr, test.fault))
		})
	}
}

func TestReaderAt(t *testing.T) {
	r := mem.ReaderAt{Mem: mem.Snapshot{Base: 0x1000, Data: []byte("0123456789")}, Base: 0x1002}
	b := make([]byte, 4)
	n, err := r.ReadAt(b, 1)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b[:n]), "3456"))
	n, err = r.ReadAt(b, 5)
	qt.Check(t, qt.Equals(string(b[:n]), "789"))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Unmapped))
	n, err = r.ReadAt(b, 100)
	qt.Check(t, qt.Equals(n, 0))
	qt.Check(t, qt.IsNotNil(err))
}

func TestFault(t *testing.T) {
	below := &mem.Fault{Space: mem.Physical, Addr: 0x2000, Cause: mem.Truncated, Err: io.ErrUnexpectedEOF}
	err := fmt.Errorf("reading it: %w", &mem.Fault{Addr: 0xffff888000002000, Cause: mem.Truncated, Err: below})
	qt.Check(t, qt.Equals(err.Error(), "reading it: virtual address 0xffff888000002000: missing: the dump is incomplete "+
		"(physical address 0x2000: missing: the dump is incomplete (unexpected EOF))"))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Truncated))
	qt.Check(t, qt.IsTrue(errors.Is(err, io.ErrUnexpectedEOF)))
	qt.Check(t, qt.Equals(mem.CauseOf(io.EOF), 0))
	qt.Check(t, qt.Equals(mem.CauseOf(nil), 0))
	qt.Check(t, qt.Equals(mem.Cause(99).String(), "cause 99"))
}

func TestAddr(t *testing.T) {
	type s struct {
		A mem.Addr `json:"a"`
	}
	b, err := json.Marshal(s{0xffff888000002000})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), `{"a":"0xffff888000002000"}`))
	var back s
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &back)))
	qt.Check(t, qt.Equals(back.A, 0xffff888000002000))
	qt.Check(t, qt.IsNotNil(json.Unmarshal([]byte(`{"a":"x"}`), &back)))
	qt.Check(t, qt.Equals(mem.Addr(0).String(), "0x0"))
}
