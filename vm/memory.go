package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vm/internal/gdbremote"
)

// gdbTimeout bounds one access through the stub, which answers from memory.
const gdbTimeout = 30 * time.Second

// A DumpFormat is a format of QEMU's dump-guest-memory.
type DumpFormat string

// The formats. The kdump ones are written flattened; lzo and snappy only if
// QEMU was built with them.
const (
	DumpELF         DumpFormat = "elf"
	DumpKdumpZlib   DumpFormat = "kdump-zlib"
	DumpKdumpLZO    DumpFormat = "kdump-lzo"
	DumpKdumpSnappy DumpFormat = "kdump-snappy"
)

// DumpMemory writes the guest's memory to file. The guest stands still
// meanwhile; to take several dumps of one moment, Pause it.
func (v *VM) DumpMemory(file string, format DumpFormat) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("vm: %w", err)
	}
	// QEMU creates the file readable only, and so could not overwrite it.
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("vm: %w", err)
	}
	err = v.monitor("dumping memory", "dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + file, "format": format}, nil)
	if err != nil {
		return err
	}
	return os.Chmod(file, 0o644)
}

// Pause stops the guest's processors.
func (v *VM) Pause() error {
	err := v.monitor("pausing", "stop", nil, nil)
	v.setPaused(err == nil)
	return err
}

// Resume lets them run on.
func (v *VM) Resume() error {
	err := v.monitor("resuming", "cont", nil, nil)
	v.setPaused(err != nil)
	return err
}

func (v *VM) setPaused(b bool) {
	v.monMu.Lock()
	defer v.monMu.Unlock()
	v.paused = b
}

// monitor runs one QMP command.
func (v *VM) monitor(doing, command string, args, ret any) error {
	v.monMu.Lock()
	defer v.monMu.Unlock()
	return v.monitorLocked(doing, command, args, ret)
}

func (v *VM) monitorLocked(doing, command string, args, ret any) error {
	err := v.mon.Run(command, args, ret)
	if isDisconnect(err) {
		return v.failure(doing, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// ReadMem implements [mem.Reader] on the guest's virtual memory, as its first
// processor sees it. The guest stands still during each call.
func (v *VM) ReadMem(p []byte, addr uint64) error {
	return v.withStub("reading memory", func(c *gdbremote.Client) error {
		n, err := c.ReadMemory(p, addr)
		var refused *gdbremote.RefusedError
		if errors.As(err, &refused) {
			return &mem.Fault{Addr: addr + uint64(n), Cause: mem.Unmapped, Err: err}
		}
		return err
	})
}

// WriteMem writes to the guest's virtual memory, kernel text included: page
// protection does not apply, and translated code is thrown away.
func (v *VM) WriteMem(p []byte, addr uint64) error {
	return v.withStub("writing memory", func(c *gdbremote.Client) error {
		return c.WriteMemory(p, addr)
	})
}

// withStub attaches to QEMU's gdb stub, which stops the guest, and detaches,
// which starts it. Attaching anew each time keeps the guest free to run, and
// other debuggers free to come, in between.
func (v *VM) withStub(doing string, do func(*gdbremote.Client) error) (err error) {
	v.monMu.Lock()
	defer v.monMu.Unlock()
	conn, err := v.dialStub(doing)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(gdbTimeout)); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	c := gdbremote.NewClient(conn)
	err = do(c)
	detachErr := c.Detach()
	if v.paused {
		// Detaching let it run.
		detachErr = errors.Join(detachErr, v.monitorLocked(doing, "stop", nil, nil))
	}
	if err = errors.Join(err, detachErr); isDisconnect(err) {
		return v.failure(doing, err)
	}
	if err != nil {
		return fmt.Errorf("%s at the guest: %w", doing, err)
	}
	return nil
}

// dialStub connects to the stub, which is started on first use: a stub that
// is connected from the start would hold the guest before its first
// instruction.
func (v *VM) dialStub(doing string) (net.Conn, error) {
	path := filepath.Join(v.dir, gdbSocket)
	if !v.gdbOn {
		var out string
		args := map[string]any{"command-line": "gdbserver unix:" + path + ",server=on,wait=off"}
		if err := v.monitorLocked(doing, "human-monitor-command", args, &out); err != nil {
			return nil, err
		}
		// The monitor's success is a cheerful sentence, failure another.
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%s: QEMU's gdb stub does not start: %s", doing, strings.TrimSpace(out))
		}
		v.gdbOn = true
	}
	ctx, cancel := context.WithTimeout(v.killed, gdbTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%s: gdb stub: %w", doing, err)
	}
	return conn, nil
}
