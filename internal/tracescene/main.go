// Tracescene is the program of guests in which calls are traced, and their
// init. Its scenes keep accounts of their own of what was called and what was
// returned, for a tracer to be judged by. A scene says "ready", stays, and does
// what it is told by the same program:
//
//	tracescene casea [--percpu]  a verdict by a replaced function, a plain one and a tail call
//	tracescene cased             the tail call hierarchy
//	tracescene dispatcher        ten modules of all kinds, nested
//	tracescene packets           copies of all packets that pass
//	tracescene do SCENE COMMAND [ARG...]
//
// "do" prints the answer, one line of JSON. Each scene has the commands
//
//	objects          what was made: names of programs and their ids, devices, and what was left out
//	counters         of each program and function how often it was entered, and what it returned
//	reset            all counters become zero
//	quit             the scene ends
//
// those with devices, tsNa to send and tsNb to receive
//
//	send N [RATE]    N packets with the sequence numbers from 0, RATE a second, and where they went
//
// and more, which are described with the scene. Without a scene are
//
//	tracescene calls KIND N [THREADS [ROUNDS]] N system calls a round, and what they took
//	tracescene rate KIND PER_SECOND SECONDS    so many calls a second
//	tracescene none                            nothing
//	tracescene functions N                     the names of N kernel functions that can be traced
//	tracescene under FUNCTIONS MARK WORKLOAD [ARG...] -- TRACER [ARG...]
//
// The last one runs a tracer, waits until so many functions are traced, or the
// one of that name, does one of calls, rate and none, interrupts the tracer,
// and prints what it all took and how many lines of the tracer's output have
// the mark in them. "{N}" among the tracer's arguments stands for the names of
// N functions, and "{N PREFIX}" within one for a list of them with a prefix
// each.
package main

import (
	"fmt"
	"os"

	"github.com/ksleuth/ksleuth/internal/guest/guestinit"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c casea.bpf.c -o casea.bpf.o
//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c cased.bpf.c -o cased.bpf.o
//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c dispatcher.bpf.c -o dispatcher.bpf.o
//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c packets.bpf.c -o packets.bpf.o

const usage = "usage: tracescene casea [--percpu]|cased|dispatcher|packets|do SCENE COMMAND...|calls KIND N [THREADS [ROUNDS]]|rate KIND PER_SECOND SECONDS|none|functions N|under FUNCTIONS MARK WORKLOAD... -- TRACER [ARG]"

func main() {
	if guestinit.Wanted() {
		guestinit.Main()
	}
	commands := map[string]func(args []string) error{
		"casea":      stay("casea", setCaseA),
		"cased":      stay("cased", setCaseD),
		"dispatcher": stay("dispatcher", setDispatcher),
		"packets":    stay("packets", setPackets),
		"do":         do,
		"calls":      printed("calls"),
		"rate":       printed("rate"),
		"none":       printed("none"),
		"functions":  functions,
		"under":      under,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "tracescene:", err)
		os.Exit(1)
	}
}
