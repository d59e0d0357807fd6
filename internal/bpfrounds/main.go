// Bpfrounds is a program for guests in which BPF objects come and go: it runs
// ksleuth's commands many times, in this process and some in processes of their
// own, and checks what they say by the names that internal/bpfscene's churn
// gives its objects.
//
//	bpfrounds KSLEUTH ROUNDS
//
// It prints a line for each thing that is wrong, and for each command how often
// it ended with which status. Its exit status is 1 if anything was wrong.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/cli"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bpfrounds KSLEUTH ROUNDS")
		os.Exit(2)
	}
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bpfrounds:", err)
		os.Exit(2)
	}
	r := rounds{ksleuth: os.Args[1], checker: newChecker(), status: map[string]map[int]int{}, took: map[string]time.Duration{}}
	for i := range n {
		r.round(i)
	}
	r.summary(n)
	if len(r.wrong) > 0 {
		os.Exit(1)
	}
}

// commands are run in each round. {prog} and {map} stand for the id of a
// program or map that was there a moment ago.
var commands = [][]string{
	{"progs"}, {"maps"}, {"links"}, {"trampolines"}, {"graph"}, {"disasm", "prog:{prog}"}, {"maps", "{map}", "--entries"},
}

type rounds struct {
	ksleuth string
	*checker
	status map[string]map[int]int // by command and exit status
	took   map[string]time.Duration
}

// every is how many rounds have one with processes of their own.
const every = 25

func (r *rounds) round(i int) {
	for _, c := range commands {
		args := []string{"-o", "json"}
		gone := false // the object may be gone when it is asked for
		for _, a := range c {
			if strings.Contains(a, "{") {
				gone = true
			}
			a = strings.ReplaceAll(a, "{prog}", r.last("prog", i))
			args = append(args, strings.ReplaceAll(a, "{map}", r.last("map", i)))
		}
		name := strings.Join(c, " ")
		start := time.Now()
		status, out, errs := r.run(i%every == every-1, args)
		r.took[name] += time.Since(start)
		if r.status[name] == nil {
			r.status[name] = map[int]int{}
		}
		r.status[name][status]++
		switch {
		case status == int(cli.StatusOK):
		case gone && status == int(cli.StatusUsage) && strings.Contains(out+errs, "there is no"):
			// Said so.
		default:
			r.report("round %d: %s: exit status %d: %.600s %.300s", i, strings.Join(args, " "), status, errs, lastLine(out))
		}
		r.check(i, args, out)
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// run runs a command here or as a process. A panic here ends the program,
// which the host sees.
func (r *rounds) run(process bool, args []string) (status int, out, errs string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var o, e bytes.Buffer
	if !process {
		status = cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: &o, Err: &e})
		return status, o.String(), e.String()
	}
	c := exec.CommandContext(ctx, r.ksleuth, args...)
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), o.String(), e.String()
	} else if err != nil {
		return -1, o.String(), err.Error()
	}
	return 0, o.String(), e.String()
}

// check parses the answer and checks each line of it.
func (r *rounds) check(i int, args []string, out string) {
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var line struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		if err := dec.Decode(&line); err != nil {
			r.report("round %d: %v: %v", i, args, err)
			return
		}
		if err := r.line(line.Type, line.Data, args); err != nil {
			r.report("round %d: %v: %v", i, args, err)
		}
	}
}

func (r *rounds) summary(n int) {
	for _, c := range commands {
		name := strings.Join(c, " ")
		var parts []string
		for status, times := range r.status[name] {
			parts = append(parts, fmt.Sprintf("status %d: %d", status, times))
		}
		slices.Sort(parts)
		fmt.Printf("%s: %s; %v each\n", name, strings.Join(parts, ", "), (r.took[name] / time.Duration(max(n, 1))).Round(time.Millisecond))
	}
	fmt.Printf("%d names checked; %d of objects that were seen by id before\n", r.checked, r.known)
}
