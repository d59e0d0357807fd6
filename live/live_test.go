package live

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

const iomemText = `00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-1ffdbfff : System RAM
  01000000-01e02507 : Kernel code
  02000000-02a8ffff : Kernel rodata
1ffdc000-1fffffff : Reserved
20000000-20000fff : System RAM
20001000-2fffffff : System RAM
140000000-1bfffffff : dax0.0
  140000000-1bfffffff : System RAM (kmem)
`

func TestIOMem(t *testing.T) {
	m, err := parseIOMem(iomemText)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(m.ram, []vmcore.Range{
		{Start: 0x1000, End: 0x9fc00}, {Start: 0x100000, End: 0x1ffdc000},
		{Start: 0x20000000, End: 0x30000000}, {Start: 0x140000000, End: 0x1c0000000},
	}))
	qt.Check(t, qt.Equals(m.text, 0x1000000))
	qt.Check(t, qt.Equals(m.end(), 0x1c0000000))
	for _, c := range []struct{ addr, n uint64 }{
		{0, 0}, {0xfff, 0}, {0x1000, 0x9ec00}, {0x9fbff, 1}, {0x9fc00, 0}, {0xa0000, 0}, {0x1ffdbfff, 1},
		{0x20000ff0, 0xffff010}, {0x1bfffffff, 1}, {0x1c0000000, 0}, {^uint64(0), 0},
	} {
		qt.Check(t, qt.Equals(m.within(c.addr), c.n), qt.Commentf("%#x", c.addr))
	}
}

// TestIOMemHidden reads what users without CAP_SYS_ADMIN see, and damage.
func TestIOMemHidden(t *testing.T) {
	_, err := parseIOMem("00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n")
	qt.Check(t, qt.ErrorMatches(err, ".*CAP_SYS_ADMIN"))
	for _, text := range []string{"", "12-x : System RAM\n", "20-10 : System RAM\n", "0-ffffffffffffffff : System RAM\n"} {
		_, err := parseIOMem(text)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%q", text))
	}
}

func TestLockdownMode(t *testing.T) {
	for text, mode := range map[string]string{
		"[none] integrity confidentiality\n": "none",
		"none integrity [confidentiality]\n": "confidentiality",
		"":                                   "",
	} {
		qt.Check(t, qt.Equals(lockdownMode(text), mode))
	}
}

// machine is the virtual memory of a made-up kernel: a direct map of RAM, and
// its image.
type machine struct {
	base, task uint64
	ram        []byte // physical memory from 0 on
	reads      []uint64
}

func (m *machine) ReadMem(p []byte, addr uint64) error {
	m.reads = append(m.reads, addr)
	at := addr - m.base
	if addr >= kernelMap {
		at = addr - kernelMap + machineText - 0x1000000
	}
	if at >= uint64(len(m.ram)) || uint64(len(m.ram))-at < uint64(len(p)) {
		return &mem.Fault{Addr: addr, Cause: mem.Unmapped}
	}
	copy(p, m.ram[at:])
	return nil
}

func (m *machine) current() (uint64, error) { return m.task, nil }
func (m *machine) Close() error             { return nil }

const machineText = 0x200000 // physical address of _text

func newMachine(base uint64) (*machine, *directMap) {
	m := &machine{base: base, task: base + 0x123440, ram: make([]byte, 4<<20)}
	for i := range m.ram {
		m.ram[i] = byte(rand.Uint32())
	}
	d := &directMap{virt: m, mem: iomem{ram: []vmcore.Range{{Start: 0x1000, End: 0xa0000}, {Start: 0x100000, End: 4 << 20}, {Start: 4 << 30, End: 5 << 30}}, text: machineText}}
	return m, d
}

// TestFindBase finds the direct map for both kinds of page tables, and never
// looks above it.
func TestFindBase(t *testing.T) {
	for _, base := range []uint64{0xffff_8880_0000_0000, 0xffff_9b9e_c000_0000, 0xff11_0000_0000_0000, 0xff2d_8b41_4000_0000} {
		m, d := newMachine(base)
		got, err := d.findBase(0x345678, m.ram[0x345678:0x345678+64])
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, base))
		for _, addr := range m.reads {
			qt.Check(t, qt.IsTrue(addr <= base+0x345678), qt.Commentf("read at %#x, above the map at %#x", addr, base))
		}
		_, err = d.findBase(0x345678, []byte("no such bytes are there"))
		qt.Check(t, qt.ErrorIs(err, ErrUnsupported))
	}
}

// TestBySymbols finds a kernel without VMCOREINFO.
func TestBySymbols(t *testing.T) {
	const base = 0xff2d_8b41_4000_0000
	m, d := newMachine(base)
	binary.LittleEndian.PutUint64(m.ram[machineText+0x1000:], 1<<51)
	syms := map[string]uint64{"_text": kernelMap + 0x1000000, "_stext": kernelMap + 0x1000000, topTable: kernelMap + 0x2000000, encMask: kernelMap + 0x1001000}
	qt.Assert(t, qt.IsNil(d.bySymbols(syms)))
	info, ok := d.info()
	qt.Assert(t, qt.IsTrue(ok))
	pgd, _ := info.Symbol("swapper_pg_dir")
	qt.Check(t, qt.Equals(pgd, kernelMap+0x2000000))
	for name, want := range map[string]int64{"phys_base": machineText - 0x1000000, "pgtable_l5_enabled": 1, "sme_mask": 1 << 51} {
		got, _ := info.Number(name)
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", name))
	}
	delete(syms, topTable)
	qt.Check(t, qt.ErrorIs(d.bySymbols(syms), ErrUnsupported))
}

// TestDirectMap reads RAM and nothing else.
func TestDirectMap(t *testing.T) {
	m, d := newMachine(0xffff_8880_0000_0000)
	d.base = m.base
	got := make([]byte, 0x100)
	qt.Assert(t, qt.IsNil(d.ReadMem(got, 0x100000)))
	qt.Check(t, qt.DeepEquals(got, m.ram[0x100000:0x100100]))

	err := d.ReadMem(got, 0xa0000-0x80)
	var f *mem.Fault
	qt.Assert(t, qt.ErrorAs(err, &f))
	qt.Check(t, qt.Equals(*f, mem.Fault{Space: mem.Physical, Addr: 0xa0000, Cause: mem.Unmapped, Err: f.Err}))
	qt.Check(t, qt.DeepEquals(got[:0x80], m.ram[0xa0000-0x80:0xa0000]))
	for _, addr := range m.reads {
		qt.Check(t, qt.IsTrue(d.mem.within(addr-d.base) > 0), qt.Commentf("%#x was read, and is no RAM", addr-d.base))
	}

	// RAM by /proc/iomem that the kernel does not map.
	qt.Assert(t, qt.ErrorAs(d.ReadMem(got, 4<<30), &f))
	qt.Check(t, qt.Equals(f.Space, mem.Physical))
	qt.Check(t, qt.Equals(f.Addr, 4<<30))
}

// counted is memory that counts its reads, and changes with each.
type counted struct {
	n   int
	end uint64
}

func (c *counted) ReadMem(p []byte, addr uint64) error {
	c.n++
	for i := range p {
		if addr+uint64(i) >= c.end {
			return &mem.Fault{Space: mem.Physical, Addr: addr + uint64(i), Cause: mem.Unmapped}
		}
		p[i] = byte(c.n)
	}
	return nil
}

func TestPageCache(t *testing.T) {
	src := &counted{end: 10*pageSize + 100}
	c := newPageCache(src)
	read := func(addr uint64, n int) []byte {
		b, err := mem.Bytes(c, addr, n)
		qt.Assert(t, qt.IsNil(err))
		return b
	}
	qt.Check(t, qt.DeepEquals(read(pageSize+8, 4), []byte{1, 1, 1, 1}))
	qt.Check(t, qt.DeepEquals(read(2*pageSize-2, 4), []byte{1, 1, 2, 2}), qt.Commentf("a page is read once"))
	c.drop()
	qt.Check(t, qt.DeepEquals(read(2*pageSize-2, 4), []byte{3, 3, 4, 4}), qt.Commentf("and anew after a refresh"))

	// The last page ends early.
	before := src.n
	qt.Check(t, qt.HasLen(read(10*pageSize, 100), 100))
	var f *mem.Fault
	qt.Assert(t, qt.ErrorAs(c.ReadMem(make([]byte, 200), 10*pageSize), &f))
	qt.Check(t, qt.Equals(f.Addr, src.end))
	qt.Check(t, qt.IsTrue(src.n > before))
}

func TestPageCacheBound(t *testing.T) {
	src := &counted{end: ^uint64(0)}
	c := newPageCache(src)
	for pfn := range uint64(cachedPages + 10) {
		_, err := mem.U8(c, pfn*pageSize)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.IsTrue(len(c.pages) <= cachedPages))
}

func TestReadKallsyms(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, "kallsyms")
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(text), 0o600)))
		return path
	}
	syms, err := readKallsyms(file("0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\nffffffff81000000 T _text\nffffffff82800000 D init_top_pgt\nffffffffc0000000 t _text\t[mod]\n"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(syms, map[string]uint64{"_stext": 0xffffffff81000000, "_text": 0xffffffff81000000, "init_top_pgt": 0xffffffff82800000}))

	_, err = readKallsyms(file("0000000000000000 T _stext\n0000000000000000 T _text\n"))
	qt.Check(t, qt.ErrorIs(err, ErrDenied))
	_, err = readKallsyms(filepath.Join(dir, "none"))
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
	qt.Check(t, qt.ErrorIs(err, ErrUnsupported))
}

// TestNone checks the error of Open, in one line, and its class.
func TestNone(t *testing.T) {
	_, err := Options{Memory: None}.Open(t.Context())
	qt.Check(t, qt.ErrorIs(err, ErrDenied))
	qt.Check(t, qt.IsFalse(errors.Is(err, ErrUnsupported)))
	qt.Check(t, qt.ErrorMatches(err, "the running kernel's memory cannot be read: /proc/kcore: .*\\. a BPF program: .*"))
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.HasLen(e.Ways, 2))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Open(ctx)
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
}

func TestErrorClass(t *testing.T) {
	lacks := Refusal{Way: KCore, Name: "/proc/kcore", Class: ErrUnsupported, Err: errors.New("there is none"), Enable: "get one"}
	denied := Refusal{Way: BPF, Name: "a BPF program", Class: ErrDenied, Err: fs.ErrPermission}
	qt.Check(t, qt.ErrorIs(&Error{[]Refusal{lacks, denied}}, ErrDenied))
	qt.Check(t, qt.ErrorIs(&Error{[]Refusal{lacks}}, ErrUnsupported))
	qt.Check(t, qt.Equals((&Error{[]Refusal{lacks, denied}}).Error(),
		"the running kernel's memory cannot be read: /proc/kcore: there is none; get one. a BPF program: permission denied"))
}
