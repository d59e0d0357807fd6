// Package sample takes a running task's stack at a moment, by the kernel's
// perf events: what runs on a CPU cannot be read from memory.
package sample

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/elastic/go-perf"
	"golang.org/x/sys/unix"
)

// A Sample is what a CPU did at one moment.
type Sample struct {
	PID, TID int // in this process's pid namespace; 0 for an idle CPU
	CPU      int
	// User says that the CPU ran the user program; Kernel is empty then.
	User bool
	// Kernel is the kernel's stack, innermost first: the instruction that
	// was about to be executed, then return addresses.
	Kernel []uint64
}

// ErrNone says that what was to be sampled did not run within the time.
var ErrNone = errors.New("it did not run")

// period is the time between samples, of a task the time that it runs.
const period = time.Millisecond

// Stack samples the thread tid the next time it runs, within the timeout; else
// the error is [ErrNone]. It is an [fs.ErrPermission] where perf events are not
// permitted, and an [fs.ErrNotExist] if there is no such thread.
func Stack(ctx context.Context, tid int, timeout time.Duration) (Sample, error) {
	return first(ctx, tid, perf.AnyCPU, timeout, func(Sample) bool { return true })
}

// Idle samples the idle task of a CPU; see [Stack].
func Idle(ctx context.Context, cpu int, timeout time.Duration) (Sample, error) {
	return first(ctx, perf.AllThreads, cpu, timeout, func(s Sample) bool { return s.TID == 0 })
}

// first returns the first sample that is wanted.
func first(ctx context.Context, tid, cpu int, timeout time.Duration, want func(Sample) bool) (Sample, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrNone)
	defer cancel()
	ev, err := open(tid, cpu)
	if err != nil {
		return Sample{}, err
	}
	defer ev.Close()
	for {
		rec, err := ev.ReadRecord(ctx)
		switch {
		case ctx.Err() != nil:
			return Sample{}, context.Cause(ctx)
		case errors.Is(err, perf.ErrDisabled):
			return Sample{}, fmt.Errorf("thread %d has ended: %w", tid, fs.ErrNotExist)
		case err != nil:
			return Sample{}, fmt.Errorf("perf event: %w", err)
		}
		if r, ok := rec.(*perf.SampleRecord); ok {
			if s := take(r); want(s) {
				return s, nil
			}
		}
	}
}

// open starts a timer on a thread or CPU. A timer of software needs no
// hardware counters, which guests often lack.
func open(tid, cpu int) (*perf.Event, error) {
	attr := &perf.Attr{
		SampleFormat: perf.SampleFormat{IP: true, Tid: true, CPU: true, Callchain: true},
		Options:      perf.Options{ExcludeUserCallchain: true},
	}
	if err := perf.CPUClock.Configure(attr); err != nil {
		return nil, err
	}
	attr.SetSamplePeriod(uint64(period))
	attr.SetWakeupEvents(1)
	ev, err := perf.Open(attr, tid, cpu, nil)
	if err == nil {
		if err = ev.MapRing(); err != nil {
			ev.Close()
		}
	}
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("there is no thread %d: %w", tid, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("perf_event_open: %w; it takes CAP_PERFMON (CAP_SYS_ADMIN before 5.8)", err)
	}
	return ev, err
}

// contexts are the highest addresses of a call chain: they are no addresses,
// and say of what the ones behind them are (PERF_CONTEXT_MAX).
const contexts = ^uint64(4095) + 1

func take(r *perf.SampleRecord) Sample {
	s := Sample{PID: int(int32(r.Pid)), TID: int(int32(r.Tid)), CPU: int(r.CPU), User: r.CPUMode() == perf.UserMode}
	if s.User {
		return s
	}
	for _, ip := range r.Callchain {
		if ip < contexts {
			s.Kernel = append(s.Kernel, ip)
		}
	}
	if len(s.Kernel) == 0 {
		s.Kernel = []uint64{r.IP}
	}
	return s
}

// initialNamespace is the inode of the first pid namespace
// (include/linux/proc_ns.h, PROC_PID_INIT_INO).
const initialNamespace = "pid:[4026531836]"

// InitialNamespace reports whether this process sees threads by the pids that
// the kernel's own structures have; in a container it does not.
func InitialNamespace() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && ns == initialNamespace
}
