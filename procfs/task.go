//go:build linux

package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

const (
	pfKthread = 0x0020_0000         // include/linux/sched.h, PF_KTHREAD
	tick      = time.Second / 100   // of the times in stat: USER_HZ
	dir       = "/proc/%d/task/%d/" // of a thread
)

// Tasks returns every thread: processes by pid, each followed by its other
// threads; those that end meanwhile are left out. Idle tasks of CPUs are not in
// /proc, and whether a task runs or waits for its CPU is not told: Running is
// never set. Names of kernel threads are in full, of workers with what they work
// on (6b59808bfe48, 4.18; d6986ce24fc0, 5.17), not cut off as in the task's comm. With an error comes what was read.
func Tasks(ctx context.Context) ([]kobj.Task, error) {
	pids, err := numbers("/proc")
	if err != nil {
		return nil, err
	}
	var out []kobj.Task
	var errs kernel.Errors
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		tids, err := numbers(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			if !gone(err) {
				errs.Add(err)
			}
			continue
		}
		for _, tid := range tids {
			t, err := readTask(pid, tid)
			switch {
			case err == nil:
				out = append(out, t)
			case !gone(err):
				errs.Add(err)
			}
		}
	}
	return out, errs.Err()
}

// Task returns the task whose thread has a pid; if there is none the error is a
// [kobj.NoTaskError].
func Task(ctx context.Context, pid int) (kobj.Task, error) {
	tasks, err := Tasks(ctx)
	for _, t := range tasks {
		if t.PID == pid {
			return t, nil
		}
	}
	if err != nil {
		return kobj.Task{}, fmt.Errorf("no task with pid %d among the %d in /proc that could be read: %w", pid, len(tasks), err)
	}
	return kobj.Task{}, &kobj.NoTaskError{PID: pid, Tasks: len(tasks)}
}

func readTask(pid, tid int) (kobj.Task, error) {
	name := fmt.Sprintf(dir+"stat", pid, tid)
	text, err := os.ReadFile(name)
	if err != nil {
		return kobj.Task{}, err
	}
	t, err := parseStat(text)
	if err != nil {
		return t, fmt.Errorf("%s: %w", name, err)
	}
	t.TGID = pid
	// Its first field is the run time in nanoseconds; CONFIG_SCHED_INFO.
	if text, err := os.ReadFile(fmt.Sprintf(dir+"schedstat", pid, tid)); err == nil {
		if f := bytes.Fields(text); len(f) > 0 {
			if ns, err := strconv.ParseInt(string(f[0]), 10, 64); err == nil {
				t.RunTime = time.Duration(ns)
			}
		}
	}
	return t, nil
}

// Fields of stat behind the name, proc_pid_stat(5) counts from 1 and has the
// name as field 2.
const (
	statState = iota // field 3
	statPPID
	statFlags = 9 - 3
	statUser  = 14 - 3
	statSys   = 15 - 3
	statCPU   = 39 - 3
)

var errStat = errors.New("not a line of stat")

// parseStat reads a line "PID (COMM) STATE PPID ...". A name may have spaces,
// parentheses and newlines; nothing behind it has a parenthesis.
func parseStat(text []byte) (kobj.Task, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return kobj.Task{}, errStat
	}
	f := bytes.Fields(text[end+1:])
	if len(f) <= statCPU || len(f[statState]) != 1 {
		return kobj.Task{}, errStat
	}
	var err error
	number := func(b []byte) int64 {
		n, e := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
		err = errors.Join(err, e)
		return n
	}
	t := kobj.Task{
		PID:     int(number(text[:open])),
		Comm:    string(text[open+1 : end]),
		State:   string(f[statState]),
		PPID:    int(number(f[statPPID])),
		CPU:     int(number(f[statCPU])),
		Kernel:  number(f[statFlags])&pfKthread != 0,
		RunTime: time.Duration(number(f[statUser])+number(f[statSys])) * tick,
	}
	return t, err
}
