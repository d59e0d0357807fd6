// Package inflate decompresses one small zlib stream (RFC 1950, RFC 1951) at a
// time, from memory to memory.
//
// The stream decoders of compress/flate and its faster relatives keep a 32 KiB
// window and copy out of it; for the 4 KiB pages of a crash dump most of their
// time is not decoding. This one writes where the page is to go.
package inflate

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"io"
)

// What can be wrong with a stream. A stream that ends early is
// [io.ErrUnexpectedEOF].
var (
	ErrHeader   = errors.New("not a zlib stream")
	ErrData     = errors.New("invalid deflate data")
	ErrTooLong  = errors.New("more data than expected")
	ErrChecksum = errors.New("wrong checksum")
)

// A Decoder holds the tables of one stream at a time. It is not safe for
// concurrent use; its zero value is ready.
type Decoder struct {
	src  []byte
	pos  int    // next byte of src
	bits uint64 // read ahead, next bit lowest
	n    uint   // bits in bits
	pad  uint   // of these, how many are behind the end of src

	lengths [maxLitLen + maxDist]uint8
	litLen  code
	dist    code
	pre     code
}

const (
	zlibHeader  = 2
	zlibTrailer = 4 // Adler-32, big-endian

	maxLitLen = 288
	maxDist   = 32
	endBlock  = 256

	// needBits is the most that a symbol, its distance and their extra bits take.
	needBits = 15 + 5 + 15 + 13
)

// Zlib decompresses src into dst and returns how many bytes there were. Bytes
// behind the stream are ignored.
func (d *Decoder) Zlib(dst, src []byte) (int, error) {
	if len(src) < zlibHeader {
		return 0, io.ErrUnexpectedEOF
	}
	// Method 8 with a window of at most 32 KiB, no preset dictionary, check bits.
	if h := binary.BigEndian.Uint16(src); h>>8&0xf != 8 || h>>12 > 7 || h&0x20 != 0 || h%31 != 0 {
		return 0, ErrHeader
	}
	d.src, d.pos, d.bits, d.n, d.pad = src, zlibHeader, 0, 0, 0
	defer func() { d.src = nil }()
	n, err := d.deflate(dst)
	if err != nil {
		return n, err
	}
	rest := d.src[d.pos-int((d.n-d.pad)/8):]
	if len(rest) < zlibTrailer {
		return n, io.ErrUnexpectedEOF
	}
	if binary.BigEndian.Uint32(rest) != adler32.Checksum(dst[:n]) {
		return n, ErrChecksum
	}
	return n, nil
}

// deflate decodes blocks up to the last.
func (d *Decoder) deflate(dst []byte) (out int, err error) {
	for last := false; !last && err == nil; {
		d.refill()
		last = d.take(1) != 0
		switch d.take(2) {
		case 0:
			out, err = d.stored(dst, out)
		case 1:
			d.fixed()
			out, err = d.block(dst, out)
		case 2:
			if err = d.dynamic(); err == nil {
				out, err = d.block(dst, out)
			}
		default:
			err = ErrData
		}
		if d.pad > d.n {
			return out, io.ErrUnexpectedEOF
		}
	}
	return out, err
}

// refill makes sure there are at least needBits bits; behind the end of src
// they are zeros, and counted in pad.
func (d *Decoder) refill() {
	if d.pos+8 <= len(d.src) {
		d.bits |= binary.LittleEndian.Uint64(d.src[d.pos:]) << d.n
		d.pos += int(63-d.n) >> 3
		d.n |= 56
		return
	}
	for d.n <= 56 {
		if d.pos < len(d.src) {
			d.bits |= uint64(d.src[d.pos]) << d.n
			d.pos++
		} else {
			d.pad += 8
		}
		d.n += 8
	}
}

// take removes n bits, which must be there.
func (d *Decoder) take(n uint) uint32 {
	v := uint32(d.bits & (1<<n - 1))
	d.bits >>= n
	d.n -= n
	return v
}

// stored copies a block that is not compressed.
func (d *Decoder) stored(dst []byte, out int) (int, error) {
	if d.pad > d.n {
		return out, io.ErrUnexpectedEOF
	}
	// Give back whole bytes that were read ahead.
	d.pos -= int((d.n - d.pad) / 8)
	d.bits, d.n, d.pad = 0, 0, 0
	if d.pos+4 > len(d.src) {
		return out, io.ErrUnexpectedEOF
	}
	size := int(binary.LittleEndian.Uint16(d.src[d.pos:]))
	if uint16(size) != ^binary.LittleEndian.Uint16(d.src[d.pos+2:]) {
		return out, ErrData
	}
	d.pos += 4
	switch {
	case size > len(d.src)-d.pos:
		return out, io.ErrUnexpectedEOF
	case size > len(dst)-out:
		return out, ErrTooLong
	}
	out += copy(dst[out:], d.src[d.pos:d.pos+size])
	d.pos += size
	return out, nil
}

// block decodes a block with the codes that are set up. It is where the time
// goes: the reader's state is in local variables.
func (d *Decoder) block(dst []byte, out int) (int, error) {
	bits, n, src, pos := d.bits, d.n, d.src, d.pos
	lits, dists := &d.litLen.table, &d.dist.table
	for {
		if n < needBits {
			if pos+8 <= len(src) {
				bits |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
				pos += int(63-n) >> 3
				n |= 56
			} else {
				d.bits, d.n, d.pos = bits, n, pos
				d.refill()
				bits, n, pos = d.bits, d.n, d.pos
			}
		}
		e := lits[bits%tableSize]
		if e == 0 {
			e = d.litLen.long(bits)
		}
		bits >>= e & entryLen
		n -= uint(e & entryLen)
		if e&entryLiteral != 0 {
			if out >= len(dst) {
				d.n = n
				return out, d.tooLong()
			}
			dst[out] = byte(e >> entryValue)
			out++
			continue
		}
		if e&(entryEnd|entryBad) != 0 {
			d.bits, d.n, d.pos = bits, n, pos
			if e&entryEnd != 0 {
				return out, nil
			}
			return out, d.invalid()
		}
		extra := e >> entryExtra & entryExtraMask
		length := int(e>>entryValue) + int(bits&(1<<extra-1))
		bits >>= extra
		n -= uint(extra)

		e = dists[bits%tableSize]
		if e == 0 {
			e = d.dist.long(bits)
		}
		bits >>= e & entryLen
		extra = e >> entryExtra & entryExtraMask
		dist := int(e>>entryValue) + int(bits&(1<<extra-1))
		bits >>= extra
		n -= uint(e&entryLen + extra)
		if e&entryBad != 0 || dist > out {
			d.bits, d.n, d.pos = bits, n, pos
			return out, d.invalid()
		}
		if length > len(dst)-out {
			d.n = n
			return out, d.tooLong()
		}
		match(dst, out, dist, length)
		out += length
	}
}

// invalid tells data that ended from data that is wrong.
func (d *Decoder) invalid() error {
	if d.pad > d.n {
		return io.ErrUnexpectedEOF
	}
	return ErrData
}

// tooLong tells data that ended, and reads as zeros, from data that goes on.
func (d *Decoder) tooLong() error {
	if d.pad > d.n {
		return io.ErrUnexpectedEOF
	}
	return ErrTooLong
}

// match copies length bytes from dist bytes before out. They can overlap: then
// what was copied is copied again.
func match(dst []byte, out, dist, length int) {
	if dist >= 8 && length <= 16 && out+16 <= len(dst) {
		// Two words, and what is too much is overwritten later.
		le := binary.LittleEndian
		le.PutUint64(dst[out:], le.Uint64(dst[out-dist:]))
		le.PutUint64(dst[out+8:], le.Uint64(dst[out-dist+8:]))
		return
	}
	from := out - dist
	for end := out + length; out < end; {
		out += copy(dst[out:end], dst[from:out])
	}
}
