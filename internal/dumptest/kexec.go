package dumptest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ksleuth/ksleuth/vm"
)

// Places of the crash kernel in the guest, which the guest program knows.
const (
	crashKernel    = "/crash/vmlinuz"
	crashInitramfs = "/crash/initramfs"
)

// addCrashKernel gives the guest a crash kernel, which is its own once more,
// and a disk for the dump. Files that only the guest reads are made in work.
func addCrashKernel(cfg *vm.Config, work, disk string) error {
	// The crash kernel needs no modules, and has little memory.
	initramfs := filepath.Join(work, "crash-initramfs")
	crash := vm.Config{Init: cfg.Init}
	if err := crash.WriteInitramfs(initramfs); err != nil {
		return err
	}
	cfg.Files[crashKernel] = cfg.Kernel.Image
	cfg.Files[crashInitramfs] = initramfs
	cfg.Disks = append(cfg.Disks, disk)
	f, err := os.Create(disk)
	if err != nil {
		return err
	}
	const notes = 16 << 20 // more than what a dump has besides memory
	return errors.Join(f.Truncate(int64(cfg.MemoryMiB)<<20+notes), f.Close())
}

// prepareCrash loads the crash kernel and takes a CPU offline, unless "".
func prepareCrash(ctx context.Context, v *vm.VM, offline string) error {
	commands := [][]string{{"loadcrash"}}
	if offline != "" {
		commands = append(commands, []string{"offline", offline})
	}
	for _, args := range commands {
		var stderr strings.Builder
		if err := v.Run(ctx, vm.Cmd{Path: programs["guest"].path, Args: args, Stderr: &stderr}); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
		}
	}
	return nil
}

// crashAndSave crashes the guest, waits until its crash kernel has saved the
// dump, and makes the disk the dump: it starts with it, and has its length in
// the last eight bytes.
func crashAndSave(ctx context.Context, v *vm.VM, p *vm.Process, base string) error {
	if err := p.Signal(ctx, syscall.SIGUSR1); err != nil {
		return err
	}
	select {
	case <-v.Done():
	case <-ctx.Done():
	}
	console := v.Console()
	if err := os.WriteFile(base+".console", []byte(console), 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(base+".elf", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var length [8]byte
	if _, err := f.ReadAt(length[:], st.Size()-8); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n == 0 || n > uint64(st.Size()-8) {
		return fmt.Errorf("the crash kernel saved no dump; the console ends:\n%s", console[max(0, len(console)-2000):])
	}
	return f.Truncate(int64(n))
}
