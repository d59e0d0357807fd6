//go:build linux

package bpfsys_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
)

func TestRunningKernelPrograms(t *testing.T) {
	mayAsk(t)
	before := time.Now()
	p := load(t, filterSpec("five", ebpf.SocketFilter, 3))
	info, err := p.Info()
	qt.Assert(t, qt.IsNil(err))
	id := progID(t, p)

	h, err := bpfsys.Programs(id)
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	qt.Assert(t, qt.HasLen(h.Objects, 1))
	got := h.Objects[0]
	qt.Check(t, qt.Equals(got.ID, id))
	qt.Check(t, qt.Equals(got.Type, "socket_filter"))
	qt.Check(t, qt.Equals(got.Name, "five"))
	qt.Check(t, qt.Equals(got.Tag, info.Tag))
	qt.Check(t, qt.Equals(got.XlatedLen, 5*8))
	qt.Check(t, qt.IsTrue(got.GPL))
	qt.Check(t, qt.Equals(got.UID, uint32(os.Getuid())))
	qt.Check(t, qt.Equals(got.Memory, 4096))
	age := time.Unix(got.LoadedAt, 0).Sub(before)
	qt.Check(t, qt.IsTrue(age > -2*time.Second && age < time.Hour), qt.Commentf("loaded at %d, %v after the test began", got.LoadedAt, age))
	qt.Assert(t, qt.HasLen(got.Subprogs, 1))
	qt.Check(t, qt.Equals(got.Subprogs[0].Name, "five"))
	qt.Check(t, qt.Equals(got.Subprogs[0].Len, got.JitedLen))
	qt.Check(t, qt.HasLen(got.MapIDs, 0))

	// The code is that of the instructions.
	code, err := bpfsys.CodeOf(h, id)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(code.Insns, got.XlatedLen))
	qt.Assert(t, qt.HasLen(code.Funcs, 1))
	qt.Check(t, qt.HasLen(code.Funcs[0].Text, got.JitedLen))

	// Held, it outlives those who loaded it.
	p.Close()
	again, err := bpfsys.Programs(id)
	qt.Assert(t, qt.IsNil(err))
	again.Close()
	h.Close()
	waitGone(t, func() error { h, err := bpfsys.Programs(id); h.Close(); return err })
}

// waitGone waits for the kernel to free an object, which it puts off.
func waitGone(t *testing.T, ask func() error) {
	t.Helper()
	for range 500 {
		err := ask()
		var gone *bpfsys.NotFoundError
		if errors.As(err, &gone) {
			qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
			return
		}
		qt.Assert(t, qt.IsNil(err))
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("nothing holds it, and it is still there")
}

// TestRunningKernelAll: all objects are there, each once, by id.
func TestRunningKernelAll(t *testing.T) {
	mayAsk(t)
	want := make(map[int]string)
	for i, name := range []string{"a", "b", "c", "d"} {
		want[progID(t, load(t, filterSpec(name, ebpf.SocketFilter, i)))] = name
	}
	h, err := bpfsys.Programs()
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	last := 0
	for _, p := range h.Objects {
		qt.Check(t, qt.IsTrue(p.ID > last))
		last = p.ID
		if name, ok := want[p.ID]; ok {
			qt.Check(t, qt.Equals(p.Name, name))
			delete(want, p.ID)
		}
		fd, err := h.Open(p.ID)
		qt.Check(t, qt.IsNil(err))
		unix.Close(fd)
		qt.Check(t, qt.Equals(h.Object(p.ID), p))
	}
	qt.Check(t, qt.HasLen(want, 0))
}

// TestRunningKernelHold: many are held, with few descriptors, until Close.
func TestRunningKernelHold(t *testing.T) {
	mayAsk(t)
	var ids []int
	var progs []*ebpf.Program
	for i := range 100 {
		progs = append(progs, load(t, filterSpec("hold", ebpf.SocketFilter, i%9)))
		ids = append(ids, progID(t, progs[i]))
	}
	h, err := bpfsys.Programs(ids...)
	qt.Assert(t, qt.IsNil(err))
	for _, p := range progs {
		p.Close()
	}
	time.Sleep(50 * time.Millisecond) // for the kernel to free what nothing holds
	again, err := bpfsys.Programs(ids...)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(again.Close()))
	qt.Assert(t, qt.IsNil(h.Close()))
	for _, id := range ids {
		waitGone(t, func() error { h, err := bpfsys.Programs(id); h.Close(); return err })
	}
	_, err = h.Open(ids[0])
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
}

func TestRunningKernelMaps(t *testing.T) {
	mayAsk(t)
	m := create(t, &ebpf.MapSpec{Name: "shape", Type: ebpf.Hash, KeySize: 6, ValueSize: 10, MaxEntries: 7, Flags: 1})
	qt.Assert(t, qt.IsNil(m.Freeze()))
	h, err := bpfsys.Maps(mapID(t, m))
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	got := *h.Objects[0]
	qt.Check(t, qt.IsTrue(got.Memory > 0))
	got.Memory = 0
	qt.Check(t, qt.DeepEquals(got, bpf.Map{
		ID: mapID(t, m), Type: "hash", Name: "shape", Flags: 1, KeySize: 6, ValueSize: 10, MaxEntries: 7, Frozen: true,
	}))
}

// TestRunningKernelOwner: a program array takes programs like its first.
func TestRunningKernelOwner(t *testing.T) {
	mayAsk(t)
	m := create(t, &ebpf.MapSpec{Name: "jumps", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	p := load(t, filterSpec("target", ebpf.SocketFilter, 0))
	qt.Assert(t, qt.IsNil(m.Put(uint32(2), uint32(p.FD()))))
	h, err := bpfsys.Maps(mapID(t, m))
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	qt.Check(t, qt.Equals(h.Objects[0].OwnerType, "socket_filter"))
}

// steer attaches a program to this network namespace by a link, which every
// kernel with links lets one do.
func steer(t *testing.T) (prog, linkID int) {
	t.Helper()
	spec := filterSpec("steer", ebpf.SkLookup, 0)
	spec.AttachType = ebpf.AttachSkLookup
	p := load(t, spec)
	ns, err := os.Open("/proc/self/ns/net")
	qt.Assert(t, qt.IsNil(err))
	defer ns.Close()
	l, err := link.AttachNetNs(int(ns.Fd()), p)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { l.Close() })
	info, err := l.Info()
	qt.Assert(t, qt.IsNil(err))
	return progID(t, p), int(info.ID)
}

func TestRunningKernelLinks(t *testing.T) {
	mayAsk(t)
	prog, id := steer(t)
	h, err := bpfsys.Links(id)
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	qt.Check(t, qt.DeepEquals(h.Objects[0], &bpf.Link{
		ID: id, Type: "netns", ProgID: prog, Attach: "sk_lookup",
		Targets: []bpf.Target{{Kind: bpf.TargetNetns, Netns: netnsInode(t)}},
	}))
	all, err := bpfsys.Attachments(t.Context())
	qt.Assert(t, qt.IsNil(err))
	for _, a := range all {
		qt.Check(t, qt.IsTrue(a.ProgID != prog), qt.Commentf("a link is behind %+v", a))
	}
}

func TestRunningKernelBTF(t *testing.T) {
	mayAsk(t)
	h, err := bpfsys.BTFs()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	defer h.Close()
	for _, b := range h.Objects {
		if b.Name != "vmlinux" {
			continue
		}
		qt.Check(t, qt.IsTrue(b.Kernel))
		raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(b.Size, len(raw)))
		types, err := bpfsys.TypesOf(b.ID)
		qt.Assert(t, qt.IsNil(err))
		_, err = types.Struct("task_struct")
		qt.Check(t, qt.IsNil(err))
		return
	}
	t.Skip("this kernel has no BTF object of its own (before 5.11)")
}

// TestRunningKernelNotFound: what is asked for by id and not there is said, and
// comes with the rest.
func TestRunningKernelNotFound(t *testing.T) {
	mayAsk(t)
	p := load(t, filterSpec("there", ebpf.SocketFilter, 0))
	const none = 1<<31 - 7
	h, err := bpfsys.Programs(none, progID(t, p), -1)
	defer func() { h.Close() }()
	qt.Check(t, qt.HasLen(h.Objects, 1))
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
	qt.Check(t, qt.ErrorMatches(err, `no BPF prog with id -1\nno BPF prog with id 2147483641`))
	for _, ask := range []func() error{
		func() error { _, err := bpfsys.Maps(none); return err },
		func() error { _, err := bpfsys.Links(none); return err },
		func() error { _, err := bpfsys.BTFs(none); return err },
		func() error { _, err := bpfsys.TypesOf(none); return err },
	} {
		err := ask()
		qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
		qt.Check(t, qt.IsTrue(strings.Contains(err.Error(), "2147483641")))
	}
}
