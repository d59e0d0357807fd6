package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A command is a process to measure.
type command struct {
	name  string
	args  []string
	stdin string
	fault bool // exit status 1 is an answer: the kernel is at fault
	// discard sends the output to /dev/null: it is too much to be kept.
	discard bool
}

// ours is a ksleuth command about a dump.
func ours(binary, dump string, args ...string) command {
	return command{name: "ksleuth " + strings.Join(args, " "), args: append([]string{binary, "-t", dump}, args...), fault: true}
}

// peer is another tool's command.
func peer(name, stdin string, args ...string) command {
	return command{name: name, stdin: stdin, args: args}
}

// A cost is what a run took.
type cost struct {
	wall time.Duration
	rss  int64 // peak resident memory, in bytes
}

// String writes the cost in columns.
func (c cost) String() string {
	return fmt.Sprintf("%7.3f s %6.1f MiB", c.wall.Seconds(), float64(c.rss)/(1<<20))
}

// measure runs commands in turns and returns the median cost of each. The
// first round warms the page cache and is not counted.
func measure(ctx context.Context, runs int, commands ...command) ([]cost, error) {
	all := make([][]cost, len(commands))
	for round := range runs + 1 {
		for i, c := range commands {
			got, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				all[i] = append(all[i], got)
			}
		}
	}
	out := make([]cost, len(commands))
	for i, costs := range all {
		out[i] = median(costs)
	}
	return out, nil
}

// run runs the command once.
func (c command) run(ctx context.Context) (cost, error) {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Stdin = strings.NewReader(c.stdin)
	var out strings.Builder
	cmd.Stderr = &out
	if !c.discard {
		cmd.Stdout = &out
	}
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	var exit *exec.ExitError
	if err != nil && !(c.fault && errors.As(err, &exit) && exit.ExitCode() == 1) {
		return cost{}, fmt.Errorf("%w: %.500s", err, out.String())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return cost{}, errors.New("no resource usage")
	}
	return cost{wall, usage.Maxrss << 10}, nil
}

// median returns the median of the times and that of the memory.
func median(costs []cost) cost {
	mid := func(compare func(a, b cost) int) cost {
		s := slices.SortedFunc(slices.Values(costs), compare)
		return s[len(s)/2]
	}
	return cost{
		wall: mid(func(a, b cost) int { return cmp.Compare(a.wall, b.wall) }).wall,
		rss:  mid(func(a, b cost) int { return cmp.Compare(a.rss, b.rss) }).rss,
	}
}
