package kernel

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// Limits on the BTF read from a target: kernels have 4 to 8 MiB, modules less
// than 2.
const (
	maxBTF       = 64 << 20
	maxModuleBTF = 16 << 20
)

// loadTypes reads the kernel's own BTF.
func (k *Kernel) loadTypes() (*ctype.Types, error) {
	start, ok1 := k.coreLookup("__start_BTF")
	stop, ok2 := k.coreLookup("__stop_BTF")
	// Without CONFIG_KALLSYMS_ALL kallsyms has functions alone.
	if src, ok := k.src.(interface{ BTF() ([]byte, error) }); ok && !ok1 {
		if raw, err := src.BTF(); err == nil {
			return ctype.New(raw)
		}
	}
	if !ok1 || !ok2 || stop.Addr <= start.Addr {
		return nil, errors.New("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF): its types are unknown")
	}
	if stop.Addr-start.Addr > maxBTF {
		return nil, fmt.Errorf("the kernel's BTF has %d bytes: damaged", stop.Addr-start.Addr)
	}
	raw, err := readParallel(k.mem, start.Addr, int(stop.Addr-start.Addr))
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's BTF: %w", err)
	}
	types, err := ctype.New(raw)
	if err != nil {
		return nil, fmt.Errorf("the kernel's BTF at %#x: %w", start.Addr, err)
	}
	if _, err := types.Struct("task_struct"); err != nil { // every kernel has it
		return nil, fmt.Errorf("the kernel's BTF at %#x is damaged: %v", start.Addr, err) // not an [ctype.ErrNotFound]
	}
	return types, nil
}

// readParallel reads n bytes by several readers at once: the pages of a dump
// have to be decompressed.
func readParallel(m mem.Reader, addr uint64, n int) ([]byte, error) {
	const parts = 4
	buf := make([]byte, n)
	step := (n/parts + 4095) &^ 4095
	var errs [parts]error
	var wg sync.WaitGroup
	for i := range parts {
		lo, hi := min(i*step, n), min((i+1)*step, n)
		wg.Go(func() { errs[i] = m.ReadMem(buf[lo:hi], addr+uint64(lo)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err // the lowest address
		}
	}
	return buf, nil
}

// addModuleTypes adds the BTF of the modules, by the list btf_modules
// (36e68442d1af, 5.11). A module whose BTF cannot be read lacks its types and
// nothing else.
func (k *Kernel) addModuleTypes(types *ctype.Types) error {
	head, ok := k.coreLookup("btf_modules")
	if !ok {
		return nil
	}
	// Offset and Object look for what types lack among the modules' types,
	// which are about to be found.
	if _, err := types.Struct("btf_module"); err != nil {
		return nil // CONFIG_DEBUG_INFO_BTF_MODULES is off
	}
	node, err := k.Offset("btf_module", "list")
	if err != nil {
		return err
	}
	var errs Errors
	total := uint64(0)
	for at, err := range k.List(head.Addr) {
		if err != nil {
			errs.Add(fmt.Errorf("BTF of modules: %w", err))
			break
		}
		if errs.TooMany() {
			break
		}
		o := k.Object("btf_module", at-node).Deref("btf")
		name, data, size := o.Str("name"), o.Ptr("data"), o.Uint("data_size")
		if err := o.Err(); err != nil {
			errs.Add(fmt.Errorf("BTF of a module: %w", err))
			continue
		}
		if size > maxModuleBTF || total+size > maxBTF {
			errs.Add(fmt.Errorf("BTF of module %s has %d bytes, after %d of others: damaged", name, size, total))
			continue
		}
		total += size
		raw, err := mem.Bytes(k.mem, data, int(size))
		if err == nil {
			err = types.AddModule(name, raw)
		}
		if err != nil {
			errs.Add(fmt.Errorf("BTF of module %s: %w", name, err))
		}
	}
	return errs.Err()
}
