//go:build linux

package bpfsys_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfsys"
)

// The tests named TestRunningKernel make objects on the kernel they run on: the
// machine's own, or, in the kernel matrix, the guests'.

// holdEnv makes the test binary a process that only holds what it was given.
const holdEnv = "KSLEUTH_TEST_HOLD"

// limitEnv makes it one that may have few descriptors and lists the programs.
const limitEnv = "KSLEUTH_TEST_LIMIT"

func TestMain(m *testing.M) {
	if os.Getenv(holdEnv) != "" {
		fmt.Println("holding")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	if os.Getenv(limitEnv) != "" {
		listLimited()
		return
	}
	if err := rlimit.RemoveMemlock(); err != nil { // counts before 5.11
		fmt.Println(err)
	}
	os.Exit(m.Run())
}

// listLimited has room for less descriptors than there are programs, and then
// for none.
func listLimited() {
	limit := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			fmt.Println(err)
		}
	}
	limit(40)
	h, err := bpfsys.Programs()
	h.Close()
	if len(h.Objects) < 50 || err != nil {
		fmt.Printf("%d objects and %v\n", len(h.Objects), err)
	}
	top, _ := unix.Dup(0)
	unix.Close(top)
	limit(uint64(top) + 1) // for fdinfo
	h, err = bpfsys.Programs()
	var full *bpfsys.LimitError
	if !errors.As(err, &full) || full.Held != len(h.Objects) || full.Limit != uint64(top)+1 || !errors.Is(err, unix.EMFILE) {
		fmt.Printf("%d objects and %v\n", len(h.Objects), err)
		return
	}
	fmt.Println("limited")
}

// mayAsk skips the test where the kernel does not let it find objects.
func mayAsk(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("finding BPF objects by id takes CAP_SYS_ADMIN")
	}
	h, err := bpfsys.Programs()
	h.Close()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
}

// need returns the path of a tool, or skips the test.
func need(t testing.TB, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed here", tool)
	}
	return path
}

// filterSpec is a program of n+2 instructions.
func filterSpec(name string, typ ebpf.ProgramType, n int) *ebpf.ProgramSpec {
	var insns asm.Instructions
	for range n {
		insns = append(insns, asm.Mov.Imm(asm.R0, 7))
	}
	insns = append(insns, asm.Mov.Imm(asm.R0, 1), asm.Return())
	return &ebpf.ProgramSpec{Name: name, Type: typ, License: "GPL", Instructions: insns}
}

func load(t testing.TB, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(spec)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return p
}

func create(t testing.TB, spec *ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(spec)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		t.Skipf("this kernel has no maps of type %s: %v", spec.Type, err)
	}
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	return m
}

func arraySpec(name string, valueSize uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: valueSize, MaxEntries: 3}
}

func progID(t testing.TB, p *ebpf.Program) int {
	t.Helper()
	info, err := p.Info()
	qt.Assert(t, qt.IsNil(err))
	id, ok := info.ID()
	qt.Assert(t, qt.IsTrue(ok))
	return int(id)
}

func mapID(t testing.TB, m *ebpf.Map) int {
	t.Helper()
	info, err := m.Info()
	qt.Assert(t, qt.IsNil(err))
	id, ok := info.ID()
	qt.Assert(t, qt.IsTrue(ok))
	return int(id)
}

// mountAt mounts a file system for the time of the test.
func mountAt(t testing.TB, typ string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(typ, dir, typ, 0, ""); err != nil {
		t.Skipf("mounting %s: %v", typ, err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
