// Package kernel brings together what a target's memory says of its kernel:
// virtual memory, symbols, types, stack tables, CPUs. Everything above it
// (tasks, BPF objects, stacks, reports) reads a kernel through this package and
// does not know whether it is a dump or a live host.
package kernel

import (
	"errors"
	"sync"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kallsyms"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/orc"
	"github.com/ksleuth/ksleuth/paging"
	"github.com/ksleuth/ksleuth/vmcore"
)

// kernelMap is where x86-64 Linux links its image (arch/x86/include/asm/page_64_types.h,
// __START_KERNEL_map).
const kernelMap = 0xffff_ffff_8000_0000

// A Source is where a kernel's memory comes from. [*vmcore.Core] is one.
type Source interface {
	mem.Reader // physical memory
	VMCoreInfo() (vmcore.VMCoreInfo, error)
	CPUs() []vmcore.CPU
}

// A Kernel is one kernel, opened for reading. It is safe for concurrent use.
type Kernel struct {
	phys mem.Reader
	mem  *paging.AddressSpace
	info vmcore.VMCoreInfo
	cpus []vmcore.CPU
	syms *kallsyms.Table

	known func() map[string]kallsyms.Symbol
	types func() (*ctype.Types, error)
	// moduleTypes adds the types of the modules to types, which are needed to
	// find the modules.
	moduleTypes func() error
	modules     func() ([]*Module, error)
	bpfText     func() ([]BPFText, error)
	orc         func() (*orc.Table, error)
	percpu      func() ([]uint64, error)

	modORC sync.Map // *Module -> *orc.Table
}

// FromSource opens the kernel whose memory src gives. It reads the page
// tables' root and the symbol table; everything else is read when asked for.
func FromSource(src Source) (*Kernel, error) {
	info, err := src.VMCoreInfo()
	if err != nil {
		return nil, err
	}
	as, err := addressSpace(src, info)
	if err != nil {
		return nil, err
	}
	k := &Kernel{phys: src, mem: as, info: info, cpus: src.CPUs()}
	if k.syms, err = k.loadSymbols(); err != nil {
		return nil, err
	}
	k.known = sync.OnceValue(k.lookupKnown)
	k.types = sync.OnceValues(k.loadTypes)
	k.moduleTypes = sync.OnceValue(func() error {
		types, err := k.types()
		if err != nil {
			return err
		}
		return k.addModuleTypes(types)
	})
	k.modules = sync.OnceValues(k.loadModules)
	k.bpfText = sync.OnceValues(k.loadBPFText)
	k.orc = sync.OnceValues(k.loadORC)
	k.percpu = sync.OnceValues(k.loadPerCPU)
	return k, nil
}

// addressSpace finds the kernel's page tables by VMCOREINFO.
func addressSpace(phys mem.Reader, info vmcore.VMCoreInfo) (*paging.AddressSpace, error) {
	pgd, ok := info.Symbol("swapper_pg_dir")
	if !ok {
		return nil, errors.New("VMCOREINFO has no SYMBOL(swapper_pg_dir): the page tables cannot be found")
	}
	base, ok := info.Number("phys_base")
	if !ok {
		return nil, errors.New("VMCOREINFO has no NUMBER(phys_base), which kernels have since 4.10: the kernel's physical address is unknown")
	}
	levels := 4
	if l5, ok := info.Number("pgtable_l5_enabled"); ok && l5 != 0 {
		levels = 5
	}
	sme, _ := info.Number("sme_mask")
	return paging.New(paging.Config{
		Phys:    phys,
		Root:    pgd - kernelMap + uint64(base),
		Levels:  levels,
		EncMask: uint64(sme),
	})
}

// Mem returns the kernel's virtual memory.
func (k *Kernel) Mem() mem.Reader { return k.mem }

// Phys returns physical memory.
func (k *Kernel) Phys() mem.Reader { return k.phys }

// Walk says what the page tables hold for a virtual address.
func (k *Kernel) Walk(addr uint64) (paging.Mapping, error) { return k.mem.Walk(addr) }

// Info returns what the kernel exports for dump tools.
func (k *Kernel) Info() vmcore.VMCoreInfo { return k.info }

// Release returns the kernel's release, as uname -r prints it.
func (k *Kernel) Release() string { return k.info.OSRelease() }

// Types returns the types of the kernel and its modules, from BTF.
func (k *Kernel) Types() (*ctype.Types, error) {
	types, err := k.types()
	if err != nil {
		return nil, err
	}
	_ = k.moduleTypes() // said by ModuleTypesError
	return types, nil
}

// ModuleTypesError says why the types of some modules are missing.
func (k *Kernel) ModuleTypesError() error {
	if _, err := k.types(); err != nil {
		return nil
	}
	return k.moduleTypes()
}
