package inflate

import (
	"bytes"
	stdzlib "compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
)

// compress is what the standard library makes of data.
func compress(t testing.TB, data []byte, level int) []byte {
	var b bytes.Buffer
	w, err := stdzlib.NewWriterLevel(&b, level)
	qt.Assert(t, qt.IsNil(err))
	_, _ = w.Write(data)
	qt.Assert(t, qt.IsNil(w.Close()))
	return b.Bytes()
}

// pages returns data of many kinds.
func pages() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	out := map[string][]byte{
		"empty":  {},
		"one":    {7},
		"zeros":  make([]byte, 4096),
		"period": bytes.Repeat([]byte("abcde"), 800),
		"text":   bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog; "), 91),
	}
	noise, skewed, sparse := make([]byte, 4096), make([]byte, 4096), make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
		skewed[i] = byte(int(rng.ExpFloat64() * 12)) // long codes
		if rng.IntN(9) == 0 {
			sparse[i] = byte(rng.Uint32())
		}
	}
	out["noise"], out["skewed"], out["sparse"] = noise, skewed, sparse
	return out
}

func TestZlib(t *testing.T) {
	var d Decoder
	for name, want := range pages() {
		for level := -2; level <= 9; level++ {
			src := compress(t, want, level)
			got := make([]byte, len(want))
			n, err := d.Zlib(got, src)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s, level %d", name, level))
			qt.Assert(t, qt.IsTrue(n == len(want) && bytes.Equal(got, want)), qt.Commentf("%s, level %d", name, level))

			// Room to spare, and bytes behind the stream.
			n, err = d.Zlib(make([]byte, len(want)+100), append(bytes.Clone(src), 1, 2, 3))
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(n, len(want)))
			if len(want) > 0 {
				_, err = d.Zlib(got[:len(want)-1], src)
				qt.Check(t, qt.ErrorIs(err, ErrTooLong))
			}
			for i := range src {
				_, err := d.Zlib(got, src[:i])
				qt.Assert(t, qt.ErrorIs(err, io.ErrUnexpectedEOF), qt.Commentf("%s, level %d, %d of %d bytes", name, level, i, len(src)))
			}
			src[len(src)-1] ^= 1
			_, err = d.Zlib(got, src)
			qt.Check(t, qt.ErrorIs(err, ErrChecksum))
		}
	}
}

// agree holds the decoder against the standard library's.
func agree(t *testing.T, d *Decoder, src []byte) {
	const room = 8192
	var want []byte
	r, err := stdzlib.NewReader(bytes.NewReader(src))
	if err == nil {
		want, err = io.ReadAll(io.LimitReader(r, room+1))
	}
	got := make([]byte, room)
	n, gotErr := d.Zlib(got, src)
	switch {
	case len(want) > room:
		if gotErr == nil {
			t.Errorf("%x: too long, and no error", src)
		}
	case (err == nil) != (gotErr == nil):
		if !(errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(gotErr, io.ErrUnexpectedEOF)) {
			t.Errorf("%x: %v, the standard library says %v", src, gotErr, err)
		}
	case err == nil && !bytes.Equal(got[:n], want):
		t.Errorf("%x: decoded wrong", src)
	}
}

func TestDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var d Decoder
	for _, page := range pages() {
		for _, level := range []int{-2, 0, 1, 9} {
			src := compress(t, page, level)
			for range 200 {
				b := bytes.Clone(src)
				for range 1 + rng.IntN(3) {
					b[rng.IntN(min(len(b), 80))] ^= 1 << rng.IntN(8)
				}
				agree(t, &d, b)
			}
		}
	}
}

func FuzzZlib(f *testing.F) {
	for _, page := range pages() {
		f.Add(compress(f, page[:min(len(page), 600)], -1))
	}
	var d Decoder
	f.Fuzz(func(t *testing.T, src []byte) { agree(t, &d, src) })
}

func BenchmarkZlib(b *testing.B) {
	for _, name := range []string{"zeros", "text", "sparse", "skewed", "noise"} {
		page := pages()[name]
		src := compress(b, page, 1)
		b.Run(name, func(b *testing.B) {
			var d Decoder
			got := make([]byte, len(page))
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Zlib(got, src); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/stdlib", func(b *testing.B) {
			r, _ := stdzlib.NewReader(bytes.NewReader(src))
			got := make([]byte, len(page))
			b.SetBytes(int64(len(page)))
			for b.Loop() {
				_ = r.(stdzlib.Resetter).Reset(bytes.NewReader(src), nil)
				if _, err := io.ReadFull(r, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
