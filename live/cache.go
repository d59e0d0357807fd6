package live

import (
	"sync"

	"github.com/ksleuth/ksleuth/mem"
)

const (
	pageSize = 4096
	// cachedPages bounds the cache: 64 MiB.
	cachedPages = 64 << 20 / pageSize
	// bulk is from where on a read goes past the cache: symbols, BTF and
	// text, which do not change and are read once.
	bulk = 64 << 10
)

// A pageCache holds the pages that were read since it was last dropped.
type pageCache struct {
	src mem.Reader

	mu    sync.Mutex
	pages map[uint64]*[pageSize]byte // by page frame
}

func newPageCache(src mem.Reader) *pageCache {
	return &pageCache{src: src, pages: make(map[uint64]*[pageSize]byte)}
}

// drop forgets all pages.
func (c *pageCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.pages)
}

// ReadMem implements [mem.Reader].
func (c *pageCache) ReadMem(p []byte, addr uint64) error {
	if len(p) >= bulk {
		return c.src.ReadMem(p, addr)
	}
	for len(p) > 0 {
		off := addr % pageSize
		n := min(uint64(len(p)), pageSize-off)
		page, err := c.page(addr / pageSize)
		if err != nil {
			// A part of the page may be there: RAM can end inside one.
			return c.src.ReadMem(p, addr)
		}
		copy(p[:n], page[off:])
		p, addr = p[n:], addr+n
	}
	return nil
}

// page returns a page, and reads it if need be. Of two readers of a page the
// first one's copy stays, so that both see the same.
func (c *pageCache) page(pfn uint64) (*[pageSize]byte, error) {
	c.mu.Lock()
	page, ok := c.pages[pfn]
	c.mu.Unlock()
	if ok {
		return page, nil
	}
	page = new([pageSize]byte)
	if err := c.src.ReadMem(page[:], pfn*pageSize); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first, ok := c.pages[pfn]; ok {
		return first, nil
	}
	if len(c.pages) >= cachedPages {
		clear(c.pages)
	}
	c.pages[pfn] = page
	return page, nil
}
