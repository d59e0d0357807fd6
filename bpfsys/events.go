//go:build linux

package bpfsys

import "fmt"

// perfNames are the names that perf has for events, by type and config:
// PERF_TYPE_HARDWARE and PERF_TYPE_SOFTWARE of include/uapi/linux/perf_event.h.
var perfNames = [...][]string{
	{
		"cpu-cycles", "instructions", "cache-references", "cache-misses", "branch-instructions",
		"branch-misses", "bus-cycles", "stalled-cycles-frontend", "stalled-cycles-backend", "ref-cycles",
	},
	{
		"cpu-clock", "task-clock", "page-faults", "context-switches", "cpu-migrations", "minor-faults",
		"major-faults", "alignment-faults", "emulation-faults", "dummy", "bpf-output", "cgroup-switches",
	},
}

const perfTypeBreakpoint = 5

// eventName names a plain performance event.
func eventName(typ uint32, config uint64) string {
	switch {
	case typ < uint32(len(perfNames)) && config < uint64(len(perfNames[typ])):
		return perfNames[typ][config]
	case typ == perfTypeBreakpoint:
		return "breakpoint"
	}
	return fmt.Sprintf("type %d config 0x%x", typ, config)
}
