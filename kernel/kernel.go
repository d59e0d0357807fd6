// Package kernel brings together what a target's memory says of its kernel:
// virtual memory, symbols, types, stack tables, CPUs. Everything above it
// (tasks, BPF objects, stacks, reports) reads a kernel through this package and
// does not know whether it is a dump or a live host.
package kernel

import (
	"context"
	"sync"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kallsyms"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/orc"
	"github.com/ksleuth/ksleuth/paging"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Source is where a kernel's memory comes from. [*vmcore.Core] is one.
type Source interface {
	mem.Reader // physical memory
	NotedVMCoreInfo() (vmcore.VMCoreInfo, bool)
	StoredRanges() ([]vmcore.Range, error) // searched where the writer did not note the kernel's place
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
	registers   func() map[int]vmcore.CPU

	modORC sync.Map // *Module -> *orc.Table
}

// FromSource opens the kernel whose memory src gives. It finds the page tables
// and reads the symbol table; everything else is read when asked for. Where the
// dump does not note where the kernel is, memory is searched for it, which can
// take seconds; ctx ends that.
func FromSource(ctx context.Context, src Source) (*Kernel, error) {
	p, err := locate(ctx, src)
	if err != nil {
		return nil, err
	}
	k := &Kernel{phys: src, mem: p.space, info: p.info, cpus: src.CPUs()}
	if k.syms, err = k.loadSymbols(p.stext); err != nil {
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
	k.registers = sync.OnceValue(k.loadRegisters)
	return k, nil
}

// Mem returns the kernel's virtual memory.
func (k *Kernel) Mem() mem.Reader { return k.mem }

// Phys returns physical memory.
func (k *Kernel) Phys() mem.Reader { return k.phys }

// Walk says what the page tables hold for a virtual address.
func (k *Kernel) Walk(addr uint64) (paging.Mapping, error) { return k.mem.Walk(addr) }

// Info returns what the kernel exports for dump tools.
func (k *Kernel) Info() vmcore.VMCoreInfo { return k.info }

// Release returns the kernel's release, as uname -r prints it, or "".
func (k *Kernel) Release() string {
	if r := k.info.OSRelease(); r != "" {
		return r
	}
	addr, err := k.Addr("init_uts_ns")
	if err != nil {
		return ""
	}
	return k.Object("uts_namespace", addr).Field("name").Str("release")
}

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
