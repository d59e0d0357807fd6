// Livetest is a program for guests in which ksleuth examines the kernel it runs
// on: it runs commands with less than root's permissions, and has tasks that
// run or come and go.
//
//	livetest nobody COMMAND ARG...          as an unprivileged user
//	livetest without CAP,... COMMAND ARG... as root without capabilities, by number
//	livetest hide PATH COMMAND ARG...       with /dev/null at the place of a file, as in containers
//	livetest secured COMMAND ARG...         with securityfs mounted
//	livetest spin NAME                      run in user space for ever
//	livetest syscalls NAME                  run in the kernel for ever
//	livetest churn                          start and end processes for ever
//	livetest again COMMAND ARG...           run a command for ever
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var commands = map[string]func(args []string) error{
	"nobody":   nobody,
	"without":  without,
	"hide":     hide,
	"secured":  secured,
	"spin":     spin,
	"syscalls": syscalls,
	"churn":    churn,
	"again":    again,
	"end":      func([]string) error { return nil },
}

// What runs is the main thread, whose number is the process's.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: livetest nobody|without|hide|secured|spin|syscalls|churn|again ...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "livetest:", err)
		os.Exit(1)
	}
}

// nobody becomes the user nobody and the given command.
func nobody(args []string) error {
	const uid = 65534
	if err := errors.Join(unix.Setgroups(nil), unix.Setresgid(uid, uid, uid), unix.Setresuid(uid, uid, uid)); err != nil {
		return err
	}
	return become(args)
}

// without gives up capabilities and becomes the given command.
func without(args []string) error {
	if len(args) < 2 {
		return errors.New("without needs capabilities and a command")
	}
	for cap := range strings.SplitSeq(args[0], ",") {
		n, err := strconv.Atoi(cap)
		if err != nil {
			return err
		}
		// Root's exec gives what is in the bounding set.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("dropping capability %d: %w", n, err)
		}
	}
	return become(args[1:])
}

// hide covers a file in a mount namespace of its own and becomes the given
// command.
func hide(args []string) error {
	if len(args) < 2 {
		return errors.New("hide needs a path and a command")
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("/dev/null", args[0], "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return become(args[1:])
}

func secured(args []string) error {
	if err := unix.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err != nil {
		return err
	}
	return become(args)
}

func become(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	return unix.Exec(args[0], args, os.Environ())
}

// named gives the main thread its name.
func named(args []string) error {
	if len(args) != 1 {
		return errors.New("one name is needed")
	}
	if err := os.WriteFile("/proc/self/comm", []byte(args[0]), 0); err != nil {
		return err
	}
	fmt.Println("ready")
	return nil
}

func spin(args []string) error {
	if err := named(args); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if n < 0 {
			return nil
		}
	}
}

// syscalls spends nearly all its time in the kernel: it reads zeros.
func syscalls(args []string) error {
	fd, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := named(args); err != nil {
		return err
	}
	for buf := make([]byte, 4<<20); ; {
		if _, err := unix.Read(fd, buf); err != nil {
			return err
		}
	}
}

func churn([]string) error {
	fmt.Println("ready")
	return again([]string{"/proc/self/exe", "end"})
}

func again(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	for {
		if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
			return err
		}
	}
}
