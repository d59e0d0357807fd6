package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Files of the guest that the host puts there, and the disk for the dump.
const (
	crashKernel    = "/crash/vmlinuz"
	crashInitramfs = "/crash/initramfs"
	dumpDisk       = "/dev/nvme0n1"
)

// crashCmdline is the crash kernel's command line, before which the kernel
// puts elfcorehdr=. What follows the dashes are arguments for init.
const crashCmdline = "console=ttyS0 panic=-1 nr_cpus=1 reset_devices irqpoll -- savecore"

// offline takes the CPU args[0] offline.
func offline(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("offline needs one CPU")
	}
	return os.WriteFile("/sys/devices/system/cpu/cpu"+args[0]+"/online", []byte("0"), 0)
}

// loadCrashKernel puts the kernel to boot in a panic into its reserved memory.
func loadCrashKernel([]string) error {
	image, err := os.Open(crashKernel)
	if err != nil {
		return err
	}
	defer image.Close()
	initramfs, err := os.Open(crashInitramfs)
	if err != nil {
		return err
	}
	defer initramfs.Close()
	err = unix.KexecFileLoad(int(image.Fd()), int(initramfs.Fd()), crashCmdline, unix.KEXEC_FILE_ON_CRASH)
	if err != nil {
		return fmt.Errorf("loading the crash kernel: %w", err)
	}
	return nil
}

// saveCore is the life of the crash kernel's init: it writes the memory of the
// kernel that crashed to the disk and powers off. It does not return.
func saveCore([]string) error {
	n, err := saveVmcore()
	fmt.Printf("savecore: %d bytes, %v\n", n, err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// saveVmcore copies /proc/vmcore to the start of the disk and its length, if
// all went well, as a little-endian number into the last eight bytes.
func saveVmcore() (int64, error) {
	for _, fs := range []struct{ fstype, target string }{{"proc", "/proc"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(fs.fstype, fs.target, fs.fstype, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return 0, fmt.Errorf("mounting %s: %w", fs.target, err)
		}
	}
	core, err := os.Open("/proc/vmcore")
	if err != nil {
		return 0, err
	}
	defer core.Close()
	disk, err := os.OpenFile(dumpDisk, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer disk.Close()
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	n, err := copySparse(disk, core)
	if err != nil {
		return n, err
	}
	if n > size-8 {
		return n, fmt.Errorf("a dump of %d bytes on a disk of %d", n, size)
	}
	_, err = disk.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(n)), size-8)
	return n, errors.Join(err, disk.Sync())
}

// copySparse copies r to w but for blocks of zeroes, which the disk has.
func copySparse(w io.WriterAt, r io.Reader) (n int64, err error) {
	buf, zeroes := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		got, err := io.ReadFull(r, buf)
		if b := buf[:got]; !bytes.Equal(b, zeroes[:got]) {
			if _, err := w.WriteAt(b, n); err != nil {
				return n, err
			}
		}
		n += int64(got)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
