package hwbreak

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"

	"github.com/elastic/go-perf"
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
	cpus, err := online()
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

const onlineFile = "/sys/devices/system/cpu/online"

// online returns the numbers of the CPUs that run.
func online() ([]int, error) {
	text, err := os.ReadFile(onlineFile)
	if err != nil {
		return nil, fmt.Errorf("which CPUs are online: %w", err)
	}
	cpus, err := parseCPUs(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", onlineFile, err)
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
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || b < a || len(cpus)+int(b-a) > math.MaxUint16 {
			return nil, fmt.Errorf("%q is no list of CPUs", list)
		}
		for c := a; c <= b; c++ {
			cpus = append(cpus, int(c))
		}
	}
	return cpus, nil
}
