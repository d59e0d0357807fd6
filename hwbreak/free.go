package hwbreak

import (
	"errors"
	"reflect"
	"runtime"

	"github.com/elastic/go-perf"

	"github.com/ksleuth/ksleuth/cpulist"
)

// maxRegisters bounds the count; no CPU has as many.
const maxRegisters = 64

// harmless is an address of user code at which no process has any.
const harmless = 8

// Free returns how many breakpoints can be opened everywhere: as many as are
// free on the CPU that has fewest. It takes them all for a moment, without
// enabling any. The error is an [UnsupportedError] also if the machine takes
// breakpoints but does not honour them, as some hypervisors.
func Free() (perCPU int, err error) {
	cpus, err := cpulist.Read(cpulist.Online)
	if err != nil {
		return 0, err
	}
	perCPU = maxRegisters
	for _, cpu := range cpus {
		n, err := freeOn(cpu)
		if err != nil {
			return 0, err
		}
		perCPU = min(perCPU, n)
	}
	if perCPU > 0 {
		err = honoured()
	}
	return perCPU, err
}

// freeOn counts the free breakpoints of one CPU.
func freeOn(cpu int) (n int, err error) {
	var b Breakpoint
	defer func() { err = errors.Join(err, b.Close()) }()
	for n = range maxRegisters {
		ev, err := event(harmless, perf.AllThreads, cpu, false)
		if _, full := errors.AsType[*ExhaustedError](err); full {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		b.events = append(b.events, ev)
	}
	return maxRegisters, nil
}

// honoured sets a breakpoint on code of this process, and executes that.
func honoured() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, err := OpenCounter(uint64(reflect.ValueOf(landmark).Pointer()), Thread(0))
	if _, full := errors.AsType[*ExhaustedError](err); full {
		return nil // others were faster; so there are some
	}
	if err != nil {
		return err
	}
	landmark()
	hits, err := b.Read()
	if err == nil && hits == 0 {
		err = &UnsupportedError{Why: "the machine did not notice the execution of an instruction that has one; a hypervisor may not pass them on"}
	}
	return errors.Join(err, b.Close())
}

// landmark is code to set a breakpoint on.
//
//go:noinline
func landmark() {}
