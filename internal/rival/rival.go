// Package rival takes programs of the host's distribution into guests: those
// that ksleuth is judged by and measured beside, bpftrace and tcpdump, with
// their shared libraries and the loader that finds these.
package rival

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/ksleuth/ksleuth/vm"
)

// A Tool is a program with all it needs to run in a guest.
type Tool struct {
	// Files are what the guest needs: path there -> file here.
	Files map[string]string

	loader, libraries, program string // in the guest
}

// A MissingError says that a program is not installed.
type MissingError struct{ Program string }

// Error says what gets the program.
func (e *MissingError) Error() string {
	return e.Program + " is not there: scripts/tools installs what the tests need, scripts/kernels --bpftrace fetches peers for guests"
}

// Find finds a program by name in PATH, or by its path, and the libraries that
// the loader would load for it. A program that is not there is a
// [*MissingError].
func Find(name string) (*Tool, error) {
	program, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{name}
	} else if err != nil {
		return nil, err
	}
	loader, err := interpreter(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return newTool(program, loader, "--list", program)
}

// FindDir is [Find] for a program in a directory that has its libraries and
// their loader too, as scripts/kernels makes them.
func FindDir(dir, name string) (*Tool, error) {
	program := filepath.Join(dir, name)
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{program}
	}
	loaders, err := filepath.Glob(filepath.Join(dir, "ld-linux*"))
	if err != nil {
		return nil, err
	}
	if len(loaders) == 0 {
		return nil, fmt.Errorf("%s has no loader", dir)
	}
	return newTool(program, loaders[0], "--library-path", dir, "--list", program)
}

// Bpftrace finds the bpftrace that scripts/kernels fetches. The host's may want
// more than a guest's kernel has: 0.17 wants BTF to have ids, which is 5.11's.
func Bpftrace() (*Tool, error) {
	cache, err := vm.CacheDir()
	if err != nil {
		return nil, err
	}
	return FindDir(filepath.Join(cache, "bpftrace"), "bpftrace")
}

// newTool asks the loader for the libraries.
func newTool(program, loader string, list ...string) (*Tool, error) {
	out, err := exec.Command(loader, list...).Output()
	if err != nil {
		return nil, fmt.Errorf("the libraries of %s: %w", program, err)
	}
	dir := "/rival/" + filepath.Base(program)
	t := &Tool{
		// Some look up the user they are to be.
		Files:  map[string]string{"/etc/passwd": "/etc/passwd"},
		loader: path.Join(dir, "ld.so"), libraries: path.Join(dir, "lib"), program: path.Join(dir, filepath.Base(program)),
	}
	t.Files[t.loader], t.Files[t.program] = loader, program
	for _, lib := range libraries(out) {
		t.Files[path.Join(t.libraries, filepath.Base(lib))] = lib
	}
	return t, nil
}

// Command is the program in a guest that has t.Files.
func (t *Tool) Command(args ...string) vm.Cmd {
	return vm.Cmd{Path: t.loader, Args: append([]string{"--library-path", t.libraries, t.program}, args...)}
}

// Words are the same as words of a command line in the guest.
func (t *Tool) Words(args ...string) []string {
	c := t.Command(args...)
	return append([]string{c.Path}, c.Args...)
}

// interpreter returns the loader that a program names.
func interpreter(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", err
		}
		return string(bytes.TrimRight(b, "\x00")), nil
	}
	return "", errors.New("a static program, which needs no loader")
}

// libraries reads the loader's list: lines of "NAME => PATH (ADDRESS)", of
// which those without a path are not files.
func libraries(list []byte) []string {
	var out []string
	for s := bufio.NewScanner(bytes.NewReader(list)); s.Scan(); {
		_, file, found := strings.Cut(s.Text(), " => ")
		if file, _, ok := strings.Cut(file, " ("); found && ok && filepath.IsAbs(file) {
			out = append(out, file)
		}
	}
	return out
}
