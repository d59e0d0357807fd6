package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vm"
)

// many is the number of programs and of maps in the guest.
const many = "500"

// Paths in the guest.
const (
	guestScene   = "/bpfscene"
	guestKsleuth = "/ksleuth"
	guestBpftool = "/bpftool"
)

// objects measures progs and maps beside bpftool on a running kernel with many
// of both, in one guest.
func objects(ctx context.Context, w io.Writer, binary string, runs int) error {
	cache, err := vm.CacheDir()
	if err != nil {
		return err
	}
	tools := filepath.Join(cache, "bpftool")
	if _, err := os.Stat(tools); err != nil {
		fmt.Fprintln(w, "BPF objects are left out: no bpftool (scripts/kernels --bpftool)")
		return nil
	}
	program, err := dumptest.Build("bpfscene")
	if err != nil {
		return err
	}
	kernel, err := vm.FindKernel(judged)
	if err != nil {
		return err
	}
	guest, err := vm.Start(ctx, vm.Config{
		Kernel: kernel, Init: program, Files: map[string]string{guestScene: program, guestKsleuth: binary, guestBpftool: tools},
	})
	if err != nil {
		return err
	}
	defer guest.Close()
	ready := make(chan struct{}, 1)
	if _, err := guest.StartProcess(ctx, vm.Cmd{Path: guestScene, Args: []string{"many", many}, Stdout: dumptest.Announce(ready), Stderr: os.Stderr}); err != nil {
		return err
	}
	select {
	case <-ready:
	case <-guest.Done():
		return vm.ErrExited
	case <-ctx.Done():
		return ctx.Err()
	}
	fmt.Fprintf(w, "a guest with %s BPF programs and %s maps\n", many, many)
	for _, what := range []string{"prog", "map"} {
		if err := objectsOf(ctx, w, guest, what, runs); err != nil {
			return err
		}
	}
	return nil
}

// objectsOf measures one kind of objects, as text and as JSON.
func objectsOf(ctx context.Context, w io.Writer, guest *vm.VM, what string, runs int) error {
	bpftool := []string{guestBpftool + "/ld-linux-x86-64.so.2", "--library-path", guestBpftool, guestBpftool + "/bpftool"}
	commands := [][]string{
		{guestKsleuth, what + "s"},
		slices.Concat(bpftool, []string{what, "show"}),
		{guestKsleuth, "-o", "json", what + "s"},
		slices.Concat(bpftool, []string{"-j", what, "show"}),
	}
	args := []string{"time", strconv.Itoa(runs)}
	for i, c := range commands {
		if i > 0 {
			args = append(args, "--")
		}
		args = append(args, c...)
	}
	var out, errs strings.Builder
	if err := guest.Run(ctx, vm.Cmd{Path: guestScene, Args: args, Stdout: &out, Stderr: &errs}); err != nil {
		return fmt.Errorf("%w: %s", err, errs.String())
	}
	var took []time.Duration
	for _, f := range strings.Fields(out.String()) {
		us, err := strconv.Atoi(f)
		if err != nil {
			return err
		}
		took = append(took, time.Duration(us)*time.Microsecond)
	}
	if len(took) != len(commands) {
		return fmt.Errorf("the guest measured %q", out.String())
	}
	for i, form := range []string{"", "-j "} {
		ours, theirs := took[2*i], took[2*i+1]
		fmt.Fprintf(w, "  ksleuth %-14s %7.3f s    bpftool %-12s %7.3f s    %.2f of its time\n",
			strings.Join(commands[2*i][1:], " "), ours.Seconds(), form+what+" show", theirs.Seconds(), ours.Seconds()/theirs.Seconds())
	}
	return nil
}
