// Package kernel brings together what a target's memory says of its kernel:
// virtual memory, symbols, types, stack tables, CPUs. Everything above it
// (tasks, BPF objects, stacks, reports) reads a kernel through this package and
// does not know whether it is a dump or a live host.
package kernel

import (
	"context"
	"sync"
	"sync/atomic"

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

	src Source

	known func() map[string]kallsyms.Symbol
	types func() (*ctype.Types, error)
	// moduleTypes adds the types of the modules to types, which are needed to
	// find the modules.
	moduleTypes func() error
	orc         func() (*orc.Table, error)
	percpu      func() ([]uint64, error)
	registers   func() map[int]vmcore.CPU

	changing atomic.Pointer[changing]
	modORC   sync.Map // *Module -> *orc.Table
	records  sync.Map // name of a struct -> *ctype.Type
}

// changing is what was read of what comes and goes on a running kernel.
type changing struct {
	modules func() ([]*Module, error)
	bpfText func() ([]BPFText, error)
}

func (k *Kernel) modules() ([]*Module, error) { return k.changing.Load().modules() }
func (k *Kernel) bpfText() ([]BPFText, error) { return k.changing.Load().bpfText() }

// rearm has the lists of things that come and go read anew.
func (k *Kernel) rearm() {
	k.changing.Store(&changing{
		modules: sync.OnceValues(k.loadModules),
		bpfText: sync.OnceValues(k.loadBPFText),
	})
	k.modORC.Clear()
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
	k := &Kernel{src: src, phys: src, mem: p.space, info: p.info, cpus: src.CPUs()}
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
	k.rearm()
	k.orc = sync.OnceValues(k.loadORC)
	k.percpu = sync.OnceValues(k.loadPerCPU)
	k.registers = sync.OnceValue(k.loadRegisters)
	return k, nil
}

// Live reports whether this is a running kernel, of which two reads can differ.
func (k *Kernel) Live() bool {
	l, ok := k.src.(interface{ Live() bool })
	return ok && l.Live()
}

// Refresh forgets what was read of a running kernel and may have changed since:
// memory, page tables, the lists of modules and of generated code. On a dump it
// does nothing. What was taken from the kernel before stays as it was.
func (k *Kernel) Refresh() {
	if !k.Live() {
		return
	}
	if s, ok := k.src.(interface{ Refresh() }); ok {
		s.Refresh()
	}
	k.mem.Refresh()
	k.rearm()
}

// retries is how often [Kernel.Retry] reads again.
const retries = 4

// Retry calls read, which reads what may change under the reader, again after
// a [Kernel.Refresh] if it fails on a running kernel: a list can be changed
// while it is walked, and what is on it can be freed. It returns the last
// error. On a dump it calls read once.
func (k *Kernel) Retry(read func() error) error {
	err := read()
	for n := 0; err != nil && k.Live() && n < retries; n++ {
		k.Refresh()
		err = read()
	}
	return err
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
