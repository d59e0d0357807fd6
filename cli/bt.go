package cli

import (
	"fmt"
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
}

func (a *app) btCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "bt [PID|all]",
		Short:   "Stacks of tasks",
		GroupID: groupInspect,
		Long: `Bt prints the stack of one task, of all of them, or, without an argument, of the
task that panicked (of the tasks that were running, if none did).`,
		Example: `  ksleuth -t vmcore bt
  ksleuth -t vmcore bt 1
  ksleuth -t vmcore -o json bt all`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			tasks, err := a.btTasks(args)
			if err != nil {
				return err
			}
			for i, t := range tasks {
				s := stack.Of(a.kernel, t)
				out := taskStack{Task: t, Frames: s.Frames}
				if out.Frames == nil {
					out.Frames = []stack.Frame{}
				}
				if s.End != nil {
					out.End = s.End.Error()
					a.gaps = true
				}
				if err := a.emit("task", out, func(p *render.Printer) {
					if i > 0 {
						p.Line("")
					}
					p.Task(t)
					p.Frames(s.Frames, out.End)
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// btTasks returns the tasks that the argument of bt names.
func (a *app) btTasks(args []string) ([]kobj.Task, error) {
	k, err := a.open()
	if err != nil {
		return nil, err
	}
	switch {
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
	t, err := kobj.FindTask(k, pid)
	return []kobj.Task{t}, noTask(err)
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
