// Bpfscene is the program of guests full of BPF objects, and their init. Its
// scenes make the objects and stay; what a kernel lacks is left out and said
// in a list. None of them runs a path that is known to break a kernel.
//
//	zoo        every kind of program, map, link and attachment
//	many N     N programs and N maps
//	churn      objects that come and go until the program is killed
//	jited      print all programs' machine code
//	time ...   measure commands
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/ksleuth/ksleuth/internal/guest/guestinit"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c zoo.bpf.c -o zoo.bpf.o
//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c idioms.bpf.c -o idioms.bpf.o
//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../guest/include -c tcp.bpf.c -o tcp.bpf.o

// commands are the subcommands by name; hold and load are the zoo's own.
var commands = map[string]func(args []string) error{
	"zoo":   showZoo,
	"many":  many,
	"churn": churn,
	"hold":  hold,
	"load":  loadUnprivileged,
	"jited": jited,
	"time":  timed,
}

func main() {
	if guestinit.Wanted() {
		guestinit.Main()
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bpfscene zoo|many N|churn|jited|time ROUNDS COMMAND...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bpfscene:", err)
		os.Exit(1)
	}
}

// forever does not return, but the caller must not know: what it defers keeps
// objects alive. A select{} would be a deadlock to Go's runtime.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}
