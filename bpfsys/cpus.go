//go:build linux

package bpfsys

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// possibleFile lists the CPUs that per-CPU values exist for.
const possibleFile = "/sys/devices/system/cpu/possible"

// maxCPUs bounds the list; NR_CPUS is at most 8192.
const maxCPUs = 1 << 16

// possibleCPUs returns the numbers of the CPUs that the kernel has values for.
func possibleCPUs() ([]int, error) {
	text, err := os.ReadFile(possibleFile)
	if err != nil {
		return nil, fmt.Errorf("which CPUs have values: %w", err)
	}
	cpus, err := parseCPUs(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", possibleFile, err)
	}
	return cpus, nil
}

// parseCPUs reads a list as "0-3,8".
func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b >= maxCPUs {
			return nil, fmt.Errorf("%q is no list of CPUs", list)
		}
		for c := a; c <= b; c++ {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}
