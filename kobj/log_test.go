package kobj

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A ringWriter writes a printk_ringbuffer of the layout of kernel 6.1 the way
// printk does, into the memory of the example: prb points at it.
type ringWriter struct {
	t     *testing.T
	at    uint64 // of the struct printk_ringbuffer
	bits  uint   // of the number of descriptors
	size  uint64 // of the text
	descs []byte
	infos []byte
	data  []byte
	head  uint64
	tail  uint64
	lpos  uint64 // next position of text
}

const (
	testDescSize = 24
	testInfoSize = 88
)

// newRing returns a writer whose first record has the given id and whose text
// begins at the given position.
func newRing(t *testing.T, bits uint, size, id, lpos uint64) *ringWriter {
	k := example.Kernel(t)
	at, err := k.Addr("__start_orc_unwind")
	qt.Assert(t, qt.IsNil(err))
	n := 1 << bits
	return &ringWriter{
		t: t, at: at&^0xfff + 0x1000, bits: bits, size: size, head: id - 1, tail: id, lpos: lpos,
		descs: make([]byte, n*testDescSize), infos: make([]byte, n*testInfoSize), data: make([]byte, size),
	}
}

// state is that of a descriptor.
type state uint64

const (
	reserved  state = 0
	committed state = 1
	finalized state = 2
	reusable  state = 3
)

// add appends a record. Where its text does not fit before the end, it goes to
// the start.
func (w *ringWriter) add(text string, s state) uint64 {
	le := binary.LittleEndian
	begin := w.lpos
	need := (8 + uint64(len(text)) + 7) &^ 7
	block := begin % w.size
	if block+need > w.size {
		w.lpos += w.size - block
		block = 0
	}
	w.lpos += need
	id := w.desc(s, begin, w.lpos, len(text))
	le.PutUint64(w.data[block:], id)
	copy(w.data[block+8:], text)
	return id
}

// desc appends a record with given positions of its text.
func (w *ringWriter) desc(s state, begin, next uint64, textLen int) uint64 {
	le := binary.LittleEndian
	w.head = (w.head + 1) & descIDMask
	id, n := w.head, uint64(1)<<w.bits
	if w.head-w.tail >= n {
		w.tail++
	}
	d := w.descs[id%n*testDescSize:]
	le.PutUint64(d, id|uint64(s)<<62)
	le.PutUint64(d[8:], begin)
	le.PutUint64(d[16:], next)
	i := w.infos[id%n*testInfoSize:]
	le.PutUint64(i, id-0x1000) // seq
	le.PutUint64(i[8:], uint64(1500*time.Millisecond))
	le.PutUint16(i[16:], uint16(textLen))
	i[18] = 3      // facility
	i[19] = 4 << 5 // flags 0, level 4
	le.PutUint32(i[20:], callerIsCPU|1)
	copy(i[24:], "pci")
	copy(i[40:], "0000:00:01.0")
	return id
}

// kernel returns a kernel whose log is the ring.
func (w *ringWriter) kernel(changes ...example.Change) *kernel.Kernel {
	w.t.Helper()
	k := example.Kernel(w.t)
	offset := func(name string) uint64 {
		v, ok := k.Info().Offset(name)
		qt.Assert(w.t, qt.IsTrue(ok))
		return uint64(v)
	}
	prb, ok := k.Info().Symbol("prb")
	qt.Assert(w.t, qt.IsTrue(ok))
	descs, infos, data := w.at+0x1000, w.at+0x3000, w.at+0x9000
	desc, text := w.at+offset("printk_ringbuffer.desc_ring"), w.at+offset("printk_ringbuffer.text_data_ring")
	all := []example.Change{
		example.Words(prb, w.at),
		example.Write(desc+offset("prb_desc_ring.count_bits"), []byte{byte(w.bits), 0, 0, 0}),
		example.Words(desc+offset("prb_desc_ring.descs"), descs),
		example.Words(desc+offset("prb_desc_ring.infos"), infos),
		example.Words(desc+offset("prb_desc_ring.head_id"), w.head),
		example.Words(desc+offset("prb_desc_ring.tail_id"), w.tail),
		example.Write(text+offset("prb_data_ring.size_bits"), []byte{byte(log2(w.size)), 0, 0, 0}),
		example.Words(text+offset("prb_data_ring.data"), data),
		example.Write(descs, w.descs), example.Write(infos, w.infos), example.Write(data, w.data),
	}
	return example.Kernel(w.t, append(all, changes...)...)
}

func log2(n uint64) int {
	bits := 0
	for ; n > 1; n >>= 1 {
		bits++
	}
	return bits
}

func texts(log []LogRecord) []string {
	var out []string
	for _, r := range log {
		out = append(out, r.Text)
	}
	return out
}

func TestRing(t *testing.T) {
	w := newRing(t, 3, 256, 0x1000, 0)
	w.add("first", finalized)
	w.add("", finalized)
	w.add("two\nlines", finalized)
	w.desc(finalized, 3, 3, 0) // an empty line has no block
	w.add("being written", reserved)
	w.add("last, may still grow", committed)
	log, gaps, err := Log(w.kernel())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(gaps, 0))
	qt.Check(t, qt.DeepEquals(texts(log), []string{"first", "", "two\nlines", "", "last, may still grow"}))
	qt.Check(t, qt.DeepEquals(log[0], LogRecord{
		Seq: 0, Time: 1500 * time.Millisecond, Level: 4, Facility: 3, Caller: 1, CallerIsCPU: true,
		Text: "first", Device: "pci/0000:00:01.0",
	}))
}

// TestRingWraps: descriptors and text are reused, ids and positions run over.
func TestRingWraps(t *testing.T) {
	for _, start := range []struct{ id, lpos uint64 }{{0x1000, 0}, {descIDMask - 5, 0}, {0x1000, ^uint64(511)}} {
		t.Run(fmt.Sprintf("id %#x position %#x", start.id, start.lpos), func(t *testing.T) {
			w := newRing(t, 2, 256, start.id, start.lpos)
			var want []string
			for i := range 20 {
				text := strings.Repeat(string(rune('a'+i)), 20+i)
				w.add(text, finalized)
				want = append(want, text)
			}
			log, gaps, err := Log(w.kernel())
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(gaps, 0))
			qt.Check(t, qt.DeepEquals(texts(log), want[16:]))
		})
	}
}

// TestRingReused: a descriptor that is free again, or whose text was
// overwritten, is not mistaken for a record.
func TestRingReused(t *testing.T) {
	w := newRing(t, 3, 128, 0x1000, 0)
	w.add("freed", reusable)
	first := w.add(strings.Repeat("x", 40), finalized)
	w.add(strings.Repeat("y", 40), finalized)
	w.add(strings.Repeat("z", 40), finalized) // over x
	log, gaps, err := Log(w.kernel())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(texts(log), []string{strings.Repeat("y", 40), strings.Repeat("z", 40)}))
	qt.Assert(t, qt.HasLen(gaps, 1))
	qt.Check(t, qt.Equals(gaps[0].Seq, first))
	qt.Check(t, qt.ErrorMatches(gaps[0].Err, `log record 4097: its text is missing \(.*\)`))
}

// TestRingMissingPages: what is on a page that the dump lacks is a gap, and
// one only.
func TestRingMissingPages(t *testing.T) {
	build := func() *ringWriter {
		w := newRing(t, 8, 16384, 0x1000, 0)
		for i := range 250 {
			w.add(fmt.Sprintf("record %d", i), finalized)
		}
		return w
	}
	w := build()
	for _, test := range []struct {
		name string
		page uint64
		err  string
	}{
		{"descriptors", w.at + 0x2000, `log record \d+: its descriptor: .*excluded.*; and the next \d+ records`},
		{"infos", w.at + 0x4000, `log record \d+: its printk_info: .*excluded.*; and the next \d+ records`},
		{"text", w.at + 0x9000, `log record \d+: its text: .*excluded.*; and the next \d+ records`},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, gaps, err := Log(w.kernel(example.Absent(test.page)))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(gaps, 1))
			qt.Check(t, qt.ErrorMatches(gaps[0].Err, test.err))
			qt.Check(t, qt.Equals(mem.CauseOf(gaps[0].Err), mem.Excluded))
			qt.Check(t, qt.IsTrue(len(log) > 50 && len(log) < 250), qt.Commentf("%d records", len(log)))
			for _, r := range log {
				qt.Check(t, qt.Equals(r.Text, fmt.Sprintf("record %d", r.Seq)))
			}
		})
	}
}

// TestRingDamaged: sizes that no log has are refused, not allocated.
func TestRingDamaged(t *testing.T) {
	w := newRing(t, 3, 256, 0x1000, 0)
	w.add("first", finalized)
	k := w.kernel()
	desc, _ := k.Info().Offset("printk_ringbuffer.desc_ring")
	text, _ := k.Info().Offset("printk_ringbuffer.text_data_ring")
	bits, _ := k.Info().Offset("prb_desc_ring.count_bits")
	size, _ := k.Info().Offset("prb_data_ring.size_bits")
	for _, test := range []struct {
		at   int64
		bits byte
	}{{desc + bits, 24}, {desc + bits, 64}, {desc + bits, 255}, {text + size, 29}, {text + size, 64}} {
		_, _, err := Log(w.kernel(example.Write(w.at+uint64(test.at), []byte{test.bits})))
		qt.Check(t, qt.ErrorMatches(err, `reading the kernel log: printk_ringbuffer at 0x[0-9a-f]+ is damaged: .*`), qt.Commentf("%d", test.bits))
	}
	_, _, err := Log(w.kernel(example.Absent(w.at)))
	qt.Check(t, qt.Equals(mem.CauseOf(err), mem.Excluded))
}

// TestBlocks: the positions of a text block can be anything.
func TestBlocks(t *testing.T) {
	r := &ring{data: array{b: make([]byte, 256)}}
	binary.LittleEndian.PutUint64(r.data.b, 7)
	for _, test := range []struct {
		begin, next uint64
		err         string
	}{
		{1, 1, ""}, {3, 3, ""}, // dataless
		{0, 16, ""}, {256, 256 + 16, ""}, {240, 256 + 16, ""}, // the last stands at the start
		{0, 4, `.*does not fit.*`}, {16, 8, `.*does not fit.*`}, {0, 1 << 40, `.*`},
		{^uint64(0) - 7, 16, ""}, {0, 0, `.*does not fit.*`}, {8, ^uint64(1), `.*`},
		{16, 32, `log record 7: its text is missing.*`},
	} {
		b, err := r.block(7, test.begin, test.next)
		if test.err == "" {
			qt.Check(t, qt.IsNil(err), qt.Commentf("%#x %#x", test.begin, test.next))
			continue
		}
		qt.Check(t, qt.ErrorMatches(err, test.err), qt.Commentf("%#x %#x", test.begin, test.next))
		qt.Check(t, qt.HasLen(b, 0))
	}
}

func TestAppendSyslog(t *testing.T) {
	for _, test := range []struct {
		rec  LogRecord
		want string
	}{
		{LogRecord{Text: "hello", Level: 6}, "<6>[    0.000000] hello\n"},
		{LogRecord{Text: "a\nb", Level: 3, Facility: 3, Time: 12345678901234}, "<27>[12345.678901] a\n<27>[12345.678901] b\n"},
		{LogRecord{Time: 1234567*time.Second + 999999}, "<0>[1234567.000999] \n"},
	} {
		qt.Check(t, qt.Equals(string(test.rec.AppendSyslog([]byte("> "))), "> "+test.want))
	}
}

// TestRecordLog: the log of kernels before 5.10, with and without the caller.
func TestRecordLog(t *testing.T) {
	for _, header := range []int{16, 24} {
		at := scratchPage(t)
		buf, vars := at+0x1000, at
		data := make([]byte, 8192)
		put := func(off int, text string, dict int) int {
			le := binary.LittleEndian
			n := (header + len(text) + dict + 7) &^ 7
			le.PutUint64(data[off:], uint64(2*time.Second))
			le.PutUint16(data[off+8:], uint16(n))
			le.PutUint16(data[off+10:], uint16(len(text)))
			le.PutUint16(data[off+12:], uint16(dict))
			data[off+14], data[off+15] = 1, 5<<5
			if header == 24 {
				le.PutUint32(data[off+16:], 42)
			}
			copy(data[off+header:], text)
			return off + n
		}
		// Two records at the end, then on at the start.
		next := put(8000, "one", 10)
		_ = put(next, "two", 0) // behind it a length of 0
		second := put(0, "three", 0)
		end := put(second, "four\nlines", 3)
		open := func(extra ...example.Change) *kernel.Kernel {
			le := binary.LittleEndian
			info := fmt.Sprintf("SYMBOL(log_buf)=%x\nSYMBOL(log_buf_len)=%x\nSYMBOL(log_first_idx)=%x\nSYMBOL(log_next_idx)=%x\n"+
				"SIZE(printk_log)=%d\nOFFSET(printk_log.ts_nsec)=0\nOFFSET(printk_log.len)=8\nOFFSET(printk_log.text_len)=10\nOFFSET(printk_log.dict_len)=12\n",
				vars, vars+8, vars+16, vars+24, header)
			return example.KernelWithInfo(t, info, append([]example.Change{
				example.Words(vars, buf),
				example.Write(vars+8, le.AppendUint32(nil, uint32(len(data)))),
				example.Write(vars+16, le.AppendUint32(nil, 8000)),
				example.Write(vars+24, le.AppendUint32(nil, uint32(end))),
				example.Write(buf, data),
			}, extra...)...)
		}
		log, gaps, err := recordLog(open())
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(gaps, 0))
		qt.Check(t, qt.DeepEquals(texts(log), []string{"one", "two", "three", "four\nlines"}))
		want := LogRecord{Seq: 1, Time: 2 * time.Second, Level: 5, Facility: 1, Text: "two"}
		if header == 24 {
			want.Caller = 42
		}
		qt.Check(t, qt.DeepEquals(log[1], want))

		// Damage ends the list, with what came before it.
		log, gaps, err = recordLog(open(example.Write(buf+uint64(second)+8, []byte{4, 0})))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(texts(log), []string{"one", "two", "three"}))
		qt.Assert(t, qt.HasLen(gaps, 1))
		qt.Check(t, qt.ErrorMatches(gaps[0].Err, `record at 0x[0-9a-f]+: 4 bytes with 10 of text`))

		log, gaps, err = recordLog(open(example.Absent(buf)))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(texts(log), []string{"one", "two"}))
		qt.Assert(t, qt.HasLen(gaps, 1))
		qt.Check(t, qt.Equals(mem.CauseOf(gaps[0].Err), mem.Excluded))

		_, _, err = recordLog(open(example.Write(vars+8, []byte{0xff, 0xff, 0xff, 0xff})))
		qt.Check(t, qt.ErrorMatches(err, `.*damaged`))
	}
}

// scratchPage returns the address of memory that tests may overwrite.
func scratchPage(t *testing.T) uint64 {
	t.Helper()
	addr, err := example.Kernel(t).Addr("__start_orc_unwind")
	qt.Assert(t, qt.IsNil(err))
	return addr&^0xfff + 0x1000
}

// TestLayout: VMCOREINFO can hold any number.
func TestLayout(t *testing.T) {
	for _, v := range []string{"-1", "-4", "4294967295", "9223372036854775807", "18446744073709551612"} {
		for _, key := range []string{"OFFSET(printk_info.seq)", "OFFSET(prb_desc.state_var)", "SIZE(prb_desc)", "SIZE(printk_info)", "OFFSET(prb_data_blk_lpos.next)"} {
			_, _, err := Log(example.KernelWithInfo(t, key+"="+v+"\n"))
			qt.Check(t, qt.ErrorMatches(err, `reading the kernel log: no .* cannot be it.*`), qt.Commentf("%s %s", key, v))
		}
	}
}
