package emulate

import (
	"encoding/binary"

	"github.com/ksleuth/ksleuth/x86"
)

// Of the vector instructions those of SSE are executed that kernel code moves
// and sums up data with; nothing with floating point numbers.
var vectorOps = map[x86.Op]opRow{
	x86.MOVD:    {exec: execMovLow},
	x86.MOVQ:    {exec: execMovLow},
	x86.MOVDQA:  {exec: execMovAligned},
	x86.MOVAPS:  {exec: execMovAligned},
	x86.MOVAPD:  {exec: execMovAligned},
	x86.MOVNTDQ: {exec: execMovAligned},
	x86.MOVNTPS: {exec: execMovAligned},
	x86.MOVDQU:  {exec: execMovVector},
	x86.MOVUPS:  {exec: execMovVector},
	x86.MOVUPD:  {exec: execMovVector},
	x86.LDDQU:   {exec: execMovVector},

	x86.PXOR:  {exec: packed(xorVector)},
	x86.XORPS: {exec: packed(xorVector)},
	x86.XORPD: {exec: packed(xorVector)},
	x86.POR:   {exec: packed(orVector)},
	x86.ORPS:  {exec: packed(orVector)},
	x86.PAND:  {exec: packed(andVector)},
	x86.ANDPS: {exec: packed(andVector)},
	x86.PANDN: {exec: packed(func(a, b vector) vector { return vector{^a[0] & b[0], ^a[1] & b[1]} })},

	x86.PADDB:   {exec: packed(lanes(1, func(a, b uint64) uint64 { return a + b }))},
	x86.PADDW:   {exec: packed(lanes(2, func(a, b uint64) uint64 { return a + b }))},
	x86.PADDD:   {exec: packed(lanes(4, func(a, b uint64) uint64 { return a + b }))},
	x86.PADDQ:   {exec: packed(lanes(8, func(a, b uint64) uint64 { return a + b }))},
	x86.PSUBB:   {exec: packed(lanes(1, func(a, b uint64) uint64 { return a - b }))},
	x86.PSUBW:   {exec: packed(lanes(2, func(a, b uint64) uint64 { return a - b }))},
	x86.PSUBD:   {exec: packed(lanes(4, func(a, b uint64) uint64 { return a - b }))},
	x86.PSUBQ:   {exec: packed(lanes(8, func(a, b uint64) uint64 { return a - b }))},
	x86.PCMPEQB: {exec: packed(lanes(1, equalLane))},
	x86.PCMPEQW: {exec: packed(lanes(2, equalLane))},
	x86.PCMPEQD: {exec: packed(lanes(4, equalLane))},
	x86.PMULUDQ: {exec: packed(func(a, b vector) vector { return vector{low(a[0]) * low(b[0]), low(a[1]) * low(b[1])} })},

	x86.PSLLW: {exec: shiftLanes(2, func(a uint64, n uint64) uint64 { return a << n })},
	x86.PSLLD: {exec: shiftLanes(4, func(a uint64, n uint64) uint64 { return a << n })},
	x86.PSLLQ: {exec: shiftLanes(8, func(a uint64, n uint64) uint64 { return a << n })},
	x86.PSRLW: {exec: shiftLanes(2, func(a uint64, n uint64) uint64 { return a >> n })},
	x86.PSRLD: {exec: shiftLanes(4, func(a uint64, n uint64) uint64 { return a >> n })},
	x86.PSRLQ: {exec: shiftLanes(8, func(a uint64, n uint64) uint64 { return a >> n })},

	x86.PSLLDQ:  {exec: execPslldq},
	x86.PSRLDQ:  {exec: execPsrldq},
	x86.PALIGNR: {exec: execPalignr},
	x86.PSHUFD:  {exec: execPshufd},
	x86.PSHUFB:  {exec: packed(shuffleBytes)},

	x86.PUNPCKLBW:  {exec: packed(unpack(1, 0))},
	x86.PUNPCKLWD:  {exec: packed(unpack(2, 0))},
	x86.PUNPCKLDQ:  {exec: packed(unpack(4, 0))},
	x86.PUNPCKLQDQ: {exec: packed(unpack(8, 0))},
	x86.PUNPCKHBW:  {exec: packed(unpack(1, 8))},
	x86.PUNPCKHWD:  {exec: packed(unpack(2, 8))},
	x86.PUNPCKHDQ:  {exec: packed(unpack(4, 8))},
	x86.PUNPCKHQDQ: {exec: packed(unpack(8, 8))},

	x86.PMOVMSKB:  {exec: execPmovmskb},
	x86.PMOVZXDQ:  {exec: execPmovzxdq},
	x86.PCLMULQDQ: {exec: execPclmulqdq},
	x86.PEXTRB:    {exec: extract(1)},
	x86.PEXTRW:    {exec: extract(2)},
	x86.PEXTRD:    {exec: extract(4)},
	x86.PEXTRQ:    {exec: extract(8)},
	x86.PINSRB:    {exec: insert(1)},
	x86.PINSRW:    {exec: insert(2)},
	x86.PINSRD:    {exec: insert(4)},
	x86.PINSRQ:    {exec: insert(8)},
}

// A vector is the value of an xmm register, low half first.
type vector = [2]uint64

func low(v uint64) uint64 { return v & 0xffffffff }

func toBytes(v vector) (b [16]byte) {
	binary.LittleEndian.PutUint64(b[:], v[0])
	binary.LittleEndian.PutUint64(b[8:], v[1])
	return b
}

func fromBytes(b [16]byte) vector {
	return vector{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

// vectorSrc reads the second operand.
func (m *Machine) vectorSrc(u *uop, aligned bool) (v vector, ok bool) {
	if u.srcKind != kMem {
		return m.X[u.src&15], true
	}
	at := m.ea(u)
	if aligned && at&15 != 0 {
		return v, m.misaligned(at)
	}
	var b [16]byte
	if !m.loadBytes(b[:], at) {
		return v, false
	}
	return fromBytes(b), true
}

// setVector writes the first operand.
func (m *Machine) setVector(u *uop, v vector, aligned bool) bool {
	if u.dstKind != kMem {
		m.X[u.dst&15] = v
		return true
	}
	at := m.ea(u)
	if aligned && at&15 != 0 {
		return m.misaligned(at)
	}
	b := toBytes(v)
	return m.storeBytes(b[:], at)
}

func execMovAligned(m *Machine, u *uop) bool {
	v, ok := m.vectorSrc(u, true)
	return ok && m.setVector(u, v, true)
}

func execMovVector(m *Machine, u *uop) bool {
	v, ok := m.vectorSrc(u, false)
	return ok && m.setVector(u, v, false)
}

// execMovLow is movd and movq; of the registers one at least is a vector. What
// it moves to a vector register has zeros above.
func execMovLow(m *Machine, u *uop) bool {
	var v uint64
	ok := true
	if u.srcKind == kXmm {
		v = m.X[u.src&15][0]
	} else {
		v, ok = m.getSrc(u)
	}
	switch {
	case !ok:
		return false
	case u.dstKind == kXmm:
		m.X[u.dst&15] = vector{v}
		return true
	}
	return m.setDst(u, v)
}

// packed makes an exec of what computes a vector of two.
func packed(f func(a, b vector) vector) exec {
	return func(m *Machine, u *uop) bool {
		b, ok := m.vectorSrc(u, true)
		if ok {
			m.X[u.dst&15] = f(m.X[u.dst&15], b)
		}
		return ok
	}
}

func xorVector(a, b vector) vector { return vector{a[0] ^ b[0], a[1] ^ b[1]} }
func orVector(a, b vector) vector  { return vector{a[0] | b[0], a[1] | b[1]} }
func andVector(a, b vector) vector { return vector{a[0] & b[0], a[1] & b[1]} }

// lanes lifts f to the elements, of size bytes, of vectors.
func lanes(size uint8, f func(a, b uint64) uint64) func(a, b vector) vector {
	return func(a, b vector) (r vector) {
		for h := range r {
			for at := uint8(0); at < 8; at += size {
				r[h] |= f(a[h]>>(8*at)&mask(size), b[h]>>(8*at)&mask(size)) & mask(size) << (8 * at)
			}
		}
		return r
	}
}

func equalLane(a, b uint64) uint64 { return -flagIf(1, a == b) }

// shiftLanes makes an exec of a shift of elements of size bytes, by an
// immediate or by the lower half of a vector.
func shiftLanes(size uint8, f func(a, n uint64) uint64) exec {
	return func(m *Machine, u *uop) bool {
		n := u.imm
		if u.srcKind != kImm {
			v, ok := m.vectorSrc(u, true)
			if !ok {
				return false
			}
			n = v[0]
		}
		if n >= 8*uint64(size) {
			n = 64
		}
		p := &m.X[u.dst&15]
		*p = lanes(size, func(a, _ uint64) uint64 { return f(a, n) })(*p, vector{})
		return true
	}
}

// window returns 16 bytes of a, with b above, from byte n on; zeros beyond.
func window(a, b vector, n uint64) vector {
	var all [48]byte
	x, y := toBytes(a), toBytes(b)
	copy(all[:], x[:])
	copy(all[16:], y[:])
	var out [16]byte
	copy(out[:], all[min(n, 32):])
	return fromBytes(out)
}

func execPslldq(m *Machine, u *uop) bool {
	p := &m.X[u.dst&15]
	*p = window(vector{}, *p, 16-min(u.imm, 16))
	return true
}

func execPsrldq(m *Machine, u *uop) bool {
	p := &m.X[u.dst&15]
	*p = window(*p, vector{}, min(u.imm, 16))
	return true
}

func execPalignr(m *Machine, u *uop) bool {
	v, ok := m.vectorSrc(u, true)
	if ok {
		m.X[u.dst&15] = window(v, m.X[u.dst&15], u.imm&0xff)
	}
	return ok
}

func execPshufd(m *Machine, u *uop) bool {
	v, ok := m.vectorSrc(u, true)
	if !ok {
		return false
	}
	var r vector
	for i := range uint(4) {
		from := u.imm >> (2 * i) & 3
		r[i/2] |= low(v[from/2]>>(32*(from&1))) << (32 * (i & 1))
	}
	m.X[u.dst&15] = r
	return true
}

func shuffleBytes(a, b vector) vector {
	x, y := toBytes(a), toBytes(b)
	var r [16]byte
	for i, n := range y {
		if n < 0x80 {
			r[i] = x[n&15]
		}
	}
	return fromBytes(r)
}

// unpack returns what interleaves elements of size bytes, from byte at on.
func unpack(size, at int) func(a, b vector) vector {
	return func(a, b vector) vector {
		x, y := toBytes(a), toBytes(b)
		var r [16]byte
		for i := 0; i < 8; i += size {
			copy(r[2*i:2*i+size], x[at+i:])
			copy(r[2*i+size:2*i+2*size], y[at+i:])
		}
		return fromBytes(r)
	}
}

func execPmovmskb(m *Machine, u *uop) bool {
	b := toBytes(m.X[u.src&15])
	var r uint64
	for i, v := range b {
		r |= uint64(v>>7) << i
	}
	m.GP[u.dst&15] = r
	return true
}

// execPmovzxdq reads half a vector.
func execPmovzxdq(m *Machine, u *uop) bool {
	v := m.X[u.src&15][0]
	if u.srcKind == kMem {
		var ok bool
		if v, ok = m.load(m.ea(u), 8); !ok {
			return false
		}
	}
	m.X[u.dst&15] = vector{low(v), v >> 32}
	return true
}

// execPclmulqdq multiplies without carries. Bits of the immediate choose the halves.
func execPclmulqdq(m *Machine, u *uop) bool {
	v, ok := m.vectorSrc(u, true)
	if !ok {
		return false
	}
	a, b := m.X[u.dst&15][u.imm&1], v[u.imm>>4&1]
	r := vector{a & -(b & 1)}
	for i := 1; i < 64; i++ {
		bit := -(b >> i & 1)
		r[0] ^= a << i & bit
		r[1] ^= a >> (64 - i) & bit
	}
	m.X[u.dst&15] = r
	return true
}

// extract makes an exec of pextr for elements of size bytes.
func extract(size uint8) exec {
	return func(m *Machine, u *uop) bool {
		n := uint8(u.imm) * size & 15
		return m.setDst(u, m.X[u.src&15][n>>3]>>(8*(n&7))&mask(size))
	}
}

// insert makes an exec of pinsr for elements of size bytes.
func insert(size uint8) exec {
	return func(m *Machine, u *uop) bool {
		v, ok := m.getSrc(u)
		if !ok {
			return false
		}
		n := uint8(u.imm) * size & 15
		p := &m.X[u.dst&15][n>>3]
		at := 8 * (n & 7)
		*p = *p&^(mask(size)<<at) | v&mask(size)<<at
		return true
	}
}
