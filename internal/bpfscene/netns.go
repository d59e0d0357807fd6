package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNewNetNs runs use in a network namespace of its own, which lives on.
func (z *zoo) inNewNetNs(use func(ns int) error) error {
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine: it is not unlocked.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("a new network namespace: %w", err)
			}
			ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
			if err != nil {
				return err
			}
			z.kept = append(z.kept, ns)
			return use(int(ns.Fd()))
		}()
	}()
	return <-done
}
