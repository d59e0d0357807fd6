package kallsyms

import (
	"bufio"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

// A dump is just enough of an ELF crash dump: the kernel image's mapping, and
// VMCOREINFO.
type dump struct {
	file     *os.File
	elf      *elf.File
	physBase uint64
	info     map[string]uint64 // SYMBOL() lines
}

func openDump(t testing.TB, path string) *dump {
	f, err := os.Open(path)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { f.Close() })
	e, err := elf.NewFile(f)
	qt.Assert(t, qt.IsNil(err))
	d := &dump{file: f, elf: e, info: map[string]uint64{}}
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		note, err := io.ReadAll(p.Open())
		qt.Assert(t, qt.IsNil(err))
		for _, m := range regexp.MustCompile(`SYMBOL\((\w+)\)=([0-9a-f]+)`).FindAllSubmatch(note, -1) {
			d.info[string(m[1])], _ = strconv.ParseUint(string(m[2]), 16, 64)
		}
		m := regexp.MustCompile(`NUMBER\(phys_base\)=(-?\d+)`).FindSubmatch(note)
		base, err := strconv.ParseInt(string(m[1]), 10, 64)
		qt.Assert(t, qt.IsNil(err))
		d.physBase = uint64(base)
	}
	return d
}

func (d *dump) ReadMem(p []byte, addr uint64) error {
	const image = 0xffffffff80000000
	phys := addr - image + d.physBase
	for _, seg := range d.elf.Progs {
		if seg.Type != elf.PT_LOAD || phys < seg.Paddr || phys >= seg.Paddr+seg.Filesz {
			continue
		}
		n := min(uint64(len(p)), seg.Paddr+seg.Filesz-phys)
		if _, err := d.file.ReadAt(p[:n], int64(seg.Off+phys-seg.Paddr)); err != nil {
			return &mem.Fault{Addr: addr, Cause: mem.IO, Err: err}
		}
		if n < uint64(len(p)) {
			return &mem.Fault{Addr: addr + n, Cause: mem.Unmapped}
		}
		return nil
	}
	return &mem.Fault{Addr: addr, Cause: mem.Unmapped}
}

func (d *dump) locations(t testing.TB) Locations {
	loc, ok := LocationsFrom(func(name string) (uint64, bool) { a, ok := d.info[name]; return a, ok })
	if !ok {
		var err error
		loc, err = Scan(d, d.info["_stext"], d.info["_stext"]+64<<20)
		qt.Assert(t, qt.IsNil(err))
	}
	return loc
}

// dumps returns the dumps that KSLEUTH_DUMPS has: NAME.elf with NAME.kallsyms,
// the guest's /proc/kallsyms, beside it.
func dumps(t testing.TB) map[string]*dump {
	dir := os.Getenv("KSLEUTH_DUMPS")
	if dir == "" {
		t.Skip("KSLEUTH_DUMPS names no directory of crash dumps")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.kallsyms"))
	qt.Assert(t, qt.IsNil(err))
	out := map[string]*dump{}
	for _, p := range paths {
		base := strings.TrimSuffix(p, ".kallsyms")
		if _, err := os.Stat(base + ".elf"); err == nil {
			out[base] = openDump(t, base+".elf")
		}
	}
	if len(out) == 0 {
		t.Skip("KSLEUTH_DUMPS holds no NAME.elf with NAME.kallsyms")
	}
	return out
}

// procKallsyms reads the core kernel's part of a /proc/kallsyms.
func procKallsyms(t testing.TB, path string) []Symbol {
	f, err := os.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	var out []Symbol
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var s Symbol
		fields := strings.Fields(sc.Text())
		if len(fields) > 3 {
			continue // of a module, or [bpf]
		}
		s.Addr, err = strconv.ParseUint(fields[0], 16, 64)
		qt.Assert(t, qt.IsNil(err))
		s.Type, s.Name = fields[1][0], fields[2]
		out = append(out, s)
	}
	return out
}

// The judge is the kernel: every symbol of /proc/kallsyms, in its order.
func TestDumps(t *testing.T) {
	for base, d := range dumps(t) {
		t.Run(filepath.Base(base), func(t *testing.T) {
			want := procKallsyms(t, base+".kallsyms")
			loc := d.locations(t)
			stext := d.info["_stext"]
			tab, err := Load(d, loc, Anchor{"_stext", stext})
			qt.Assert(t, qt.IsNil(err))
			t.Logf("%d symbols, %s, %d bytes of names", tab.Len(), tab.Encoding(), len(tab.names))
			qt.Assert(t, qt.Equals(tab.Len(), len(want)))
			got := plain(tab)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("symbol %d: %v, want %v", i, got[i], want[i])
				}
			}
			// Scanning must find what VMCOREINFO says.
			found, err := Scan(d, stext, stext+64<<20)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(found, loc))
			checkAddresses(t, tab)
			checkNames(t, tab)
		})
	}
}

// Every address leads back to a symbol at that address.
func checkAddresses(t *testing.T, tab *Table) {
	n, renamed, last := 0, 0, uint64(0)
	for s := range tab.All() {
		if s.Addr < kernelHalf || s.Addr == last {
			continue
		}
		n++
		last = s.Addr
		got, off, ok := tab.At(s.Addr)
		if !ok || off != 0 || got.Addr != s.Addr || got.Size != s.Size {
			t.Fatalf("At(%#x) = %v, %d, %t, want %v", s.Addr, got, off, ok, s)
		}
		if s.Size > 1 {
			if end, off, ok := tab.At(s.Addr + s.Size - 1); !ok || off != s.Size-1 || end != got {
				t.Fatalf("At(%#x) = %v, %d, %t, want %v", s.Addr+s.Size-1, end, off, ok, got)
			}
		}
		if got.Name != s.Name {
			renamed++
		}
	}
	t.Logf("%d of %d addresses have a better name than the first", renamed, n)
}

func checkNames(t *testing.T, tab *Table) {
	var names []string
	i := 0
	for s := range tab.All() {
		if i++; i%997 == 0 {
			names = append(names, s.Name)
		}
	}
	all := tab.LookupAll(names...)
	for _, name := range names {
		s, ok := tab.Lookup(name)
		if !ok || s != all[name] || s.Name != name {
			t.Fatalf("Lookup(%s) = %v, %t; LookupAll %v", name, s, ok, all[name])
		}
	}
	qt.Check(t, qt.DeepEquals(tab.Suggest("tcp_sendmgs")[:1], []string{"tcp_sendmsg"}))
	qt.Check(t, qt.DeepEquals(tab.Suggest("qqqqqqqqqqqqqq"), nil))
}

// inMemory is a dump read before, so that benchmarks measure the decoder.
func inMemory(b *testing.B, d *dump) mem.Snapshot {
	s := mem.Snapshot{Base: d.info["_stext"], Data: make([]byte, 64<<20)}
	if err := d.ReadMem(s.Data, s.Base); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkDump(b *testing.B) {
	for base, d := range dumps(b) {
		m := inMemory(b, d)
		loc, anchor := d.locations(b), Anchor{"_stext", d.info["_stext"]}
		tab, err := Load(m, loc, anchor)
		qt.Assert(b, qt.IsNil(err))
		name := filepath.Base(base)
		b.Run(name+"/Load", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Load(m, loc, anchor)
			}
		})
		b.Run(name+"/Scan", func(b *testing.B) {
			for b.Loop() {
				Scan(m, m.Base, m.Base+64<<20)
			}
		})
		b.Run(name+"/Lookup", func(b *testing.B) {
			for b.Loop() {
				tab.Lookup("init_task")
			}
		})
		b.Run(name+"/LookupAll60", func(b *testing.B) {
			var names []string
			for i, s := 0, procKallsyms(b, base+".kallsyms"); i < 60; i++ {
				names = append(names, s[i*1000].Name)
			}
			for b.Loop() {
				tab.LookupAll(names...)
			}
		})
		b.Run(name+"/At", func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				tab.At(m.Base + uint64(i*9973%(16<<20)))
			}
		})
		b.Run(name+"/Suggest", func(b *testing.B) {
			for b.Loop() {
				tab.Suggest("tcp_sendmgs")
			}
		})
		b.Run(name+"/All", func(b *testing.B) {
			for b.Loop() {
				for range tab.All() {
				}
			}
		})
		runtime.KeepAlive(m)
	}
}

func ExampleLoad() {
	// A table of three symbols, as a 7.2 kernel would hold it.
	m, loc := versions["7.2 place-relative"].build([]Symbol{
		{"_stext", textBase, 'T', 0}, {"do_exit", textBase + 0x40, 'T', 0}, {"_end", textBase + 0x90, 'B', 0},
	})
	t, err := Load(m, loc, Anchor{"_stext", textBase})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, off, _ := t.At(textBase + 0x44)
	fmt.Printf("%s+%#x/%#x\n", s.Name, off, s.Size)
	// Output: do_exit+0x4/0x50
}
