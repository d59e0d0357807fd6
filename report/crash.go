package report

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/vmcore"
)

// crash is where the kernel crashed: the task and its stack, cut so that the
// first frame is the code at fault and not what the panic did afterwards.
type crash struct {
	task   kobj.Task
	stack  stack.Stack
	first  int          // index in stack.Frames of the code at fault
	regs   *vmcore.Regs // at the fault; nil where panic was simply called
	vector string       // entry point of the exception or interrupt; "" if none
	lockup string       // "soft lockup" or "hard lockup" if the watchdog found the code to loop
}

// findCrash finds the CPU that panicked and the code that made it.
func (b *builder) findCrash() (crash, bool) {
	task, ok, err := Panicked(b.k)
	b.unread("the task that panicked", err)
	if !ok || err != nil {
		return crash{}, false
	}
	b.r.Task = &Task{PID: task.PID, Comm: task.Comm, CPU: task.CPU}
	c := crash{task: task, stack: stack.Of(b.k, task)}
	c.locate()
	if c.first == 0 && c.regs != nil {
		// An oops that booted a crash kernel: the dump's registers are those
		// of the fault, and what the panic did is below the stack.
		if entry, ok := unwind.Entry(b.k, *c.regs); ok && strings.Contains(entry, "exc_") {
			c.vector = entry
		}
	}
	return c, true
}

// Panicked returns the task that runs panic(), if there is one: that of the
// CPU in panic_cpu, which is -1 before.
func Panicked(k *kernel.Kernel) (t kobj.Task, ok bool, err error) {
	for _, name := range []string{"panic_cpu", "crashing_cpu"} {
		addr, err := k.Addr(name)
		if err != nil {
			continue
		}
		v, err := mem.U32(k.Mem(), addr)
		if err != nil {
			return t, false, fmt.Errorf("%s: %w", name, err)
		}
		cpu := int(int32(v))
		if cpu < 0 {
			continue
		}
		task, err := k.Current(cpu)
		if err != nil {
			return t, true, err
		}
		t, err = kobj.TaskAt(k, task)
		t.CPU, t.Running = cpu, true
		return t, true, err
	}
	return t, false, nil
}

// locate decides where the code at fault begins in the stack. panic() stands
// on top. If an exception led to it, the code at fault is what the exception
// interrupted; so too for an interrupt whose handler found that code to loop.
// Otherwise it is whoever called panic().
func (c *crash) locate() {
	frames := c.stack.Frames
	oops := false
	for i, f := range frames {
		if isOops(f.Symbol) {
			oops = true
		}
		if f.Raw.Regs == nil || i == 0 {
			continue
		}
		entry := frames[i-1].Symbol
		c.lockup = lockup(frames[:i])
		if oops && strings.Contains(entry, "exc_") || c.lockup != "" {
			c.first, c.regs, c.vector = i, f.Raw.Regs, entry
			return
		}
		break
	}
	for i, f := range frames {
		if i < len(frames)-1 && isPanic(f.Symbol) && !isPanic(frames[i+1].Symbol) {
			c.first = i + 1
		}
	}
	if c.first == 0 && len(frames) > 0 && frames[0].Raw.Regs != nil {
		c.regs = frames[0].Raw.Regs
	}
}

// isOops names the functions through which oopses pass.
func isOops(name string) bool {
	return slices.Contains([]string{"oops_end", "__die", "die", "die_addr", "page_fault_oops", "no_context", "exc_double_fault", "__die_body"}, base(name))
}

func isPanic(name string) bool {
	return slices.Contains([]string{"panic", "vpanic", "nmi_panic", "panic_try_start"}, base(name))
}

// watchdogs are the functions that find code to loop (kernel/watchdog.c,
// kernel/watchdog_perf.c, before 81972551df9d (6.5) watchdog_hld.c).
var watchdogs = map[string]string{
	"watchdog_timer_fn":          "soft lockup",
	"watchdog_overflow_callback": "hard lockup",
	"watchdog_hardlockup_check":  "hard lockup",
}

// lockup says which watchdog is on a stack, or "".
func lockup(frames []stack.Frame) string {
	for _, f := range frames {
		if kind := watchdogs[base(f.Symbol)]; kind != "" {
			return kind
		}
	}
	return ""
}

// base removes what the compiler appends to the names of clones: .cold,
// .isra.0, .constprop.0, .part.0.
func base(name string) string {
	b, _, _ := strings.Cut(name, ".")
	return b
}

// describe fills the report from the crash.
func (b *builder) describe(ctx context.Context, c crash) {
	if c.stack.End != nil {
		b.r.StackEnd = c.stack.End.Error()
	}
	if c.first >= len(c.stack.Frames) {
		return
	}
	b.r.Frames = c.stack.Frames[c.first:]
	b.r.Task.Syscall = b.syscall(c.stack)
	top := b.r.Frames[0]
	b.r.RIP = &Place{Addr: top.PC, Symbol: top.Symbol, Offset: top.Offset}
	if c.regs != nil {
		b.r.Registers = b.registers(*c.regs)
	}
	b.code(c)
	b.fault(c)
	b.cause(ctx, c)
	b.r.Fingerprint = fingerprint(b.r)
}

// syscall names the system call that the stack came through, and of bpf(2) the
// command: its first argument.
func (b *builder) syscall(s stack.Stack) string {
	for _, f := range s.Frames {
		name, ok := strings.CutPrefix(f.Symbol, "__x64_sys_")
		if !ok || f.Kind != kernel.KindKernel {
			continue
		}
		arg := ""
		if name == "bpf" && s.User != nil {
			arg = bpf.CommandName(b.k, s.User.RDI)
		}
		return name + "(" + arg + ")"
	}
	return ""
}

// registers lists the general registers with what they point at.
func (b *builder) registers(r vmcore.Regs) []Register {
	var out []Register
	for _, g := range general {
		v := g.get(&r)
		out = append(out, Register{Name: g.name, Value: mem.Addr(v), Note: b.pointee(v, r.RSP)})
	}
	return append(out, Register{Name: "rflags", Value: mem.Addr(r.RFLAGS)})
}

const stackSize = 16 << 10 // THREAD_SIZE, without KASAN

// pointee says in a few words what a value can point at.
func (b *builder) pointee(v, rsp uint64) string {
	switch {
	case v < 4096, v>>63 == 0:
		return ""
	case v&^(stackSize-1) == rsp&^(stackSize-1):
		return fmt.Sprintf("stack, rsp%+#x", int64(v-rsp))
	}
	if _, _, ok := b.k.Symbolize(v); ok {
		return b.k.FormatAddr(v)
	}
	return ""
}
