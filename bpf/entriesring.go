package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// queue walks a queue or a stack in the order its elements would be taken out.
func (r *entryReader) queue() error {
	head, tail, size := r.o.Uint("head"), r.o.Uint("tail"), r.o.Uint("size")
	base := r.o.At("elements")
	if err := r.o.Err(); err != nil {
		return err
	}
	if size == 0 || head >= size || tail >= size {
		return fmt.Errorf("head %d and tail %d in a ring of %d: damaged", head, tail, size)
	}
	n := (head + size - tail) % size
	for i := range n {
		at := (tail + i) % size
		if r.m.Type == "stack" {
			at = (head + size - 1 - i) % size
		}
		value, err := r.read(base+at*uint64(r.val), r.val)
		if err != nil {
			err = r.lost(fmt.Errorf("element %d: %w", i, err))
		} else {
			err = r.emit(Entry{Value: value})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stackTraces walks the stacks that programs have stored, each under its
// number. The value is filled up with zeroes, as bpf(2) gives it.
func (r *entryReader) stackTraces() error {
	n, base := r.o.Uint("n_buckets"), r.o.At("buckets")
	data, err := r.k.Offset("stack_map_bucket", "data")
	if err := errors.Join(r.o.Err(), err); err != nil {
		return err
	}
	if n > maxBuckets {
		return fmt.Errorf("a table of %d buckets: damaged", n)
	}
	const buildID, buildIDSize = 1 << 5, 32 // BPF_F_STACK_BUILD_ID, struct bpf_stack_build_id
	elem := 8
	if r.m.Flags&buildID != 0 {
		elem = buildIDSize
	}
	slots := *r.m
	slots.MaxEntries = uint32(n)
	walk := *r
	walk.m = &slots
	return walk.pointers(base, func(_, p uint64) (Entry, error) {
		o := r.k.Object("stack_map_bucket", p)
		nr := o.Uint("nr")
		if err := o.Err(); err != nil {
			return Entry{}, err
		}
		if nr > uint64(r.val/elem) {
			return Entry{}, fmt.Errorf("stack_map_bucket at 0x%x: %d frames: damaged", p, nr)
		}
		raw, err := r.read(p+data, int(nr)*elem)
		if err != nil {
			return Entry{}, err
		}
		e := Entry{Value: append(raw, make([]byte, r.val-len(raw))...)}
		if elem == 8 {
			e.ValueText = r.frames(raw)
		}
		return e, nil
	})
}

// frames names the addresses of a stack.
func (r *entryReader) frames(raw []byte) string {
	var out []string
	for ; len(raw) >= 8; raw = raw[8:] {
		out = append(out, r.k.FormatAddr(le64(raw)))
	}
	return strings.Join(out, " < ")
}

// ringbuf yields what a ring buffer holds: its positions, as texts, and then
// the records that have been produced but not yet consumed.
func (r *entryReader) ringbuf() error {
	rb := r.o.Deref("rb")
	consumer, producer, mask, data := rb.Uint("consumer_pos"), rb.Uint("producer_pos"), rb.Uint("mask"), rb.At("data")
	positions := []struct {
		name string
		at   uint64
	}{{"consumer_pos", consumer}, {"producer_pos", producer}}
	from := consumer
	if rb.Has("overwrite_pos") && r.m.Flags>>19&1 != 0 { // BPF_F_RB_OVERWRITE, 6.19
		over := rb.Uint("overwrite_pos")
		positions = append(positions, struct {
			name string
			at   uint64
		}{"overwrite_pos", over})
		from = max(from, over)
	}
	if err := errors.Join(r.o.Err(), rb.Err()); err != nil {
		return err
	}
	for _, p := range positions {
		if err := r.emit(Entry{KeyText: p.name, ValueText: fmt.Sprint(p.at)}); err != nil {
			return err
		}
	}
	if mask+1 != uint64(r.m.MaxEntries) || producer < from || producer-from > mask+1 {
		return fmt.Errorf("positions %d to %d in a ring of %d bytes: damaged", from, producer, mask+1)
	}
	return r.records(from, producer, mask, data)
}

// records walks the records of a ring buffer: a header with the length and two
// flags, and the data. The ring is mapped twice in a row, so that a record is
// never in two parts.
func (r *entryReader) records(from, to, mask, data uint64) error {
	const (
		header    = 8       // struct bpf_ringbuf_hdr
		busy      = 1 << 31 // BPF_RINGBUF_BUSY_BIT
		discarded = 1 << 30 // BPF_RINGBUF_DISCARD_BIT
	)
	for from < to {
		head, err := r.read(data+from&mask, header)
		if err != nil {
			return err
		}
		word := le32(head)
		size := uint64(word &^ (busy | discarded))
		if size > to-from || size > maxValue {
			return fmt.Errorf("a record of %d bytes at %d, %d before the end: damaged", size, from, to-from)
		}
		e := Entry{KeyText: fmt.Sprintf("record at %d", from)}
		switch {
		case word&busy != 0:
			e.ValueText = fmt.Sprintf("%d bytes, still being written", size)
		case word&discarded != 0:
			e.ValueText = fmt.Sprintf("%d bytes, discarded", size)
		default:
			if e.Value, err = r.read(data+from&mask+header, int(size)); err != nil {
				return err
			}
		}
		if err := r.emit(e); err != nil {
			return err
		}
		from += roundUp(size+header, 8)
	}
	return nil
}

// bloom tells how full a Bloom filter is: its elements cannot be listed.
func (r *entryReader) bloom() error {
	n, hashes, base := r.o.Uint("bitset_mask")+1, r.o.Uint("nr_hash_funcs"), r.o.At("bitset")
	if err := r.o.Err(); err != nil {
		return err
	}
	size := roundUp((n+7)/8, 8)
	const maxBits = 1 << 26 // bytes
	if size > maxBits {
		return fmt.Errorf("a bit set of %d bytes is too large to be counted", size)
	}
	set := 0
	for at := uint64(0); at < size; at += chunkSize {
		raw, err := r.read(base+at, int(min(chunkSize, size-at)))
		if err != nil {
			return err
		}
		for ; len(raw) >= 8; raw = raw[8:] {
			set += bits.OnesCount64(binary.LittleEndian.Uint64(raw))
		}
	}
	return r.emit(Entry{KeyText: "bits set", ValueText: fmt.Sprintf("%d of %d, %d hash functions", set, n, hashes)})
}
