package dumptest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ksleuth/ksleuth/vm"
)

// patience bounds the making of one scene, which takes seconds on an idle
// machine.
const patience = 5 * time.Minute

// defaultMemory is the memory of a guest, in MiB.
const defaultMemory = 256

// program returns the program that sets the scene.
func (s *scene) program() *program { return programs[cmp.Or(s.guest, "guest")] }

// Make returns the directory that holds a scene's files, and makes them first
// if they are missing or not of the present kernel and guest program.
func Make(ctx context.Context, name string) (string, error) {
	s, err := find(name)
	if err != nil {
		return "", err
	}
	if _, err := vm.Available(""); err != nil {
		return "", err
	}
	kernel, err := vm.FindKernel(s.kernel)
	if err != nil {
		return "", err
	}
	cache, err := vm.CacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "dumps")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "."+name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	work, err := os.MkdirTemp(cache, ".work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	guest, err := s.program().build()
	if err != nil {
		return "", err
	}
	key, err := s.key(guest, kernel.Image)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := s.make(ctx, kernel, guest, filepath.Join(work, "scene")); err != nil {
		return "", fmt.Errorf("making the scene %s: %w", name, err)
	}
	return dir, replace(filepath.Join(work, "scene"), dir, filepath.Join(cache, name+"-*"))
}

func find(name string) (scene, error) {
	for _, s := range slices.Concat(scenes, bpfScenes, sizedScenes, crashScenes(), runScenes(), callScenes()) {
		if s.name == name {
			return s, nil
		}
	}
	return scene{}, fmt.Errorf("no scene is called %q; there are %s", name, strings.Join(Scenes(), ", "))
}

// lock takes an exclusive lock: tests of several packages run at once.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}

// Build builds a program for guests, static, by its folder below internal/, and
// returns its path.
func Build(pkg string) (string, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return "", err
	}
	// Each build has a file of its own until it is complete; the same
	// sources give the same bytes, so the last rename may win.
	out := filepath.Join(cache, "dumps", pkg)
	dir, err := os.MkdirTemp(filepath.Dir(out), ".build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, pkg)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", tmp, "github.com/ksleuth/ksleuth/internal/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the guest program: %w\n%s", err, msg)
	}
	return out, os.Rename(tmp, out)
}

// key identifies what a scene is made from.
func (s *scene) key(files ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q\n", s.program().path, s.workload, s.cpu, s.cmdline, s.modules)
	if s.memory != 0 {
		fmt.Fprintln(h, s.memory)
	}
	if s.kexec {
		fmt.Fprintln(h, "kexec", s.cpus, s.offline)
	}
	if s.brief {
		fmt.Fprintln(h, "brief", s.patch)
	}
	if s.at != "" {
		fmt.Fprintf(h, "at %q %q\n", s.at, s.old)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}

// replace moves a new directory into place and removes its predecessors. A
// test that has one open keeps reading its files.
func replace(from, to, old string) error {
	olds, err := filepath.Glob(old)
	if err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	for _, o := range olds {
		err = errors.Join(err, os.RemoveAll(o))
	}
	return err
}

// make boots the guest, sets the scene, and writes its files to dir.
func (s *scene) make(ctx context.Context, kernel vm.Kernel, guest, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	base := filepath.Join(dir, s.name)
	cfg := vm.Config{
		Kernel: kernel, Init: guest, MemoryMiB: cmp.Or(s.memory, defaultMemory), CPUs: s.cpus, CPU: s.cpu, Accel: vm.TCG,
		Modules: s.modules, Cmdline: s.cmdline,
		Files: map[string]string{s.program().path: guest},
	}
	if s.kexec {
		if err := addCrashKernel(&cfg, filepath.Dir(dir), base+".elf"); err != nil {
			return err
		}
	}
	v, err := vm.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	if errs := v.SetupErrors(); len(errs) > 0 {
		return fmt.Errorf("setting up the guest: %s", strings.Join(errs, "; "))
	}
	if s.kexec {
		if err := prepareCrash(ctx, v, s.offline); err != nil {
			return err
		}
	}
	p, err := s.start(ctx, v)
	if err != nil {
		return err
	}
	if err := s.recordFacts(ctx, v, base, false); err != nil {
		return err
	}
	if s.patch != "" {
		if err := s.apply(v, base+".kallsyms"); err != nil {
			return err
		}
	}
	if s.kexec {
		return crashAndSave(ctx, v, p, base)
	}
	if s.trigger != nil {
		if err := p.Signal(ctx, syscall.SIGUSR1); err != nil {
			return err
		}
		if _, err := v.WaitConsole(ctx, s.trigger); err != nil {
			return err
		}
	}
	if err := s.recordFacts(ctx, v, base, true); err != nil {
		return err
	}
	return dump(v, base, s.brief)
}

// start starts the workload, a subcommand of the guest program, and waits for
// "ready".
func (s *scene) start(ctx context.Context, v *vm.VM) (*vm.Process, error) {
	var stderr strings.Builder
	ready := make(chan struct{}, 1)
	p, err := v.StartProcess(ctx, vm.Cmd{Path: s.program().path, Args: strings.Fields(s.workload), Stdout: Announce(ready), Stderr: &stderr})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait(ctx) }()
	select {
	case <-ready:
		return p, nil
	case err := <-ended:
		return nil, fmt.Errorf("the workload %s: %w: %s", s.workload, err, strings.TrimSpace(stderr.String()))
	}
}

// An Announce is a writer that tells of its first write.
type Announce chan<- struct{}

// Write tells, and drops what is written.
func (a Announce) Write(p []byte) (int, error) {
	select {
	case a <- struct{}{}:
	default:
	}
	return len(p), nil
}

// recordFacts writes what the guest's kernel says of itself before or after the
// trigger.
func (s *scene) recordFacts(ctx context.Context, v *vm.VM, base string, after bool) error {
	wanted := s.program().facts
	if s.brief && s.program().brief != nil {
		wanted = s.program().brief
	}
	for _, fact := range wanted {
		if fact.after != after {
			continue
		}
		f, err := os.Create(base + "." + fact.ext)
		if err != nil {
			return err
		}
		if fact.file != "" {
			err = v.CopyFile(ctx, f, fact.file)
		} else {
			var stderr strings.Builder
			err = v.Run(ctx, vm.Cmd{Path: s.program().path, Args: []string{fact.command}, Stdout: f, Stderr: &stderr})
			if err != nil {
				err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("recording %s: %w", fact.ext, err)
		}
	}
	return nil
}

// dump writes both dumps, of one moment, and the console.
func dump(v *vm.VM, base string, brief bool) error {
	if err := v.Pause(); err != nil {
		return err
	}
	if !brief {
		if err := v.DumpMemory(base+".elf", vm.DumpELF); err != nil {
			return err
		}
	}
	if err := v.DumpMemory(base+".kdump", vm.DumpKdumpZlib); err != nil {
		return err
	}
	return os.WriteFile(base+".console", []byte(v.Console()), 0o644)
}
