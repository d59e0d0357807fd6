package emulate

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// A Locs is a set of places that hold values: bytes of registers, flags, bytes
// of memory. Its zero value is the empty set.
type Locs struct {
	GP    [16]uint8  // bit i: byte i of the general register
	X     [16]uint16 // bit i: byte i of xmm0 to xmm15
	Flags uint64     // bits of RFLAGS
	Mem   Bytes
}

// Bytes is a set of bytes of memory, as masks by aligned 8-byte word: bit i of
// the mask is the byte at the key plus i.
type Bytes map[uint64]uint8

// LocsReg returns a set of the low size bytes of a general register.
func LocsReg(r, size int) Locs {
	var l Locs
	l.AddReg(r, size)
	return l
}

// LocsMem returns a set of n bytes at addr.
func LocsMem(addr uint64, n int) Locs {
	var l Locs
	l.AddMem(addr, n)
	return l
}

// AddReg adds the low size bytes of a general register.
func (l *Locs) AddReg(r, size int) { l.GP[r&15] |= uint8(lowMask(size)) }

// AddX adds the low size bytes of an xmm register.
func (l *Locs) AddX(r, size int) { l.X[r&15] |= uint16(lowMask(size)) }

// AddFlags adds bits of RFLAGS.
func (l *Locs) AddFlags(f uint64) { l.Flags |= f }

// AddMem adds n bytes at addr.
func (l *Locs) AddMem(addr uint64, n int) {
	if l.Mem == nil && n > 0 {
		l.Mem = Bytes{}
	}
	for w, m := range words(addr, n) {
		l.Mem[w] |= m
	}
}

// Has says whether the byte at addr is in the set.
func (b Bytes) Has(addr uint64) bool { return b[addr&^7]>>(addr&7)&1 != 0 }

// Runs returns the bytes as runs, by address.
func (b Bytes) Runs() []Access {
	var out []Access
	for _, w := range slices.Sorted(maps.Keys(b)) {
		for m := b[w]; m != 0; m &= m - 1 {
			a := w + uint64(bits.TrailingZeros8(m))
			if n := len(out); n > 0 && out[n-1].Addr+uint64(out[n-1].N) == a {
				out[n-1].N++
			} else {
				out = append(out, Access{Addr: a, N: 1})
			}
		}
	}
	return out
}

// Empty says whether there is nothing in the set.
func (l *Locs) Empty() bool {
	if l.GP != [16]uint8{} || l.X != [16]uint16{} || l.Flags != 0 {
		return false
	}
	for _, m := range l.Mem {
		if m != 0 {
			return false
		}
	}
	return true
}

// Clone returns a copy.
func (l *Locs) Clone() Locs {
	c := *l
	c.Mem = maps.Clone(l.Mem)
	return c
}

// lowMask returns the mask of n bytes, or bits.
func lowMask(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}

// words yields the aligned words of n bytes at addr, with the bytes in them.
func words(addr uint64, n int) func(yield func(w uint64, m uint8) bool) {
	return func(yield func(w uint64, m uint8) bool) {
		for n > 0 {
			off := int(addr & 7)
			k := min(8-off, n)
			if !yield(addr&^7, uint8(lowMask(k)<<off)) {
				return
			}
			addr, n = addr+uint64(k), n-k
		}
	}
}

var gpNames = [16]string{
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
}

var flagNames = []struct {
	bit  uint64
	name string
}{{CF, "CF"}, {PF, "PF"}, {AF, "AF"}, {ZF, "ZF"}, {SF, "SF"}, {TF, "TF"}, {IF, "IF"}, {DF, "DF"}, {OF, "OF"}, {AC, "AC"}}

// String lists the places: "rax rdi:0-3 xmm0 ZF [ffff888003a4bc10+8]".
func (l Locs) String() string {
	var out []string
	for i, m := range l.GP {
		out = appendReg(out, gpNames[i], uint64(m), 8)
	}
	for i, m := range l.X {
		out = appendReg(out, fmt.Sprintf("xmm%d", i), uint64(m), 16)
	}
	for _, f := range flagNames {
		if l.Flags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	for _, r := range l.Mem.Runs() {
		out = append(out, fmt.Sprintf("[%x+%d]", r.Addr, r.N))
	}
	return strings.Join(out, " ")
}

// appendReg writes a register with its bytes, all of which go without saying.
func appendReg(out []string, name string, m uint64, size int) []string {
	if m == lowMask(size) {
		return append(out, name)
	}
	for m != 0 {
		lo := bits.TrailingZeros64(m)
		hi := lo + bits.TrailingZeros64(^(m >> lo)) - 1
		if s := fmt.Sprintf("%s:%d-%d", name, lo, hi); lo == hi {
			out = append(out, fmt.Sprintf("%s:%d", name, lo))
		} else {
			out = append(out, s)
		}
		m &^= lowMask(hi + 1)
	}
	return out
}
