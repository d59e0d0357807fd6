package emulate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/ksleuth/ksleuth/mem"
)

const (
	pageShift = 12
	pageSize  = 1 << pageShift
	pageMask  = pageSize - 1
)

type pageData = [pageSize]byte

// A base holds the pages of the target that were read, as they were then: a
// second run sees what the first one saw, also on a target that lives.
type base struct {
	target mem.Reader
	guard  func(addr uint64) error // see Memory.Guard
	most   int                     // pages
	mu     sync.Mutex
	pages  map[uint64]*pageData // by page number
}

// maxPages bounds the pages kept of a target: 1 GiB.
const maxPages = 1 << 18

// page returns the page with number pn.
func (b *base) page(pn uint64) (*pageData, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pages[pn]; p != nil {
		return p, nil
	}
	if len(b.pages) >= b.most {
		return nil, &LimitError{fmt.Sprintf("%d MiB of the target's memory", b.most>>8)}
	}
	p := new(pageData)
	if err := b.target.ReadMem(p[:], pn<<pageShift); err != nil {
		return nil, err
	}
	b.pages[pn] = p
	return p, nil
}

// A page is a page of the overlay.
type page struct {
	data    *pageData
	orig    *pageData  // as the target has it; nil where the target has none
	dirty   [64]uint64 // bit i: byte i was written
	written bool       // data is the overlay's own
	code    bool       // instructions were decoded from it
	watched bool       // part of it is watched
}

// A Memory is a copy-on-write view of a target's memory. It is a [mem.Reader];
// as such, too, it is not safe for use while a machine runs on it.
type Memory struct {
	base    *base
	pages   map[uint64]*page
	tlb     [tlbSize]tlbEntry
	hash    uint64   // of what was written: see mix
	written []uint64 // numbers of the target's pages that were written
}

const tlbSize = 256

type tlbEntry struct {
	tag  uint64 // page number + 1
	p    *page
	fast bool // may be written without further ado
}

// NewMemory returns a view of a target's virtual memory.
func NewMemory(target mem.Reader) *Memory {
	return &Memory{base: &base{target: target, most: maxPages, pages: map[uint64]*pageData{}}, pages: map[uint64]*page{}}
}

// Guard has writable asked before a page of the target is first written: an error
// makes the write a fault. It holds for all views that share m's pages.
func (m *Memory) Guard(writable func(addr uint64) error) { m.base.guard = writable }

// Fork returns a view of the same target as it was before anything was written
// to m, which shares the pages that m has read.
func (m *Memory) Fork() *Memory {
	return &Memory{base: m.base, pages: map[uint64]*page{}}
}

// Clone returns a copy of m, with what was written to it.
func (m *Memory) Clone() *Memory {
	c := &Memory{base: m.base, pages: make(map[uint64]*page, len(m.pages)), hash: m.hash, written: slices.Clone(m.written)}
	for pn, p := range m.pages {
		q := *p
		if p.written {
			d := *p.data
			q.data = &d
		}
		q.code, q.watched = false, false
		c.pages[pn] = &q
	}
	return c
}

// Map makes n bytes at addr part of the view, zeroed, whatever the target has
// there: a stack, a buffer. What is written to them is no change of the target.
func (m *Memory) Map(addr, n uint64) {
	for pn := addr >> pageShift; pn <= (addr+n-1)>>pageShift; pn++ {
		m.pages[pn] = &page{data: new(pageData), written: true}
	}
	m.tlb = [tlbSize]tlbEntry{}
}

// page returns the page that addr lies in.
func (m *Memory) page(addr uint64) (*page, error) {
	pn := addr >> pageShift
	e := &m.tlb[pn%tlbSize]
	if e.tag == pn+1 {
		return e.p, nil
	}
	p := m.pages[pn]
	if p == nil {
		d, err := m.base.page(pn)
		if err != nil {
			return nil, &mem.Fault{Space: mem.Virtual, Addr: addr, Cause: cause(err), Err: err}
		}
		p = &page{data: d, orig: d}
		m.pages[pn] = p
	}
	*e = tlbEntry{tag: pn + 1, p: p, fast: p.written && !p.code && !p.watched}
	return p, nil
}

func cause(err error) mem.Cause {
	if c := mem.CauseOf(err); c != 0 {
		return c
	}
	return mem.IO
}

// ReadMem implements [mem.Reader]: what the machine sees.
func (m *Memory) ReadMem(b []byte, addr uint64) error {
	for len(b) > 0 {
		p, err := m.page(addr)
		if err != nil {
			return err
		}
		n := copy(b, p.data[addr&pageMask:])
		b, addr = b[n:], addr+uint64(n)
	}
	return nil
}

// WriteMem writes to the view. The error is a [*mem.Fault], and then nothing
// behind its address was written.
func (m *Memory) WriteMem(b []byte, addr uint64) error {
	for len(b) > 0 {
		p, err := m.writable(addr)
		if err != nil {
			return err
		}
		off := addr & 7
		word := p.data[addr&pageMask&^7:][:8]
		old := binary.LittleEndian.Uint64(word)
		n := copy(word[off:], b)
		m.changed(p, addr, uint64(n), old, binary.LittleEndian.Uint64(word))
		b, addr = b[n:], addr+uint64(n)
	}
	return nil
}

// changed notes that n bytes at addr were written, in one aligned word.
func (m *Memory) changed(p *page, addr, n, old, now uint64) {
	if now != old {
		m.hash += mix(addr&^7, now) - mix(addr&^7, old)
	}
	p.dirty[addr&pageMask>>6] |= (1<<n - 1) << (addr & 63)
}

// writable returns the page of addr with data of its own.
func (m *Memory) writable(addr uint64) (*page, error) {
	p, err := m.page(addr)
	if err != nil {
		return nil, err
	}
	if !p.written {
		if m.base.guard != nil {
			if err := m.base.guard(addr); err != nil {
				return nil, err
			}
		}
		d := *p.data
		p.data, p.written = &d, true
		m.written = append(m.written, addr>>pageShift)
	}
	e := &m.tlb[(addr>>pageShift)%tlbSize]
	e.fast = !p.code && !p.watched
	return p, nil
}

// mix is the share of an aligned word in the hash of what was written. The hash
// is a sum: it depends on what memory holds, not on the order of the writes.
func mix(addr, word uint64) uint64 {
	x := (addr ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	x ^= x >> 29
	x += word
	x *= 0x94d049bb133111eb
	return x ^ x>>32
}

// A Change is a run of bytes that a machine wrote.
type Change struct {
	Addr     uint64
	Old, New []byte // Old is nil where the target has no memory
}

// Changes returns what was written to the target's memory, by address: also bytes that
// were written with the value they had. Of memory that [Memory.Map] made there
// is nothing.
func (m *Memory) Changes() []Change {
	pns := slices.Clone(m.written)
	slices.Sort(pns)
	var out []Change
	for _, pn := range pns {
		p := m.pages[pn]
		for i := 0; i < pageSize; i++ {
			if p.dirty[i>>6]&(1<<(i&63)) == 0 {
				continue
			}
			addr := pn<<pageShift + uint64(i)
			if n := len(out); n == 0 || out[n-1].Addr+uint64(len(out[n-1].New)) != addr {
				out = append(out, Change{Addr: addr})
			}
			c := &out[len(out)-1]
			c.New = append(c.New, p.data[i])
			c.Old = append(c.Old, p.orig[i])
		}
	}
	return out
}

// equal says whether two views hold the same.
func (m *Memory) equal(o *Memory) bool {
	for _, v := range []struct{ a, b *Memory }{{m, o}, {o, m}} {
		for pn, p := range v.a.pages {
			if !p.written {
				continue
			}
			q := v.b.pages[pn]
			if q == nil || *p.data != *q.data {
				return false
			}
		}
	}
	return true
}
