package vm

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/ksleuth/ksleuth/internal/guest/guestinit"
	"github.com/ksleuth/ksleuth/vm/internal/cpio"
)

// vmcoreinfoModule delivers the VMCOREINFO note to QEMU's vmcoreinfo device;
// without it a dump does not say where the kernel is (FW_CFG_SYSFS).
const vmcoreinfoModule = "qemu_fw_cfg"

// WriteInitramfs writes the archive that a guest of this configuration boots
// from to file, for a guest that boots another kernel itself. Of c, Init is
// required, and Kernel.Modules for there to be modules.
func (c *Config) WriteInitramfs(file string) (err error) {
	if err := checkStatic(c.Init); err != nil {
		return err
	}
	modules, err := c.loadModules()
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := cpio.NewWriter(buf)
	for _, d := range []string{"/dev", "/proc", "/sys", "/tmp", "/root", "/run"} {
		w.Dir(d)
	}
	// The kernel opens it for init before devtmpfs is mounted.
	w.CharDevice("/dev/console", 0o600, 5, 1)
	var cfg guestinit.Config
	for _, m := range modules {
		p := path.Join("/.guest/modules", m.name+".ko")
		cfg.Modules = append(cfg.Modules, p)
		w.File(p, 0o644, int64(len(m.data)), bytes.NewReader(m.data))
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	w.File(guestinit.ConfigPath, 0o644, int64(len(b)), bytes.NewReader(b))
	if err := addTree(w, guestinit.Path, c.Init); err != nil {
		return err
	}
	for _, guest := range slices.Sorted(maps.Keys(c.Files)) {
		if err := addTree(w, guest, c.Files[guest]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return buf.Flush()
}

// loadModules reads the requested modules, and the one that dumps need where
// there is one.
func (c *Config) loadModules() ([]module, error) {
	dir, err := openModules(c.Kernel.Modules)
	if err != nil {
		return nil, err
	}
	names := c.Modules
	if _, ok := dir.files[vmcoreinfoModule]; ok {
		names = append([]string{vmcoreinfoModule}, names...)
	}
	return dir.load(names)
}

// addTree adds a host's file or directory under the name guest. Links inside a
// tree stay links, a link given by name is followed.
func addTree(w *cpio.Writer, guest, host string) error {
	root, err := filepath.EvalSymlinks(host)
	if err != nil {
		return fmt.Errorf("file for the guest: %w", err)
	}
	return filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("file for the guest: %w", err)
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name := path.Join(guest, filepath.ToSlash(rel))
		switch {
		case e.IsDir():
			w.Dir(name)
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return fmt.Errorf("file for the guest: %w", err)
			}
			w.Symlink(name, target)
		case e.Type().IsRegular():
			return addFile(w, name, p)
		}
		return nil
	})
}

func addFile(w *cpio.Writer, guest, host string) error {
	f, err := os.Open(host)
	if err != nil {
		return fmt.Errorf("file for the guest: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("file for the guest: %w", err)
	}
	w.File(guest, st.Mode(), st.Size(), f)
	return nil
}

// checkStatic refuses a program that needs a dynamic loader, which the guest
// does not have; the kernel's own message would be a bare ENOENT.
func checkStatic(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("init of the guest: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("init of the guest: %w: %s", ErrNotStatic, file)
		}
	}
	return nil
}
