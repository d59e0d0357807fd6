package rerun

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
)

const (
	poison  = 0x5a  // POISON_INUSE of slub: memory that nobody has written to
	gfpZero = 0x100 // __GFP_ZERO, the same from 2.6.24 to 7.2
)

// allocStubs are the allocators. The page allocator runs as it is: what it
// hands out must have a struct page.
var allocStubs = []stubRow{
	{names: `__kmalloc __kmalloc_noprof __kmalloc_node __kmalloc_node_noprof __kmalloc_flags_noprof __kmalloc_track_caller
		__kmalloc_track_caller_noprof __kmalloc_node_track_caller __kmalloc_node_track_caller_noprof __kmalloc_nolock_noprof
		_kmalloc_nolock_noprof kmalloc_large __kmalloc_large_noprof kmalloc_large_node __kmalloc_large_node
		__kmalloc_large_node_noprof kmalloc_order kmalloc_order_trace kmem_cache_alloc_trace kmem_cache_alloc_node_trace
		kmalloc_trace kmalloc_node_trace __kmalloc_cache_noprof __kmalloc_cache_node_noprof kvmalloc_node
		__kvmalloc_node_noprof`, run: alloc(8)},
	{names: `kmem_cache_alloc kmem_cache_alloc_noprof kmem_cache_alloc_node kmem_cache_alloc_node_noprof kmem_cache_alloc_lru
		kmem_cache_alloc_lru_noprof`, run: allocCache},
	{names: `vmalloc vmalloc_noprof vmalloc_node vmalloc_node_noprof vmalloc_user vmalloc_user_noprof vmalloc_huge vmalloc_huge_noprof
		vmalloc_huge_node_noprof vzalloc vzalloc_noprof vzalloc_node vzalloc_node_noprof __vmalloc __vmalloc_noprof`, run: alloc(4096)},
	{names: "__get_free_pages get_free_pages_noprof get_zeroed_page get_zeroed_page_noprof", run: allocPages},
	{names: "krealloc krealloc_noprof krealloc_node_align_noprof", run: reallocate},
	{names: "__alloc_percpu __alloc_percpu_gfp pcpu_alloc pcpu_alloc_noprof", run: allocPerCPU},
	{names: "kfree kvfree vfree kfree_sensitive kvfree_sensitive vfree_atomic", run: free(0)},
	{names: "kmem_cache_free", run: free(1)},
	{names: "free_pages", run: free(0)},
	{names: "free_percpu", why: "not freed", run: nothing},
	{names: "ksize", run: ksize},
}

// allocate hands out n bytes of memory that the kernel does not have, zeroed or
// with bytes that stand out.
func (r *run) allocate(c *call, n, align uint64, zero bool) (uint64, error) {
	what := "poisoned with 0x5a"
	if zero {
		what = "zeroed"
	}
	if n > maxHeap {
		return 0, fmt.Errorf("%d bytes are asked for: more than the %d that runs are given", n, maxHeap)
	}
	at := (r.heap + align - 1) &^ (align - 1)
	if at+n > maxHeap {
		return 0, fmt.Errorf("out of memory: a run is given %d bytes", maxHeap)
	}
	addr := heapBase + at
	const page = 4096
	for p := (heapBase + r.heap + page - 1) &^ (page - 1); p < addr+max(n, 1); p += page {
		r.m.Mem.Map(p, page)
	}
	r.heap = at + max(n, 1)
	r.sizes[addr] = n
	r.use(c.name, "given memory of the run's own, "+what)
	c.ret(addr)
	b := byte(poison)
	if zero {
		b = 0
	}
	return addr, r.fill(addr, n, b)
}

// slabAlign is how slab memory is aligned: powers of two to their size.
func slabAlign(n uint64) uint64 {
	for a := uint64(8); a < 4096; a *= 2 {
		if a >= n {
			return a
		}
	}
	return 4096
}

// allocArgs are the numbers of the arguments that functions get a size and
// flags in. They move from kernel to kernel, and with its configuration: its
// BTF tells. flags is -1 where there are none.
func (r *run) allocArgs(name string) (size, flags int) {
	size, flags = 0, -1
	t, err := r.s.types.FuncProto(name)
	if err != nil {
		return 0, 1
	}
	p := proto(t)
	if p == nil {
		return 0, 1
	}
	for i, param := range p.Params()[:min(len(p.Params()), len(emulate.ArgRegs))] {
		switch {
		case param.Type.Name() == "gfp_t":
			flags = i
		case param.Type.Name() == "size_t" && param.Name != "align", param.Name == "size":
			size = i
		}
	}
	return size, flags
}

// alloc is of functions that get a size.
func alloc(align uint64) func(*run, *call) error {
	return func(r *run, c *call) error {
		size, flags := r.allocArgs(c.name)
		zero := strings.HasPrefix(c.name, "vzalloc") || strings.HasPrefix(c.name, "vmalloc_user")
		n := c.arg(size)
		_, err := r.allocate(c, n, max(align, slabAlign(n)), zero || flags >= 0 && c.arg(flags)&gfpZero != 0)
		return err
	}
}

// allocCache is of functions that get a struct kmem_cache.
func allocCache(r *run, c *call) error {
	_, flags := r.allocArgs(c.name)
	cache := r.s.k.Object("kmem_cache", c.arg(0))
	n, ctor := cache.Uint("object_size"), cache.Ptr("ctor")
	if err := cache.Err(); err != nil {
		return fmt.Errorf("kmem_cache at 0x%x: %w", c.arg(0), err)
	}
	if ctor != 0 {
		return fmt.Errorf("it allocates a new object of %s, which needs its constructor %s", cache.Str("name"), r.s.k.FormatAddr(ctor))
	}
	_, err := r.allocate(c, n, slabAlign(n), flags >= 0 && c.arg(flags)&gfpZero != 0)
	return err
}

// allocPages is of functions that get flags and an order, and return an address.
func allocPages(r *run, c *call) error {
	const page = 4096
	zeroed := strings.HasPrefix(c.name, "get_zeroed_page")
	n := uint64(page)
	if !zeroed {
		n <<= c.arg(1) & 15
	}
	_, err := r.allocate(c, n, page, zeroed || c.arg(0)&gfpZero != 0)
	return err
}

// allocPerCPU allocates for every CPU: an address that gives memory of the
// run's with each CPU's offset.
func allocPerCPU(r *run, c *call) error {
	n, align := c.arg(0), max(c.arg(1), 8)
	if n > maxPerCPU || align > 4096 || align&(align-1) != 0 {
		return fmt.Errorf("%d bytes for each CPU, aligned to %d", n, align)
	}
	at := (r.perCPU + align - 1) &^ (align - 1)
	cpus := r.s.distinctAreas()
	if at+n > maxPerCPU || (at+n)*uint64(len(cpus)) > maxHeap {
		return fmt.Errorf("out of per-CPU memory: a run is given %d bytes for each CPU, and %d in all", maxPerCPU, maxHeap)
	}
	const page = 4096
	base := perCPUBase - cpus[0]
	for i, off := range cpus {
		start := base + off
		if start+maxPerCPU > scratchEnd || i > 0 && off-cpus[i-1] < maxPerCPU {
			return errors.New("there is no room for per-CPU memory of the run's own: the CPUs' areas lie too close together, or too far apart")
		}
		for p := (r.perCPU + page - 1) &^ (page - 1); p < at+max(n, 1); p += page {
			r.m.Mem.Map(start+p, page)
		}
	}
	r.perCPU = at + max(n, 1)
	r.use(c.name, "given per-CPU memory of the run's own, zeroed")
	c.ret(base + at)
	return nil
}

// distinctAreas returns the offsets of the CPUs' areas, lowest first.
func (s *Session) distinctAreas() []uint64 {
	out := slices.Clone(s.cpus)
	slices.Sort(out)
	return slices.Compact(out)
}

// reallocate moves what there is to a bigger place.
func reallocate(r *run, c *call) error {
	old, n := c.arg(0), c.arg(1)
	flags := c.arg(2)
	if c.name == "krealloc_node_align_noprof" { // (p, size, align, flags, nid), 6.18
		flags = c.arg(3)
	}
	have, ours := r.sizes[old]
	if old > 16 && !ours {
		return fmt.Errorf("it reallocates 0x%x, whose size is not known here", old)
	}
	addr, err := r.allocate(c, n, slabAlign(n), flags&gfpZero != 0)
	if err != nil || old <= 16 {
		return err
	}
	b := make([]byte, min(have, n))
	if err := r.m.Mem.ReadMem(b, old); err != nil {
		return err
	}
	return r.m.StoreBytes(addr, b)
}

// free is of functions that free what an argument points at.
func free(i int) func(*run, *call) error {
	return func(r *run, c *call) error {
		addr := c.arg(i)
		if addr > 16 { // NULL and ZERO_SIZE_PTR are nothing
			if _, ours := r.sizes[addr]; !ours {
				r.use(c.name, fmt.Sprintf("0x%x is not freed", addr))
			} else {
				r.use(c.name, "memory of the run's own: kept")
			}
		}
		c.m.GP[emulate.RAX] = 0
		return nil
	}
}

// ksize knows the sizes of what the run was given.
func ksize(r *run, c *call) error {
	n, ours := r.sizes[c.arg(0)]
	if c.arg(0) > 16 && !ours {
		return fmt.Errorf("the size of 0x%x is not known here", c.arg(0))
	}
	c.ret(n)
	return nil
}
