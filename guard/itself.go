package guard

import (
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// around are the functions that trampolines call for each program, and for the
// function they hang on; those ending in _recur are of 6.1 and later.
var around = []string{
	"__bpf_prog_enter", "__bpf_prog_exit", "__bpf_prog_enter_sleepable", "__bpf_prog_exit_sleepable",
	"__bpf_prog_enter_recur", "__bpf_prog_exit_recur", "__bpf_prog_enter_sleepable_recur", "__bpf_prog_exit_sleepable_recur",
	"__bpf_tramp_enter", "__bpf_tramp_exit",
}

// locks begin the names of what they call before and after the part in which a
// program that is running already is left out (ca06f55b9002, 5.12). The lists
// of some kernels lack __rcu_read_lock and __rcu_read_unlock, which hang them.
var locks = []string{"__rcu_read_", "rcu_read_", "migrate_", "preempt_count_", "__migrate_"}

const (
	maxCallDepth = 3    // calls below those functions that are followed
	maxCalled    = 4096 // bytes of a function that are looked at
)

// traceItself warns of functions that trampolines themselves call, and the
// kernel does not forbid to trace: a trampoline on one would call itself
// without end. Kernels that have a list of such functions (35e3815fa810, 5.13)
// are protected where it is not, but for the locks.
func (c *checker) traceItself(listed bool) {
	var callers map[uint64]uint64
	for _, f := range c.funcs {
		if !inKernel(f) || f.Addr == 0 || c.unable(f) {
			continue
		}
		if callers == nil {
			depth := maxCallDepth
			if listed {
				depth = 1
			}
			callers = c.calledByTrampolines(depth)
		}
		by, ok := callers[uint64(f.Addr)]
		if !ok || listed && !slices.ContainsFunc(locks, func(l string) bool { return strings.HasPrefix(f.Name, l) }) {
			continue
		}
		c.warn(f, Warning{
			ID: Denylist, Severity: Unable,
			Title:    "every trampoline calls it: one on it would call itself without end and hang the machine, and this kernel does not prevent that",
			Evidence: []finding.Evidence{{Text: "it is called by " + c.name(by), Addr: mem.Addr(by), Symbol: c.name(by)}},
			Remedy:   "observe it by a hardware breakpoint",
		})
	}
}

// calledByTrampolines returns the functions that trampolines call, also by way
// of others, each with an instruction that calls it.
func (c *checker) calledByTrampolines(depth int) map[uint64]uint64 {
	out := make(map[uint64]uint64)
	var level []uint64
	for _, s := range c.src.Kernel.LookupAll(around...) {
		out[s.Addr] = s.Addr
		level = append(level, s.Addr)
	}
	for range depth {
		var next []uint64
		for _, f := range level {
			for to, at := range c.callees(f) {
				if _, seen := out[to]; !seen {
					out[to] = at
					next = append(next, to)
				}
			}
		}
		level = next
	}
	return out
}

// callees returns the functions that the code of the function at addr goes to,
// with the instructions that do.
func (c *checker) callees(addr uint64) map[uint64]uint64 {
	s, off, ok := c.src.Kernel.Symbolize(addr)
	if !ok || off != 0 {
		return nil
	}
	code, err := mem.Bytes(c.src.Kernel.Mem(), addr, int(min(s.Size, maxCalled)))
	if err != nil {
		return nil
	}
	out := make(map[uint64]uint64)
	for at := 0; at < len(code); {
		in, err := x86.Decode(code[at:], addr+uint64(at))
		if err != nil {
			break
		}
		if to, ok := in.Target(); ok && (to < addr || to >= addr+s.Size) {
			out[to] = in.Addr
		}
		at += in.Len
	}
	return out
}
