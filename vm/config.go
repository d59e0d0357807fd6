package vm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An Accel is a way QEMU executes the guest's code.
type Accel string

// The ways. TCG translates and runs everywhere; KVM needs the processor's
// help and a usable /dev/kvm.
const (
	AutoAccel Accel = ""
	TCG       Accel = "tcg"
	KVM       Accel = "kvm"
)

// accelArgs are QEMU's -accel arguments. TCG with a thread for each processor
// may execute a breakpoint that the kernel, patching its text, has removed
// again on another one; the kernel dies of the unknown int3.
var accelArgs = map[Accel]string{TCG: "tcg,thread=single", KVM: "kvm"}

// A Config says what to boot. Only Kernel is required.
type Config struct {
	Kernel    Kernel
	Init      string            // static binary that calls InitMain; default: the running program
	CPUs      int               // default 2
	MemoryMiB int               // default 512
	CPU       string            // QEMU's -cpu; default: all features but 5-level page tables, as most hosts
	Accel     Accel             // default: KVM if usable, else TCG
	Cmdline   string            // appended to the kernel's command line
	Modules   []string          // modules to load, by name; dependencies follow
	Files     map[string]string // path in the guest -> file or directory of the host
	Disks     []string          // raw images; NVMe, /dev/nvme0n1 and on: Debian's kernels have its driver built in
	Console   io.Writer         // receives the console as it comes; may be nil
	QEMU      string            // default qemu-system-x86_64 from PATH
}

// baseCmdline: a panic ends the guest at once, which QEMU's -no-reboot turns
// into its exit.
const baseCmdline = "console=ttyS0 panic=-1"

// withDefaults checks c and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if c.Kernel.Image == "" {
		return c, errors.New("vm: no kernel image given")
	}
	if c.Init == "" {
		exe, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("vm: %w", err)
		}
		c.Init = exe
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 512
	}
	if c.Accel == AutoAccel {
		c.Accel = TCG
		if kvmUsable() {
			c.Accel = KVM
		}
	}
	if accelArgs[c.Accel] == "" {
		return c, fmt.Errorf("vm: no accelerator is called %q", c.Accel)
	}
	if c.CPU == "" {
		c.CPU = map[Accel]string{TCG: "max,la57=off", KVM: "host"}[c.Accel]
	}
	qemu, err := Available(c.QEMU)
	c.QEMU = qemu
	return c, err
}

// Available returns the path of QEMU, which is looked up in PATH unless a
// program is named. Without one the error wraps [ErrNoQEMU].
func Available(qemu string) (string, error) {
	if qemu == "" {
		qemu = "qemu-system-x86_64"
	}
	path, err := exec.LookPath(qemu)
	if err != nil {
		return "", fmt.Errorf("vm: %w: %w", ErrNoQEMU, err)
	}
	return path, nil
}

// kvmUsable reports whether a guest can run on KVM. A /dev/kvm that opens is
// not enough: inside some sandboxes it does, without the processor's support.
func kvmUsable() bool {
	const getAPIVersion, apiVersion = 0xae00, 12
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(info))
	supported := false
	for _, f := range fields {
		supported = supported || f == "vmx" || f == "svm"
	}
	if !supported {
		return false
	}
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	v, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getAPIVersion, 0)
	return errno == 0 && v == apiVersion
}

// Names of the sockets and files in a guest's directory.
const (
	consoleSocket = "console"
	controlSocket = "control"
	qmpSocket     = "qmp"
	gdbSocket     = "gdb"
	initramfsFile = "initramfs"
)

// args is QEMU's command line. QEMU connects to our sockets, so that none is
// ever missed.
func (c *Config) args(dir string) []string {
	socket := func(name string) string {
		return "socket,id=" + name + ",path=" + filepath.Join(dir, name)
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none",
		"-accel", accelArgs[c.Accel],
		"-cpu", c.CPU,
		"-smp", strconv.Itoa(c.CPUs),
		"-m", strconv.Itoa(c.MemoryMiB) + "M",
		"-device", "vmcoreinfo",
		"-kernel", c.Kernel.Image,
		"-initrd", filepath.Join(dir, initramfsFile),
		"-append", strings.TrimSpace(baseCmdline + " " + c.Cmdline),
		"-chardev", socket(consoleSocket), "-serial", "chardev:" + consoleSocket,
		"-chardev", socket(controlSocket), "-serial", "chardev:" + controlSocket,
		"-chardev", socket(qmpSocket), "-mon", "chardev=" + qmpSocket + ",mode=control",
	}
	for i, file := range c.Disks {
		id := "disk" + strconv.Itoa(i)
		// QEMU takes a doubled comma for one that is part of the name.
		args = append(args,
			"-drive", "if=none,format=raw,id="+id+",file="+strings.ReplaceAll(file, ",", ",,"),
			"-device", "nvme,serial="+id+",drive="+id)
	}
	return args
}
