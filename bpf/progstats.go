package bpf

import (
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
)

// A statsReader adds up what the CPUs counted of a program's runs: a per-CPU
// struct bpf_prog_stats, whose counters have been of type u64, local64_t in a
// struct, and so on, but always one word each.
type statsReader struct {
	k    *kernel.Kernel
	cpus []int
	err  error

	size               int
	runs, time, missed int // offsets; missed is -1 where there is none
}

func newStatsReader(k *kernel.Kernel) statsReader {
	r := statsReader{k: k, missed: -1}
	if r.cpus, r.err = k.PossibleCPUs(); r.err != nil {
		return r
	}
	for _, m := range []struct {
		name string
		at   *int
	}{
		{"cnt", &r.runs}, {"nsecs", &r.time},
		{"misses", &r.missed}, // 9ed9e9ba2337, 5.12
	} {
		off, err := k.Offset("bpf_prog_stats", m.name)
		if err != nil {
			if m.at != &r.missed {
				r.err = err
			}
			continue
		}
		*m.at = int(off)
		r.size = max(r.size, int(off)+8)
	}
	return r
}

// read fills in the counters of a program. They moved from the program's aux
// into the program (700d4796ef59, 5.12). A program that never ran on its own,
// an offloaded one, has none.
func (r *statsReader) read(p *Program, o, aux *kernel.Object) error {
	if r.err != nil {
		return fmt.Errorf("run counters: %w", r.err)
	}
	var base uint64
	if o.Has("stats") {
		base = o.Ptr("stats")
	} else {
		base = aux.Ptr("stats")
	}
	if base == 0 {
		return nil
	}
	raw := make([]byte, r.size)
	for _, cpu := range r.cpus {
		at, err := r.k.PerCPU(base, cpu)
		if err == nil {
			err = r.k.Mem().ReadMem(raw, at)
		}
		if err != nil {
			return fmt.Errorf("run counters of CPU %d: %w", cpu, err)
		}
		p.RunCount += le64(raw[r.runs:])
		p.RunTime += le64(raw[r.time:])
		if r.missed >= 0 {
			p.Missed += le64(raw[r.missed:])
		}
	}
	return nil
}

// timekeepers are the places of the system clock's struct timekeeper.
var timekeepers = []struct{ symbol, record, member string }{
	{"shadow_timekeeper", "timekeeper", ""},      // up to 6.12
	{"tk_core", "tk_data", "timekeeper"},         // up to 6.16
	{"timekeeper_data", "tk_data", "timekeeper"}, // an array, of which this is the first
}

// bootTime returns the Unix time of the boot, in nanoseconds, or 0 if it is
// not known: the difference between the offsets of the real-time clock and of
// the boot-time clock to the monotonic one.
func bootTime(k *kernel.Kernel) int64 {
	for _, t := range timekeepers {
		addr, err := k.Addr(t.symbol)
		if err != nil {
			continue
		}
		tk := k.Object(t.record, addr)
		if t.member != "" {
			tk = tk.Field(t.member)
		}
		boot := tk.Int("offs_real") - tk.Int("offs_boot")
		if tk.Err() == nil {
			return boot
		}
	}
	return 0
}
