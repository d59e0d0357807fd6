package probe_test

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// roleEnv makes the test binary another program: see TestMain.
const roleEnv = "KSLEUTH_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	default:
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// roles are what else the test binary can be.
var roles = map[string]func(args []string) error{
	"call":   callRole,
	"attach": attachRole,
	"sleep":  sleepRole,
}

// callRole calls getpgid as often as each line of its input says.
func callRole([]string) error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		for i := range n {
			getpgid(i)
		}
		fmt.Println("done")
	}
	return nil
}

func getpgid(pid int) (int, error) {
	r, _, errno := unix.RawSyscall(unix.SYS_GETPGID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// sleepRole sleeps for long once it is told to.
func sleepRole([]string) error {
	bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println("sleeping")
	for {
		unix.Poll(nil, -1)
	}
}

// attachRole attaches to functions and waits to be killed.
func attachRole([]string) error {
	types, err := bpfsys.KernelTypes()
	if types == nil {
		return err
	}
	f, err := function(types, "__x64_sys_getpgid")
	if err != nil {
		return err
	}
	_, err = probe.Attach(context.Background(), probe.Config{Points: []probe.Point{
		{Func: f, Mechanism: probe.Trampoline, Entry: true, Exit: true},
	}, Track: true})
	if err != nil {
		return err
	}
	fmt.Println("attached")
	time.Sleep(time.Hour)
	return nil
}

// A child is the test binary in another role.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t testing.TB, role string) *child {
	t.Helper()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	c := &child{Cmd: exec.Command(self)}
	c.Env = append(os.Environ(), roleEnv+"="+role)
	c.Stderr = os.Stderr
	c.in, err = c.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	out, err := c.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	c.out = bufio.NewReader(out)
	qt.Assert(t, qt.IsNil(c.Start()))
	t.Cleanup(func() { c.in.Close(); c.Process.Kill(); c.Wait() })
	return c
}

// says waits for a line.
func (c *child) says(t testing.TB, want string) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(strings.TrimSpace(line), want))
}

// call has a child call getpgid(0), getpgid(1) ... n times.
func (c *child) call(t testing.TB, n int) {
	t.Helper()
	fmt.Fprintln(c.in, n)
	c.says(t, "done")
}

// kernelTypes are the running kernel's.
var kernelTypes = sync.OnceValues(bpfsys.KernelTypes)

// needTracing skips the test where the kernel refuses tracing programs.
func needTracing(t testing.TB) *ctype.Types {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("tracing takes root")
	}
	types, err := kernelTypes()
	if types == nil {
		t.Skip(err)
	}
	f, err := function(types, "__x64_sys_getpgid")
	if err != nil {
		t.Skip(err)
	}
	s, err := probe.Attach(t.Context(), probe.Config{Points: []probe.Point{{Func: f, Mechanism: probe.Trampoline, Exit: true}}})
	if err != nil {
		if _, err := os.Stat("/guest.test"); err == nil {
			qt.Assert(t, qt.IsNil(err))
		}
		t.Skip("this kernel refuses to be traced: ", err)
	}
	qt.Assert(t, qt.IsNil(s.Close()))
	return types
}

// function describes a function of the kernel.
func function(types *ctype.Types, name string) (*tracee.Function, error) {
	proto, err := types.FuncProto(name)
	if err != nil {
		return nil, err
	}
	for _, t := range types.LookupAll(name) {
		if t.Kind() == ctype.Func {
			return &tracee.Function{Kind: tracee.Kernel, Name: name, Types: types, ID: t.ID(), Proto: t, Addr: mem.Addr(symbols()[name])}, nil
		}
	}
	return nil, fmt.Errorf("%s has type %v only", name, proto)
}

func mustFunction(t testing.TB, types *ctype.Types, name string) *tracee.Function {
	t.Helper()
	f, err := function(types, name)
	qt.Assert(t, qt.IsNil(err))
	return f
}

// symbols are the kernel's functions.
var symbols = sync.OnceValue(func() map[string]uint64 {
	out := make(map[string]uint64)
	b, _ := os.ReadFile("/proc/kallsyms")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && strings.ContainsAny(f[1], "tT") {
			if a, err := strconv.ParseUint(f[0], 16, 64); err == nil {
				out[f[2]] = a
			}
		}
	}
	return out
})

// resolve finds functions of programs.
func resolve(t testing.TB, patterns ...string) []*tracee.Function {
	t.Helper()
	fs, err := tracee.Resolve(t.Context(), tracee.Source{BPF: bpfview.Source{Running: true}}, patterns, tracee.Options{})
	qt.Assert(t, qt.IsNil(err))
	return fs
}

func attach(t testing.TB, cfg probe.Config) *probe.Session {
	t.Helper()
	s, err := probe.Attach(t.Context(), cfg)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { s.Close() })
	for _, f := range s.Failed() {
		t.Errorf("point %d: %v", f.Point, f.Err)
	}
	return s
}

// rest detaches and returns all events.
func rest(t testing.TB, s *probe.Session) []probe.Event {
	t.Helper()
	qt.Assert(t, qt.IsNil(s.Detach()))
	var out []probe.Event
	for {
		e, err := s.Read(t.Context())
		if errors.Is(err, io.EOF) {
			return out
		}
		qt.Assert(t, qt.IsNil(err))
		out = append(out, e)
	}
}

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../internal/guest/include -c testdata/nested.bpf.c -o testdata/nested.bpf.o
//go:generate llvm-strip -g testdata/nested.bpf.o

//go:embed testdata/nested.bpf.o
var nested []byte

// loadNested loads the programs of testdata/nested.bpf.c.
func loadNested(t testing.TB) map[string]*ebpf.Program {
	t.Helper()
	qt.Assert(t, qt.IsNil(rlimit.RemoveMemlock()))
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(nested))
	qt.Assert(t, qt.IsNil(err))
	c, err := ebpf.NewCollection(spec)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(c.Close)
	return c.Programs
}

func programID(t testing.TB, p *ebpf.Program) int {
	t.Helper()
	info, err := p.Info()
	qt.Assert(t, qt.IsNil(err))
	id, _ := info.ID()
	return int(id)
}
