package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/orc"
	"github.com/ksleuth/ksleuth/sample"
	"github.com/ksleuth/ksleuth/unwind"
)

// A Live is the stack of a task of a running kernel.
type Live struct {
	Task  kobj.Task
	Stack Stack
	// Sampled says that the task was running: its stack is that of the next
	// moment at which it ran, not read from memory.
	Sampled bool
	// User says that it was then in its user program, and has no stack.
	User bool
}

const (
	// rounds is how often a task's stack is taken that changes meanwhile.
	rounds = 4
	// sampleTime is how long a task that runs is waited for.
	sampleTime = 200 * time.Millisecond
	// ownTime is how long for a task of this program, which ran because it looked.
	ownTime = 20 * time.Millisecond
)

// A RestlessError says that a task's stack did not stay the same for long
// enough to be read, and that the task was not met running either. It is no
// damage.
type RestlessError struct{ PID int }

// Error names the task.
func (e *RestlessError) Error() string {
	return fmt.Sprintf("pid %d runs and sleeps by turns: its stack did not stay while it was read", e.PID)
}

// OfLive returns the stacks of tasks of a running kernel, in their order; those
// that end meanwhile are left out. A stack in memory counts if its task slept
// from before it was read until after; a task that runs is sampled.
func OfLive(ctx context.Context, k *kernel.Kernel, tasks []kobj.Task) ([]Live, error) {
	t := taker{ctx: ctx, k: k, own: os.Getpid(), slots: make([]slot, len(tasks))}
	for i, task := range tasks {
		t.slots[i].Task = task
	}
	for round := 0; round < rounds && !t.done(); round++ {
		t.readSleeping()
		t.sampleRunning()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	var out []Live
	for i := range t.slots {
		s := &t.slots[i]
		if s.state == taken || s.state == open {
			if s.state == open {
				s.Stack = Stack{End: &RestlessError{s.Task.PID}}
			}
			out = append(out, s.Live)
		}
	}
	return out, nil
}

// A taker takes the stacks of many tasks at a time, so that memory is read
// anew but twice a round.
type taker struct {
	ctx   context.Context
	k     *kernel.Kernel
	own   int // pid of this process
	slots []slot
}

// A slot is a task whose stack is being taken.
type slot struct {
	Live
	state   slotState
	before  mark
	running bool
}

type slotState uint8

const (
	open  slotState = iota
	taken           // Live holds it
	gone            // the task has ended
)

func (t *taker) done() bool {
	for i := range t.slots {
		if t.slots[i].state == open {
			return false
		}
	}
	return true
}

// readSleeping reads the stacks of the tasks that do not run.
func (t *taker) readSleeping() {
	t.k.Refresh()
	t.eachOpen(func(s *slot) {
		if !t.look(s) || s.running {
			return
		}
		s.Stack = Stack{}
		if s.before.stack != 0 { // else it is a zombie, which has none
			s.Stack = describe(t.k, unwind.Task(t.k, uint64(s.Task.Addr)))
		}
	})
	t.k.Refresh()
	t.eachOpen(func(s *slot) {
		if s.running {
			return
		}
		after, err := markOf(t.k, s.Task)
		if err == nil && after == s.before {
			s.state = taken
		}
	})
}

func (t *taker) eachOpen(do func(*slot)) {
	for i := range t.slots {
		if s := &t.slots[i]; s.state == open && t.ctx.Err() == nil {
			do(s)
		}
	}
}

// look reads the task anew, and says whether it is still there.
func (t *taker) look(s *slot) bool {
	task, err := kobj.TaskAt(t.k, uint64(s.Task.Addr))
	if err == nil {
		s.before, err = markOf(t.k, s.Task)
	}
	if err != nil || task.PID != s.Task.PID || task.TGID != s.Task.TGID {
		s.state = gone // its memory belongs to something else now
		return false
	}
	s.Task = task
	s.running = task.Running || s.before.onCPU
	return true
}

// sampleRunning samples the tasks that were found running. One that does not
// run within the time sleeps again, and is left for the next round.
func (t *taker) sampleRunning() {
	t.eachOpen(func(s *slot) {
		if !s.running {
			return
		}
		got, err := t.sample(s)
		switch {
		case err == nil:
			s.Stack = Stack{Frames: t.frames(got.Kernel)}
			s.Task.CPU, s.Task.Running = got.CPU, true
			s.Sampled, s.User, s.state = true, got.User, taken
		case errors.Is(err, fs.ErrNotExist):
			s.state = gone
		case errors.Is(err, sample.ErrNone):
		default:
			s.Stack, s.state = Stack{End: fmt.Errorf("sampling pid %d, which runs: %w", s.Task.PID, err)}, taken
		}
	})
}

func (t *taker) sample(s *slot) (sample.Sample, error) {
	switch {
	case s.Task.PID == 0:
		return sample.Idle(t.ctx, s.Task.CPU, sampleTime)
	case !sample.InitialNamespace():
		return sample.Sample{}, errors.New("it takes the host's pid namespace (docker run --pid=host)")
	case s.Task.TGID == t.own:
		return sample.Stack(t.ctx, s.Task.PID, ownTime)
	}
	return sample.Stack(t.ctx, s.Task.PID, sampleTime)
}

// frames names the addresses of a sampled stack.
func (t *taker) frames(pcs []uint64) []Frame {
	n := &namer{k: t.k}
	var out []Frame
	for i, pc := range pcs {
		raw := unwind.Frame{PC: pc, Exact: i == 0, Reliable: true}
		f := n.name(raw)
		if f.Kind == kernel.KindKernel {
			e, ok, err := t.k.ORC(raw.Lookup())
			if err == nil && ok && (e.Type == orc.Regs || e.Type == orc.RegsPartial || e.Type == orc.EndOfStack) {
				f.Kind = kernel.KindEntry
			}
		}
		out = append(out, f)
	}
	return out
}

// A mark tells whether a task has run between two looks at it.
type mark struct {
	pid              int64
	sp, stack        uint64
	switches, forced uint64 // how often it gave up the CPU, and was made to
	onCPU            bool
}

func markOf(k *kernel.Kernel, t kobj.Task) (mark, error) {
	o := k.Object("task_struct", uint64(t.Addr))
	m := mark{
		pid: o.Int("pid"), sp: o.Uint("thread.sp"), stack: o.Ptr("stack"),
		switches: o.Uint("nvcsw"), forced: o.Uint("nivcsw"),
	}
	if o.Has("on_cpu") { // CONFIG_SMP
		m.onCPU = o.Bool("on_cpu")
	}
	return m, o.Err()
}
