package vmcore

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	chunkBytes = 4096           // of a bitmap that are read and counted together
	chunkPFNs  = chunkBytes * 8 // 128 MiB of memory
	subPFNs    = 512            // page frames between two counts inside a chunk
	chunkSlots = 64             // chunks kept: 8 GiB of memory, 260 KiB here
)

// A bitmap answers, for one bit per page frame, whether it is set and how many
// bits before it are. It reads and counts what it needs, when it needs it:
// opening a dump costs nothing, and a dump of a terabyte does not keep its
// 32 MiB of bitmap in memory.
type bitmap struct {
	in   *input
	off  int64 // in the file
	size int64 // in bytes
	npfn uint64

	slots [chunkSlots]atomic.Pointer[bitChunk] // direct mapped by chunk number

	mu   sync.Mutex
	rank []uint64 // rank[i] is the number of bits set before chunk i
}

// A bitChunk is a piece of a bitmap, with counts.
type bitChunk struct {
	index uint64
	rank  uint64 // bits set in the chunks before
	words [chunkBytes / 8]uint64
	sub   [chunkPFNs / subPFNs]uint16 // bits set in the chunk before each group
}

func newBitmap(in *input, off, size int64, npfn uint64) *bitmap {
	return &bitmap{in: in, off: off, size: size, npfn: npfn, rank: []uint64{0}}
}

// offsetOf returns the file offset of the byte that holds a bit.
func (b *bitmap) offsetOf(pfn uint64) int64 { return b.off + int64(pfn/8) }

// get returns the bit of a page frame and the number of bits set before it.
func (b *bitmap) get(pfn uint64) (set bool, rank uint64, err error) {
	if pfn >= b.npfn {
		return false, 0, nil
	}
	c, err := b.chunk(pfn / chunkPFNs)
	if err != nil {
		return false, 0, err
	}
	i := pfn % chunkPFNs
	rank = c.rank + uint64(c.sub[i/subPFNs])
	for w := i / subPFNs * (subPFNs / 64); w < i/64; w++ {
		rank += uint64(bits.OnesCount64(c.words[w]))
	}
	word := c.words[i/64]
	rank += uint64(bits.OnesCount64(word & (1<<(i%64) - 1)))
	return word>>(i%64)&1 != 0, rank, nil
}

// before returns the number of bits set before pfn, which may be the end.
func (b *bitmap) before(pfn uint64) (uint64, error) {
	if pfn == 0 {
		return 0, nil
	}
	set, rank, err := b.get(min(pfn, b.npfn) - 1)
	if set {
		rank++
	}
	return rank, err
}

// chunk returns a chunk, from its slot or from the file.
func (b *bitmap) chunk(index uint64) (*bitChunk, error) {
	slot := &b.slots[index%chunkSlots]
	if c := slot.Load(); c != nil && c.index == index {
		return c, nil
	}
	rank, err := b.rankOf(index)
	if err != nil {
		return nil, err
	}
	c := &bitChunk{index: index, rank: rank}
	var buf [chunkBytes]byte
	if err := b.read(&buf, index); err != nil {
		return nil, err
	}
	n := uint16(0)
	for i := range c.words {
		if i%(subPFNs/64) == 0 {
			c.sub[i/(subPFNs/64)] = n
		}
		c.words[i] = binary.LittleEndian.Uint64(buf[8*i:])
		n += uint16(bits.OnesCount64(c.words[i]))
	}
	slot.Store(c)
	return c, nil
}

// read reads the bytes of a chunk; past the end of the bitmap they are zero.
func (b *bitmap) read(buf *[chunkBytes]byte, index uint64) error {
	off := int64(index) * chunkBytes
	n := min(b.size-off, chunkBytes)
	clear(buf[n:])
	return b.in.readAt(buf[:n], b.off+off, "bitmap")
}

// rankOf counts the bits set before a chunk, continuing where the last count
// stopped.
func (b *bitmap) rankOf(index uint64) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var buf [chunkBytes]byte
	for uint64(len(b.rank)) <= index {
		last := len(b.rank) - 1
		if err := b.read(&buf, uint64(last)); err != nil {
			return 0, err
		}
		n := 0
		for i := 0; i < len(buf); i += 8 {
			n += bits.OnesCount64(binary.LittleEndian.Uint64(buf[i:]))
		}
		b.rank = append(b.rank, b.rank[last]+uint64(n))
	}
	return b.rank[index], nil
}

// runs calls yield for every run [start, end) of bits set, until it returns
// false. It passes the chunks by the slots, so that a scan leaves them alone.
func (b *bitmap) runs(yield func(start, end uint64) bool) error {
	var buf [chunkBytes]byte
	start, open := uint64(0), false
	for base := uint64(0); base < b.npfn; base += chunkPFNs {
		if err := b.read(&buf, base/chunkPFNs); err != nil {
			return err
		}
		for i := uint64(0); i < chunkPFNs && base+i < b.npfn; {
			word := binary.LittleEndian.Uint64(buf[i/64*8:])
			if open {
				word = ^word
			}
			// The next bit that ends the run, or starts one.
			skip := uint64(bits.TrailingZeros64(word >> (i % 64)))
			if skip >= 64-i%64 {
				i += 64 - i%64
				continue
			}
			i += skip
			if pfn := min(base+i, b.npfn); open {
				if !yield(start, pfn) {
					return nil
				}
			} else {
				start = pfn
			}
			open = !open
		}
	}
	if open && start < b.npfn {
		yield(start, b.npfn)
	}
	return nil
}
