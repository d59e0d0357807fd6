package kobj

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// recordLog reads the log of kernels 3.5 to 5.9: records one behind the other,
// each with a struct printk_log before its text.
func recordLog(k *kernel.Kernel) ([]LogRecord, []LogGap, error) {
	l, m := layout{k: k}, k.Mem()
	var (
		pBuf, pLen     = l.symbol("log_buf"), l.symbol("log_buf_len")
		pFirst, pNext  = l.symbol("log_first_idx"), l.symbol("log_next_idx")
		header         = l.size("printk_log")
		ts, recLen     = l.offset("printk_log.ts_nsec"), l.offset("printk_log.len")
		textLen, dicts = l.offset("printk_log.text_len"), l.offset("printk_log.dict_len")
	)
	if l.err != nil {
		return nil, nil, fmt.Errorf("reading the kernel log: %w", l.err)
	}
	buf, err := mem.U64(m, pBuf)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the kernel log: log_buf: %w", err)
	}
	var words [3]uint32
	for i, addr := range []uint64{pLen, pFirst, pNext} {
		if words[i], err = mem.U32(m, addr); err != nil {
			return nil, nil, fmt.Errorf("reading the kernel log: %w", err)
		}
	}
	size, first, next := uint64(words[0]), uint64(words[1]), uint64(words[2])
	if size > 1<<maxLogBits || first > size || next > size || header < 16 || header > 64 ||
		max(ts+8, recLen+2, textLen+2, dicts+4) > header {
		return nil, nil, fmt.Errorf("reading the kernel log: log_buf of %d bytes, first record at %d, next at %d: damaged", size, first, next)
	}
	lines := readArray(m, buf, size)
	data := lines.b
	le := binary.LittleEndian
	var out []LogRecord
	wrapped := false
	for at := first; at != next; {
		if _, err := lines.part(at, min(header, size-at)); err != nil { // how long the record is, is not known
			return out, []LogGap{{uint64(len(out)), fmt.Errorf("log_buf at %#x: %w", at, err)}}, nil
		}
		if at+header > size || le.Uint16(data[at+recLen:]) == 0 { // a length of 0: go on at the start
			if wrapped {
				return out, []LogGap{{uint64(len(out)), fmt.Errorf("record at %#x: no length", at)}}, nil
			}
			at, wrapped = 0, true
			continue
		}
		h := data[at : at+header]
		n, text := uint64(le.Uint16(h[recLen:])), uint64(le.Uint16(h[textLen:]))
		if n < header || header+text > n || at+n > size {
			return out, []LogGap{{uint64(len(out)), fmt.Errorf("record at %#x: %d bytes with %d of text", at, n, text)}}, nil
		}
		if _, err := lines.part(at, n); err != nil {
			return out, []LogGap{{uint64(len(out)), fmt.Errorf("log_buf at %#x: %w", at, err)}}, nil
		}
		// facility and flags:5,level:3 follow dict_len in every version.
		rec := LogRecord{
			Seq: uint64(len(out)), Time: time.Duration(le.Uint64(h[ts:])),
			Facility: int(h[dicts+2]), Level: int(h[dicts+3] >> 5),
			Text: string(data[at+header : at+header+text]),
		}
		if header >= dicts+8 { // CONFIG_PRINTK_CALLER
			rec.setCaller(le.Uint32(h[dicts+4:]))
		}
		out = append(out, rec)
		at += n
	}
	return out, nil, nil
}
