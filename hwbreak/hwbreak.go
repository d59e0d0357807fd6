// Package hwbreak stops nothing: it has the hardware notice that an instruction
// is executed (execution breakpoints, four a CPU on x86), by perf events, and
// has a BPF program told or nobody, when the executions are only counted. It
// works on every address of code that can be probed, also where no trampoline
// or kprobe can be placed, such as inside the code of a BPF program.
//
// Breakpoints of user code and of the kernel, by perf, ptrace and anyone,
// share the same few registers. All that this package sets is gone when the
// process is, however that ends.
package hwbreak

import (
	"errors"
	"fmt"

	"github.com/elastic/go-perf"

	"github.com/ksleuth/ksleuth/cpulist"
)

// A Breakpoint counts the executions of one instruction.
type Breakpoint struct {
	addr   uint64
	events []*perf.Event
}

// Open has a BPF program of type perf_event, of which prog is a descriptor, run
// whenever any task executes the instruction at addr, on every CPU that is
// online; a CPU that comes online later is not watched. The program's context
// (struct bpf_perf_event_data) has the registers before the instruction.
//
// The kernel runs no such program while the CPU is inside a map operation of
// bpf(2) or a program of a kprobe or tracepoint (bpf_prog_active): [Breakpoint.Read]
// counts these executions too.
//
// The error is an [ExhaustedError], a [PermissionError], an [AddressError] or
// an [UnsupportedError] where it is one of those; nothing is set then.
func Open(addr uint64, prog int) (*Breakpoint, error) {
	b, err := open(addr, Everywhere())
	if err != nil {
		return nil, err
	}
	for _, ev := range b.events {
		if err := ev.SetBPF(uint32(prog)); err != nil {
			return nil, errors.Join(fmt.Errorf("give the breakpoint at %#x its BPF program: %w", addr, err), b.Close())
		}
	}
	return b.enabled()
}

// OpenCounter counts the executions of the instruction at addr. Errors are as
// of [Open].
func OpenCounter(addr uint64, s Scope) (*Breakpoint, error) {
	b, err := open(addr, s)
	if err != nil {
		return nil, err
	}
	return b.enabled()
}

// A Scope says whose executions count.
type Scope struct {
	tid, cpu int
	all      bool
}

// Everywhere are all tasks on the CPUs that are online.
func Everywhere() Scope { return Scope{tid: perf.AllThreads, all: true} }

// CPU are all tasks on one CPU.
func CPU(cpu int) Scope { return Scope{tid: perf.AllThreads, cpu: cpu} }

// Thread is one thread on all CPUs, 0 the calling one; those that it starts do
// not count.
func Thread(tid int) Scope { return Scope{tid: tid, cpu: perf.AnyCPU} }

// cpus are those to open an event on.
func (s Scope) cpus() ([]int, error) {
	if s.all {
		return cpulist.Read(cpulist.Online)
	}
	return []int{s.cpu}, nil
}

// open sets the breakpoint: its registers are taken, and it is not enabled.
func open(addr uint64, s Scope) (*Breakpoint, error) {
	cpus, err := s.cpus()
	if err != nil {
		return nil, err
	}
	b := &Breakpoint{addr: addr}
	for _, cpu := range cpus {
		ev, err := event(addr, s.tid, cpu, isKernel(addr))
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		b.events = append(b.events, ev)
	}
	return b, nil
}

// event opens a breakpoint that is not enabled.
func event(addr uint64, tid, cpu int, kernel bool) (*perf.Event, error) {
	attr := &perf.Attr{Options: perf.Options{
		Disabled: true,
		// One of user code needs no right to watch the kernel.
		ExcludeKernel: !kernel, ExcludeHypervisor: !kernel,
	}}
	if err := perf.ExecutionBreakpoint(addr).Configure(attr); err != nil {
		return nil, err
	}
	attr.SetSamplePeriod(1) // a BPF program is told of each; for another period of every so many
	ev, err := perf.Open(attr, tid, cpu, nil)
	if err != nil {
		return nil, classify(err, addr, tid, cpu)
	}
	return ev, nil
}

// isKernel says that an address is of the kernel's half.
func isKernel(addr uint64) bool { return int64(addr) < 0 }

func (b *Breakpoint) enabled() (*Breakpoint, error) {
	for _, ev := range b.events {
		if err := ev.Enable(); err != nil {
			return nil, errors.Join(fmt.Errorf("enable the breakpoint at %#x: %w", b.addr, err), b.Close())
		}
	}
	return b, nil
}

// Read returns how often the instruction was executed since the breakpoint was
// opened.
func (b *Breakpoint) Read() (hits uint64, err error) {
	for _, ev := range b.events {
		c, err := ev.ReadCount()
		if err != nil {
			return hits, fmt.Errorf("count of the breakpoint at %#x: %w", b.addr, err)
		}
		hits += c.Value
	}
	return hits, nil
}

// Close removes the breakpoint. No program runs any more when it returns.
func (b *Breakpoint) Close() error {
	var errs []error
	for _, ev := range b.events {
		errs = append(errs, ev.Close())
	}
	b.events = nil
	return errors.Join(errs...)
}
