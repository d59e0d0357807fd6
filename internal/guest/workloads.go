package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/ksleuth/ksleuth/internal/guest/casee"
	"github.com/ksleuth/ksleuth/internal/guest/objects"
)

// population is the set of processes a scene has, by name.
var population = []string{"sleeper-a", "sleeper-b", "idle worker (x)"}

// idle populates the guest and sleeps.
func idle([]string) error {
	if err := populate(); err != nil {
		return err
	}
	objs, err := objects.Load()
	if err != nil {
		return err
	}
	defer objs.Close()
	fmt.Println("ready")
	forever()
	return nil
}

// crash populates the guest, says "ready", and triggers the conntrack bug when
// it gets SIGUSR1.
func crash([]string) error {
	if err := populate(); err != nil {
		return err
	}
	objs, err := objects.Load()
	if err != nil {
		return err
	}
	defer objs.Close()
	c, err := casee.Load()
	if err != nil {
		return err
	}
	defer c.Close()
	awaitTrigger()
	verdict, err := c.Run()
	if err != nil {
		return err
	}
	fmt.Printf("call_kfunc returned %d: this kernel does not have the bug\n", verdict)
	return nil
}

// whenTold makes a workload that sets the scene of idle, says "ready", and acts
// when it gets SIGUSR1.
func whenTold(act func() error) func([]string) error {
	return func([]string) error {
		if err := populate(); err != nil {
			return err
		}
		objs, err := objects.Load()
		if err != nil {
			return err
		}
		defer objs.Close()
		awaitTrigger()
		return act()
	}
}

// sysrq has the kernel crash itself.
func sysrq() error { return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) }

// getpgid calls the function that the host has patched.
func getpgid() error {
	_, err := syscall.Getpgid(0)
	return err
}

// awaitTrigger says "ready" and waits for SIGUSR1.
func awaitTrigger() {
	trigger := make(chan os.Signal, 1)
	signal.Notify(trigger, syscall.SIGUSR1)
	fmt.Println("ready")
	<-trigger
}

// populate starts the sleeping processes and waits until they have their
// names and files.
func populate() error {
	for _, name := range population {
		c := exec.Command("/proc/self/exe", "sleep", name)
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return fmt.Errorf("starting %s: %w", name, err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			return fmt.Errorf("starting %s: %w", name, err)
		}
	}
	return nil
}

// sleep takes the name args[0], opens a file and sleeps.
func sleep(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("sleep needs one name")
	}
	// The main thread's name is the process's name; this goroutine may run
	// on another one.
	comm := fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid())
	if err := os.WriteFile(comm, []byte(args[0]), 0); err != nil {
		return err
	}
	f, err := os.Open("/proc/version")
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("named")
	forever()
	return nil
}

// forever does not return. A select{} would be a deadlock to Go's runtime.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}
