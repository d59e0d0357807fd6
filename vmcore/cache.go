package vmcore

import "sync"

// cacheShards spreads the locks of the cache; a power of two.
const cacheShards = 16

// A pageCache keeps pages that small reads touched. It gives way by the CLOCK
// rule: a page that was used since the hand last passed stays.
type pageCache struct {
	shards [cacheShards]cacheShard
	free   sync.Pool // of *[pageSize]byte
}

type cacheShard struct {
	mu    sync.Mutex
	limit int            // slots, at most
	index map[uint64]int // page frame to slot
	slots []cacheSlot
	hand  int
}

type cacheSlot struct {
	pfn  uint64
	used bool
	page *[pageSize]byte
}

// newPageCache makes a cache of about the given size; nil if that is nothing.
func newPageCache(bytes int) *pageCache {
	if bytes < pageSize {
		return nil
	}
	c := &pageCache{}
	for i := range c.shards {
		c.shards[i].limit = max(1, bytes/pageSize/cacheShards)
		c.shards[i].index = make(map[uint64]int)
	}
	return c
}

// shard returns the shard of a page frame.
func (c *pageCache) shard(pfn uint64) *cacheShard {
	return &c.shards[pfn*0x9e3779b97f4a7c15>>60%cacheShards]
}

// get copies bytes of a page from off on, if the cache has the page.
func (c *pageCache) get(p []byte, pfn uint64, off int) bool {
	s := c.shard(pfn)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[pfn]
	if !ok {
		return false
	}
	s.slots[i].used = true
	copy(p, s.slots[i].page[off:])
	return true
}

// buffer returns a page to fill and then to put or drop.
func (c *pageCache) buffer() *[pageSize]byte {
	if b, ok := c.free.Get().(*[pageSize]byte); ok {
		return b
	}
	return new([pageSize]byte)
}

// drop returns a buffer that is not put.
func (c *pageCache) drop(b *[pageSize]byte) { c.free.Put(b) }

// put gives a filled page to the cache.
func (c *pageCache) put(pfn uint64, b *[pageSize]byte) {
	s := c.shard(pfn)
	s.mu.Lock()
	if _, ok := s.index[pfn]; !ok { // else another reader was faster
		b = s.insert(pfn, b)
	}
	s.mu.Unlock()
	if b != nil {
		c.drop(b)
	}
}

// insert stores a page and returns the one that had to go, if any.
func (s *cacheShard) insert(pfn uint64, b *[pageSize]byte) *[pageSize]byte {
	if len(s.slots) < s.limit {
		s.index[pfn] = len(s.slots)
		s.slots = append(s.slots, cacheSlot{pfn: pfn, page: b})
		return nil
	}
	for s.slots[s.hand].used {
		s.slots[s.hand].used = false
		s.hand = (s.hand + 1) % len(s.slots)
	}
	slot := &s.slots[s.hand]
	old := slot.page
	delete(s.index, slot.pfn)
	*slot = cacheSlot{pfn: pfn, page: b}
	s.index[pfn] = s.hand
	s.hand = (s.hand + 1) % len(s.slots)
	return old
}
