package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/rival"
	"github.com/ksleuth/ksleuth/vm"
)

// tracedKernels are the kernels that tracing is measured on.
var tracedKernels = []string{"5.10", "6.1", "6.12", "7.2"}

// What is traced: a function that one system call calls and nothing else does,
// and many that nothing calls.
const (
	tracedCall     = "getpgid"
	tracedFunction = "__x64_sys_getpgid"
	manyFunctions  = 500
	manyPattern    = "ip*" // some more than that, which no packet calls
)

// guestTraceScene is internal/tracescene's program in the guest.
const guestTraceScene = "/tracescene"

// A tracer's command lines, as words in the guest.
type tracer struct {
	name string
	// count counts the calls of a function in the kernel, events prints a
	// line for each, with the mark in it.
	count, events func(function string) []string
	mark          string
	// attach counts the calls of functions. A tracer may have several ways.
	attach []attachment
}

// An attachment is a way to trace many functions.
type attachment struct {
	how     string
	command []string // internal/tracescene puts the functions in place
}

// ksleuth is what is measured.
func ksleuth() tracer {
	return tracer{
		name:   "ksleuth",
		count:  func(f string) []string { return []string{guestKsleuth, "trace", "--count", f} },
		events: func(f string) []string { return []string{guestKsleuth, "trace", "--exit-only", "-o", "json", f} },
		mark:   `"type":"call"`,
		attach: []attachment{
			{"names", []string{guestKsleuth, "trace", "--count", fmt.Sprintf("{%d}", manyFunctions)}},
			{"pattern", []string{guestKsleuth, "trace", "--count", manyPattern}},
		},
	}
}

// bpftrace does the same.
func bpftrace(tool *rival.Tool) tracer {
	script := func(text string) []string { return tool.Words("-e", text) }
	return tracer{
		name:   "bpftrace",
		count:  func(f string) []string { return script("kretfunc:" + f + " { @ = count(); }") },
		events: func(f string) []string { return script("kretfunc:" + f + ` { printf("event %d\n", retval); }`) },
		mark:   "event ",
		attach: []attachment{
			{"names, kretfunc", script(fmt.Sprintf("{%d kretfunc:} { @ = count(); }", manyFunctions))},
			{"pattern, kprobe", script("kprobe:" + manyPattern + " { @ = count(); }")},
		},
	}
}

// tracing measures trace beside bpftrace, in the same guests: what a call costs
// that is traced, how many events a second are printed without loss, and what
// it takes to attach to many functions and to leave them.
func tracing(ctx context.Context, w io.Writer, binary string, runs int) error {
	program, err := dumptest.Build("tracescene")
	if err != nil {
		return err
	}
	files := map[string]string{guestTraceScene: program, guestKsleuth: binary}
	tracers := []tracer{ksleuth()}
	peer, err := rival.Bpftrace()
	var missing *rival.MissingError
	switch {
	case errors.As(err, &missing):
		fmt.Fprintln(w, "bpftrace is left out:", err)
	case err != nil:
		return err
	default:
		tracers = append(tracers, bpftrace(peer))
		maps.Copy(files, peer.Files)
	}
	for _, name := range tracedKernels {
		kernel, err := vm.FindKernel(name)
		if err != nil {
			return err
		}
		cfg := vm.Config{Kernel: kernel, Init: program, Files: files, MemoryMiB: 2048}
		fmt.Fprintf(w, "calls of %s traced on %s\n", tracedFunction, name)
		// On one processor the time of the caller's thread has nothing of the
		// tracer's own process in it.
		cfg.CPUs = 1
		if err := inGuest(ctx, cfg, func(g *traceGuest) error { return g.costs(w, tracers, runs) }); err != nil {
			return err
		}
		cfg.CPUs = 2
		if err := inGuest(ctx, cfg, func(g *traceGuest) error {
			g.rates(w, tracers)
			g.attaching(w, tracers)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// A traceGuest is a guest in which tracers are measured.
type traceGuest struct {
	*vm.VM
	ctx context.Context
}

func inGuest(ctx context.Context, cfg vm.Config, measure func(*traceGuest) error) error {
	v, err := vm.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	return measure(&traceGuest{v, ctx})
}

// scene runs internal/tracescene's program and returns what it prints.
func (g *traceGuest) scene(args ...string) (string, error) {
	var out, errs strings.Builder
	if err := g.Run(g.ctx, vm.Cmd{Path: guestTraceScene, Args: args, Stdout: &out, Stderr: &errs}); err != nil {
		return "", fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// A workloadCost is what internal/tracescene says of calls.
type workloadCost struct {
	Calls   int
	Wall    int64   `json:"wall_ns"`
	PerCall float64 `json:"cpu_ns_per_call"`
}

// A tracedCost is what it says of calls and their tracer.
type tracedCost struct {
	Functions int
	Attach    int64 `json:"attach_ns"`
	Detach    int64 `json:"detach_ns"`
	Events    int
	Workload  workloadCost
}

// under runs a workload under a tracer of so many functions, or of the one.
func (g *traceGuest) under(functions, mark string, command, workload []string) (tracedCost, error) {
	args := append([]string{"under", functions, mark}, workload...)
	out, err := g.scene(append(append(args, "--"), command...)...)
	if err != nil {
		return tracedCost{}, err
	}
	var c tracedCost
	return c, json.Unmarshal([]byte(out), &c)
}

// costs measures what tracing adds to a call, by the caller's time. The least
// of some rounds counts: what disturbs only adds.
func (g *traceGuest) costs(w io.Writer, tracers []tracer, runs int) error {
	rounds := strconv.Itoa(10 * runs)
	counted := []string{"calls", tracedCall, "50000", "1", rounds}
	// So few lines that the tracer's buffer has room for all: those that are
	// lost cost less.
	printed := []string{"calls", tracedCall, "2000", "1", rounds}
	out, err := g.scene(counted...)
	if err != nil {
		return err
	}
	var bare workloadCost
	if err := json.Unmarshal([]byte(out), &bare); err != nil {
		return err
	}
	fmt.Fprintf(w, "  a call, not traced         %8.0f ns\n", bare.PerCall)
	for _, t := range tracers {
		for _, way := range []struct {
			what           string
			command, calls []string
		}{{"counted", t.count(tracedFunction), counted}, {"printed", t.events(tracedFunction), printed}} {
			c, err := g.under(tracedFunction, t.mark, way.command, way.calls)
			if err != nil {
				fmt.Fprintf(w, "  %-8s is left out: %v\n", t.name, err)
				continue
			}
			fmt.Fprintf(w, "  %-8s %s adds    %8.0f ns\n", t.name, way.what, c.Workload.PerCall-bare.PerCall)
		}
	}
	return nil
}

// rates finds the highest rate of events, printed to a file, of which none is
// lost in some seconds: by doubling, then by halving the interval.
func (g *traceGuest) rates(w io.Writer, tracers []tracer) {
	const first, steps, seconds = 5000, 4, 3
	for _, t := range tracers {
		lossless := func(rate int) (bool, error) {
			c, err := g.under(tracedFunction, t.mark, t.events(tracedFunction), []string{"rate", tracedCall, strconv.Itoa(rate), strconv.Itoa(seconds)})
			late := time.Duration(c.Workload.Wall) > (seconds+1)*time.Second
			return err == nil && c.Events == c.Workload.Calls && !late, err
		}
		good, bad := 0, 0
		var err error
		for rate := first; bad == 0 && err == nil && rate <= first<<9; rate *= 2 {
			var ok bool
			if ok, err = lossless(rate); ok {
				good = rate
			} else {
				bad = rate
			}
		}
		for range steps {
			if err != nil || bad == 0 {
				break
			}
			middle := (good + bad) / 2
			var ok bool
			if ok, err = lossless(middle); ok {
				good = middle
			} else {
				bad = middle
			}
		}
		if err != nil {
			fmt.Fprintf(w, "  %-8s is left out: %v\n", t.name, err)
			continue
		}
		fmt.Fprintf(w, "  %-8s prints without loss %8d events a second\n", t.name, good)
	}
}

// attaching measures how long it takes to attach to many functions, and to
// leave them, the tracer's start and end included.
func (g *traceGuest) attaching(w io.Writer, tracers []tracer) {
	for _, t := range tracers {
		for _, way := range t.attach {
			c, err := g.under(strconv.Itoa(manyFunctions), t.mark, way.command, []string{"none"})
			if err != nil {
				fmt.Fprintf(w, "  %-8s by %s is left out: %v\n", t.name, way.how, err)
				continue
			}
			fmt.Fprintf(w, "  %-8s by %-15s attaches to %d functions in %6.2f s, leaves in %6.2f s\n",
				t.name, way.how, c.Functions, time.Duration(c.Attach).Seconds(), time.Duration(c.Detach).Seconds())
		}
	}
}
