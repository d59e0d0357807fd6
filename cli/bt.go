package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/stack"
)

// taskStack is the JSON form of a task with its stack.
type taskStack struct {
	kobj.Task
	Frames []stack.Frame `json:"frames"`
	End    string        `json:"stack_end,omitempty"` // why the stack stops before its outermost frame
	// Sampled and User are of tasks of the running kernel that ran.
	Sampled bool `json:"sampled,omitempty"`
	User    bool `json:"in_user_space,omitempty"`
}

func (a *app) btCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "bt [PID|all]",
		Short:   "Stacks of tasks",
		GroupID: groupInspect,
		Long: `Bt prints the stack of one task, of all of them, or, without an argument, of the
task that panicked (of the tasks that were running, if none did).

On the running kernel, a task that runs is sampled: its stack is that of the next
moment at which it runs. Without an argument these are the tasks that run now, but
for ksleuth's own and idle CPUs. Where its memory cannot be read, stacks are those of
/proc/PID/stack (which takes CAP_SYS_ADMIN), and there are none of tasks that run.`,
		Example: `  ksleuth bt 1
  ksleuth -t vmcore bt
  ksleuth -t vmcore -o json bt all`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			tasks, err := a.btTasks(args)
			if err != nil {
				return err
			}
			if a.memoryless {
				return a.btProc(tasks)
			}
			if a.kernel.Live() {
				return a.btLive(tasks)
			}
			for i, t := range tasks {
				s := stack.Of(a.kernel, t)
				if err := a.emitStack(i, stack.Live{Task: t, Stack: s}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// btLive prints the stacks of tasks of the running kernel.
func (a *app) btLive(tasks []kobj.Task) error {
	stacks, err := stack.OfLive(a.ctx, a.kernel, tasks)
	if err != nil {
		return err
	}
	if len(tasks) == 1 && len(stacks) == 0 {
		return usage(fmt.Errorf("pid %d has ended", tasks[0].PID))
	}
	for i, s := range stacks {
		if err := a.emitStack(i, s); err != nil {
			return err
		}
	}
	if len(tasks) == 1 && errors.Is(stacks[0].Stack.End, fs.ErrPermission) {
		return stacks[0].Stack.End // what was asked for was refused
	}
	return nil
}

// emitStack prints a task with its stack, the i-th of several.
func (a *app) emitStack(i int, s stack.Live) error {
	out := taskStack{Task: s.Task, Frames: s.Stack.Frames, Sampled: s.Sampled, User: s.User}
	if out.Frames == nil {
		out.Frames = []stack.Frame{}
	}
	if s.Stack.End != nil {
		out.End = s.Stack.End.Error()
		var restless *stack.RestlessError
		a.gaps = a.gaps || !errors.As(s.Stack.End, &restless)
	}
	return a.emit("task", out, func(p *render.Printer) {
		if i > 0 {
			p.Line("")
		}
		p.Task(s.Task)
		switch {
		case s.User:
			p.Line(p.Dim("    sampled: in user space"))
		case s.Sampled:
			p.Line(p.Dim("    sampled while it ran:"))
		}
		p.Frames(s.Stack.Frames, out.End)
	})
}

// btTasks returns the tasks that the argument of bt names.
func (a *app) btTasks(args []string) ([]kobj.Task, error) {
	k, err := a.open()
	if a.withoutMemory("stacks are told by /proc", err) {
		return a.procTasks(args)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case len(args) == 0 && k.Live():
		return a.runningNow()
	case len(args) == 0:
		if t, ok, err := report.Panicked(k); ok || err != nil {
			return []kobj.Task{t}, err
		}
		return a.running()
	case args[0] == "all":
		return a.tasks(true)
	}
	pid, err := parsePID(args[0])
	if err != nil {
		return nil, err
	}
	t, err := a.task(pid)
	return []kobj.Task{t}, err
}

// runningNow returns the tasks that the running kernel's CPUs run, idle ones
// and this program left out.
func (a *app) runningNow() ([]kobj.Task, error) {
	tasks, err := a.tasks(false)
	out := slices.DeleteFunc(tasks, func(t kobj.Task) bool { return !t.Running || t.TGID == os.Getpid() })
	if err == nil && len(out) == 0 && a.output != "json" {
		fmt.Fprintln(a.streams.Err, "ksleuth: no task runs at this moment but ksleuth itself; bt all shows those that sleep, too")
	}
	return out, err
}

func (a *app) running() ([]kobj.Task, error) {
	tasks, err := a.tasks(true)
	var out []kobj.Task
	for _, t := range tasks {
		if t.Running {
			out = append(out, t)
		}
	}
	return out, err
}

func parsePID(s string) (int, error) {
	pid, err := strconv.Atoi(s)
	if err != nil || pid < 0 {
		return 0, usage(fmt.Errorf("%q is no pid", s))
	}
	return pid, nil
}
