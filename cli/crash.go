package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/stack"
)

// commands returns every command. Help lists them by group and name.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.reportCommand(),
		a.btCommand(), a.psCommand(), a.filesCommand(), a.logCommand(), a.modsCommand(),
		a.symCommand(), a.typeCommand(), a.printCommand(), a.readCommand(), a.disasmCommand(),
		a.captureCommand(),
	}
}

func (a *app) reportCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "report",
		Short:   "What crashed and why",
		GroupID: groupInvestigate,
		Long: `Report says what crashed and why: the code at fault, its exact stack with BPF
programs named, the decoded exception, and what is wrong with the registers.
Everything is read from the dump. The exit status is 1 if the kernel panicked or
its log holds an oops.`,
		Example: `  ksleuth -t vmcore report
  ksleuth -t vmcore -o json report | jq .data.fingerprint`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			r := report.Build(k, a.core)
			a.fault = r.Task != nil || r.Panic != "" || r.Headline != ""
			a.gaps = len(r.Unread) > 0
			return a.emit("report", r, func(p *render.Printer) { p.Report(r) })
		},
	}
}

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

func parsePID(s string) (int, error) {
	pid, err := strconv.Atoi(s)
	if err != nil || pid < 0 {
		return 0, usage(fmt.Errorf("%q is no pid", s))
	}
	return pid, nil
}

// tasks returns every task. What could not be read is said on standard error
// and in the exit status; it is an error only if nothing was read.
func (a *app) tasks(idle bool) ([]kobj.Task, error) {
	k, err := a.open()
	if err != nil {
		return nil, err
	}
	tasks, err := kobj.Tasks(k, idle)
	if err != nil && len(tasks) == 0 {
		return nil, err
	}
	a.gap(err)
	return tasks, nil
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

// gap notes that something could not be read: the answer goes on without it.
func (a *app) gap(err error) {
	if err == nil {
		return
	}
	a.gaps = true
	for _, e := range unjoin(err) {
		if a.output == "json" {
			_ = a.emitJSON("error", errorData{Message: e.Error(), Status: statusOf(e)}) // the exit status still tells
			continue
		}
		fmt.Fprintf(a.streams.Err, "ksleuth: %s\n", oneLine(e))
	}
}

// unjoin takes joined errors apart.
func unjoin(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() { // a sentence of its own that wraps several
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, unjoin(e)...)
	}
	return out
}

func (a *app) psCommand() *cobra.Command {
	var flat bool
	c := &cobra.Command{
		Use:     "ps",
		Short:   "Tasks",
		GroupID: groupInspect,
		Long: `Ps lists every task below its parent, with its threads, state, CPU and the time
it ran. Kernel threads stand in brackets; tasks that were running are green.`,
		Example: `  ksleuth -t vmcore ps
  ksleuth -t vmcore -o json ps | jq -r 'select(.data.state == "D") | .data.comm'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			tasks, err := a.tasks(true)
			if err != nil {
				return err
			}
			if a.output == "json" {
				for _, t := range tasks {
					if err := a.emitJSON("task", taskStack{Task: t, Frames: []stack.Frame{}}); err != nil {
						return err
					}
				}
				return nil
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

func (a *app) filesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "files PID",
		Short:   "Open files of a process, BPF objects named",
		GroupID: groupInspect,
		Example: "  ksleuth -t vmcore files 1",
		Args:    exactly(1, "a pid"),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := parsePID(args[0])
			if err != nil {
				return err
			}
			k, err := a.open()
			if err != nil {
				return err
			}
			t, err := kobj.FindTask(k, pid)
			if err != nil {
				return noTask(err)
			}
			files, err := kobj.Files(k, t)
			a.gap(err)
			if a.output == "json" {
				for _, f := range files {
					if err := a.emitJSON("file", fileData{File: f, PID: t.PID, BPF: a.bpfObject(k, f)}); err != nil {
						return err
					}
				}
				return nil
			}
			a.printer().Files(files, func(f kobj.File) string {
				if o := a.bpfObject(k, f); o != nil {
					return o.String()
				}
				return ""
			})
			return nil
		},
	}
}

func (a *app) logCommand() *cobra.Command {
	var raw, caller bool
	var level string
	c := &cobra.Command{
		Use:     "log",
		Short:   "The kernel's log",
		GroupID: groupInspect,
		Long: `Log prints the kernel's log buffer, as dmesg does. It needs little of a dump:
VMCOREINFO and the buffer itself, no types. Errors and worse are red.`,
		Example: `  ksleuth -t vmcore log
  ksleuth -t vmcore log --level err      # errors and worse
  ksleuth -t vmcore log --caller         # which task or CPU wrote each line
  ksleuth -t vmcore log --raw            # with priorities, as dmesg --raw`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			most, ok := kobj.ParseLevel(level)
			if !ok {
				return usage(fmt.Errorf("--level %q: one of %s", level, strings.Join(kobj.Levels[:], ", ")))
			}
			k, err := a.open()
			if err != nil {
				return err
			}
			log, gaps, err := kobj.Log(k)
			if err != nil {
				return err
			}
			for _, g := range gaps {
				a.gap(g.Err)
			}
			log = slices.DeleteFunc(log, func(r kobj.LogRecord) bool { return r.Level > most })
			switch {
			case a.output == "json":
				for i := range log {
					if err := a.emitJSON("log", &log[i]); err != nil {
						return err
					}
				}
			case raw:
				var buf []byte
				for i := range log {
					buf = log[i].AppendSyslog(buf[:0])
					a.out.Write(buf) // an error sticks until the flush
				}
			default:
				a.printer().Log(log, caller)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "print <priority> before each line and nothing else changed")
	c.Flags().BoolVar(&caller, "caller", false, "print the task (T) or CPU (C) that wrote each line")
	c.Flags().StringVar(&level, "level", "debug", "leave out what is less urgent than this `LEVEL`:\n"+strings.Join(kobj.Levels[:], ", "))
	return c
}

type moduleData struct {
	Name  string   `json:"name"`
	Addr  mem.Addr `json:"addr"` // of the struct module
	Base  mem.Addr `json:"base"`
	Size  uint64   `json:"size"`
	Refs  int64    `json:"refs"`
	State string   `json:"state"`
	Taint mem.Addr `json:"taint"`
}

func (a *app) modsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "mods",
		Aliases: []string{"mod"},
		Short:   "Loaded modules",
		GroupID: groupInspect,
		Example: "  ksleuth -t vmcore mods",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := a.open()
			if err != nil {
				return err
			}
			mods, err := k.Modules()
			a.gap(err)
			if a.output == "json" {
				for _, m := range mods {
					if err := a.emitJSON("module", moduleData{m.Name, mem.Addr(m.Addr), mem.Addr(m.Base()), m.Size(), m.Refs, m.State, mem.Addr(m.Taint)}); err != nil {
						return err
					}
				}
				return nil
			}
			a.printer().Modules(mods)
			return nil
		},
	}
}
