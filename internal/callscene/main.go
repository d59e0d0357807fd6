// Callscene is the program of guests that call functions of their own kernel,
// and their init. What the kernel answered stands in a file, a line of JSON for
// each call, with which a run of the same function on the guest's dump is
// compared.
//
// A system call is the way in: the host replaces the code of getpgid(2) by
// [callgate.Code], which jumps to a function that the caller names.
//
//	calls   wait for SIGUSR1, call the functions, write the file and stay
package main

import (
	"fmt"
	"os"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
	"github.com/ksleuth/ksleuth/internal/guest/guestinit"
)

func main() {
	if guestinit.Wanted() {
		guestinit.Main()
	}
	if len(os.Args) != 2 || os.Args[1] != "calls" {
		fmt.Fprintln(os.Stderr, "usage: callscene calls")
		os.Exit(2)
	}
	if err := calls(); err != nil {
		tell(callgate.Failed + err.Error())
		fmt.Fprintln(os.Stderr, "callscene:", err)
		os.Exit(1)
	}
}

// tell writes a line to the console.
func tell(line string) {
	f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}
