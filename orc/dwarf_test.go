package orc

import (
	"bufio"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

// elfMem serves memory out of a vmlinux file.
type elfMem struct{ f *elf.File }

func (m elfMem) ReadMem(p []byte, addr uint64) error {
	for _, seg := range m.f.Progs {
		if seg.Type == elf.PT_LOAD && addr >= seg.Vaddr && addr+uint64(len(p)) <= seg.Vaddr+seg.Filesz {
			_, err := seg.ReadAt(p, int64(addr-seg.Vaddr))
			return err
		}
	}
	return &mem.Fault{Addr: addr, Cause: mem.Unmapped}
}

// The judge is the compiler: what its call frame information says of the stack
// and frame pointer, as readelf prints it, must be what objtool found in the
// machine code and this package decodes.
func TestDWARF(t *testing.T) {
	path := os.Getenv("KSLEUTH_VMLINUX")
	if path == "" {
		t.Skip("KSLEUTH_VMLINUX names no vmlinux with debug info")
	}
	f, err := elf.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	tab := loadELF(t, f)

	cmd := exec.Command("readelf", "--debug-dump=frames-interp", path)
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	defer cmd.Wait()
	rows, wrong := 0, 0
	rbp := 0 // column of rbp, 0 if the function leaves it alone
	for sc := bufio.NewScanner(out); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) > 0 && fields[0] == "LOC" {
			rbp = 0
			for i, name := range fields {
				if name == "rbp" {
					rbp = i
				}
			}
			continue
		}
		if len(fields) < 3 || !strings.HasPrefix(fields[0], "ffffffff8") {
			continue
		}
		want, ok := fromDWARF(fields, rbp)
		if !ok {
			continue // an expression, or a base ORC reaches by other means
		}
		pc, err := strconv.ParseUint(fields[0], 16, 64)
		qt.Assert(t, qt.IsNil(err))
		got, _, err := tab.Find(pc)
		qt.Assert(t, qt.IsNil(err))
		rows++
		if got != want {
			if wrong++; wrong <= 20 {
				t.Logf("%#x: %v, readelf says %v", pc, got, want)
			}
		}
	}
	t.Logf("%d of %d rows differ", wrong, rows)
	qt.Check(t, qt.IsTrue(rows > 100000))
	qt.Check(t, qt.IsTrue(wrong*1000 < rows))
}

func loadELF(t *testing.T, f *elf.File) *Table {
	syms, err := f.Symbols()
	qt.Assert(t, qt.IsNil(err))
	byName := map[string]uint64{}
	for _, s := range syms {
		byName[s.Name] = s.Value
	}
	loc, ok := LocationsFrom(func(name string) (uint64, bool) { a, ok := byName[name]; return a, ok })
	qt.Assert(t, qt.IsTrue(ok))
	tab, err := Load(elfMem{f}, loc)
	qt.Assert(t, qt.IsNil(err))
	return tab
}

// fromDWARF turns a row of readelf's table into an Entry.
func fromDWARF(fields []string, rbp int) (Entry, bool) {
	e := Entry{Type: Call}
	n := 0
	switch cfa := fields[1]; {
	case strings.HasPrefix(cfa, "rsp"):
		e.SP.Base = SP
		_, err := fmt.Sscanf(cfa, "rsp%d", &n)
		if err != nil {
			return e, false
		}
	case strings.HasPrefix(cfa, "rbp"):
		e.SP.Base = BP
		if _, err := fmt.Sscanf(cfa, "rbp%d", &n); err != nil {
			return e, false
		}
	default:
		return e, false
	}
	e.SP.Offset = int16(n)
	if rbp == 0 || fields[rbp] == "u" {
		return e, true
	}
	if _, err := fmt.Sscanf(fields[rbp], "c%d", &n); err != nil {
		return e, false
	}
	e.BP = Rule{PrevSP, Indirect, int16(n)}
	return e, true
}
