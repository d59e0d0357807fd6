package inflate

import "math/bits"

// A table is indexed by the next bits of the stream. Longer codes are rare and
// are found the slow way.
const (
	tableBits = 10
	tableSize = 1 << tableBits
	maxBits   = 15
)

// An entry of a table says what a code means: its length in bits, how many
// extra bits follow, and a value that these are added to. Zero means that the
// code is longer than tableBits, or that there is none.
const (
	entryLen       = 0x1f // bits of the code
	entryExtra     = 5    // shift: number of extra bits
	entryExtraMask = 0xf
	entryLiteral   = 1 << 9
	entryEnd       = 1 << 10
	entryBad       = 1 << 11
	entryValue     = 12 // shift: literal, or base of length or distance
)

// A code is a canonical Huffman code.
type code struct {
	table   [tableSize]uint32
	count   [maxBits + 1]uint16 // codes of each length
	symbols [maxLitLen]uint16   // by code
	entries *[maxLitLen]uint32  // by symbol, without the length of the code
}

// build sets up the code for the given lengths, one per symbol; 0 means that
// the symbol does not occur.
func (c *code) build(lengths []uint8, entries *[maxLitLen]uint32) error {
	c.entries = entries
	c.count = [maxBits + 1]uint16{}
	for _, n := range lengths {
		c.count[n&maxBits]++
	}
	used := len(lengths) - int(c.count[0])
	c.count[0] = 0
	var next [maxBits + 2]uint16
	left := 1
	for n := 1; n <= maxBits; n++ {
		left = left<<1 - int(c.count[n])
		if left < 0 {
			return ErrData
		}
		next[n+1] = next[n] + c.count[n]
	}
	if left > 0 && used > 0 && (used != 1 || c.count[1] != 1) {
		return ErrData // incomplete codes: none, or one code of one bit (RFC 1951, 3.2.7)
	}
	for s, n := range lengths {
		if n != 0 {
			c.symbols[next[n]] = uint16(s)
			next[n]++
		}
	}
	c.fill()
	return nil
}

// fill fills the table. Codes come in the order of their lengths: the table
// starts small, and doubles with each length by copying itself.
func (c *code) fill() {
	size := 1
	c.table[0] = 0
	word, next := 0, 0 // the code with its bits reversed, and its symbol
	for n := 1; n <= tableBits; n++ {
		copy(c.table[size:2*size], c.table[:size])
		size *= 2
		for range c.count[n] {
			c.table[word] = c.entries[c.symbols[next]] | uint32(n)
			next++
			word = increment(word, n)
		}
	}
}

// increment adds 1 to a number of n bits whose bits are reversed.
func increment(word, n int) int {
	top := bits.Len(uint(word ^ (1<<n - 1)))
	if top == 0 {
		return 0
	}
	return word&(1<<(top-1)-1) | 1<<(top-1)
}

// long finds a code that is not in the table.
func (c *code) long(b uint64) uint32 {
	word, first, index := 0, 0, 0
	for n := 1; n <= maxBits; n++ {
		word |= int(b & 1)
		b >>= 1
		count := int(c.count[n])
		if word-first < count {
			return c.entries[c.symbols[index+word-first]] | uint32(n)
		}
		index += count
		first = (first + count) << 1
		word <<= 1
	}
	return entryBad
}

// precodeOrder is the order in which the lengths of the precode are sent.
var precodeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// The meanings of the symbols of the three codes (RFC 1951, 3.2.5 and 3.2.7).
var litLenEntries, distEntries, preEntries = makeEntries()

func makeEntries() (litLen, dist, pre *[maxLitLen]uint32) {
	litLen, dist, pre = new([maxLitLen]uint32), new([maxLitLen]uint32), new([maxLitLen]uint32)
	for i := range litLen {
		litLen[i], dist[i], pre[i] = entryBad, entryBad, entryBad
	}
	for i := range uint32(256) {
		litLen[i] = entryLiteral | i<<entryValue
	}
	litLen[endBlock] = entryEnd
	base := uint32(3)
	for i := range uint32(28) {
		extra := uint32(0)
		if i >= 8 {
			extra = i/4 - 1
		}
		litLen[257+i] = base<<entryValue | extra<<entryExtra
		base += 1 << extra
	}
	litLen[285] = 258 << entryValue
	base = 1
	for i := range uint32(30) {
		extra := uint32(0)
		if i >= 4 {
			extra = i/2 - 1
		}
		dist[i] = base<<entryValue | extra<<entryExtra
		base += 1 << extra
	}
	for i := range uint32(19) {
		pre[i] = i << entryValue
	}
	return litLen, dist, pre
}

// fixed sets up the codes of RFC 1951, 3.2.6.
func (d *Decoder) fixed() {
	l := d.lengths[:]
	for i := range maxLitLen {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	for i := range maxDist {
		l[maxLitLen+i] = 5
	}
	// Complete by construction.
	_ = d.litLen.build(l[:maxLitLen], litLenEntries)
	_ = d.dist.build(l[maxLitLen:], distEntries)
}

// dynamic reads the codes of a block (RFC 1951, 3.2.7).
func (d *Decoder) dynamic() error {
	d.refill()
	nLit, nDist, nPre := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if nLit > 286 || nDist > 30 {
		return d.invalid()
	}
	var pre [19]uint8
	for _, s := range precodeOrder[:nPre] {
		if d.n < 3 {
			d.refill()
		}
		pre[s] = uint8(d.take(3))
	}
	if err := d.pre.build(pre[:], preEntries); err != nil {
		return err
	}
	if err := d.readLengths(nLit + nDist); err != nil {
		return err
	}
	if d.lengths[endBlock] == 0 {
		return ErrData
	}
	if err := d.litLen.build(d.lengths[:nLit], litLenEntries); err != nil {
		return err
	}
	return d.dist.build(d.lengths[nLit:nLit+nDist], distEntries)
}

// repeats says what the precode symbols from 16 on repeat: how often at least,
// and how many bits say how much more often.
var repeats = [3]struct{ base, bits uint8 }{{3, 2}, {3, 3}, {11, 7}}

// readLengths reads the lengths of n codes.
func (d *Decoder) readLengths(n int) error {
	for i := 0; i < n; {
		if d.n < needBits {
			d.refill()
		}
		e := d.pre.table[d.bits&(tableSize-1)]
		if e == 0 || e&entryBad != 0 {
			return d.invalid()
		}
		d.take(uint(e & entryLen))
		sym := e >> entryValue
		if sym < 16 {
			d.lengths[i] = uint8(sym)
			i++
			continue
		}
		r := repeats[sym-16]
		count := int(r.base) + int(d.take(uint(r.bits)))
		value := uint8(0)
		if sym == 16 {
			if i == 0 {
				return ErrData
			}
			value = d.lengths[i-1]
		}
		if count > n-i {
			return d.invalid()
		}
		for range count {
			d.lengths[i] = value
			i++
		}
	}
	return nil
}
