package dumptest

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/vmcore"
)

// Idle are the scenes of idle guests, one of each kernel.
var Idle = [...]string{"idle-5.10", "idle-6.1", "idle-6.12", "idle-7.2"}

// An Image is the virtual memory of a kernel's image, by arithmetic alone: for
// tests of what is found in it, below package kernel.
type Image struct {
	core *vmcore.Core
	base uint64
	Info vmcore.VMCoreInfo
}

// OpenImage opens the kernel image in a scene's dump.
func OpenImage(t testing.TB, scene string) *Image {
	t.Helper()
	core, err := vmcore.Open(Get(t, scene+".elf"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	info, ok := core.NotedVMCoreInfo()
	qt.Assert(t, qt.IsTrue(ok))
	base, ok := info.Number("phys_base")
	qt.Assert(t, qt.IsTrue(ok))
	return &Image{core, uint64(base), info}
}

// ReadMem implements [mem.Reader].
func (m *Image) ReadMem(p []byte, addr uint64) error {
	const image = 0xffff_ffff_8000_0000 // __START_KERNEL_map
	return m.core.ReadMem(p, addr-image+m.base)
}

// Text returns where the kernel's text starts.
func (m *Image) Text() uint64 {
	addr, _ := m.Info.Symbol("_stext")
	return addr
}

// A Symbol is a line of /proc/kallsyms.
type Symbol struct {
	Addr uint64
	Type byte
	Name string
}

// Kallsyms returns the core kernel's part of a scene's /proc/kallsyms.
func Kallsyms(t testing.TB, scene string) []Symbol {
	t.Helper()
	out, err := readKallsyms(Get(t, scene+".kallsyms"))
	qt.Assert(t, qt.IsNil(err))
	return out
}

func readKallsyms(path string) ([]Symbol, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Symbol
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 3 {
			continue // of a module, or [bpf]
		}
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, Symbol{addr, fields[1][0], fields[2]})
	}
	return out, lines.Err()
}
