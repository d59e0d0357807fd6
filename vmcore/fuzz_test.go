package vmcore

import (
	"math/rand/v2"
	"testing"

	"github.com/ksleuth/ksleuth/mem"
)

// use does everything to a dump that can be done to it.
func use(t testing.TB, files ...[]byte) {
	c, err := New(asFiles(files...)...)
	if err != nil {
		_ = err.Error()
		return
	}
	_ = c.Format()
	for _, w := range c.Warnings() {
		_ = w.Error()
	}
	c.Header()
	c.CPUs()
	c.NotedVMCoreInfo()
	ranges, _ := c.Ranges()
	var buf [2 * pageSize]byte
	read := func(r mem.Reader, addr uint64, n int) {
		if err := r.ReadMem(buf[:n], addr); err != nil {
			if mem.CauseOf(err) == 0 {
				t.Fatalf("no cause: %v", err)
			}
			_ = err.Error()
		}
	}
	for _, r := range machineRanges {
		for addr := r.Start; addr < r.End; addr += pageSize {
			read(c, addr, pageSize)
		}
	}
	for i, r := range ranges {
		if i > 50 {
			break
		}
		read(c, r.Start, 8)
		read(c, r.End-1, 1)
		read(c, r.End-8, 2*pageSize)
	}
	read(c, ^uint64(0)-20, 100)
	if v := c.Virtual(); v != nil {
		for _, s := range c.Segments() {
			read(v, s.Virt, 100)
			read(v, s.Virt+s.MemSize-1, 10)
		}
	}
}

// smallMachine is a part of the machine, so that damage hits something.
func smallMachine() image {
	m := machine()
	for pfn := range m {
		if pfn%2 == 1 || pfn > 0x10008 {
			delete(m, pfn)
		}
	}
	return m
}

// corpus returns small dumps of every kind.
func corpus(t testing.TB) [][]byte {
	m := smallMachine()
	out := [][]byte{machineELF(machine(), false)[:20000], machineELF(machine(), true)[:9000]}
	for _, c := range []Compression{Zlib, Zstd, Snappy} {
		out = append(out, writeDump(t, m, m.pfns(), machineMeta(c)))
	}
	return append(out, flatten(out[2], 1000, true, rand.New(rand.NewPCG(5, 6))), flatten(out[0], 700, true, nil), downgrade(out[2], 2))
}

// TestDamageAnywhere flips bits and cuts files, many times over: whatever
// comes of it, it must be an answer.
func TestDamageAnywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	dumps := corpus(t)
	for i := range 3000 {
		b := append([]byte(nil), dumps[i%len(dumps)]...)
		// Half of the flips hit headers, where most of the meaning is.
		for range 1 + rng.IntN(6) {
			n := len(b)
			if rng.IntN(2) == 0 {
				n = min(n, 9000)
			}
			b[rng.IntN(n)] ^= 1 << rng.IntN(8)
		}
		if rng.IntN(3) == 0 {
			b = b[:rng.IntN(len(b))]
		}
		use(t, b)
	}
	parts := splitAt(t, dumps[2], 0x20)
	for range 300 {
		b := append([]byte(nil), parts[0]...)
		b[pageSize+rng.IntN(subHeaderSize)] ^= 1 << rng.IntN(8)
		use(t, b, parts[1])
	}
}

func FuzzNew(f *testing.F) {
	for _, b := range corpus(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { use(t, b) })
}

func FuzzVMCoreInfo(f *testing.F) {
	f.Add(machineInfo)
	f.Add("=\n==\nSYMBOL()=\nNUMBER(=0x\n\x00")
	f.Fuzz(func(t *testing.T, s string) {
		v := ParseVMCoreInfo(s)
		v.Symbol("_stext")
		v.Number("phys_base")
		v.KernelOffset()
		v.plausible()
		vmcoreinfoIn([]byte(s))
	})
}
