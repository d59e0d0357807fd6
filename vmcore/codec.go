package vmcore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	lzo "github.com/anchore/go-lzo"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// A codec is one way a page can be stored.
type codec struct {
	flag uint32
	name string
	// page fills dst, a whole page, from src.
	page func(d *decoder, dst, src []byte) error
}

// codecs lists the ways. A descriptor has one of the flags, or none for a page
// stored as it is.
var codecs = [...]codec{
	{0, "uncompressed", (*decoder).plain},
	{flagZlib, "zlib", (*decoder).zlib},
	{flagLZO, "lzo", (*decoder).lzo},
	{flagSnappy, "snappy", (*decoder).snappy},
	{flagZstd, "zstd", (*decoder).zstd},
}

// codecFor returns the codec for the flags of a descriptor, or nil.
func codecFor(flags uint32) *codec {
	for i := range codecs {
		if codecs[i].flag == flags {
			return &codecs[i]
		}
	}
	return nil
}

// codecName names the compression that a header's status announces.
func codecName(status uint32) string {
	for _, c := range codecs[1:] {
		if status&c.flag != 0 {
			return c.name
		}
	}
	return codecs[0].name
}

var errPageSize = errors.New("the page does not decompress to 4096 bytes")

// A decoder holds what it takes to decompress one page at a time, without
// making garbage.
type decoder struct {
	in [pageSize]byte // compressed bytes
	z  io.ReadCloser
	r  bytes.Reader
	zs *zstd.Decoder
}

// decoders is a pool of decoders.
type decoders struct{ pool sync.Pool }

func (p *decoders) get() *decoder {
	if d, ok := p.pool.Get().(*decoder); ok {
		return d
	}
	return new(decoder)
}

func (p *decoders) put(d *decoder) { p.pool.Put(d) }

// decode runs a codec. The libraries below it are not ours; a panic of theirs
// over hostile input must not be more than a damaged page.
func (d *decoder) decode(c *codec, dst, src []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			*d = decoder{}
			err = fmt.Errorf("decompressor failed: %v", r)
		}
	}()
	if err := c.page(d, dst, src); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

func (d *decoder) plain(dst, src []byte) error {
	if len(src) != len(dst) {
		return errPageSize
	}
	copy(dst, src)
	return nil
}

func (d *decoder) zlib(dst, src []byte) (err error) {
	d.r.Reset(src)
	if d.z == nil {
		d.z, err = zlib.NewReader(&d.r)
	} else {
		err = d.z.(zlib.Resetter).Reset(&d.r, nil)
	}
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(d.z, dst); err != nil {
		return err
	}
	var more [1]byte
	if n, err := d.z.Read(more[:]); n != 0 || err != io.EOF {
		return errPageSize
	}
	return nil
}

func (d *decoder) lzo(dst, src []byte) error {
	n, err := lzo.Decompress(src, dst)
	if err == nil && n != len(dst) {
		err = errPageSize
	}
	return err
}

func (d *decoder) snappy(dst, src []byte) error {
	n, err := snappy.DecodedLen(src)
	if err == nil && n != len(dst) {
		err = errPageSize
	}
	if err != nil {
		return err
	}
	_, err = snappy.Decode(dst, src)
	return err
}

func (d *decoder) zstd(dst, src []byte) (err error) {
	if d.zs == nil {
		d.zs, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(1<<20), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return err
		}
	}
	out, err := d.zs.DecodeAll(src, dst[:0:len(dst)])
	if err == nil && len(out) != len(dst) {
		err = errPageSize
	}
	return err
}
