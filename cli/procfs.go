package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/procfs"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/stack"
)

// The JSON forms of what is told without the kernel's memory: those of the
// same types without the fields that it takes memory to know.
type (
	procTask struct {
		kobj.Task
		Running *bool       `json:"running,omitempty"`
		Frames  []procFrame `json:"frames"`
		End     string      `json:"stack_end,omitempty"`
	}
	procFrame struct {
		stack.Frame
		PC *mem.Addr `json:"pc,omitempty"`
		SP *mem.Addr `json:"sp,omitempty"`
	}
	procFile struct {
		fileData
		Ops     *string   `json:"ops,omitempty"`
		Private *mem.Addr `json:"private,omitempty"`
	}
	procLog struct {
		*kobj.LogRecord
		Caller *uint32 `json:"caller,omitempty"`
	}
)

// procModules returns the modules that /proc tells.
func (a *app) procModules() ([]*kernel.Module, error) {
	mods, err := procfs.Modules()
	if slices.ContainsFunc(mods, func(m *kernel.Module) bool { return m.Base() == 0 }) {
		a.note("the kernel hides the addresses of modules: CAP_SYSLOG shows them unless the sysctl kernel.kptr_restrict is 2")
	}
	return partly(a, mods, err)
}

// procTasks returns the tasks that the argument of bt names. Which run is not
// told: those that run or wait for a CPU stand for them.
func (a *app) procTasks(args []string) ([]kobj.Task, error) {
	if len(args) == 0 {
		tasks, err := a.tasks(false)
		return slices.DeleteFunc(tasks, func(t kobj.Task) bool { return t.State != "R" || t.TGID == os.Getpid() }), err
	}
	if args[0] == "all" {
		return a.tasks(false)
	}
	pid, err := parsePID(args[0])
	if err != nil {
		return nil, err
	}
	t, err := a.task(pid)
	return []kobj.Task{t}, err
}

// errRuns is why a task has no stack in /proc.
var errRuns = errors.New("the kernel prints no stack of a task that runs: it takes access to its memory, and CAP_PERFMON, to sample it")

// btProc prints the stacks that /proc tells.
func (a *app) btProc(tasks []kobj.Task) error {
	printed := 0
	for _, t := range tasks {
		frames, err := procfs.Stack(t)
		var gone *kobj.NoTaskError
		switch {
		case errors.As(err, &gone) && len(tasks) > 1:
			continue
		case errors.As(err, &gone):
			return usage(fmt.Errorf("pid %d has ended", t.PID))
		case errors.Is(err, errors.ErrUnsupported):
			return &statusError{StatusUnsupported, err}
		case err != nil && len(frames) == 0:
			return err
		}
		if err == nil && len(frames) == 0 && t.State != "Z" && t.State != "X" {
			err = errRuns // now, if not when its state was read
		}
		if err := a.emitProcStack(printed, t, frames, err); err != nil {
			return err
		}
		printed++
		if err == errRuns && len(tasks) == 1 {
			return &statusError{StatusDenied, err} // what was asked for was refused
		}
	}
	return nil
}

// emitProcStack prints a task with its stack, the i-th of several, and why the
// stack ends.
func (a *app) emitProcStack(i int, t kobj.Task, frames []stack.Frame, end error) error {
	out := procTask{Task: t, Frames: []procFrame{}}
	for _, f := range frames {
		pf := procFrame{Frame: f}
		if f.PC != 0 {
			pf.PC = &f.PC
		}
		out.Frames = append(out.Frames, pf)
	}
	if end != nil {
		out.End = end.Error()
		a.gaps = true
	}
	return a.emit("task", out, func(p *render.Printer) {
		if i > 0 {
			p.Line("")
		}
		p.Task(t)
		p.Frames(frames, out.End)
	})
}

// procFiles prints the files that /proc tells.
func (a *app) procFiles(t kobj.Task) error {
	files, err := procfs.Files(t.PID)
	if files, err = partly(a, files, err); err != nil {
		return err
	}
	if a.output == "json" {
		for _, f := range files {
			if err := a.emitJSON("file", procFile{fileData: fileData{File: f, PID: t.PID, BPF: a.procObject(t, f)}}); err != nil {
				return err
			}
		}
		return nil
	}
	a.printer().Files(files, func(f kobj.File) string {
		if o := a.procObject(t, f); o != nil {
			return o.String()
		}
		return ""
	})
	return nil
}

// procObject returns the BPF object behind a file, or nil.
func (a *app) procObject(t kobj.Task, f kobj.File) *bpf.Object {
	if f.Type != "ANON" {
		return nil
	}
	o, err := bpfsys.ObjectOf(t.PID, f.FD)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.gap(fmt.Errorf("fd %d: %w", f.FD, err))
	}
	return o
}
