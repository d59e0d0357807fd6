//go:build linux

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

// modulesFile exists if the kernel can load modules.
const modulesFile = "/proc/modules"

// Modules returns the loaded modules, newest first as the kernel lists them.
// Base is 0 where the kernel hides addresses from this process (kptr_restrict).
func Modules() ([]*kernel.Module, error) {
	text, err := os.ReadFile(modulesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // CONFIG_MODULES is off
	}
	if err != nil {
		return nil, needs(modulesFile, "root", err)
	}
	return parseModules(text)
}

// parseModules reads lines "NAME SIZE USED BY STATE ADDRESS (TAINT)". USED is
// "-" without CONFIG_MODULE_UNLOAD; the last is not always there.
func parseModules(text []byte) ([]*kernel.Module, error) {
	var out []*kernel.Module
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 6 {
			return out, fmt.Errorf("%s: %q", modulesFile, line)
		}
		size, err1 := strconv.ParseUint(f[1], 10, 32)
		base, err2 := strconv.ParseUint(f[5], 0, 64)
		if err := errors.Join(err1, err2); err != nil {
			return out, fmt.Errorf("%s: %q: %w", modulesFile, line, err)
		}
		m := &kernel.Module{Name: f[0], State: moduleStates[f[4]]}
		m.Refs, _ = strconv.ParseInt(f[2], 10, 64)
		if m.State == "" {
			m.State = "unknown"
		}
		if len(f) > 6 {
			m.Taint = kobj.TaintBits(strings.Trim(f[6], "()"))
		}
		if size > 0 && base+size >= base {
			m.Parts = []kernel.Range{{Start: base, End: base + size}}
		}
		out = append(out, m)
	}
	return out, nil
}

var moduleStates = map[string]string{"Live": "live", "Loading": "coming", "Unloading": "going"}
