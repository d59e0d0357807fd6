package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// kinds are cheap system calls by name; __x64_sys_NAME is their function.
var kinds = map[string]uintptr{
	"getpgid": unix.SYS_GETPGID,
	"getppid": unix.SYS_GETPPID,
	"getuid":  unix.SYS_GETUID,
}

// took tells what calls took. CPU is of the calling threads alone, Wall of all
// that was going on meanwhile, PerCall the CPU of a call in the least round.
type took struct {
	Calls   int     `json:"calls"`
	Threads int     `json:"threads"`
	Wall    int64   `json:"wall_ns"`
	CPU     int64   `json:"cpu_ns"`
	PerCall float64 `json:"cpu_ns_per_call"`
}

// pause is between rounds of calls, for a tracer to print what it has.
const pause = 50 * time.Millisecond

// calls makes system calls in tight loops, in a number of rounds.
func calls(args []string) (*took, error) {
	if len(args) < 2 || kinds[args[0]] == 0 {
		return nil, errors.New(usage)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	threads, err := number(args, 2, 1)
	if err != nil {
		return nil, err
	}
	if n < 1 || threads < 1 || n%threads != 0 {
		return nil, fmt.Errorf("%d calls cannot be shared by %d threads", n, threads)
	}
	rounds, err := number(args, 3, 1)
	if err != nil {
		return nil, err
	}
	t := took{Threads: threads}
	for i := range rounds {
		r := round(kinds[args[0]], n, threads)
		t.Calls += r.Calls
		t.Wall += r.Wall
		t.CPU += r.CPU
		if i == 0 || r.PerCall < t.PerCall { // what disturbs only adds
			t.PerCall = r.PerCall
		}
		if i < rounds-1 {
			time.Sleep(pause)
		}
	}
	return &t, nil
}

// round makes calls, shared by threads.
func round(nr uintptr, n, threads int) took {
	var all sync.WaitGroup
	cpu := make([]int64, threads)
	start := time.Now()
	for i := range threads {
		all.Go(func() { cpu[i] = loop(nr, n/threads) })
	}
	all.Wait()
	t := took{Calls: n, Wall: time.Since(start).Nanoseconds()}
	for _, ns := range cpu {
		t.CPU += ns
	}
	t.PerCall = float64(t.CPU) / float64(n)
	return t
}

// loop makes calls on a thread of its own, and returns its CPU time in ns.
func loop(nr uintptr, n int) int64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	for range n {
		_, _, _ = unix.RawSyscall(nr, 0, 0, 0)
	}
	return threadTime() - before
}

func threadTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// slice is the time in which the calls of a rate are made in one go.
const slice = time.Millisecond

// rate makes so many calls a second, evenly by the millisecond. It makes all
// calls, however late.
func rate(args []string) (*took, error) {
	if len(args) != 3 || kinds[args[0]] == 0 {
		return nil, errors.New(usage)
	}
	perSecond, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, err
	}
	if perSecond < 1 || seconds < 1 {
		return nil, fmt.Errorf("%d calls a second for %d seconds are none", perSecond, seconds)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n, start := perSecond*seconds, time.Now()
	before := threadTime()
	for done := 0; done < n; {
		elapsed := time.Since(start)
		due := min(n, int(elapsed.Seconds()*float64(perSecond)))
		for ; done < due; done++ {
			_, _, _ = unix.RawSyscall(kinds[args[0]], 0, 0, 0)
		}
		time.Sleep(slice - time.Since(start)%slice)
	}
	t := took{Calls: n, Threads: 1, Wall: time.Since(start).Nanoseconds(), CPU: threadTime() - before}
	t.PerCall = float64(t.CPU) / float64(n)
	return &t, nil
}

// workloads are calls that are made while somebody looks on.
var workloads = map[string]func(args []string) (*took, error){
	"calls": calls,
	"rate":  rate,
	"none":  func([]string) (*took, error) { return &took{}, nil },
}

// printed makes a command of a workload.
func printed(name string) func(args []string) error {
	return func(args []string) error {
		t, err := workloads[name](args)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(t)
	}
}
