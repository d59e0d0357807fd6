// Package kobj reads the kernel's everyday objects: tasks and their files, the
// log. (Modules belong to the symbol table and are in package kernel.)
package kobj

import (
	"errors"
	"fmt"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A Task is one thread of the system.
type Task struct {
	Addr    mem.Addr      `json:"addr,omitzero"` // of the struct task_struct; 0 where memory cannot be read
	PID     int           `json:"pid"`           // of the thread
	TGID    int           `json:"tgid"`          // of the process: what user space calls its pid
	PPID    int           `json:"ppid"`          // of the parent process
	Comm    string        `json:"comm"`
	State   string        `json:"state"` // one letter, as in ps: R S D T t X Z P I
	CPU     int           `json:"cpu"`
	RunTime time.Duration `json:"run_time_ns"`
	Kernel  bool          `json:"kernel_thread"`
	Running bool          `json:"running"` // on its CPU when the dump was taken
}

// stateLetters is task_state_array of fs/proc/array.c: the letter of each bit
// of the state, lowest first; no bit is R.
const stateLetters = "RSDTtXZPI"

const (
	taskUninterrupt = 0x0002
	taskReport      = 0x7f   // include/linux/sched.h, TASK_REPORT
	taskNoload      = 0x0400 // 80ed87c8a9ca, 4.2
	taskRTLockWait  = 0x1000 // cd781d0ce8cb, 5.15
	taskFrozen      = 0x8000 // f5d39b020809, 6.1
	taskIdle        = taskUninterrupt | taskNoload

	pfKthread = 0x0020_0000 // include/linux/sched.h, PF_KTHREAD
)

// stateLetter is what /proc/PID/stat shows: task_state_index of
// include/linux/sched.h.
func stateLetter(state, exitState uint64) string {
	switch {
	case state&(taskRTLockWait|taskFrozen) != 0:
		return "D" // of frozen tasks since f718faf3940e (6.7); R before
	case state&taskIdle == taskIdle: // it may be freezable as well
		return "I"
	}
	bits := (state | exitState) & taskReport
	n := 0
	for ; bits != 0; bits >>= 1 {
		n++
	}
	if n >= len(stateLetters) {
		return "?"
	}
	return stateLetters[n : n+1]
}

// TaskAt reads the task_struct at addr.
func TaskAt(k *kernel.Kernel, addr uint64) (Task, error) {
	o := k.Object("task_struct", addr)
	t := Task{
		Addr: mem.Addr(addr),
		PID:  int(o.Int("pid")),
		TGID: int(o.Int("tgid")),
		Comm: o.Str("comm"),
		// __state since 2f064a59a11f (5.14).
		State: stateLetter(o.Uint("__state|state"), o.Uint("exit_state")),
		// thread_info.cpu since bcf9033e5449 (5.16).
		CPU:     int(o.Uint("thread_info.cpu|cpu")),
		RunTime: time.Duration(o.Uint("se.sum_exec_runtime")),
		Kernel:  o.Uint("flags")&pfKthread != 0,
	}
	if o.Err() == nil && o.Ptr("real_parent") != 0 {
		t.PPID = int(o.Deref("real_parent").Int("tgid"))
	}
	if err := o.Err(); err != nil {
		return t, err
	}
	if cur, err := k.Current(t.CPU); err == nil {
		t.Running = cur == addr
	}
	return t, nil
}

// Tasks returns every thread: processes in the order of the kernel's list,
// each followed by its other threads, and before them the idle tasks of the
// CPUs if idle is set. Together with an error comes what was read.
func Tasks(k *kernel.Kernel, idle bool) ([]Task, error) {
	w := taskWalk{k: k, seen: make(map[uint64]bool)}
	if idle {
		addrs, err := idleTasks(k)
		w.errs.Add(err)
		for _, a := range addrs {
			w.add(a)
		}
	}
	initTask, err := k.Addr("init_task")
	if err != nil {
		w.errs.Add(err)
		return w.out, w.errs.Err()
	}
	tasks, err1 := k.Offset("task_struct", "tasks")
	node, err2 := k.Offset("task_struct", "thread_node")
	if err := errors.Join(err1, err2); err != nil {
		w.errs.Add(err)
		return w.out, w.errs.Err()
	}
	for at, err := range k.List(initTask + tasks) {
		if err != nil {
			w.errs.Add(fmt.Errorf("list of tasks: %w", err))
			break
		}
		if !w.add(at - tasks) {
			break
		}
		w.threads(at-tasks, node)
	}
	return w.out, w.errs.Err()
}

// taskWalk collects tasks. Damaged lists can lead to each other: no task is
// taken twice.
type taskWalk struct {
	k    *kernel.Kernel
	out  []Task
	seen map[uint64]bool
	errs kernel.Errors
}

// add reads a task and says whether to go on with its list.
func (w *taskWalk) add(addr uint64) bool {
	if w.seen[addr] {
		w.errs.Add(fmt.Errorf("task at 0x%x is on the lists twice: damaged", addr))
		return false
	}
	w.seen[addr] = true
	t, err := TaskAt(w.k, addr)
	if err != nil {
		w.errs.Add(fmt.Errorf("task at 0x%x: %w", addr, err))
		return !w.errs.TooMany()
	}
	w.out = append(w.out, t)
	return true
}

// threads adds the other threads of a process; node is the offset of the link.
func (w *taskWalk) threads(leader, node uint64) {
	signal := w.k.Object("task_struct", leader).Deref("signal")
	head := signal.At("thread_head")
	if err := signal.Err(); err != nil {
		w.errs.Add(fmt.Errorf("threads of task at 0x%x: %w", leader, err))
		return
	}
	for at, err := range w.k.List(head) {
		if err != nil {
			w.errs.Add(fmt.Errorf("threads of task at 0x%x: %w", leader, err))
			return
		}
		if at-node != leader && !w.add(at-node) {
			return
		}
	}
}

// idleTasks returns the idle task of each CPU, rq.idle, but for CPUs that were
// offline and of which the dump has no registers: those ran nothing.
func idleTasks(k *kernel.Kernel) ([]uint64, error) {
	cpus, err := k.PresentCPUs()
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, cpu := range cpus {
		if online, err := k.Online(cpu); err == nil && !online {
			if _, ok := k.Registers(cpu); !ok {
				continue
			}
		}
		rq := k.RunQueue(cpu)
		idle := rq.Ptr("idle")
		if err := rq.Err(); err != nil {
			return out, err
		}
		out = append(out, idle)
	}
	return out, nil
}

// FindTask returns the task whose thread has the given pid.
func FindTask(k *kernel.Kernel, pid int) (Task, error) {
	tasks, err := Tasks(k, false)
	for _, t := range tasks {
		if t.PID == pid {
			return t, nil
		}
	}
	if err != nil {
		return Task{}, fmt.Errorf("no task with pid %d among the %d that could be read: %w", pid, len(tasks), err)
	}
	return Task{}, &NoTaskError{PID: pid, Tasks: len(tasks)}
}

// A NoTaskError says that no task has a pid.
type NoTaskError struct {
	PID   int
	Tasks int // tasks there are
}

// Error names the pid.
func (e *NoTaskError) Error() string {
	return fmt.Sprintf("no task has pid %d (there are %d tasks; ps lists them)", e.PID, e.Tasks)
}
