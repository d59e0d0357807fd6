package live

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/vmcore"
)

// iomem is what of /proc/iomem counts: RAM, and where the kernel is in it.
type iomem struct {
	ram  []vmcore.Range // by address, disjoint
	text uint64         // "Kernel code": physical address of _text; 0 if unknown
}

// readIOMem reads /proc/iomem. Without CAP_SYS_ADMIN its addresses are zeros.
func readIOMem() (iomem, error) {
	b, err := os.ReadFile("/proc/iomem")
	if err != nil {
		return iomem{}, err
	}
	return parseIOMem(string(b))
}

// parseIOMem takes lines of "start-end : name", where what is inside of
// another is indented. RAM that a driver gave to the kernel ("System RAM
// (kmem)") is inside the driver's.
func parseIOMem(text string) (iomem, error) {
	var m iomem
	for line := range strings.Lines(text) {
		span, name, ok := strings.Cut(strings.TrimSpace(line), " : ")
		isRAM := strings.HasPrefix(name, "System RAM")
		if !ok || !isRAM && name != "Kernel code" {
			continue
		}
		var r vmcore.Range
		if _, err := fmt.Sscanf(span, "%x-%x", &r.Start, &r.End); err != nil || r.End < r.Start || r.End+1 == 0 {
			return iomem{}, fmt.Errorf("/proc/iomem: %q", line)
		}
		r.End++ // it is the last byte
		switch {
		case !isRAM:
			m.text = r.Start
		case r.End > 1:
			m.ram = append(m.ram, r)
		}
	}
	if len(m.ram) == 0 {
		return m, errors.New("/proc/iomem does not show where RAM is, for want of CAP_SYS_ADMIN")
	}
	slices.SortFunc(m.ram, func(a, b vmcore.Range) int { return cmp.Compare(a.Start, b.Start) })
	out := m.ram[:1]
	for _, r := range m.ram[1:] {
		if last := &out[len(out)-1]; r.Start <= last.End {
			last.End = max(last.End, r.End)
		} else {
			out = append(out, r)
		}
	}
	m.ram = out
	return m, nil
}

// within returns how many bytes of RAM there are from addr on, in one piece.
func (m *iomem) within(addr uint64) uint64 {
	i, _ := slices.BinarySearchFunc(m.ram, addr, func(r vmcore.Range, a uint64) int {
		if r.End <= a {
			return -1
		}
		return 1
	})
	if i == len(m.ram) || addr < m.ram[i].Start {
		return 0
	}
	return m.ram[i].End - addr
}

// end returns the end of RAM.
func (m *iomem) end() uint64 { return m.ram[len(m.ram)-1].End }
