package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/ksleuth/ksleuth/internal/guest/wire"
	"github.com/ksleuth/ksleuth/vm/internal/qmp"
)

// tailLines is how much of the console an error shows.
const tailLines = 25

// A VM is a running guest. Its methods are safe for concurrent use.
type VM struct {
	cfg     Config
	dir     string
	cmd     *exec.Cmd
	stderr  strings.Builder // QEMU's; read only after done is closed
	console *console
	conns   map[string]net.Conn
	ready   wire.Ready

	kill      context.CancelCauseFunc // ends the guest, for a reason
	killed    context.Context
	done      chan struct{} // closed when QEMU has exited
	closeOnce sync.Once
	closeErr  error

	sendMu sync.Mutex // one request at a time on the control line
	mu     sync.Mutex
	lastID uint32
	procs  map[uint32]*Process
	broken error // the control line ended; set before done

	monMu  sync.Mutex // the monitor and the gdb stub
	mon    *qmp.Client
	gdbOn  bool
	paused bool
}

// Start boots a guest and waits until its init is ready. The guest lives until
// Close, or until ctx ends: then it is killed, and whatever waited for it gets
// a [*GuestError] that shows the end of its console.
func Start(ctx context.Context, cfg Config) (*VM, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := socketDir()
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	v := &VM{cfg: cfg, dir: dir, console: newConsole(cfg.Console), conns: make(map[string]net.Conn), done: make(chan struct{}), procs: make(map[uint32]*Process)}
	v.killed, v.kill = context.WithCancelCause(ctx)
	if err := v.boot(); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// socketDir makes a directory whose sockets' paths fit into a sockaddr_un.
func socketDir() (string, error) {
	dir, err := os.MkdirTemp("", "ksleuth-vm-")
	if err == nil && len(dir) > 90 {
		os.Remove(dir)
		return os.MkdirTemp("/tmp", "ksleuth-vm-")
	}
	return dir, err
}

func (v *VM) boot() error {
	if err := v.cfg.WriteInitramfs(filepath.Join(v.dir, initramfsFile)); err != nil {
		close(v.done)
		return fmt.Errorf("vm: %w", err)
	}
	if err := v.startQEMU(); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(v.console, v.conns[consoleSocket]) }()
	mon, err := qmp.NewClient(v.conns[qmpSocket])
	if err != nil {
		return v.failure("starting QEMU", err)
	}
	v.mon = mon
	r := bufio.NewReader(v.conns[controlSocket])
	hello, err := wire.Read(r)
	if err == nil && hello.Kind != wire.Hello {
		err = fmt.Errorf("the guest's first message is of kind %d", hello.Kind)
	}
	if err == nil {
		err = json.Unmarshal(hello.Payload, &v.ready)
	}
	if err != nil {
		return v.failure("booting "+v.cfg.Kernel.Release, err)
	}
	go v.dispatch(r)
	return nil
}

// startQEMU starts QEMU and takes its connections. From here on QEMU's exit
// closes v.done.
func (v *VM) startQEMU() error {
	listeners := make(map[string]net.Listener)
	for _, name := range []string{consoleSocket, controlSocket, qmpSocket} {
		l, err := net.Listen("unix", filepath.Join(v.dir, name))
		if err != nil {
			close(v.done)
			return fmt.Errorf("vm: %w", err)
		}
		defer l.Close()
		listeners[name] = l
	}
	if err := v.runQEMU(func() {
		for _, l := range listeners {
			l.Close()
		}
	}); err != nil {
		return err
	}
	for name, l := range listeners {
		c, err := l.Accept()
		if err != nil {
			return v.failure("starting QEMU", err)
		}
		v.conns[name] = c
	}
	return nil
}

// runQEMU starts QEMU; when it has exited, exited is called and v.done closed.
func (v *VM) runQEMU(exited func()) error {
	v.cmd = exec.CommandContext(v.killed, v.cfg.QEMU, v.cfg.args(v.dir)...)
	v.cmd.Stderr = &v.stderr
	v.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // a terminal's Ctrl-C is for us
		Pdeathsig: syscall.SIGKILL, // a guest must not outlive a killed test
	}
	started := make(chan error)
	go func() {
		// The death signal comes when the starting thread ends, so that
		// thread is kept until QEMU is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(v.done)
		err := v.cmd.Start()
		started <- err
		if err == nil {
			_ = v.cmd.Wait()
			exited()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("vm: starting QEMU: %w", err)
	}
	return nil
}

// failure makes the error for what could not be done. Where the guest is dead
// or was killed, that is the reason, not the broken connection one saw.
func (v *VM) failure(doing string, err error) error {
	if v.killed.Err() != nil {
		err = context.Cause(v.killed)
	} else if isDisconnect(err) {
		// The connection breaks a moment before the exit is known.
		<-v.done
		err = ErrExited
		if msg := strings.TrimSpace(v.stderr.String()); msg != "" {
			err = fmt.Errorf("%w; QEMU says: %s", ErrExited, msg)
		}
	}
	return &GuestError{doing, err, v.console.tail(tailLines)}
}

// isDisconnect reports whether err is what one sees when QEMU ends.
func isDisconnect(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Close ends the guest, if it still runs, and removes its files. It is not an
// error if the guest is off already.
func (v *VM) Close() error {
	v.closeOnce.Do(func() {
		v.kill(ErrClosed)
		<-v.done
		for _, c := range v.conns {
			c.Close()
		}
		v.closeErr = os.RemoveAll(v.dir)
	})
	return v.closeErr
}

// Done is closed when the guest is off.
func (v *VM) Done() <-chan struct{} { return v.done }

// Release is the guest's uname -r.
func (v *VM) Release() string { return v.ready.Release }

// SetupErrors are the parts of the guest that could not be set up: modules
// that did not load, file systems that could not be mounted.
func (v *VM) SetupErrors() []string { return v.ready.Errors }

// Console returns the text of the console, or its last mebibyte.
func (v *VM) Console() string { return v.console.text() }

// WaitConsole waits until a line of the console, whole or unfinished, matches
// re, and returns it. Lines already there count. If ctx ends first the guest
// is left alone.
func (v *VM) WaitConsole(ctx context.Context, re *regexp.Regexp) (string, error) {
	var at int64
	doing := "waiting for " + re.String() + " on the console"
	for {
		line, ok, next, more := v.console.find(re, at)
		if ok {
			return line, nil
		}
		at = next
		select {
		case <-more:
		case <-ctx.Done():
			return "", &GuestError{doing, context.Cause(ctx), v.console.tail(tailLines)}
		case <-v.done:
			// The last words may have come meanwhile.
			if line, ok, _, _ := v.console.find(re, at); ok {
				return line, nil
			}
			return "", v.failure(doing, io.EOF)
		}
	}
}
