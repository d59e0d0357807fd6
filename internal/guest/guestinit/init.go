// Package guestinit is process 1 of the guests that package vm boots. The same
// static binary that starts a guest on the host runs in it as /init.
package guestinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/guest/wire"
)

// Paths in the guest that host and init agree on.
const (
	Path       = "/init"
	ConfigPath = "/.guest/config.json"
	ControlTTY = "/dev/ttyS1"
)

// A Config tells init what to set up before it reports ready.
type Config struct {
	Modules []string // paths of kernel modules, in loading order
}

// Wanted reports whether this process is the init of a guest.
func Wanted() bool {
	return os.Getpid() == 1 && len(os.Args) > 0 && os.Args[0] == Path
}

// Main is the life of init: it sets up the guest, serves the host's requests
// and powers off. It does not return.
func Main() {
	err := run()
	fmt.Fprintln(os.Stderr, "guest init:", err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	setupErrs := setup()
	tty, err := openControl()
	if err != nil {
		return errors.Join(append(setupErrs, err)...)
	}
	ready := wire.Ready{Release: release()}
	for _, err := range setupErrs {
		fmt.Fprintln(os.Stderr, "guest init:", err)
		ready.Errors = append(ready.Errors, err.Error())
	}
	s := &server{out: tty, procs: make(map[uint32]*os.Process)}
	if err := s.sendJSON(wire.Hello, 0, ready); err != nil {
		return err
	}
	return s.serve(tty)
}

// mounts are the file systems of the guest, in order. Those a kernel may lack
// are optional. There is none on /tmp: the root is in memory anyway, and the
// host may have put files there.
var mounts = []struct {
	fstype, target string
	optional       bool
}{
	{fstype: "proc", target: "/proc"},
	{fstype: "sysfs", target: "/sys"},
	{fstype: "devtmpfs", target: "/dev"},
	{fstype: "devpts", target: "/dev/pts", optional: true},
	{fstype: "cgroup2", target: "/sys/fs/cgroup", optional: true},
	{fstype: "bpf", target: "/sys/fs/bpf", optional: true},
	{fstype: "debugfs", target: "/sys/kernel/debug", optional: true},
	{fstype: "tracefs", target: "/sys/kernel/tracing", optional: true},
}

// setup mounts, loads modules and raises the loopback interface. It goes on
// after an error, so that a half-equipped guest can still be examined.
func setup() (errs []error) {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !m.optional {
			errs = append(errs, err)
		}
		err := unix.Mount(m.fstype, m.target, m.fstype, 0, "")
		// CONFIG_DEVTMPFS_MOUNT does not apply to an initramfs, but the
		// kernel may mount others on its own.
		if err != nil && !m.optional && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mounting %s on %s: %w", m.fstype, m.target, err))
		}
	}
	// Init inherits no standard streams if /dev/console was missing.
	redirectConsole()
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/root")
	os.Setenv("TMPDIR", "/tmp")
	cfg, err := readConfig()
	if err != nil {
		return append(errs, err)
	}
	for _, m := range cfg.Modules {
		if err := loadModule(m); err != nil {
			errs = append(errs, err)
		}
	}
	if err := linkUp("lo"); err != nil {
		errs = append(errs, fmt.Errorf("raising lo: %w", err))
	}
	return errs
}

func readConfig() (Config, error) {
	var cfg Config
	b, err := os.ReadFile(ConfigPath)
	if err != nil {
		return cfg, err
	}
	if err := json.Unmarshal(b, &cfg); err != nil {
		return cfg, fmt.Errorf("%s: %w", ConfigPath, err)
	}
	return cfg, nil
}

func redirectConsole() {
	fd, err := unix.Open("/dev/console", unix.O_RDWR, 0)
	if err != nil {
		return
	}
	for std := range 3 {
		if fd != std {
			_ = unix.Dup3(fd, std, 0)
		}
	}
	if fd > 2 {
		_ = unix.Close(fd)
	}
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("loading module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading module %s: %w", path.Base(file), err)
	}
	return nil
}

func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// openControl opens the line to the host in raw mode.
func openControl() (io.ReadWriter, error) {
	f, err := os.OpenFile(ControlTTY, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the line to the host: %w", err)
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ControlTTY, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("%s: %w", ControlTTY, err)
	}
	return f, nil
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
