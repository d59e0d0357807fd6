package vmcore

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// Benchmarks over a real flattened dump, and over the pages of the made-up
// machine for each compression.

func BenchmarkOpen(b *testing.B) {
	path := dumptest.Get(b, dumptest.Idle[0]+".kdump")
	b.ReportAllocs()
	for b.Loop() {
		c, err := Open(path)
		qt.Assert(b, qt.IsNil(err))
		c.Close()
	}
}

// eachPage returns the page frames of a real dump that are not zero.
func eachPage(b *testing.B, c *Core) (pfns []uint64) {
	ranges, err := c.Ranges()
	qt.Assert(b, qt.IsNil(err))
	page := make([]byte, pageSize)
	for _, r := range ranges {
		for pfn := r.Start >> pageShift; pfn < r.End>>pageShift; pfn++ {
			if c.ReadMem(page, pfn<<pageShift) == nil && !isZero(page) {
				pfns = append(pfns, pfn)
			}
		}
	}
	return pfns
}

func BenchmarkSequential(b *testing.B) {
	c := openPaths(b, dumptest.Get(b, dumptest.Idle[0]+".kdump"))
	pfns := eachPage(b, c)
	page := make([]byte, pageSize)
	b.SetBytes(pageSize)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		qt.Assert(b, qt.IsNil(c.ReadMem(page, pfns[i%len(pfns)]<<pageShift)))
		i++
	}
}

func BenchmarkRandomWord(b *testing.B) {
	c := openPaths(b, dumptest.Get(b, dumptest.Idle[0]+".kdump"))
	pfns := eachPage(b, c)
	rng := rand.New(rand.NewPCG(1, 1))
	word := make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadMem(word, pfns[rng.IntN(len(pfns))]<<pageShift+8); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCachedWord(b *testing.B) {
	m := machine()
	c := open(b, writeDump(b, m, m.pfns(), machineMeta(Zlib)))
	b.RunParallel(func(pb *testing.PB) {
		word := make([]byte, 8)
		for i := uint64(0); pb.Next(); i++ {
			if err := c.ReadMem(word, 0x1000+i%0x5f000&^7); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPage(b *testing.B) {
	m := machine()
	for _, comp := range []Compression{Zlib, Zstd, Snappy, Uncompressed} {
		b.Run(fmt.Sprintf("%d", comp), func(b *testing.B) {
			c := open(b, writeDump(b, m, m.pfns(), machineMeta(comp)))
			page := make([]byte, pageSize)
			b.SetBytes(pageSize)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.ReadMem(page, 0x2000); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
