package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

// matrix are the kernels the project is tested on.
var matrix = []string{"5.10", "6.1", "6.12", "7.2"}

// workloads are what the test binary does inside a guest.
var workloads = map[string]func() int{
	"speak": func() int {
		fmt.Print("to stdout ", os.Getenv("WORD"))
		fmt.Fprint(os.Stderr, "to stderr")
		b, err := os.ReadFile("data/file")
		fmt.Print(" ", string(b), err)
		return 42
	},
	"ignore-term": func() int {
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring")
		time.Sleep(time.Hour)
		return 0
	},
	"panic": func() int {
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
		return 0
	},
	"hostname": func() int {
		name, err := os.Hostname()
		fmt.Print(name, err)
		return 0
	},
	"getpgid": func() int {
		id, err := syscall.Getpgid(0)
		fmt.Print(id, err)
		return 0
	},
	"flood": func() int {
		_, _ = io.Copy(os.Stdout, io.LimitReader(zeroes{}, 1<<20))
		return 0
	},
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestMain(m *testing.M) {
	InitMain()
	if len(os.Args) == 2 && workloads[os.Args[1]] != nil {
		os.Exit(workloads[os.Args[1]]())
	}
	os.Exit(m.Run())
}

// kernel returns a kernel of the matrix, or skips if there is none.
func kernel(t *testing.T, name string) Kernel {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	_, err := Available("")
	var k Kernel
	if err == nil {
		err = checkStatic("/proc/self/exe")
	}
	if err == nil {
		k, err = FindKernel(name)
	}
	var missing *KernelNotFoundError
	if errors.As(err, &missing) || errors.Is(err, ErrNoQEMU) || errors.Is(err, ErrNotStatic) {
		if os.Getenv("KSLEUTH_REQUIRE_VM") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	return k
}

// start boots this test binary.
func start(t *testing.T, cfg Config) *VM {
	t.Helper()
	v, err := Start(t.Context(), cfg)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(v.Close())) })
	qt.Assert(t, qt.HasLen(v.SetupErrors(), 0))
	return v
}

func TestMatrix(t *testing.T) {
	for _, name := range matrix {
		t.Run(name, func(t *testing.T) {
			k := kernel(t, name)
			data := t.TempDir()
			qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(data, "file"), []byte("from a file "), 0o600)))
			v := start(t, Config{Kernel: k, Modules: []string{"nf_conntrack"}, Files: map[string]string{"/files/data": data}})
			qt.Assert(t, qt.Equals(v.Release(), k.Release))

			var stdout, stderr bytes.Buffer
			err := v.Run(t.Context(), Cmd{Path: "/init", Args: []string{"speak"}, Env: []string{"WORD=word"}, Dir: "/files", Stdout: &stdout, Stderr: &stderr})
			var exit *ExitError
			qt.Assert(t, qt.IsTrue(errors.As(err, &exit)), qt.Commentf("%v", err))
			qt.Assert(t, qt.Equals(exit.Code, 42))
			qt.Assert(t, qt.Equals(stdout.String(), "to stdout word from a file <nil>"))
			qt.Assert(t, qt.Equals(stderr.String(), "to stderr"))

			var modules bytes.Buffer
			qt.Assert(t, qt.IsNil(v.CopyFile(t.Context(), &modules, "/proc/modules")))
			for _, want := range []string{"nf_conntrack ", "nf_defrag_ipv6 ", "qemu_fw_cfg "} {
				qt.Check(t, qt.StringContains(modules.String(), want))
			}
			t.Run("dump", func(t *testing.T) { testDump(t, v) })
		})
	}
}

// testDump checks what a dump cannot do without: its format and the note.
func testDump(t *testing.T, v *VM) {
	file := filepath.Join(t.TempDir(), "dump")
	for _, test := range []struct {
		format DumpFormat
		magic  string
	}{{DumpELF, "\x7fELF\x02"}, {DumpKdumpZlib, "makedumpfile\x00\x00\x00\x00"}} {
		qt.Assert(t, qt.IsNil(v.DumpMemory(file, test.format)))
		f, err := os.Open(file)
		qt.Assert(t, qt.IsNil(err))
		head := make([]byte, 1<<20)
		_, err = io.ReadFull(f, head)
		f.Close()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(head[:len(test.magic)]), test.magic))
		if test.format == DumpELF {
			qt.Assert(t, qt.IsTrue(bytes.Contains(head, []byte("OSRELEASE="+v.Release()))))
		}
	}
	err := v.DumpMemory(filepath.Join(t.TempDir(), "no", "such"), DumpELF)
	qt.Assert(t, qt.ErrorMatches(err, `dumping memory: qemu refused dump-guest-memory: .*`))
}

func TestProcesses(t *testing.T) {
	v := start(t, Config{Kernel: kernel(t, "6.1")})
	t.Run("not started", func(t *testing.T) {
		err := v.Run(t.Context(), Cmd{Path: "/no/such"})
		var refused *RequestError
		qt.Assert(t, qt.IsTrue(errors.As(err, &refused)))
		qt.Assert(t, qt.ErrorMatches(err, `running such in the guest: fork/exec /no/such: no such file or directory`))
	})
	t.Run("request too long", func(t *testing.T) {
		err := v.Run(t.Context(), Cmd{Path: "/init", Args: []string{strings.Repeat("x", 5000)}})
		qt.Assert(t, qt.ErrorMatches(err, `running init in the guest: 5\d+ bytes .*, 3072 fit`))
	})
	t.Run("much output", func(t *testing.T) {
		var out bytes.Buffer
		qt.Assert(t, qt.IsNil(v.Run(t.Context(), Cmd{Path: "/init", Args: []string{"flood"}, Stdout: &out})))
		qt.Assert(t, qt.IsTrue(bytes.Equal(out.Bytes(), make([]byte, 1<<20))))
	})
	t.Run("signal", func(t *testing.T) {
		heard := make(chan string, 1)
		p, err := v.StartProcess(t.Context(), Cmd{Path: "/init", Args: []string{"ignore-term"}, Stdout: writerFunc(func(b []byte) { heard <- string(b) })})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(p.Pid() > 1))
		qt.Assert(t, qt.Equals(<-heard, "ignoring\n"))
		qt.Assert(t, qt.IsNil(p.Signal(t.Context(), syscall.SIGTERM)))
		qt.Assert(t, qt.IsNil(p.Signal(t.Context(), syscall.SIGKILL)))
		qt.Assert(t, qt.ErrorMatches(p.Wait(t.Context()), `ended by signal 9 \(killed\)`))
	})
	t.Run("hang", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, err := v.StartProcess(ctx, Cmd{Path: "/init", Args: []string{"ignore-term"}, Stdout: writerFunc(func([]byte) { cancel() })})
		qt.Assert(t, qt.IsNil(err))
		err = p.Wait(ctx)
		qt.Assert(t, qt.ErrorIs(err, context.Canceled))
		qt.Assert(t, qt.StringContains(err.Error(), "running init: context canceled; the guest's console ends with:\n"))
		qt.Assert(t, qt.StringContains(err.Error(), "Run /init as init process"))
		<-v.Done()
		err = v.Run(t.Context(), Cmd{Path: "/init"})
		qt.Assert(t, qt.ErrorIs(err, context.Canceled))
	})
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestPanic(t *testing.T) {
	v := start(t, Config{Kernel: kernel(t, "6.1")})
	err := v.Run(t.Context(), Cmd{Path: "/init", Args: []string{"panic"}})
	qt.Assert(t, qt.ErrorIs(err, ErrExited))
	qt.Assert(t, qt.StringContains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash"))
	_, err = v.WaitConsole(t.Context(), regexp.MustCompile(`not there`))
	qt.Assert(t, qt.ErrorIs(err, ErrExited))
}

func TestPanicStays(t *testing.T) {
	v := start(t, Config{Kernel: kernel(t, "6.1"), Cmdline: "panic=0"})
	_, err := v.StartProcess(t.Context(), Cmd{Path: "/init", Args: []string{"panic"}})
	qt.Assert(t, qt.IsNil(err))
	line, err := v.WaitConsole(t.Context(), regexp.MustCompile(`end Kernel panic`))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.StringContains(line, "sysrq triggered crash"))
	qt.Assert(t, qt.IsNil(v.DumpMemory(filepath.Join(t.TempDir(), "dump"), DumpKdumpZlib)))
}

func TestBootFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Start(ctx, Config{Kernel: kernel(t, "6.1"), Cmdline: "rdinit=/no/such"})
	var failed *GuestError
	qt.Assert(t, qt.IsTrue(errors.As(err, &failed)), qt.Commentf("%v", err))
	qt.Assert(t, qt.StringContains(failed.Console, "Unable to mount root fs"))

	_, err = Start(ctx, Config{Kernel: kernel(t, "6.1"), CPU: "no-such-cpu"})
	qt.Assert(t, qt.ErrorIs(err, ErrExited))
	qt.Assert(t, qt.StringContains(err.Error(), "unable to find CPU model 'no-such-cpu'"))

	_, err = Start(ctx, Config{Kernel: kernel(t, "6.1"), Modules: []string{"no-such"}})
	qt.Assert(t, qt.ErrorMatches(err, `vm: kernel module no_such: file does not exist`))

	_, err = Start(ctx, Config{Kernel: kernel(t, "6.1"), QEMU: "no-such-qemu"})
	qt.Assert(t, qt.ErrorIs(err, ErrNoQEMU))

	cancel()
	_, err = Start(ctx, Config{Kernel: kernel(t, "6.1")})
	qt.Assert(t, qt.ErrorIs(err, context.Canceled))
}

// TestMemory renames the guest behind its kernel's back: init_uts_ns holds
// the host name in the clear.
func TestMemory(t *testing.T) {
	v := start(t, Config{Kernel: kernel(t, "6.1"), Cmdline: "nokaslr"})
	at := symbol(t, v, "init_uts_ns")
	page := make([]byte, 1024)
	qt.Assert(t, qt.IsNil(v.ReadMem(page, at)))
	i := bytes.Index(page, []byte("(none)"))
	qt.Assert(t, qt.IsTrue(i > 0), qt.Commentf("no host name at %#x: %q", at, page))
	qt.Assert(t, qt.IsNil(v.WriteMem([]byte("patch!"), at+uint64(i))))
	var out bytes.Buffer
	qt.Assert(t, qt.IsNil(v.Run(t.Context(), Cmd{Path: "/init", Args: []string{"hostname"}, Stdout: &out})))
	qt.Assert(t, qt.Equals(out.String(), "patch!<nil>"))

	t.Run("text", func(t *testing.T) {
		code := []byte{0xb8, 0x92, 0x10, 0, 0, 0xc3} // mov $4242,%eax; ret
		qt.Assert(t, qt.IsNil(v.WriteMem(code, symbol(t, v, "__x64_sys_getpgid"))))
		var out bytes.Buffer
		qt.Assert(t, qt.IsNil(v.Run(t.Context(), Cmd{Path: "/init", Args: []string{"getpgid"}, Stdout: &out})))
		qt.Assert(t, qt.Equals(out.String(), "4242 <nil>"))
	})
	t.Run("unmapped", func(t *testing.T) {
		err := v.ReadMem(make([]byte, 8), 0xffffffff00000000)
		qt.Assert(t, qt.Equals(mem.CauseOf(err), mem.Unmapped))
	})
	t.Run("paused", func(t *testing.T) {
		qt.Assert(t, qt.IsNil(v.Pause()))
		qt.Assert(t, qt.IsNil(v.ReadMem(page, at)))
		var st struct{ Status string }
		qt.Assert(t, qt.IsNil(v.monitor("asking", "query-status", nil, &st)))
		qt.Assert(t, qt.Equals(st.Status, "paused"))
		qt.Assert(t, qt.IsNil(v.Resume()))
		qt.Assert(t, qt.IsNil(v.monitor("asking", "query-status", nil, &st)))
		qt.Assert(t, qt.Equals(st.Status, "running"))
	})
}

// symbol looks an address up in the guest's /proc/kallsyms.
func symbol(t *testing.T, v *VM, name string) uint64 {
	t.Helper()
	var syms bytes.Buffer
	qt.Assert(t, qt.IsNil(v.CopyFile(t.Context(), &syms, "/proc/kallsyms")))
	for line := range strings.Lines(syms.String()) {
		var addr uint64
		var kind, sym string
		if n, _ := fmt.Sscanf(line, "%x %s %s", &addr, &kind, &sym); n == 3 && sym == name {
			return addr
		}
	}
	t.Fatalf("no symbol %s", name)
	return 0
}
