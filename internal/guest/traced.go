package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/guest/objects"
)

const tracefs = "/sys/kernel/tracing"

// traced puts tasks to sleep inside functions whose return is traced, by every
// mechanism that changes what stands on the stack, and keeps a CPU busy in a
// BPF program.
func traced([]string) error {
	if err := populate(); err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil { // before 5.11 programs count against it
		return err
	}
	objs, err := objects.Load()
	if err != nil {
		return err
	}
	defer objs.Close()
	for _, step := range []struct {
		comm  string
		trace func() error
	}{
		{"in-kretprobe", kretprobe},
		{"in-fexit", fexit},
		{"in-graph", functionGraph},
	} {
		if err := step.trace(); err != nil {
			return fmt.Errorf("%s: %w", step.comm, err)
		}
		// A task started now sleeps under all the tracers so far.
		if err := exec.Command("/proc/self/exe", "nanosleep", step.comm).Start(); err != nil {
			return err
		}
	}
	if err := spin(); err != nil {
		return err
	}
	time.Sleep(time.Second) // for all of them to be where they stay
	fmt.Println("ready")
	forever()
	return nil
}

// nanosleep takes the name args[0] and sleeps in nanosleep(2).
func nanosleep(args []string) error {
	runtime.LockOSThread()
	if err := os.WriteFile("/proc/thread-self/comm", []byte(args[0]), 0); err != nil {
		return err
	}
	for {
		ts := unix.NsecToTimespec(int64(time.Hour))
		_ = unix.Nanosleep(&ts, nil) // a signal of the runtime ends it early
	}
}

func kretprobe() error {
	if err := os.WriteFile(filepath.Join(tracefs, "kprobe_events"), []byte("r:asleep hrtimer_nanosleep\n"), 0); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tracefs, "events/kprobes/asleep/enable"), []byte("1"), 0)
}

// fexit keeps its link open for as long as the process lives.
func fexit() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "on_return", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "hrtimer_nanosleep",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, License: "GPL",
	})
	if err != nil {
		return err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return err
	}
	keep = append(keep, prog, l)
	return nil
}

// keep holds what must not be collected.
var keep []any

func functionGraph() error {
	if err := os.WriteFile(filepath.Join(tracefs, "set_ftrace_filter"), []byte("do_nanosleep\n"), 0); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(tracefs, "current_tracer"), []byte("function_graph"), 0)
}

// spin runs a BPF program that takes long, again and again.
func spin() error {
	insns := asm.Instructions{asm.Mov.Imm(asm.R0, 1).WithSymbol("spin")}
	for i := range 20000 {
		insns = append(insns, asm.Mul.Imm(asm.R0, int32(i|1)))
	}
	insns = append(insns, asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "spin", Type: ebpf.SchedCLS, Instructions: insns, License: "GPL"})
	if err != nil {
		return err
	}
	keep = append(keep, prog)
	go func() {
		runtime.LockOSThread()
		for {
			_, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: 1 << 30})
			if err != nil && err != syscall.EINTR {
				time.Sleep(time.Millisecond) // a signal of the runtime
			}
		}
	}()
	return nil
}

// stacks prints the stack of every thread but its own as the kernel itself
// unwinds it: a line "tid comm", then /proc/PID/stack.
func stacks([]string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	if err != nil {
		return err
	}
	self := fmt.Sprintf("/proc/%d/", os.Getpid())
	for _, d := range dirs {
		if len(d) > len(self) && d[:len(self)] == self {
			continue
		}
		comm, err1 := os.ReadFile(filepath.Join(d, "comm"))
		stack, err2 := os.ReadFile(filepath.Join(d, "stack"))
		if err1 != nil || err2 != nil {
			continue // it has ended
		}
		fmt.Printf("%s %s%s", filepath.Base(d), comm, stack)
	}
	return nil
}
