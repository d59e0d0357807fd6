package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tracing = "/sys/kernel/tracing/"
	event   = tracing + "events/kprobes/getpgid/"
)

// The worker burns the processor workerCPU; all else of this program keeps to
// the other one, so that somebody can tell.
const workerCPU, otherCPU = 0, 1

// stuckAfter is how long a drain, of milliseconds, may take.
const stuckAfter = 5 * time.Second

// ringbuf runs the worker and watches it. Without a number it ends when the
// worker hangs, else after so many rounds; it says so on the console.
func ringbuf(args []string) error {
	rounds := 2000 // it hangs when each of some pages, of some hundred events, was read once
	if len(args) > 0 {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		rounds = n
	}
	if err := prepareTracing(); err != nil {
		return err
	}
	if err := keepTo(otherCPU); err != nil {
		return err
	}
	awaitTrigger()
	self, err := os.Executable() // whose name the worker's task is to have
	if err != nil {
		return err
	}
	worker := exec.Command(self, "traceworker", strconv.Itoa(rounds))
	worker.Stderr = os.Stderr
	steps, err := worker.StdoutPipe()
	if err != nil {
		return err
	}
	if err := worker.Start(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(steps); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for last := ""; ; {
		select {
		case line, ok := <-lines:
			if !ok {
				return errors.Join(say("the worker ended after: %s", last), worker.Wait())
			}
			if last = line; last == "end" {
				if err := say("all rounds are done"); err != nil {
					return err
				}
				forever()
			}
		case <-time.After(stuckAfter):
			if err := say("the worker spins: %s", last); err != nil {
				return err
			}
			forever()
		}
	}
}

// prepareTracing makes the event. Its trigger has the kernel write filtered
// events into the ring buffer and take them out again, instead of deciding on
// a copy.
func prepareTracing() error {
	for _, w := range []struct{ file, text string }{
		{tracing + "buffer_size_kb", "8"},
		{tracing + "kprobe_events", "p:getpgid __x64_sys_getpgid"},
		{event + "trigger", "hist:keys=common_timestamp"},
		{tracing + "trace", ""}, // empties the buffer
		{event + "enable", "1"},
	} {
		if err := write(w.file, w.text); err != nil {
			return err
		}
	}
	return nil
}

// write writes a control file as a shell would.
func write(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// keepTo binds all threads of the program to a processor.
func keepTo(cpu int) error {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// traceWorker makes the rounds: an event that passes the filter and is read,
// and one that does not pass, after which there is nothing to read. It prints
// each step that it begins.
func traceWorker(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("traceworker needs a number")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(workerCPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	pipe, err := unix.Open(tracing+"trace_pipe", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for n := 1; n <= rounds; n++ {
		if err := round(pipe, n, n == rounds); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
	}
	fmt.Println("end")
	forever()
	return nil
}

// round makes one round. The last one leaves the filter.
func round(pipe, n int, last bool) error {
	if err := makeEvent(pipe, n, "accepted", 1); err != nil {
		return err
	}
	if err := write(event+"filter", "common_pid == 0x7fffffff"); err != nil {
		return err
	}
	if err := makeEvent(pipe, n, "discarded", 0); err != nil {
		return err
	}
	if last {
		return nil
	}
	return write(event+"filter", "0")
}

// makeEvent makes one event and drains the pipe, which is to give so many lines.
func makeEvent(pipe, n int, kind string, lines int) error {
	if _, err := unix.Getpgid(0); err != nil {
		return err
	}
	fmt.Printf("round %d, draining after the event was %s\n", n, kind)
	var out strings.Builder
	buf := make([]byte, 4096)
	for {
		got, err := unix.Read(pipe, buf)
		if errors.Is(err, syscall.EAGAIN) {
			break
		} else if errors.Is(err, syscall.EINTR) {
			continue
		} else if err != nil {
			return fmt.Errorf("reading trace_pipe: %w", err)
		}
		out.Write(buf[:got])
	}
	if got := strings.Count(out.String(), "\n"); got != lines {
		return fmt.Errorf("%d lines of trace_pipe where %d were expected: %s", got, lines, out.String())
	}
	return nil
}
