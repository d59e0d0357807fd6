//go:build linux

package bpfsys_test

import (
	"bufio"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
)

func netnsInode(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat("/proc/self/ns/net", &st)))
	return st.Ino
}

func TestRunningKernelPins(t *testing.T) {
	mayAsk(t)
	dir := mountAt(t, "bpf")
	p := load(t, filterSpec("kept", ebpf.SocketFilter, 0))
	m := create(t, arraySpec("kept", 8))
	deep := filepath.Join(dir, "deep", "er")
	qt.Assert(t, qt.IsNil(os.MkdirAll(deep, 0o755)))
	paths := []string{filepath.Join(dir, "a prog"), filepath.Join(deep, "prog")}
	for _, path := range paths {
		// Pin moves an object that is pinned already.
		q, err := p.Clone()
		qt.Assert(t, qt.IsNil(err))
		defer q.Close()
		qt.Assert(t, qt.IsNil(q.Pin(path)))
	}
	qt.Assert(t, qt.IsNil(m.Pin(filepath.Join(deep, "map"))))
	// Links and other file systems are left alone.
	qt.Assert(t, qt.IsNil(os.Symlink(paths[0], filepath.Join(dir, "link"))))
	other := filepath.Join(dir, "other")
	qt.Assert(t, qt.IsNil(os.Mkdir(other, 0o755)))
	qt.Assert(t, qt.IsNil(unix.Mount("tmpfs", other, "tmpfs", 0, "")))
	defer unix.Unmount(other, unix.MNT_DETACH)
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(other, "file"), nil, 0o644)))

	pins, err := bpfsys.Pins(t.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(pins["prog"][progID(t, p)], paths))
	qt.Check(t, qt.DeepEquals(pins["map"][mapID(t, m)], []string{filepath.Join(deep, "map")}))
}

// holder starts a process that holds descriptors.
func holder(t *testing.T, files ...*os.File) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holdEnv+"=1")
	cmd.ExtraFiles = files
	stdin, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	stdout, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	_, err = bufio.NewReader(stdout).ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	return cmd.Process.Pid
}

// dup returns another descriptor as a file of its own.
func dup(t *testing.T, fd int) *os.File {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	f := os.NewFile(uintptr(n), "dup")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRunningKernelHolders(t *testing.T) {
	mayAsk(t)
	p := load(t, filterSpec("held", ebpf.SocketFilter, 0))
	m := create(t, arraySpec("held", 8))
	pid := holder(t, dup(t, p.FD()), dup(t, p.FD()), dup(t, m.FD()))
	all, err := bpfsys.Holders(t.Context())
	qt.Assert(t, qt.IsNil(err))
	comm, err := os.ReadFile("/proc/self/comm")
	qt.Assert(t, qt.IsNil(err))
	want := []bpf.Holder{{PID: os.Getpid(), Comm: strings.TrimSpace(string(comm))}, {PID: pid, Comm: "exe"}}
	slices.SortFunc(want, func(a, b bpf.Holder) int { return cmp.Compare(a.PID, b.PID) })
	qt.Check(t, qt.DeepEquals(all["prog"][progID(t, p)], want))
	qt.Check(t, qt.DeepEquals(all["map"][mapID(t, m)], want))
}

// TestRunningKernelCgroups: programs on a cgroup are found, those of links not.
func TestRunningKernelCgroups(t *testing.T) {
	mayAsk(t)
	root := mountAt(t, "cgroup2")
	dir := filepath.Join(root, "ksleuth-test")
	qt.Assert(t, qt.IsNil(os.Mkdir(dir, 0o755)))
	defer os.Remove(dir)
	both := load(t, filterSpec("both", ebpf.CGroupSKB, 0))
	raw := load(t, filterSpec("raw", ebpf.CGroupSKB, 1))
	f, err := os.Open(dir)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	const multi = 2 // BPF_F_ALLOW_MULTI
	for _, a := range []struct {
		p    *ebpf.Program
		kind ebpf.AttachType
	}{{both, ebpf.AttachCGroupInetEgress}, {raw, ebpf.AttachCGroupInetIngress}} {
		err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(f.Fd()), Program: a.p, Attach: a.kind, Flags: multi})
		qt.Assert(t, qt.IsNil(err))
		defer link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(f.Fd()), Program: a.p, Attach: a.kind})
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: ebpf.AttachCGroupInetIngress, Program: both})
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Fstat(int(f.Fd()), &st)))
	target := bpf.Target{Kind: bpf.TargetCgroup, Name: "/ksleuth-test", Value: int64(st.Ino)}

	all, err := bpfsys.Attachments(t.Context())
	qt.Assert(t, qt.IsNil(err))
	all = slices.DeleteFunc(all, func(a bpf.Attachment) bool { return a.Target.Name != target.Name })
	slices.SortFunc(all, func(a, b bpf.Attachment) int { return a.ProgID - b.ProgID })
	want := []bpf.Attachment{
		{Kind: "cgroup", ProgID: progID(t, both), Attach: "cgroup_inet_egress", Target: target, Flags: []string{"multi"}},
		{Kind: "cgroup", ProgID: progID(t, raw), Attach: "cgroup_inet_ingress", Target: target, Flags: []string{"multi"}},
	}
	qt.Check(t, qt.DeepEquals(all, want))

	info, err := l.Info()
	qt.Assert(t, qt.IsNil(err))
	h, err := bpfsys.Links(int(info.ID))
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	qt.Assert(t, qt.IsNil(bpfsys.CompleteLinks(t.Context(), h.Objects)))
	qt.Check(t, qt.DeepEquals(h.Objects[0].Targets, []bpf.Target{target}))
	qt.Check(t, qt.Equals(h.Objects[0].Attach, "cgroup_inet_ingress"))
}
