package orc

import (
	"bufio"
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"regexp"
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

// A symbol is a line of /proc/kallsyms.
type symbol struct {
	addr uint64
	typ  byte
	name string
}

// eachDump runs test for every NAME.elf with NAME.kallsyms, the guest's
// /proc/kallsyms, that KSLEUTH_DUMPS has.
func eachDump(t *testing.T, test func(t *testing.T, d *dump, tab *Table, syms []symbol)) {
	dir := os.Getenv("KSLEUTH_DUMPS")
	if dir == "" {
		t.Skip("KSLEUTH_DUMPS names no directory of crash dumps")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.kallsyms"))
	qt.Assert(t, qt.IsNil(err))
	n := 0
	for _, p := range paths {
		base := strings.TrimSuffix(p, ".kallsyms")
		if _, err := os.Stat(base + ".elf"); err != nil {
			continue
		}
		n++
		t.Run(filepath.Base(base), func(t *testing.T) {
			d := openDump(t, base+".elf")
			syms, byName := procKallsyms(t, p)
			loc, ok := LocationsFrom(func(name string) (uint64, bool) { a, ok := byName[name]; return a, ok })
			qt.Assert(t, qt.IsTrue(ok))
			tab, err := Load(d, loc)
			qt.Assert(t, qt.IsNil(err))
			// The entries alone must tell what the header tells.
			loc.Header = 0
			guess, err := Load(d, loc)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(guess.Layout(), tab.Layout()))
			test(t, d, tab, syms)
		})
	}
	if n == 0 {
		t.Skip("KSLEUTH_DUMPS holds no NAME.elf with NAME.kallsyms")
	}
}

// procKallsyms reads the core kernel's part of a /proc/kallsyms.
func procKallsyms(t testing.TB, path string) (syms []symbol, byName map[string]uint64) {
	f, err := os.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	byName = map[string]uint64{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) > 3 {
			continue
		}
		a, err := strconv.ParseUint(fields[0], 16, 64)
		qt.Assert(t, qt.IsNil(err))
		syms = append(syms, symbol{a, fields[1][0], fields[2]})
		byName[fields[2]] = a
	}
	return syms, byName
}

// Every entry of the table must decode, and nearly every function must start
// with the stack as a call leaves it.
func TestDumps(t *testing.T) {
	eachDump(t, func(t *testing.T, d *dump, tab *Table, syms []symbol) {
		count := map[Type]int{}
		for i := range tab.Len() {
			e, err := tab.entry(i)
			qt.Assert(t, qt.IsNil(err))
			count[e.Type]++
		}
		t.Logf("layout %s: %v", tab.Layout(), count)

		entry := Entry{SP: Rule{SP, Direct, 8}, Type: Call}
		functions, other := 0, 0
		etext := uint64(0)
		for _, s := range syms {
			if s.name == "_etext" {
				etext = s.addr
			}
		}
		for i, s := range syms {
			if s.typ|0x20 != 't' || s.addr < d.info["_stext"] || s.addr >= etext ||
				strings.HasPrefix(s.name, "__pfx_") || strings.Contains(s.name, ".cold") {
				continue
			}
			e, ok, err := tab.Find(s.addr)
			if err != nil || !ok {
				t.Fatalf("Find(%s) = %v, %t, %v", s.name, e, ok, err)
			}
			functions++
			if e != entry {
				other++
				if i%50 == 0 {
					t.Logf("%s: %v", s.name, e)
				}
			}
			if i%50 == 0 { // somewhere inside, too
				if e, ok, err := tab.Find(s.addr + (syms[i+1].addr-s.addr)/2); err != nil || !ok {
					t.Fatalf("Find(%s + half) = %v, %t, %v", s.name, e, ok, err)
				}
			}
		}
		t.Logf("%d of %d functions do not start with a plain call entry", other, functions)
		qt.Check(t, qt.IsTrue(functions > 20000))
		qt.Check(t, qt.IsTrue(other*50 < functions))
		_, ok, err := tab.Find(0xffffffffc0001000) // module space
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(ok))
	})
}
