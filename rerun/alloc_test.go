package rerun

import (
	"bytes"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
)

// TestAllocators looks at the memory that runs are given.
func TestAllocators(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		const kernel, zero = "0xcc0", "0xdc0" // GFP_KERNEL, and with __GFP_ZERO
		for _, c := range []struct {
			call string
			n    int
			b    byte
		}{
			{"__kmalloc(100, " + kernel + ")", 100, poison},
			{"__kmalloc(100, " + zero + ")", 100, 0},
			{"__kmalloc(100000, " + zero + ")", 100000, 0},
			{"vmalloc(5000)", 5000, poison},
			{"vzalloc(5000)", 5000, 0},
			{"get_zeroed_page(" + kernel + ")", 4096, 0},
			{"kmem_cache_alloc(*(struct kmem_cache **)&names_cachep, " + zero + ")", 4096, 0},
		} {
			text := c.call
			if text[:7] == "kmem_ca" {
				if _, err := s.k.Addr("names_cachep"); err != nil {
					continue // in a section of its own, without a symbol
				}
			}
			if text[:7] == "__kmall" && s.k.Release()[:1] >= "7" {
				// A parameter more: see allocArgs.
				p := s.proto("__kmalloc_noprof")
				if p == nil || len(p.Params()) != 2 {
					continue
				}
			}
			e, r := call1(t, s, text)
			qt.Assert(t, qt.Equals(e.Outcome, "returned"), qt.Commentf("%s: %s", text, outcome(e)))
			got, err := mem.Bytes(r.Machine.Mem, uint64(e.Return), c.n)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", text))
			qt.Check(t, qt.IsTrue(bytes.Equal(got, bytes.Repeat([]byte{c.b}, c.n))), qt.Commentf("%s", text))
			qt.Check(t, qt.Equals(len(e.Writes), 0))
		}
		e, _ := call1(t, s, "kmem_cache_alloc(*(struct kmem_cache **)&sighand_cachep, "+kernel+")")
		qt.Check(t, qt.Matches(outcome(e), `stopped: .*it allocates a new object of sighand_cache, which needs its constructor sighand_ctor`))
		e, _ = call1(t, s, "__kmalloc(0x10000000, "+kernel+")")
		qt.Check(t, qt.Matches(outcome(e), `stopped: .*268435456 bytes are asked for: more than the 67108864 that runs are given`))

		// Per-CPU memory is there for every CPU.
		call := "__alloc_percpu(64, 8)"
		if _, err := s.k.Addr("__alloc_percpu"); err != nil {
			call = "pcpu_alloc(64, 8, false, " + kernel + ")"
		}
		e, r := call1(t, s, call)
		for _, off := range s.cpus {
			qt.Check(t, qt.IsNil(r.Machine.Mem.ReadMem(make([]byte, 64), uint64(e.Return)+off)))
		}

		// What grows keeps its contents.
		target, err := s.Parse(t.Context(), `kstrdup("some text", `+kernel+`)`)
		qt.Assert(t, qt.IsNil(err))
		run := s.newRun()
		qt.Assert(t, qt.Equals(run.m.Call(t.Context(), target.Addr, target.Values...).Outcome, emulate.Returned))
		re, err := s.symbol("krealloc")
		if err != nil {
			re, err = s.symbol("krealloc_node_align")
		}
		qt.Assert(t, qt.IsNil(err))
		old := run.m.GP[emulate.RAX]
		stop := run.m.Call(t.Context(), re.Addr, old, 1000, 0xcc0, 0xcc0)
		qt.Assert(t, qt.Equals(stop.Outcome, emulate.Returned), qt.Commentf("%v", stop.Err))
		text, err := mem.CString(run.m.Mem, run.m.GP[emulate.RAX], 100)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(text, "some text"))
		qt.Check(t, qt.Not(qt.Equals(run.m.GP[emulate.RAX], old)))
	})
}
