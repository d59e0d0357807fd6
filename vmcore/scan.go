package vmcore

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/ksleuth/ksleuth/mem"
)

// scanPiece is how much memory a worker of a scan takes at a time.
const scanPiece = 4 << 20

// FindVMCoreInfo searches physical memory for VMCOREINFO, for dumps whose
// writer did not know where it was (QEMU without the vmcoreinfo device). It
// reads every page of ranges, on all CPUs, and returns the first text in the
// order of the ranges that looks right and that accept, unless nil, accepts.
// Memory can hold the text of an earlier kernel too: accept should check that
// the page tables are where the text says. The error is the context's, or
// [ErrNoVMCoreInfo].
func FindVMCoreInfo(ctx context.Context, phys mem.Reader, ranges []Range, accept func(addr uint64, v VMCoreInfo) bool) (VMCoreInfo, error) {
	s := &scan{phys: phys, ranges: ranges, accept: accept, best: -1}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { s.work(ctx) })
	}
	wg.Wait()
	if s.best >= 0 {
		return s.found, nil
	}
	if err := ctx.Err(); err != nil {
		return VMCoreInfo{}, fmt.Errorf("searching memory for VMCOREINFO: %w", err)
	}
	return VMCoreInfo{}, fmt.Errorf("%w in the notes or in memory", ErrNoVMCoreInfo)
}

// A scan is a search under way.
type scan struct {
	phys   mem.Reader
	accept func(addr uint64, v VMCoreInfo) bool

	mu     sync.Mutex
	ranges []Range // not yet handed out
	pieces int     // handed out
	best   int     // piece of found; -1 if none
	found  VMCoreInfo
}

// next hands out a piece of memory; pieces are numbered in order.
func (s *scan) next() (r Range, piece int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ranges) > 0 && s.ranges[0].Start >= s.ranges[0].End {
		s.ranges = s.ranges[1:]
	}
	if s.best >= 0 || len(s.ranges) == 0 {
		return Range{}, 0, false
	}
	r = s.ranges[0]
	r.End = min(r.End, r.Start+scanPiece)
	rest := s.ranges[0]
	rest.Start = r.End
	s.ranges = append([]Range{rest}, s.ranges[1:]...)
	s.pieces++
	return r, s.pieces, true
}

// work searches pieces until there are no more.
func (s *scan) work(ctx context.Context) {
	buf := make([]byte, pageSize)
	for ctx.Err() == nil {
		r, piece, ok := s.next()
		if !ok {
			return
		}
		start := (r.Start + pageSize - 1) &^ (pageSize - 1)
		for addr := start; addr < r.End && addr+pageSize > addr && ctx.Err() == nil; addr += pageSize {
			if s.page(buf, addr, piece) {
				break
			}
		}
	}
}

// page looks at one page and reports whether it holds what is sought.
func (s *scan) page(buf []byte, addr uint64, piece int) bool {
	if s.phys.ReadMem(buf, addr) != nil {
		return false
	}
	text := vmcoreinfoIn(buf)
	if text == "" {
		return false
	}
	v := ParseVMCoreInfo(text)
	if !v.plausible() || s.accept != nil && !s.accept(addr, v) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.best < 0 || piece < s.best {
		s.best, s.found = piece, v
	}
	return true
}

// VMCoreInfo returns what the kernel left about itself. If the dump's notes do
// not have it, memory is searched, which can take seconds; use
// [Core.NotedVMCoreInfo] and [FindVMCoreInfo] to have a hand in that.
func (c *Core) VMCoreInfo() (VMCoreInfo, error) {
	c.infoOnce.Do(func() {
		if v, ok := c.NotedVMCoreInfo(); ok {
			c.info = v
			return
		}
		ranges, err := c.StoredRanges()
		if c.info, c.infoErr = FindVMCoreInfo(context.Background(), c, ranges, nil); c.infoErr != nil && err != nil {
			c.infoErr = fmt.Errorf("%w; %w", c.infoErr, err)
		}
	})
	return c.info, c.infoErr
}

// NotedVMCoreInfo returns VMCOREINFO if the notes or the sub-header have it.
func (c *Core) NotedVMCoreInfo() (VMCoreInfo, bool) {
	text := c.loadNotes().vmcoreinfo
	if text == "" {
		return VMCoreInfo{}, false
	}
	v := ParseVMCoreInfo(text)
	return v, len(v.values) > 0
}
