package dumptest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ksleuth/ksleuth/vm"
)

// Get returns the path of a file of a scene, such as "casee-6.1.kdump". Where
// it cannot be made because QEMU, the kernel or the Go toolchain is missing,
// the test is skipped, or fails if KSLEUTH_REQUIRE_VM=1. The file is shared:
// do not write to it.
func Get(t testing.TB, file string) string {
	t.Helper()
	// The kernel's version has a dot as well: the extension is the last.
	name := strings.TrimSuffix(file, filepath.Ext(file))
	dir, err := Make(t.Context(), name)
	if missing(err) && os.Getenv("KSLEUTH_REQUIRE_VM") != "1" {
		t.Skipf("the dump %s cannot be made here: %v", file, err)
	}
	if err != nil {
		t.Fatalf("the dump %s: %v", file, err)
	}
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the scene %s has no such file: %v", name, err)
	}
	return path
}

// missing reports whether err is for want of something to be installed.
func missing(err error) bool {
	var noKernel *vm.KernelNotFoundError
	return errors.As(err, &noKernel) || errors.Is(err, vm.ErrNoQEMU) || errors.Is(err, exec.ErrNotFound)
}
