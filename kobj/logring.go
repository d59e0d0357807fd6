package kobj

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// The states of a descriptor, in the two upper bits of its state_var
// (kernel/printk/printk_ringbuffer.h).
const (
	descStateShift = 62
	descIDMask     = 1<<descStateShift - 1
	descCommitted  = 1
	descFinalized  = 2

	// A block position with bit 0 set has no data (printk_ringbuffer.c,
	// BLK_DATALESS).
	dataless = 1

	maxLogBits = 26        // 64 MiB of text: CONFIG_LOG_BUF_SHIFT ends at 25
	maxLog     = 256 << 20 // bytes of all three arrays; those of the largest buffer have 144 MiB
)

// ring is the lockless ring buffer of 5.10 (896fbe20b4e2) and later.
type ring struct {
	mem   mem.Reader
	l     layout
	descs array
	infos array
	data  array

	descSize, infoSize uint64
	head, tail, count  uint64
}

func ringLog(k *kernel.Kernel) ([]LogRecord, []LogGap, error) {
	r := &ring{mem: k.Mem(), l: layout{k: k}}
	if err := r.load(); err != nil {
		return nil, nil, fmt.Errorf("reading the kernel log: %w", err)
	}
	var out []LogRecord
	var gaps gapList
	for id, n := r.tail, uint64(0); n < r.count; id, n = (id+1)&descIDMask, n+1 {
		rec, ok, err := r.record(id)
		switch {
		case r.l.err != nil:
			return out, gaps.list(), fmt.Errorf("reading the kernel log: %w", r.l.err)
		case err != nil:
			gaps.add(id, err)
		case ok:
			out = append(out, rec)
		}
		if id == r.head {
			break
		}
	}
	return out, gaps.list(), nil
}

// load reads the three arrays whole: they are small, and a record takes all
// of them.
func (r *ring) load() error {
	l := &r.l
	var (
		descRing = l.offset("printk_ringbuffer.desc_ring")
		dataRing = l.offset("printk_ringbuffer.text_data_ring")
	)
	r.descSize, r.infoSize = l.size("prb_desc"), l.size("printk_info")
	word := func(base uint64, member string, bits int) uint64 {
		addr := base + l.offset(member)
		if l.err != nil {
			return 0
		}
		var v uint64
		var err error
		if bits == 32 {
			var w uint32
			w, err = mem.U32(r.mem, addr)
			v = uint64(w)
		} else {
			v, err = mem.U64(r.mem, addr)
		}
		if err != nil {
			l.err = fmt.Errorf("%s: %w", member, err)
		}
		return v
	}
	prb := r.pointer(l.symbol("prb"))
	countBits := word(prb+descRing, "prb_desc_ring.count_bits", 32)
	descs := word(prb+descRing, "prb_desc_ring.descs", 64)
	infos := word(prb+descRing, "prb_desc_ring.infos", 64)
	r.head = word(prb+descRing, "prb_desc_ring.head_id", 64) & descIDMask
	r.tail = word(prb+descRing, "prb_desc_ring.tail_id", 64) & descIDMask
	sizeBits := word(prb+dataRing, "prb_data_ring.size_bits", 32)
	data := word(prb+dataRing, "prb_data_ring.data", 64)
	if l.err != nil {
		return l.err
	}
	if countBits > maxLogBits || sizeBits > maxLogBits || (r.descSize+r.infoSize)<<countBits+1<<sizeBits > maxLog {
		return fmt.Errorf("printk_ringbuffer at %#x is damaged: 2^%d descriptors of %d and %d bytes, 2^%d bytes of text",
			prb, countBits, r.descSize, r.infoSize, sizeBits)
	}
	r.count = 1 << countBits
	r.descs = readArray(r.mem, descs, r.count*r.descSize)
	r.infos = readArray(r.mem, infos, r.count*r.infoSize)
	r.data = readArray(r.mem, data, 1<<sizeBits)
	return l.err
}

// pointer reads the pointer at addr, unless something already failed.
func (r *ring) pointer(addr uint64) uint64 {
	if r.l.err != nil {
		return 0
	}
	p, err := mem.U64(r.mem, addr)
	if err != nil {
		r.l.err = fmt.Errorf("prb: %w", err)
	}
	return p
}

func (r *ring) record(id uint64) (LogRecord, bool, error) {
	l := &r.l
	i := id % r.count
	desc, err := r.descs.part(i*r.descSize, r.descSize)
	if err != nil {
		return LogRecord{}, false, fmt.Errorf("log record %d: its descriptor: %w", id, err)
	}
	u64 := func(b []byte, off uint64) uint64 {
		if off+8 > uint64(len(b)) {
			l.err = fmt.Errorf("VMCOREINFO puts a word at offset %d of %d bytes", off, len(b))
			return 0
		}
		return binary.LittleEndian.Uint64(b[off:])
	}
	state := u64(desc, l.offset("prb_desc.state_var"))
	if s := state >> descStateShift; state&descIDMask != id || s != descCommitted && s != descFinalized {
		return LogRecord{}, false, l.err // being written, or already reused
	}
	lpos := l.offset("prb_desc.text_blk_lpos")
	begin := u64(desc, lpos+l.offset("prb_data_blk_lpos.begin"))
	next := u64(desc, lpos+l.offset("prb_data_blk_lpos.next"))
	info, err := r.infos.part(i*r.infoSize, r.infoSize)
	if err != nil {
		return LogRecord{}, false, fmt.Errorf("log record %d: its printk_info: %w", id, err)
	}
	rec, textLen := r.info(info)
	if l.err != nil {
		return LogRecord{}, false, l.err
	}
	text, err := r.block(id, begin, next)
	if err != nil {
		return LogRecord{}, false, err
	}
	rec.Text = string(text[:min(textLen, len(text))])
	return rec, true, nil
}

// info decodes struct printk_info. Facility, flags and level are not in
// VMCOREINFO; they stand between text_len and caller_id since 5.10.
func (r *ring) info(b []byte) (LogRecord, int) {
	l := &r.l
	var (
		seq    = l.offset("printk_info.seq")
		ts     = l.offset("printk_info.ts_nsec")
		text   = l.offset("printk_info.text_len")
		caller = l.offset("printk_info.caller_id")
		dev    = l.offset("printk_info.dev_info")
	)
	end := uint64(len(b))
	if l.err == nil && (seq+8 > end || ts+8 > end || text+4 > end || caller+4 > end || dev > end) {
		l.err = fmt.Errorf("VMCOREINFO puts members of printk_info beyond its %d bytes", end)
	}
	if l.err != nil {
		return LogRecord{}, 0
	}
	le := binary.LittleEndian
	rec := LogRecord{
		Seq:      le.Uint64(b[seq:]),
		Time:     time.Duration(le.Uint64(b[ts:])),
		Facility: int(b[text+2]),
		Level:    int(b[text+3] >> 5),
	}
	rec.setCaller(le.Uint32(b[caller:]))
	rec.Device = r.device(b[dev:])
	return rec, int(le.Uint16(b[text:]))
}

// device names the device a message is about. Its two arrays have had their
// sizes since they came into the kernel (74caba7f2a06, 5.10).
func (r *ring) device(b []byte) string {
	const subsystemLen, deviceLen = 16, 48 // PRINTK_INFO_SUBSYSTEM_LEN, PRINTK_INFO_DEVICE_LEN
	field := func(member string, n uint64) string {
		off := r.l.offset(member)
		if off+n > uint64(len(b)) {
			return ""
		}
		s, _, _ := bytes.Cut(b[off:off+n], []byte{0})
		return string(s)
	}
	sub, dev := field("dev_printk_info.subsystem", subsystemLen), field("dev_printk_info.device", deviceLen)
	if sub == "" && dev == "" {
		return ""
	}
	return sub + "/" + dev
}

// block returns the text between two positions of the data ring. Positions
// grow for ever; a block that does not fit before the end of the array stands
// at its start. A block begins with the id of its descriptor.
func (r *ring) block(id, begin, next uint64) ([]byte, error) {
	if begin&dataless != 0 && next&dataless != 0 {
		return nil, nil
	}
	size := uint64(len(r.data.b))
	start, end := begin%size, begin%size+(next-begin)
	switch (next - 1) / size {
	case begin / size:
	case (begin + size) / size:
		start, end = 0, (next-1)%size+1
	default:
		end = start // no block is as large as the buffer
	}
	if end > size || start+8 > end {
		return nil, fmt.Errorf("log record %d: its text block [%#x,%#x) does not fit the buffer of %d bytes", id, begin, next, size)
	}
	b, err := r.data.part(start, end-start)
	if err != nil {
		return nil, fmt.Errorf("log record %d: its text: %w", id, err)
	}
	if got := binary.LittleEndian.Uint64(b); got != id {
		return nil, fmt.Errorf("log record %d: its text is missing (the block at offset %#x belongs to %#x)", id, start, got)
	}
	return b[8:], nil
}

// An array is a part of memory, as far as it could be read.
type array struct {
	b     []byte
	holes []hole
}

// A hole is a part of an array that could not be read.
type hole struct {
	start, end uint64
	err        error
}

// part returns n bytes from off on; the caller makes sure that they are inside.
func (a *array) part(off, n uint64) ([]byte, error) {
	for _, h := range a.holes {
		if off < h.end && off+n > h.start {
			return nil, h.err
		}
	}
	return a.b[off : off+n], nil
}

// readArray reads n bytes, page by page: some may be missing.
func readArray(m mem.Reader, addr, n uint64) array {
	a := array{b: make([]byte, n)}
	for off := uint64(0); off < n; {
		chunk := min(n-off, 4096-(addr+off)%4096)
		if err := m.ReadMem(a.b[off:off+chunk], addr+off); err != nil {
			if h := len(a.holes) - 1; h >= 0 && a.holes[h].end == off {
				a.holes[h].end = off + chunk
			} else {
				a.holes = append(a.holes, hole{off, off + chunk, err})
			}
		}
		off += chunk
	}
	return a
}
