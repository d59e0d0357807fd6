package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/procfs"
	"github.com/ksleuth/ksleuth/stack"
)

func (a *app) psCommand() *cobra.Command {
	var flat bool
	c := &cobra.Command{
		Use:     "ps",
		Short:   "Tasks",
		GroupID: groupInspect,
		Long: `Ps lists every task below its parent, with its threads, state, CPU and the time
it ran. Kernel threads stand in brackets; tasks that were running are green.

Where the running kernel's memory cannot be read, /proc tells the same, but for idle
CPUs' tasks and which tasks run.`,
		Example: `  ksleuth -t vmcore ps
  ksleuth -t vmcore -o json ps | jq -r 'select(.data.state == "D") | .data.comm'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			tasks, err := a.tasks(true)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.emitTasks(tasks)
			}
			if flat {
				a.printer().Tasks(tasks)
			} else {
				a.printer().TaskTree(tasks)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&flat, "flat", false, "list in the kernel's order, not as a tree")
	return c
}

// emitTasks prints tasks without their stacks as JSON.
func (a *app) emitTasks(tasks []kobj.Task) error {
	for _, t := range tasks {
		var data any = taskStack{Task: t, Frames: []stack.Frame{}}
		if a.memoryless {
			data = procTask{Task: t, Frames: []procFrame{}}
		}
		if err := a.emitJSON("task", data); err != nil {
			return err
		}
	}
	return nil
}

// tasks returns every task. What could not be read is said on standard error
// and in the exit status; it is an error only if nothing was read.
func (a *app) tasks(idle bool) ([]kobj.Task, error) {
	k, err := a.open()
	if a.withoutMemory("tasks are told by /proc", err) {
		tasks, err := procfs.Tasks(a.ctx)
		return partly(a, tasks, err)
	}
	if err != nil {
		return nil, err
	}
	var tasks []kobj.Task
	err = k.Retry(func() (err error) {
		tasks, err = kobj.Tasks(k, idle)
		return err
	})
	if err != nil && len(tasks) == 0 {
		return nil, err
	}
	a.gap(err)
	return tasks, nil
}

// task returns the task whose thread has a pid.
func (a *app) task(pid int) (kobj.Task, error) {
	k, err := a.open()
	if a.withoutMemory("tasks are told by /proc", err) {
		t, err := procfs.Task(a.ctx, pid)
		return t, noTask(err)
	}
	if err != nil {
		return kobj.Task{}, err
	}
	var t kobj.Task
	var none *kobj.NoTaskError
	err = k.Retry(func() error {
		var err error
		if t, err = kobj.FindTask(k, pid); errors.As(err, &none) {
			return nil // for sure
		}
		return err
	})
	if none != nil && err == nil {
		err = none
	}
	return t, noTask(err)
}
