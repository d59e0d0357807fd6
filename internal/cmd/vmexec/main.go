// Vmexec runs a test binary in a guest, for "go test -exec":
//
//	CGO_ENABLED=0 go test -exec 'vmexec -kernel 6.1' ./...
//
// The guest sees the test's working directory under the same path, with its
// testdata and what -copy names. Arguments, KSLEUTH_ variables and the exit
// status pass through; profiles come back. Status 125 means that the guest
// failed, not the test.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ksleuth/ksleuth/vm"
)

// guestFailed is the exit status for a guest that could not be run.
const guestFailed = 125

// guestBinary is the test binary's name in the guest.
const guestBinary = "/guest.test"

type options struct {
	kernel, cmdline, cpu string
	modules, copies      string
	cpus, memory         int
	timeout              time.Duration
	verbose              bool
}

func main() {
	vm.InitMain()
	var o options
	flag.StringVar(&o.kernel, "kernel", os.Getenv("KSLEUTH_KERNEL"), "kernel to boot: a name known to scripts/kernels, or a path")
	flag.StringVar(&o.cmdline, "cmdline", "", "appended to the kernel's command line")
	flag.StringVar(&o.cpu, "cpu", "", "QEMU's -cpu")
	flag.StringVar(&o.modules, "modules", "", "kernel modules to load, with commas")
	flag.StringVar(&o.copies, "copy", "", "more files and directories the test reads, with commas")
	flag.IntVar(&o.cpus, "cpus", 2, "processors")
	flag.IntVar(&o.memory, "memory", 512, "memory in MiB")
	flag.DurationVar(&o.timeout, "timeout", 15*time.Minute, "kill the guest after this time")
	flag.BoolVar(&o.verbose, "console", false, "show the guest's console")
	flag.Parse()
	if flag.NArg() == 0 || o.kernel == "" {
		fmt.Fprintln(os.Stderr, "usage: vmexec -kernel NAME [flags] TEST-BINARY [arguments]")
		flag.PrintDefaults()
		os.Exit(2)
	}
	os.Exit(status(run(o, flag.Arg(0), flag.Args()[1:])))
}

// status turns the outcome into an exit status, and says what went wrong with
// the guest.
func status(err error) int {
	var exit *vm.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Signal != 0:
		fmt.Fprintln(os.Stderr, "vmexec: the test was", err)
		return 128 + int(exit.Signal)
	case errors.As(err, &exit):
		return exit.Code
	}
	fmt.Fprintln(os.Stderr, "vmexec:", err)
	return guestFailed
}

func run(o options, binary string, args []string) error {
	kernel, err := vm.FindKernel(o.kernel)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	args, outputs, dirs := splitOutputs(args, dir)
	empty, err := os.MkdirTemp("", "vmexec-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(empty)
	cfg := vm.Config{
		Kernel: kernel, CPUs: o.cpus, MemoryMiB: o.memory, CPU: o.cpu, Cmdline: o.cmdline,
		Modules: list(o.modules),
		Files:   guestFiles(dir, binary, empty, list(o.copies), append(dirs, dir)),
	}
	if o.verbose {
		cfg.Console = os.Stderr
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), o.timeout, fmt.Errorf("the test takes more than %v", o.timeout))
	defer cancel()
	v, err := vm.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	for _, e := range v.SetupErrors() {
		fmt.Fprintln(os.Stderr, "vmexec: in the guest:", e)
	}
	err = runTest(ctx, v, vm.Cmd{Path: guestBinary, Args: args, Env: environment(os.Environ(), o.kernel), Dir: dir, Stdout: os.Stdout, Stderr: os.Stderr})
	return errors.Join(err, fetch(ctx, v, outputs))
}

// runTest runs the test, and passes on the signals with which the go command
// ends one.
func runTest(ctx context.Context, v *vm.VM, c vm.Cmd) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	p, err := v.StartProcess(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case s := <-signals:
				_ = p.Signal(ctx, s.(syscall.Signal))
			case <-ctx.Done():
				return
			}
		}
	}()
	return p.Wait(ctx)
}

// guestFiles says what the guest has besides its init. The directories the
// test runs in and writes to are there, if only empty.
func guestFiles(dir, binary, empty string, copies, dirs []string) map[string]string {
	files := map[string]string{guestBinary: binary}
	for _, d := range dirs {
		files[d] = empty
	}
	if _, err := os.Stat(filepath.Join(dir, "testdata")); err == nil {
		copies = append(copies, "testdata")
	}
	for _, c := range copies {
		c = absolute(c, dir)
		files[c] = c
	}
	return files
}

// outputFlags are the test flags that name a file to write.
var outputFlags = []string{"blockprofile", "coverprofile", "cpuprofile", "memprofile", "mutexprofile", "trace"}

// splitOutputs makes the paths among a test binary's flags absolute, and finds
// the files it will write and the directories that must exist for it.
// -test.testlogfile is dropped: it lists the files on which a cached result
// depends, and those of a guest are not those of the host.
func splitOutputs(args []string, dir string) (guestArgs, outputs, dirs []string) {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		flagName, isTest := strings.CutPrefix(name, "-test.")
		switch {
		case !isTest || value == "":
		case flagName == "testlogfile":
			continue
		case flagName == "gocoverdir":
			dirs = append(dirs, value)
		case slices.Contains(outputFlags, flagName):
			value = absolute(value, dir)
			a = name + "=" + value
			outputs = append(outputs, value)
			dirs = append(dirs, filepath.Dir(value))
		}
		guestArgs = append(guestArgs, a)
	}
	return guestArgs, outputs, dirs
}

func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// fetch copies the test's output files to the host.
func fetch(ctx context.Context, v *vm.VM, outputs []string) error {
	var errs []error
	for _, out := range outputs {
		f, err := os.Create(out)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, v.CopyFile(ctx, io.Writer(f), out), f.Close())
	}
	return errors.Join(errs...)
}

// environment picks what the test in the guest may see: our variables, but
// those about files and machines of the host, and the Go runtime's.
func environment(host []string, kernel string) []string {
	env := []string{"KSLEUTH_GUEST=" + kernel}
	for _, kv := range host {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "KSLEUTH_CACHE" || name == "KSLEUTH_KERNELS" || name == "KSLEUTH_REQUIRE_VM":
		case strings.HasPrefix(name, "KSLEUTH_") || name == "GODEBUG" || name == "GOTRACEBACK":
			env = append(env, kv)
		}
	}
	return env
}

// list splits a flag's value at commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
