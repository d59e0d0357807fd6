package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A Kernel is an image to boot, with its modules.
type Kernel struct {
	Name    string // what it was found by
	Release string // uname -r, from the image's header
	Image   string // path of the bzImage
	Modules string // directory of its modules, or ""
	Config  string // path of its configuration, or ""
	Symbols string // path of its System.map, or ""
}

// A KernelNotFoundError says which kernel is missing and where it was sought.
type KernelNotFoundError struct {
	Name   string
	Looked []string
}

// Error says how to get the kernel.
func (e *KernelNotFoundError) Error() string {
	return fmt.Sprintf("no kernel %q in %s: run scripts/kernels %s, or set KSLEUTH_KERNELS to a directory with %s/vmlinuz and %s/modules",
		e.Name, strings.Join(e.Looked, " or "), e.Name, e.Name, e.Name)
}

// CacheDir returns the directory for fetched and generated files:
// $KSLEUTH_CACHE, else ksleuth in the user's cache directory.
func CacheDir() (string, error) {
	if d := os.Getenv("KSLEUTH_CACHE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory: %w", err)
	}
	return filepath.Join(d, "ksleuth"), nil
}

// FindKernel finds a kernel by name ("6.1") in $KSLEUTH_KERNELS, else among
// those that scripts/kernels put into the cache. A name with a slash is the
// path of an image, or of a directory laid out as in the cache: vmlinuz,
// modules, config, System.map.
func FindKernel(name string) (Kernel, error) {
	if strings.ContainsRune(name, '/') {
		return openKernel(name, name)
	}
	var looked []string
	if d := os.Getenv("KSLEUTH_KERNELS"); d != "" {
		looked = append(looked, d)
	} else {
		d, err := CacheDir()
		if err != nil {
			return Kernel{}, err
		}
		looked = append(looked, filepath.Join(d, "kernels"))
	}
	for _, d := range looked {
		k, err := openKernel(name, filepath.Join(d, name))
		if !errors.Is(err, os.ErrNotExist) {
			return k, err
		}
	}
	return Kernel{}, &KernelNotFoundError{name, looked}
}

// openKernel takes an image, or a directory that holds one as vmlinuz.
func openKernel(name, path string) (Kernel, error) {
	// The cache's entries are links to versions; what was found must not
	// change under the caller when a newer version arrives.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", name, err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", name, err)
	}
	k := Kernel{Name: name, Image: path}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		k.Image = filepath.Join(path, "vmlinuz")
		k.Modules = existing(filepath.Join(path, "modules"))
		k.Config = existing(filepath.Join(path, "config"))
		k.Symbols = existing(filepath.Join(path, "System.map"))
	}
	k.Release, err = imageRelease(k.Image)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", name, err)
	}
	if k.Modules == "" {
		k.Modules = existing("/lib/modules/" + k.Release)
	}
	return k, nil
}

func existing(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// imageRelease reads the release from a bzImage: the boot sector's "HdrS"
// header points to the version string (Documentation/arch/x86/boot.rst,
// kernel_version).
func imageRelease(image string) (string, error) {
	const headerAt, versionAt = 0x202, 0x20e
	f, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 64<<10)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%s: %w", image, err)
	}
	b = b[:n]
	if len(b) < versionAt+2 || string(b[headerAt:headerAt+4]) != "HdrS" {
		return "", fmt.Errorf("%s: not a bzImage: no HdrS at offset %#x", image, headerAt)
	}
	at := int(binary.LittleEndian.Uint16(b[versionAt:])) + 0x200
	if at >= len(b) {
		return "", fmt.Errorf("%s: version string at offset %#x, behind the setup code", image, at)
	}
	text, _, _ := strings.Cut(string(b[at:min(at+256, len(b))]), "\x00")
	release, _, _ := strings.Cut(text, " ")
	return release, nil
}
