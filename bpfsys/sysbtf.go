//go:build linux

package bpfsys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// btfDir has the BTF of the kernel, vmlinux (341dfcf8d78e, 5.4), and of each
// module (36e68442d1af, 5.11), readable for everyone.
const btfDir = "/sys/kernel/btf"

// KernelTypes returns the types of the running kernel and its modules as it
// shows them in sysfs. Without the kernel's the error is an [UnsupportedError];
// with that of a module comes the rest.
func KernelTypes() (*ctype.Types, error) { return typesIn(btfDir) }

func typesIn(dir string) (*ctype.Types, error) {
	data, err := os.ReadFile(filepath.Join(dir, kernelBTF))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &UnsupportedError{"the kernel's types", "a kernel with CONFIG_DEBUG_INFO_BTF, and sysfs mounted at /sys", err}
	}
	if err != nil {
		return nil, err
	}
	types, err := ctype.New(data)
	if err != nil {
		return nil, fmt.Errorf("the kernel's BTF: %w", err)
	}
	files, err := os.ReadDir(dir)
	var errs kernel.Errors
	errs.Add(err)
	for _, f := range files {
		if f.Name() == kernelBTF {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the module was just unloaded
		}
		if err == nil {
			err = types.AddModule(f.Name(), data)
		}
		if err != nil {
			errs.Add(fmt.Errorf("BTF of module %s: %w", f.Name(), err))
		}
	}
	return types, errs.Err()
}
