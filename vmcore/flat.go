package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The flattened form is a dump made fit for a pipe: a 4096-byte header, then
// records that each say where in the real dump file their bytes belong. It is
// what `makedumpfile -F` and QEMU's dump-guest-memory write; makedumpfile
// describes it in makedumpfile.h (makedumpfile_header, makedumpfile_data_header).
const (
	flatMagic      = "makedumpfile\x00\x00\x00\x00"
	flatHeaderSize = 4096
	flatRecordSize = 16 // big-endian i64 offset, i64 size
	flatEnd        = -1 // offset of the record that ends the file

	// flatHole is the largest hole between the records of an incomplete file
	// that is taken for padding, as between a header and the end of its block.
	flatHole = 4096
)

// A flat reads a flattened dump in place, as if it had been rearranged.
type flat struct {
	r     io.ReaderAt
	spans []span // rearranged offset to offset in r
	size  int64  // end of the last span
	data  int64  // bytes held by the records
	err   error  // why the record list ends early; nil if it is complete
}

// isFlat reports whether head, the first bytes of a file, start a flattened
// dump: signature, type 1, version 1.
func isFlat(head []byte) bool {
	return len(head) >= 32 && bytes.HasPrefix(head, []byte(flatMagic)) &&
		binary.BigEndian.Uint64(head[16:]) == 1 && binary.BigEndian.Uint64(head[24:]) == 1
}

// openFlat indexes the records of a flattened dump. size is the length of r or
// -1. Damage does not make it fail: the index then holds what comes before,
// and err says what is wrong.
func openFlat(r io.ReaderAt, size int64) *flat {
	f := &flat{r: r}
	if size > 0 {
		// QEMU and makedumpfile gather page data into records of about 16 KiB.
		f.spans = make([]span, 0, size/(14<<10)+16)
	}
	f.err = f.index(size)
	f.spans = slices.Clip(resolve(f.spans))
	if n := len(f.spans); n > 0 {
		f.size = int64(f.spans[n-1].end)
	}
	return f
}

// index collects a span for every record.
func (f *flat) index(size int64) error {
	w := headerWindow{r: f.r}
	for pos := int64(flatHeaderSize); ; {
		off, n, err := w.record(pos)
		if err != nil {
			return err
		}
		if off == flatEnd {
			return nil
		}
		pos += flatRecordSize
		if off < 0 || n < 0 || off+n < off || pos+n < pos {
			return &FormatError{Offset: pos - flatRecordSize, What: "flattened record",
				Err: fmt.Errorf("%w: offset %d, size %d", errRange, off, n)}
		}
		held := n
		if size >= 0 {
			held = min(n, max(size-pos, 0))
		}
		f.spans = append(f.spans, span{uint64(off), uint64(off + held), pos})
		f.data += held
		if held < n {
			return &FormatError{Offset: size, What: "flattened record", Err: io.ErrUnexpectedEOF}
		}
		pos += n
	}
}

// A headerWindow reads record headers. Large records are hopped over with one
// 16-byte read each; among small ones it reads ahead.
type headerWindow struct {
	r     io.ReaderAt
	buf   []byte
	start int64 // file offset of buf
	last  int64 // offset of the header read before
}

// flatReadAhead is the size of a read among small records, and also twice the
// distance between headers up to which records count as small.
const flatReadAhead = 8 << 10

// record returns offset and size of the record whose header is at pos.
func (w *headerWindow) record(pos int64) (off, n int64, err error) {
	if pos < w.start || pos+flatRecordSize > w.start+int64(len(w.buf)) {
		want := flatRecordSize
		if w.last > 0 && pos-w.last < flatReadAhead/2 {
			want = flatReadAhead
		}
		if cap(w.buf) < want {
			w.buf = make([]byte, want)
		}
		got, err := w.r.ReadAt(w.buf[:want], pos)
		w.buf, w.start = w.buf[:got], pos
		if got < flatRecordSize {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, 0, &FormatError{Offset: pos, What: "flattened record header", Err: err}
		}
	}
	w.last = pos
	h := w.buf[pos-w.start:]
	return int64(binary.BigEndian.Uint64(h)), int64(binary.BigEndian.Uint64(h[8:])), nil
}

// ReadAt implements [io.ReaderAt] over the rearranged file. What no record
// covers reads as zeros, as it would in a file written by seeking; but in an
// incomplete dump a hole of a block or more counts as lost.
func (f *flat) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errRange
	}
	done := 0
	for i := find(f.spans, uint64(off)); done < len(p); i++ {
		x := uint64(off) + uint64(done)
		if i == len(f.spans) {
			return done, io.EOF
		}
		s := f.spans[i]
		if s.start > x {
			if f.err != nil && f.holeBefore(i) >= flatHole {
				return done, io.ErrUnexpectedEOF
			}
			n := int(min(uint64(len(p)-done), s.start-x))
			clear(p[done : done+n])
			done += n
			if done == len(p) {
				break
			}
			x = s.start
		}
		n := int(min(uint64(len(p)-done), s.end-x))
		got, err := f.r.ReadAt(p[done:done+n], s.from(x).file)
		done += got
		if got < n {
			return done, err
		}
	}
	return done, nil
}

// holeBefore returns the size of the hole in front of span i.
func (f *flat) holeBefore(i int) uint64 {
	if i == 0 {
		return f.spans[0].start
	}
	return f.spans[i].start - f.spans[i-1].end
}
