package vm

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxModule bounds a decompressed module, in bytes.
const maxModule = 256 << 20

// A module is a kernel module ready to be loaded.
type module struct {
	name string // with underscores, as the kernel prints it
	data []byte // decompressed ELF file
}

// A ModuleError says which module could not be prepared and why.
type ModuleError struct {
	Module string
	Err    error
}

// Error names the module.
func (e *ModuleError) Error() string { return "kernel module " + e.Module + ": " + e.Err.Error() }

// Unwrap returns the cause; fs.ErrNotExist if the kernel has no such module.
func (e *ModuleError) Unwrap() error { return e.Err }

// A moduleDir is the index of one kernel's modules. Dependencies are read from
// the modules themselves ("depends=" of .modinfo): modules.dep exists only
// where depmod has run, which for a package just unpacked it has not.
type moduleDir struct {
	files   map[string]string
	builtin map[string]bool
}

// openModules indexes the modules below dir; "" means there are none.
func openModules(dir string) (*moduleDir, error) {
	d := &moduleDir{files: make(map[string]string), builtin: make(map[string]bool)}
	if dir == "" {
		return d, nil
	}
	// /lib/modules/X may be a link; WalkDir does not follow its root.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(e.Name()); ok && e.Type().IsRegular() {
			d.files[name] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	// Written by the kernel's build; absent if the package was not unpacked.
	b, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := moduleName(filepath.Base(strings.TrimSpace(line))); ok {
			d.builtin[name] = true
		}
	}
	return d, nil
}

// moduleName turns a file name, compressed or not, into the module's name.
func moduleName(file string) (string, bool) {
	for _, ext := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if base, ok := strings.CutSuffix(file, ext); ok {
			return canonical(base), true
		}
	}
	return "", false
}

func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// load returns the named modules and all they depend on, in loading order. A
// module that is built in needs no loading.
func (d *moduleDir) load(names []string) ([]module, error) {
	var out []module
	seen := make(map[string]bool)
	var add func(name string) error
	add = func(name string) error {
		name = canonical(name)
		if seen[name] || d.builtin[name] {
			return nil
		}
		seen[name] = true
		path, ok := d.files[name]
		if !ok {
			return &ModuleError{name, fs.ErrNotExist}
		}
		data, err := readModule(path)
		if err != nil {
			return &ModuleError{name, err}
		}
		deps, err := dependencies(data)
		if err != nil {
			return &ModuleError{name, fmt.Errorf("%s: %w", path, err)}
		}
		for _, dep := range deps {
			if err := add(dep); err != nil {
				return &ModuleError{name, err}
			}
		}
		out = append(out, module{name, data})
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readModule reads and decompresses a module's file.
func readModule(path string) ([]byte, error) {
	if strings.HasSuffix(path, ".xz") {
		// No xz decoder is among our dependencies, and kernels decompress
		// modules themselves only since 5.17 and if configured to.
		b, err := exec.Command("xz", "--decompress", "--stdout", "--", path).Output()
		if err != nil {
			return nil, fmt.Errorf("decompressing %s with the program xz: %w", path, err)
		}
		return b, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := decompressor(f, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(b) > maxModule {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxModule)
	}
	return b, nil
}

func decompressor(r io.Reader, path string) (io.ReadCloser, error) {
	switch filepath.Ext(path) {
	case ".zst":
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".gz":
		return gzip.NewReader(r)
	}
	return io.NopCloser(r), nil
}

// dependencies reads "depends=a,b" from a module's .modinfo section.
func dependencies(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
