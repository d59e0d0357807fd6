package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// enabledFunctions lists the functions that ftrace has somebody call: BPF
// trampolines and kprobes are called by it.
const enabledFunctions = "/sys/kernel/tracing/enabled_functions"

// outputFile is what a tracer prints; its disk is memory.
const outputFile = "/tracer.out"

// attachPatience is how long a tracer may take to attach, and to end.
const attachPatience = 10 * time.Minute

// An underTracer is what a workload and its tracer took.
type underTracer struct {
	Functions int    `json:"functions"` // that were traced
	Attach    int64  `json:"attach_ns"` // from its start until all functions were traced
	Detach    int64  `json:"detach_ns"` // from the interrupt to its end
	Events    int    `json:"events"`    // lines with the mark
	Bytes     int64  `json:"bytes"`     // of its output
	TracerNS  int64  `json:"tracer_cpu_ns"`
	Stderr    string `json:"stderr"`
	Workload  *took  `json:"workload"`
}

// under does a workload under a tracer.
func under(args []string) error {
	split := slices.Index(args, "--")
	if split < 3 || split+1 >= len(args) || workloads[args[2]] == nil {
		return errors.New(usage)
	}
	mark, workload, workArgs := args[1], workloads[args[2]], args[3:split]
	tracer, err := withFunctions(args[split+1:])
	if err != nil {
		return err
	}
	out, err := os.Create(outputFile)
	if err != nil {
		return err
	}
	defer out.Close()
	var errs bytes.Buffer
	cmd := exec.Command(tracer[0], tracer[1:]...)
	cmd.Stdout, cmd.Stderr = out, &errs
	var u underTracer
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if u.Functions, err = awaitTraced(args[0], ended); err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("%s: %w: %.1000s", tracer[0], err, errs.String())
	}
	u.Attach = time.Since(start).Nanoseconds()
	// The tracer may have more to do before it reads events.
	time.Sleep(time.Second)
	if u.Workload, err = workload(workArgs); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	// It is to read what there is: the interrupt must not cut it short.
	if err := awaitQuiet(out); err != nil {
		return err
	}
	start = time.Now()
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		return err
	}
	select {
	case err = <-ended:
	case <-time.After(attachPatience):
		return errors.Join(errors.New("the tracer does not end when it is interrupted"), cmd.Process.Kill())
	}
	u.Detach = time.Since(start).Nanoseconds()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	u.TracerNS = int64(cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime())
	u.Stderr = fmt.Sprintf("%.1000s", errs.String())
	if err := u.count(out, mark); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(&u)
}

// awaitTraced waits until so many functions are traced, or the one of that
// name, or the tracer ends. It returns how many functions are traced then.
func awaitTraced(what string, ended <-chan error) (int, error) {
	wanted, err := strconv.Atoi(what)
	named := err != nil
	for start := time.Now(); time.Since(start) < attachPatience; {
		b, err := os.ReadFile(enabledFunctions)
		if err != nil {
			return 0, err
		}
		lines := bytes.Count(b, []byte("\n"))
		if named && bytes.Contains(append([]byte("\n"), b...), []byte("\n"+what+" ")) || !named && lines >= wanted {
			return lines, nil
		}
		select {
		case err := <-ended:
			return 0, fmt.Errorf("the tracer ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return 0, fmt.Errorf("the tracer does not trace %s", what)
}

// awaitQuiet waits until a file does not grow any more, in half a second.
func awaitQuiet(f *os.File) error {
	for last := int64(-1); ; {
		st, err := f.Stat()
		if err != nil || st.Size() == last {
			return err
		}
		last = st.Size()
		time.Sleep(500 * time.Millisecond)
	}
}

// count counts the lines of the output that have the mark in them.
func (u *underTracer) count(out *os.File, mark string) error {
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		u.Bytes += int64(len(line))
		if strings.Contains(line, mark) {
			u.Events++
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
