package x86

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// FuzzDecode holds what callers rely on: progress within bounds, an Op whenever
// there is no error, and formatting of whatever was decoded.
func FuzzDecode(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add(g.code)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		const addr = 0xffffffff81000000
		in, err := Decode(code, addr)
		if err != nil {
			if in.Op != BAD || in.Len != min(len(code), 1) {
				t.Fatalf("% x: error %v, yet %v of %d bytes", code, err, in.Op, in.Len)
			}
			return
		}
		if in.Op == BAD || in.Len < 1 || in.Len > MaxLen || in.Len > len(code) {
			t.Fatalf("% x: %v of %d bytes", code, in.Op, in.Len)
		}
		if again, err := Decode(code[:in.Len], addr); err != nil || again != in {
			t.Fatalf("% x: decoded alone it differs: %v", code[:in.Len], err)
		}
		if _, err := Decode(code[:in.Len-1], addr); err == nil && in.Len == 1 {
			t.Fatal("decoded nothing")
		}
		if len(in.AppendGNU(nil, nil)) == 0 || len(in.AppendIntel(nil, nil)) == 0 {
			t.Fatalf("% x: no text", code)
		}
		in.Flow()
		in.MemOperand()
	})
}

// benchText is code to measure on: KSLEUTH_TEXT, a file of raw code and its
// base address in hex after a colon, or the golden encodings repeated.
func benchText(b *testing.B) []byte {
	if spec := os.Getenv("KSLEUTH_TEXT"); spec != "" {
		i := strings.LastIndexByte(spec, ':')
		if _, err := strconv.ParseUint(spec[i+1:], 16, 64); i > 0 && err == nil {
			code, err := os.ReadFile(spec[:i])
			if err != nil {
				b.Fatal(err)
			}
			return code
		}
	}
	var code []byte
	for len(code) < 1<<20 {
		for _, g := range readGolden(b) {
			code = append(code, g.code...)
		}
	}
	return code
}

func BenchmarkDecode(b *testing.B) {
	code := benchText(b)
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		var in Inst
		for off := 0; off < len(code); off += in.Len {
			in.Decode(code[off:], uint64(off))
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/inst")
}

func BenchmarkDecodeAppendGNU(b *testing.B) {
	code := benchText(b)
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	var buf []byte
	n := 0
	for b.Loop() {
		var in Inst
		for off := 0; off < len(code); off += in.Len {
			in.Decode(code[off:], uint64(off))
			buf = in.AppendGNU(buf[:0], nil)
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/inst")
}
