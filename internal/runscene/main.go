// Runscene is the program of guests whose kernels are brought into states that
// are examined by running their code again, and their init.
//
//	casee VARIANT [TIMES]  the conntrack kfunc bug, by a program of the object casee
//	ringbuf                rounds of trace events until the reader of trace_pipe spins
//	ringbuf ROUNDS         so many rounds, with the last one's events drained
//	netstats               read the statistics of all network devices
//	oom                    use up the memory
//
// Each says "ready" when all is prepared, and acts when it gets SIGUSR1.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/guest/guestinit"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c casee.bpf.c -o casee.bpf.o

// commands are the subcommands by name; traceworker is ringbuf's own.
var commands = map[string]func(args []string) error{
	"casee":       caseE,
	"ringbuf":     ringbuf,
	"traceworker": traceWorker,
	"netstats":    netstats,
	"oom":         oom,
}

func main() {
	if guestinit.Wanted() {
		guestinit.Main()
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: runscene casee VARIANT [TIMES]|ringbuf [ROUNDS]|netstats|oom")
		os.Exit(2)
	}
	err := os.WriteFile(programsFile, nil, 0o644)
	if err == nil {
		err = commands[os.Args[1]](os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runscene:", err)
		os.Exit(1)
	}
}

// awaitTrigger says "ready" and waits for SIGUSR1.
func awaitTrigger() {
	trigger := make(chan os.Signal, 1)
	signal.Notify(trigger, syscall.SIGUSR1)
	fmt.Println("ready")
	<-trigger
}

// say writes a line to the kernel's log, which the console shows.
func say(format string, args ...any) error {
	return os.WriteFile("/dev/kmsg", fmt.Appendf(nil, "<2>runscene: "+format+"\n", args...), 0)
}

// forever does not return. A select{} would be a deadlock to Go's runtime.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

// netstats reads the statistics of all devices, for which each driver is asked.
func netstats([]string) error {
	awaitTrigger()
	_, err := os.ReadFile("/proc/net/dev")
	return err
}

// oom touches memory until there is none.
func oom([]string) error {
	awaitTrigger()
	const chunk = 1 << 20
	for {
		b, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		for i := 0; i < chunk; i += os.Getpagesize() {
			b[i] = 1
		}
	}
}
