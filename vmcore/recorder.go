package vmcore

import (
	"errors"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"github.com/ksleuth/ksleuth/mem"
)

// A Recorder passes reads of physical memory on and remembers which pages were
// read, so that a dump of just these can be written. It is safe for concurrent
// use.
type Recorder struct {
	r     mem.Reader
	limit int

	mu    sync.Mutex
	pages map[uint64]uint64 // page frame / 64 to a bit for each
	n     int
	lost  bool
}

// NewRecorder records the reads of r, up to limit pages.
func NewRecorder(r mem.Reader, limit int) *Recorder {
	return &Recorder{r: r, limit: limit, pages: make(map[uint64]uint64)}
}

// ReadMem implements [mem.Reader]. Of a read that fails, the pages before the
// fault are recorded.
func (r *Recorder) ReadMem(p []byte, addr uint64) error {
	err := r.r.ReadMem(p, addr)
	n := uint64(len(p))
	var f *mem.Fault
	if errors.As(err, &f) {
		n = min(n, f.Addr-addr)
	}
	if n > 0 && addr+n-1 >= addr {
		r.add(addr>>pageShift, (addr+n-1)>>pageShift)
	}
	return err
}

// add records the page frames first to last.
func (r *Recorder) add(first, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pfn := first; pfn <= last; pfn++ {
		word, bit := r.pages[pfn/64], uint64(1)<<(pfn%64)
		if word&bit != 0 {
			continue
		}
		if r.n >= r.limit {
			r.lost = true
			return
		}
		r.pages[pfn/64] = word | bit
		r.n++
	}
}

// Pages returns the page frames that were read, in order. complete is false if
// there were more than the limit.
func (r *Recorder) Pages() (pfns []uint64, complete bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pfns = make([]uint64, 0, r.n)
	for _, i := range slices.Sorted(maps.Keys(r.pages)) {
		for word := r.pages[i]; word != 0; word &= word - 1 {
			pfns = append(pfns, i*64+uint64(bits.TrailingZeros64(word)))
		}
	}
	return pfns, !r.lost
}
