package judge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vm"
)

// A liveGuest is a guest in which ksleuth examines the kernel it runs on.
type liveGuest struct {
	*vm.VM
	t testing.TB
}

// Paths in the guest.
const (
	guestKsleuth = "/ksleuth"
	guestProgram = "/guest"    // of internal/guest
	guestTester  = "/livetest" // of internal/livetest
)

// programs builds the programs of live guests, once a process; their paths by
// those in the guest.
var programs = sync.OnceValues(func() (map[string]string, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "live")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for path, pkg := range map[string]string{
		guestKsleuth: "cmd/ksleuth", guestProgram: "internal/guest", guestTester: "internal/livetest",
	} {
		files[path] = filepath.Join(dir, filepath.Base(pkg))
		// Others may be about to use the last one.
		tmp := fmt.Sprintf("%s.%d", files[path], os.Getpid())
		build := exec.Command("go", "build", "-trimpath", "-o", tmp, "github.com/ksleuth/ksleuth/"+pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if msg, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", pkg, err, msg)
		}
		if err := os.Rename(tmp, files[path]); err != nil {
			return nil, err
		}
	}
	return files, nil
})

// bootLive boots a kernel of the matrix.
func bootLive(t testing.TB, kernel string, change func(*vm.Config)) *liveGuest {
	t.Helper()
	k, err := vm.FindKernel(kernel)
	var missing *vm.KernelNotFoundError
	if errors.As(err, &missing) && os.Getenv("KSLEUTH_REQUIRE_VM") != "1" {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	files, err := programs()
	qt.Assert(t, qt.IsNil(err))
	cfg := vm.Config{Kernel: k, Init: files[guestProgram], MemoryMiB: 384, Files: files}
	if change != nil {
		change(&cfg)
	}
	v, err := vm.Start(t.Context(), cfg)
	if errors.Is(err, vm.ErrNoQEMU) && os.Getenv("KSLEUTH_REQUIRE_VM") != "1" {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { v.Close() })
	qt.Assert(t, qt.HasLen(v.SetupErrors(), 0))
	return &liveGuest{v, t}
}

// start starts a program that says a word when it is ready, and then goes on.
func (g *liveGuest) start(path string, args ...string) *vm.Process {
	g.t.Helper()
	ready := make(chan struct{}, 1)
	var errs lockedBuffer
	p, err := g.StartProcess(g.t.Context(), vm.Cmd{Path: path, Args: args, Stdout: dumptest.Announce(ready), Stderr: &errs})
	qt.Assert(g.t, qt.IsNil(err))
	ended, stop := context.WithCancelCause(g.t.Context())
	go func() { stop(p.Wait(context.WithoutCancel(g.t.Context()))) }()
	select {
	case <-ready:
	case <-ended.Done():
		g.t.Fatalf("%s %s ended: %v\n%s", path, strings.Join(args, " "), context.Cause(ended), errs.String())
	}
	return p
}

// A lockedBuffer can be read while it is written to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements [io.Writer].
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written so far.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// run runs a program in the guest.
func (g *liveGuest) run(path string, args ...string) (status cli.Status, out, errs string) {
	g.t.Helper()
	var o, e strings.Builder
	err := g.Run(g.t.Context(), vm.Cmd{Path: path, Args: args, Stdout: &o, Stderr: &e})
	var exit *vm.ExitError
	if errors.As(err, &exit) && exit.Signal == 0 {
		return cli.Status(exit.Code), o.String(), e.String()
	}
	qt.Assert(g.t, qt.IsNil(err), qt.Commentf("%s %s: %s", path, strings.Join(args, " "), e.String()))
	return cli.StatusOK, o.String(), e.String()
}

// ksleuth runs ksleuth in the guest. Any exit status but want fails the test.
func (g *liveGuest) ksleuth(want cli.Status, args ...string) string {
	g.t.Helper()
	status, out, errs := g.run(guestKsleuth, args...)
	qt.Assert(g.t, qt.Equals(status, want), qt.Commentf("ksleuth %s\n%s%.2000s", strings.Join(args, " "), errs, out))
	return out
}

// file returns a file of the guest.
func (g *liveGuest) file(path string) string {
	g.t.Helper()
	var b strings.Builder
	qt.Assert(g.t, qt.IsNil(g.CopyFile(g.t.Context(), &b, path)))
	return b.String()
}

// copyOut copies a file of the guest to a file here.
func copyOut(t *testing.T, g *liveGuest, path string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(path)))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(g.CopyFile(t.Context(), f, path)))
	qt.Assert(t, qt.IsNil(f.Close()))
	return f.Name()
}
