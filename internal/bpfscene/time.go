package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// timed runs commands in turns, so that what slows the guest slows all, and
// prints the median time of each in microseconds. The first round is not
// counted.
//
//	bpfscene time ROUNDS COMMAND [ARG...] [-- COMMAND [ARG...]]...
func timed(args []string) error {
	if len(args) < 2 {
		return errors.New("time needs a number and a command")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var commands [][]string
	for rest := args[1:]; len(rest) > 0; {
		n := slices.Index(rest, "--")
		if n < 0 {
			n = len(rest)
		}
		commands = append(commands, rest[:n])
		rest = rest[min(n+1, len(rest)):]
	}
	took := make([][]time.Duration, len(commands))
	for round := range rounds + 1 {
		for i, c := range commands {
			cmd := exec.Command(c[0], c[1:]...)
			var errs strings.Builder
			cmd.Stdout, cmd.Stderr = io.Discard, &errs
			start := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%v: %w: %s", c, err, errs.String())
			}
			if round > 0 {
				took[i] = append(took[i], time.Since(start))
			}
		}
	}
	for _, t := range took {
		slices.Sort(t)
		fmt.Println(t[len(t)/2].Microseconds())
	}
	return nil
}
