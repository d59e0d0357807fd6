//go:build linux

package bpfsys_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfsys"
)

// without calls fn on a thread that has lost capabilities, which ends with it.
func without(t *testing.T, caps []uint, fn func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		for _, c := range caps {
			data[c/32].Effective &^= 1 << (c % 32)
		}
		if err = errors.Join(err, unix.Capset(&hdr, &data[0])); err == nil {
			fn()
		}
		done <- err
	}()
	qt.Assert(t, qt.IsNil(<-done))
}

// TestRunningKernelDenied: CAP_BPF is not enough to find objects.
func TestRunningKernelDenied(t *testing.T) {
	mayAsk(t)
	p := load(t, filterSpec("hidden", ebpf.SocketFilter, 0))
	id := progID(t, p)
	without(t, []uint{unix.CAP_SYS_ADMIN}, func() {
		for _, test := range []struct {
			op  string
			ask func() error
		}{
			{"bpf(BPF_PROG_GET_NEXT_ID)", func() error { _, err := bpfsys.Programs(); return err }},
			{"bpf(BPF_PROG_GET_FD_BY_ID)", func() error { _, err := bpfsys.Programs(id); return err }},
			{"bpf(BPF_MAP_GET_NEXT_ID)", func() error { _, err := bpfsys.Maps(); return err }},
			{"bpf(BPF_LINK_GET_NEXT_ID)", func() error { _, err := bpfsys.Links(); return err }},
			{"bpf(BPF_BTF_GET_NEXT_ID)", func() error { _, err := bpfsys.BTFs(); return err }},
			{"bpf(BPF_LINK_GET_NEXT_ID)", func() error { _, err := bpfsys.Attachments(t.Context()); return err }},
		} {
			err := test.ask()
			qt.Check(t, qt.ErrorIs(err, fs.ErrPermission))
			var denied *bpfsys.PermissionError
			if qt.Check(t, qt.IsTrue(errors.As(err, &denied)), qt.Commentf("%s: %v", test.op, err)) {
				qt.Check(t, qt.Equals(denied.Op, test.op))
				qt.Check(t, qt.Equals(denied.Capability, "CAP_SYS_ADMIN"))
			}
		}
	})
}

// TestRunningKernelLimit: objects do not need a descriptor each; none at all
// is said.
func TestRunningKernelLimit(t *testing.T) {
	mayAsk(t)
	for i := range 50 {
		load(t, filterSpec("many", ebpf.SocketFilter, i%9))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), limitEnv+"=1")
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(out), "limited\n"))

	// A soft limit alone is raised.
	var old unix.Rlimit
	qt.Assert(t, qt.IsNil(unix.Getrlimit(unix.RLIMIT_NOFILE, &old)))
	few := unix.Rlimit{Cur: 20, Max: old.Max}
	qt.Assert(t, qt.IsNil(unix.Setrlimit(unix.RLIMIT_NOFILE, &few)))
	h, err := bpfsys.Programs()
	defer func() { h.Close() }()
	qt.Assert(t, qt.IsNil(unix.Setrlimit(unix.RLIMIT_NOFILE, &old)))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(len(h.Objects) >= 50))
}
