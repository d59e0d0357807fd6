package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/culprit"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/stack"
)

// emulateFlags are what the command line says of a run.
type emulateFlags struct {
	trace   string
	why     bool
	watch   []string
	set     []string
	cpu     int
	task    int
	frame   int
	pid     int
	regs    bool
	writes  bool
	steps   uint64
	depth   int
	timeout time.Duration

	inFrame bool
}

func (a *app) emulateCommand() *cobra.Command {
	var f emulateFlags
	c := &cobra.Command{
		Use:     "emulate 'FUNC(ARG, ...)'",
		Short:   "Run a function of the kernel or a BPF program offline, and say why it answers what it does",
		GroupID: groupInvestigate,
		Long: `Emulate runs the kernel's own machine code, as it stands in the target's memory, in an
interpreter on a copy of that memory: nothing is changed in the target. It prints what
the function returns and what decided that: the conditions, in the names of the kernel's
fields, with the values they were decided by. What is called is one of

  FUNC(ARG, ...)          a function; module:FUNC of one module
  prog:WHICH(CTX)         a BPF program, by its id, name or tag; prog:WHICH/SUBPROG(ARG, ...)
  ADDR(ARG, ...)          code at an address
  --frame N               the function of a frame of a stack, from its beginning: its arguments
                          are found by doing again what its caller did before the call;
                          with --regs, on from where the stack stands, until it returns

Arguments are C expressions, as print takes them; a string stands for its address.

What must not or cannot run is stood in for, and said: the scheduler, the log, the
allocators, locks that others hold. A run ends at memory that the target does not have,
at an instruction that cannot be executed, in an endless loop (the machine comes into a
state it was in before), or at a limit.`,
		Example: `  ksleuth -t vmcore emulate 'find_vpid(1)'
  ksleuth -t vmcore emulate 'ring_buffer_empty_cpu(global_trace.array_buffer.buffer, 0)'
  ksleuth -t vmcore emulate --trace loads 'task_curr(&init_task)'
  ksleuth -t vmcore emulate --set 'init_task.flags=0' 'task_curr(&init_task)'
  ksleuth -t vmcore emulate --frame 0 --watch rbp
  ksleuth emulate 'kallsyms_lookup_name("schedule")'`,
		Args: func(c *cobra.Command, args []string) error {
			f.inFrame = c.Flags().Changed("frame")
			if f.inFrame {
				return noArgs(c, args)
			}
			return exactly(1, "a call, FUNC(ARG, ...), or --frame N")(c, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.emulate(strings.Join(args, ""), f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.trace, "trace", "", "print what it does: `calls|loads|insns`")
	fl.BoolVar(&f.why, "why", true, "say what decided the return value")
	fl.StringArrayVar(&f.watch, "watch", nil, "stop at the first write to `ADDR,LEN` (8 bytes without LEN);\nof a frame, a register: who wrote where it had been saved")
	fl.StringArrayVar(&f.set, "set", nil, "what if: `EXPR=VALUE`, changed before the run")
	fl.IntVar(&f.cpu, "cpu", -1, "see the per-CPU data of CPU `N`; -1: the task's")
	fl.IntVar(&f.task, "task", 0, "`PID` of the current task (default the CPU's)")
	fl.IntVar(&f.frame, "frame", 0, "run the function of this frame `N`: of the stack that\nreport shows, or of --pid")
	fl.IntVar(&f.pid, "pid", 0, "the frame is of this task's stack, as bt numbers it")
	fl.BoolVar(&f.regs, "regs", false, "with --frame: go on from where the stack stands")
	fl.BoolVar(&f.writes, "writes", false, "list every change of memory")
	fl.Uint64Var(&f.steps, "max-insns", 0, "end after so many instructions (default 100 million)")
	fl.IntVar(&f.depth, "max-depth", 0, "end at so many calls inside calls (default 1000)")
	fl.DurationVar(&f.timeout, "timeout", 0, "end after this time (default 30s)")
	return c
}

// emulate runs what the command line asks for.
func (a *app) emulate(call string, f emulateFlags) error {
	switch f.trace {
	case "", "calls", "loads", "insns":
	default:
		return usage(fmt.Errorf("--trace %q: calls, loads or insns", f.trace))
	}
	if !f.inFrame && (f.regs || f.pid != 0) {
		return usage(errors.New("--regs and --pid are of a frame: give --frame N, too"))
	}
	k, err := a.open()
	if err != nil {
		return err
	}
	q := rerun.Question{Call: call, Set: f.set, Watch: f.watch, Why: f.why, Trace: f.trace}
	o := rerun.Options{CPU: f.cpu, Limits: emulate.Options{Steps: f.steps, Depth: f.depth, Time: f.timeout}}
	if f.task != 0 {
		t, err := kobj.FindTask(k, f.task)
		if err != nil {
			return noTask(err)
		}
		o.Task = uint64(t.Addr)
	}
	ask := func() (*rerun.Emulation, error) { return rerun.Ask(a.ctx, k, o, q) }
	if f.inFrame {
		frame, err := a.frameOf(k, f, &o)
		if err != nil {
			return err
		}
		ask = func() (*rerun.Emulation, error) { return culprit.Ask(a.ctx, k, o, q, frame) }
	}
	e, err := ask()
	if err != nil {
		return asked(err)
	}
	a.judge(e)
	show := render.EmulationOptions{Writes: f.writes, Again: again(call, f)}
	return a.emit("emulation", e, func(p *render.Printer) { p.Emulation(e, show) })
}

// frameOf finds the stack that a frame is of, and has it run as its task.
func (a *app) frameOf(k *kernel.Kernel, f emulateFlags, o *rerun.Options) (culprit.Frame, error) {
	frame := culprit.Frame{N: f.frame, FromRegs: f.regs}
	if f.pid == 0 {
		t, st, err := report.CrashStack(k)
		o.Task, o.CPU, frame.Stack = uint64(t.Addr), t.CPU, st
		return frame, asked(err)
	}
	t, err := kobj.FindTask(k, f.pid)
	if err != nil {
		return frame, noTask(err)
	}
	o.Task = uint64(t.Addr)
	if !k.Live() {
		frame.Stack = stack.Of(k, t)
		return frame, nil
	}
	live, err := stack.OfLive(a.ctx, k, []kobj.Task{t})
	switch {
	case err != nil:
		return frame, err
	case len(live) == 0:
		return frame, usage(fmt.Errorf("pid %d has ended", f.pid))
	}
	frame.Stack = live[0].Stack
	return frame, nil
}

// judge sets the exit status by how a run ended.
func (a *app) judge(e *rerun.Emulation) {
	switch e.Outcome {
	case "fault", "trap", "loop":
		a.fault = true
	case "limit", "unsupported", "stopped":
		a.gaps = true
	}
}

// again is the command line that asks the same, without what shows more of it.
func again(call string, f emulateFlags) string {
	var b strings.Builder
	for _, s := range f.set {
		b.WriteString("--set " + quote(s) + " ")
	}
	if f.inFrame {
		b.WriteString("--frame " + strconv.Itoa(f.frame))
		if f.pid != 0 {
			b.WriteString(" --pid " + strconv.Itoa(f.pid))
		}
		if f.regs {
			b.WriteString(" --regs")
		}
		return b.String()
	}
	return b.String() + quote(call)
}

// quote quotes a word for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
