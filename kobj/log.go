package kobj

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A LogRecord is one message of the kernel's log buffer.
type LogRecord struct {
	Seq      uint64        `json:"seq"`
	Time     time.Duration `json:"time_ns"` // since boot
	Level    int           `json:"level"`   // 0 emergency to 7 debug
	Facility int           `json:"facility"`
	// Caller is the pid of the task that wrote the message, or, where
	// CallerIsCPU is set, the CPU that wrote it outside of a task. Kernels
	// without CONFIG_PRINTK_CALLER record the pid alone, and only since 5.10.
	Caller      uint32 `json:"caller"`
	CallerIsCPU bool   `json:"caller_is_cpu,omitempty"`
	Text        string `json:"text"`
	Device      string `json:"device,omitempty"` // "subsystem/device", where the driver core gave one
}

// callerIsCPU marks a caller id that holds a CPU number, kernel/printk/printk.c
// (15ff2069cb7f, 5.1).
const callerIsCPU = 0x8000_0000

// A LogGap says which part of a log could not be read, and why.
type LogGap struct {
	Seq uint64 // sequence number, or record id where the number was not readable
	Err error
}

// Log returns the messages in the kernel's log buffer, oldest first, and the
// gaps in it. Where VMCOREINFO is there it needs no types: the log is what one can
// still have from a dump in which little else is readable.
func Log(k *kernel.Kernel) ([]LogRecord, []LogGap, error) {
	if hasSymbol(k, "prb") {
		return ringLog(k)
	}
	if hasSymbol(k, "log_first_idx") {
		return recordLog(k)
	}
	return nil, nil, errors.New("reading the kernel log: the kernel has neither prb (5.10 and later) nor log_first_idx (3.5 to 5.9)")
}

func hasSymbol(k *kernel.Kernel, name string) bool {
	_, noted := k.Info().Symbol(name)
	_, err := k.Addr(name)
	return noted || err == nil
}

// layout collects addresses and offsets from VMCOREINFO, or, if the kernel left
// none, from its symbols and types. It remembers the first that is missing.
type layout struct {
	k   *kernel.Kernel
	err error
}

func (l *layout) get(kind, name string, value uint64, err error) uint64 {
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("no %s(%s) in VMCOREINFO, and %w", kind, name, err)
	}
	return value
}

// small refuses what no struct can have, so that sums do not overflow.
func (l *layout) small(kind, name string, v int64) uint64 {
	if v < 0 || v > 1<<20 {
		return l.get(kind, name, 0, fmt.Errorf("%d cannot be it", v))
	}
	return uint64(v)
}

func (l *layout) symbol(name string) uint64 {
	if v, ok := l.k.Info().Symbol(name); ok {
		return v
	}
	v, err := l.k.Addr(name)
	return l.get("SYMBOL", name, v, err)
}

func (l *layout) offset(name string) uint64 {
	if v, ok := l.k.Info().Offset(name); ok {
		return l.small("OFFSET", name, v)
	}
	typ, member, _ := strings.Cut(name, ".")
	v, err := l.k.Offset(typ, member)
	return l.get("OFFSET", name, v, err)
}

func (l *layout) size(name string) uint64 {
	if v, ok := l.k.Info().Size(name); ok {
		return l.small("SIZE", name, v)
	}
	v := l.k.Sizeof(name)
	var err error
	if v == 0 {
		err = fmt.Errorf("no type struct %s", name)
	}
	return l.get("SIZE", name, v, err)
}

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

// gapList makes one gap of records that are missing one after the other: those
// on a page that is not in the dump.
type gapList struct {
	gaps []LogGap
	more uint64 // records behind the first of the last gap
}

func (g *gapList) add(id uint64, err error) {
	if n := len(g.gaps); n > 0 && id == g.gaps[n-1].Seq+g.more+1 {
		g.more++
		return
	}
	g.gaps, g.more = append(g.list(), LogGap{id, err}), 0
}

func (g *gapList) list() []LogGap {
	if n := len(g.gaps); n > 0 && g.more > 0 {
		last := &g.gaps[n-1]
		last.Err = fmt.Errorf("%w; and the next %d records", last.Err, g.more)
		g.more = 0
	}
	return g.gaps
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

func (rec *LogRecord) setCaller(id uint32) {
	rec.Caller, rec.CallerIsCPU = id&^callerIsCPU, id&callerIsCPU != 0
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

// Levels are the names of the levels, by number (include/linux/kern_levels.h,
// as dmesg(1) calls them).
var Levels = [...]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// ParseLevel returns the number of a level given by its name or number.
func ParseLevel(s string) (int, bool) {
	for i, name := range Levels {
		if s == name || s == strconv.Itoa(i) {
			return i, true
		}
	}
	return 0, false
}

// CallerID returns who wrote the message as the kernel prints it: T and a pid,
// or C and a CPU.
func (rec *LogRecord) CallerID() string {
	if rec.CallerIsCPU {
		return fmt.Sprintf("C%d", rec.Caller)
	}
	return fmt.Sprintf("T%d", rec.Caller)
}

// AppendSyslog appends rec in the form of syslog(2), which dmesg --raw prints:
// a line "<PRI>[SECONDS.MICROSECONDS] TEXT" for each line of the message.
func (rec *LogRecord) AppendSyslog(dst []byte) []byte {
	sec, usec := rec.Time/time.Second, rec.Time%time.Second/time.Microsecond
	for line := range strings.SplitSeq(rec.Text, "\n") {
		dst = fmt.Appendf(dst, "<%d>[%5d.%06d] %s\n", rec.Facility<<3|rec.Level, sec, usec, line)
	}
	return dst
}
