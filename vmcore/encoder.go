package vmcore

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// An encoder compresses one page at a time.
type encoder struct {
	buf bytes.Buffer
	z   *zlib.Writer
	zs  *zstd.Encoder
}

// newEncoder makes an encoder; level 0 is the compression's default.
func newEncoder(c Compression, level int) (e *encoder, err error) {
	e = &encoder{}
	switch c {
	case Zlib:
		if level == 0 {
			level = zlib.DefaultCompression
		}
		e.z, err = zlib.NewWriterLevel(&e.buf, level)
	case Zstd:
		l := zstd.SpeedDefault
		if level != 0 {
			l = zstd.EncoderLevelFromZstd(level)
		}
		// The window is a page, so that a reader need not make room for more.
		e.zs, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(pageSize), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(true))
	case Snappy, Uncompressed:
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return nil, fmt.Errorf("compression %d, level %d: %w", c, level, err)
	}
	return e, nil
}

// encode appends the compressed page to dst. Where nothing is to be gained the
// result may be longer than the page.
func (e *encoder) encode(dst, page []byte) []byte {
	switch {
	case e.z != nil:
		e.buf.Reset()
		e.z.Reset(&e.buf)
		// Writing into memory does not fail.
		_, _ = e.z.Write(page)
		_ = e.z.Close()
		return append(dst, e.buf.Bytes()...)
	case e.zs != nil:
		return e.zs.EncodeAll(page, dst)
	}
	if n := snappy.MaxEncodedLen(len(page)); cap(dst) < n {
		dst = make([]byte, 0, n)
	}
	return snappy.Encode(dst[:cap(dst)], page)
}
