// Guest is the program of test guests, and their init. Some subcommands set a
// scene and stay; others tell what the kernel itself says of it.
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/ksleuth/ksleuth/internal/guest/guestinit"
)

// workloads are the subcommands by name.
var workloads = map[string]func(args []string) error{
	"idle":      idle,
	"traced":    traced,
	"nanosleep": nanosleep,
	"stacks":    stacks,
	"casee":     crash,
	"sleep":     sleep,
	"ps":        ps,
	"dmesg":     dmesg,
	"sysrq":     whenTold(sysrq),
	"getpgid":   whenTold(getpgid),
	"offline":   offline,
	"loadcrash": loadCrashKernel,
	"savecore":  saveCore,
	"bpf":       listBPF,
}

func main() {
	// A crash kernel's init is told its task by the kernel's command line.
	if guestinit.Wanted() && !slices.Contains(os.Args, "savecore") {
		guestinit.Main()
	}
	if len(os.Args) < 2 || workloads[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: guest idle|casee|sysrq|getpgid|traced|ps|stacks|dmesg|bpf|loadcrash|savecore|offline CPU|sleep NAME|nanosleep NAME")
		os.Exit(2)
	}
	if err := workloads[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}
