package kernel

import (
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// maxCPUs bounds the CPUs looked at: CONFIG_NR_CPUS ends at 8192.
const maxCPUs = 8192

// loadPerCPU reads __per_cpu_offset for every possible CPU.
func (k *Kernel) loadPerCPU() ([]uint64, error) {
	n, err := k.countCPUs()
	if err != nil {
		return nil, err
	}
	base, err := k.Addr("__per_cpu_offset")
	if err != nil {
		return nil, err
	}
	out := make([]uint64, n)
	for cpu := range out {
		if out[cpu], err = mem.U64(k.mem, base+8*uint64(cpu)); err != nil {
			return nil, fmt.Errorf("per-CPU offset of CPU %d: %w", cpu, err)
		}
	}
	return out, nil
}

// countCPUs returns the number of possible CPUs: nr_cpu_ids, which became a
// constant in kernels built for a fixed number (6f9c07be9d02, 6.1).
func (k *Kernel) countCPUs() (int, error) {
	addr, err := k.Addr("nr_cpu_ids")
	if err != nil {
		return max(len(k.cpus), 1), nil
	}
	n, err := mem.U32(k.mem, addr)
	if err != nil {
		return 0, fmt.Errorf("nr_cpu_ids: %w", err)
	}
	if n == 0 || n > maxCPUs {
		return 0, fmt.Errorf("nr_cpu_ids at %#x is %d: damaged", addr, n)
	}
	return int(n), nil
}

// CPUs returns the number of possible CPUs.
func (k *Kernel) CPUs() (int, error) {
	offs, err := k.percpu()
	return len(offs), err
}

// PresentCPUs returns the numbers of the CPUs that the machine has, from
// __cpu_present_mask. (The mask of the online ones does not serve on a dump:
// a panic takes the other CPUs offline.)
func (k *Kernel) PresentCPUs() ([]int, error) { return k.cpuMask("__cpu_present_mask") }

// PossibleCPUs returns the numbers of the CPUs that the machine could have,
// from __cpu_possible_mask: those that per-CPU memory is allocated for.
func (k *Kernel) PossibleCPUs() ([]int, error) { return k.cpuMask("__cpu_possible_mask") }

// cpuMask returns the numbers of the CPUs in a struct cpumask.
func (k *Kernel) cpuMask(name string) ([]int, error) {
	n, err := k.CPUs()
	if err != nil {
		return nil, err
	}
	addr, err := k.Addr(name)
	if err != nil {
		return nil, err
	}
	mask, err := mem.Bytes(k.mem, addr, (n+7)/8)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var out []int
	for cpu := range n {
		if mask[cpu/8]>>(cpu%8)&1 != 0 {
			out = append(out, cpu)
		}
	}
	return out, nil
}

// Online reports whether a CPU was online: rq.online, which hotplug keeps, and
// a panic does not touch.
func (k *Kernel) Online(cpu int) (bool, error) {
	rq := k.RunQueue(cpu)
	online := rq.Bool("online")
	if err := rq.Err(); err != nil {
		return false, fmt.Errorf("whether CPU %d was online: %w", cpu, err)
	}
	return online, nil
}

// PerCPU returns the address of CPU cpu's copy of the per-CPU variable at addr.
func (k *Kernel) PerCPU(addr uint64, cpu int) (uint64, error) {
	offs, err := k.percpu()
	if err != nil {
		return 0, err
	}
	if cpu < 0 || cpu >= len(offs) {
		return 0, fmt.Errorf("CPU %d: this kernel has CPUs 0 to %d", cpu, len(offs)-1)
	}
	return addr + offs[cpu], nil
}

// RunQueue returns the struct rq of a CPU.
func (k *Kernel) RunQueue(cpu int) *Object {
	rq, err := k.Addr("runqueues")
	if err != nil {
		return &Object{err: err}
	}
	at, err := k.PerCPU(rq, cpu)
	if err != nil {
		return &Object{err: err}
	}
	return k.Object("rq", at)
}

// Current returns the address of the task_struct that ran on a CPU:
// runqueues.curr, which the scheduler sets before it switches stacks.
func (k *Kernel) Current(cpu int) (uint64, error) {
	rq := k.RunQueue(cpu)
	task := rq.Ptr("curr")
	if err := rq.Err(); err != nil {
		return 0, fmt.Errorf("current task of CPU %d: %w", cpu, err)
	}
	return task, nil
}
