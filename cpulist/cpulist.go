// Package cpulist reads the lists of CPUs that the kernel shows in sysfs
// (Documentation/admin-guide/cputopology.rst), as "0-3,8".
package cpulist

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// The lists.
const (
	Possible = "/sys/devices/system/cpu/possible" // those that per-CPU values exist for
	Online   = "/sys/devices/system/cpu/online"   // those that run
)

// maxCPUs bounds a list; NR_CPUS is at most 8192.
const maxCPUs = 1 << 16

// Read returns the numbers of the CPUs in a list.
func Read(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("which CPUs there are: %w", err)
	}
	cpus, err := Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cpus, nil
}

// Parse reads a list.
func Parse(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || b < a || len(cpus)+int(b-a) >= maxCPUs {
			return nil, fmt.Errorf("%q is no list of CPUs", list)
		}
		for c := a; c <= b; c++ {
			cpus = append(cpus, int(c))
		}
	}
	return cpus, nil
}
