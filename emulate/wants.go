package emulate

import (
	"math/bits"

	"github.com/ksleuth/ksleuth/x86"
)

// Why says what an instruction's results were used for; a set.
type Why uint8

// The uses.
const (
	ForValue     Why = 1 << iota // of what is asked for, or of what that was made of
	ForCondition                 // to choose a value, or to decide a branch
	ForAddress                   // to make an address
	ForControl                   // without it the user would not have been executed
)

// A node says that someone wants bytes of a place. The nodes of a place are a list.
type node struct {
	next int32  // 0 ends the list
	who  int32  // step of the slice, or, below 0, byte of the question
	mask uint32 // bytes; of flags bits
	via  int32  // step of the slice that last copied it, with question bytes; else 0
	why  Why
}

// wants are the places wanted while the history is walked backwards, each with
// those who want it.
type wants struct {
	nodes     []node
	free      int32
	gp, x     [16]int32 // lists
	flags     int32
	gpMask    [16]uint8
	xMask     [16]uint16
	flagMask  uint32
	gpAny     uint16
	xAny      uint16
	mem       map[uint64]int32 // lists by aligned word
	low, high uint64           // bounds of mem's keys
}

func newWants() *wants {
	return &wants{nodes: make([]node, 1, 64), mem: map[uint64]int32{}, low: ^uint64(0)}
}

// empty says whether nothing is wanted.
func (w *wants) empty() bool {
	return w.gpAny == 0 && w.xAny == 0 && w.flagMask == 0 && len(w.mem) == 0
}

// push puts n in front of a list.
func (w *wants) push(list *int32, n node) {
	if at := *list; at != 0 {
		if h := &w.nodes[at]; h.who == n.who && h.via == n.via {
			h.mask |= n.mask
			h.why |= n.why
			return
		}
	}
	n.next = *list
	if i := w.free; i != 0 {
		w.free = w.nodes[i].next
		w.nodes[i] = n
		*list = i
		return
	}
	w.nodes = append(w.nodes, n)
	*list = int32(len(w.nodes) - 1)
}

func (w *wants) addGP(r uint8, n node) {
	r &= 15
	w.push(&w.gp[r], n)
	w.gpMask[r] |= uint8(n.mask)
	w.gpAny |= 1 << r
}

func (w *wants) addX(r uint8, n node) {
	r &= 15
	w.push(&w.x[r], n)
	w.xMask[r] |= uint16(n.mask)
	w.xAny |= 1 << r
}

func (w *wants) addFlags(n node) {
	w.push(&w.flags, n)
	w.flagMask |= n.mask
}

// addWord adds bytes of an aligned word.
func (w *wants) addWord(word uint64, n node) {
	list := w.mem[word]
	w.push(&list, n)
	w.mem[word] = list
	w.low, w.high = min(w.low, word), max(w.high, word)
}

// A hit is a wanted part of what an instruction writes.
type hit struct {
	node
	bytes uint64 // of the output; of flags 1
	word  uint64 // of a repeated write: the word of memory that node.mask is of
}

// take removes bytes from a list and appends them to out.
func (w *wants) take(list *int32, mask uint32, out []hit) []hit {
	at := list
	for *at != 0 {
		i := *at
		n := &w.nodes[i]
		got := n.mask & mask
		if got == 0 {
			at = &n.next
			continue
		}
		h := *n
		h.mask = got
		out = append(out, hit{node: h})
		if n.mask &^= got; n.mask != 0 {
			at = &n.next
			continue
		}
		*at = n.next
		n.next = w.free
		w.free = i
	}
	return out
}

func (w *wants) takeGP(p *x86.Place, out []hit) []hit {
	r := p.N & 15
	m := uint32(lowMask(int(p.Size))) << p.Off
	if uint32(w.gpMask[r])&m == 0 {
		return out
	}
	from := len(out)
	out = w.take(&w.gp[r], m, out)
	if w.gpMask[r] &^= uint8(m); w.gpMask[r] == 0 {
		w.gpAny &^= 1 << r
	}
	for i := from; i < len(out); i++ {
		out[i].bytes = uint64(out[i].mask) >> p.Off
	}
	return out
}

func (w *wants) takeX(p *x86.Place, out []hit) []hit {
	r := p.N & 15
	m := uint32(lowMask(int(p.Size))) << p.Off
	if uint32(w.xMask[r])&m == 0 {
		return out
	}
	from := len(out)
	out = w.take(&w.x[r], m, out)
	if w.xMask[r] &^= uint16(m); w.xMask[r] == 0 {
		w.xAny &^= 1 << r
	}
	for i := from; i < len(out); i++ {
		out[i].bytes = uint64(out[i].mask) >> p.Off
	}
	return out
}

func (w *wants) takeFlags(f uint32, out []hit) []hit {
	if w.flagMask&f == 0 {
		return out
	}
	from := len(out)
	out = w.take(&w.flags, f, out)
	w.flagMask &^= f
	for i := from; i < len(out); i++ {
		out[i].bytes = 1
	}
	return out
}

// takeMem takes n bytes at addr. Bytes of a hit count from addr, where n is at most 64.
func (w *wants) takeMem(addr uint64, n int, out []hit) []hit {
	if n == 0 || len(w.mem) == 0 || addr > w.high+7 || addr+uint64(n) <= w.low {
		return out
	}
	if n > 64 && n/8 > len(w.mem) {
		for word := range w.mem {
			if m := overlap(word, addr, n); m != 0 {
				out = w.takeWord(word, m, addr, out)
			}
		}
		return out
	}
	for word, m := range words(addr, n) {
		out = w.takeWord(word, m, addr, out)
	}
	return out
}

// overlap returns which bytes of a word are among n at addr.
func overlap(word, addr uint64, n int) uint8 {
	var m uint8
	for i := range uint64(8) {
		if word+i-addr < uint64(n) {
			m |= 1 << i
		}
	}
	return m
}

func (w *wants) takeWord(word uint64, m uint8, addr uint64, out []hit) []hit {
	list, ok := w.mem[word]
	if !ok {
		return out
	}
	from, was := len(out), list
	out = w.take(&list, uint32(m), out)
	switch {
	case list == 0:
		delete(w.mem, word)
	case list != was:
		w.mem[word] = list
	}
	for i := from; i < len(out); i++ {
		h := &out[i]
		h.word = word
		if word >= addr {
			h.bytes = uint64(h.mask) << (word - addr)
		} else {
			h.bytes = uint64(h.mask) >> (addr - word)
		}
	}
	return out
}

// takeRegs takes what a mark says was changed from outside.
func (w *wants) takeRegs(l *Locs, out []hit, each func(kind x86.PlaceKind, r int, hits []hit)) {
	for m := w.gpAny; m != 0; m &= m - 1 {
		r := bits.TrailingZeros16(m)
		if l.GP[r] != 0 {
			each(x86.PlaceGP, r, w.takeGP(&x86.Place{N: uint8(r), Size: 8}, out[:0]))
		}
	}
	for m := w.xAny; m != 0; m &= m - 1 {
		r := bits.TrailingZeros16(m)
		if l.X[r] != 0 {
			each(x86.PlaceX, r, w.takeX(&x86.Place{N: uint8(r), Size: 16}, out[:0]))
		}
	}
	if f := uint32(l.Flags); w.flagMask&f != 0 {
		each(x86.PlaceFlags, 0, w.takeFlags(f, out[:0]))
	}
}
