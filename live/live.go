// Package live reads the memory of the running kernel: a [Target] is physical
// memory, as a dump is, and what the kernel exports about itself, so that
// everything that examines a dump examines the kernel it runs on.
//
// There are two ways to the memory: /proc/kcore, and where that is absent or
// forbidden a BPF program that copies kernel memory. Where neither is allowed,
// Open's [*Error] says of each why, and what would enable it.
package live

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Way is a way to read the running kernel's memory.
type Way string

// The ways. Auto takes the first that works.
const (
	Auto  Way = "auto"
	KCore Way = "kcore" // /proc/kcore
	BPF   Way = "bpf"   // a BPF program
	None  Way = "none"  // no memory: Open fails as where nothing is allowed
)

// Ways are all of them, in words for a command line.
var Ways = [...]Way{Auto, KCore, BPF, None}

// Options change how the running kernel is opened. The zero value is what
// [Open] uses.
type Options struct {
	Memory Way // Auto if empty
}

// physical is one of the ways, opened: physical memory and where it is.
type physical interface {
	mem.Reader
	io.Closer
	info() (vmcore.VMCoreInfo, bool)
	ranges() ([]vmcore.Range, error)
	describe() string
}

// A Target is the running kernel, opened for reading. It is a kernel.Source
// and safe for concurrent use.
//
// A page is read once until [Target.Refresh]: what is read in between is
// consistent as far as pages go, and no more, for the kernel runs on.
type Target struct {
	way   Way
	phys  physical
	cache *pageCache
}

// Open opens the running kernel. The error is an [*Error], or the context's.
func Open(ctx context.Context) (*Target, error) { return Options{}.Open(ctx) }

// Open is [Open] with options.
func (o Options) Open(ctx context.Context) (*Target, error) {
	var failed Error
	for _, w := range opened {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch o.Memory {
		case Auto, "", w.way:
		default:
			failed.Ways = append(failed.Ways, Refusal{Way: w.way, Name: w.name, Class: ErrDenied, Err: errNotAsked})
			continue
		}
		phys, err := w.open()
		if err == nil {
			return &Target{way: w.way, phys: phys, cache: newPageCache(phys)}, nil
		}
		var r *Refusal
		if !errors.As(err, &r) {
			r = &Refusal{Class: ErrUnsupported, Err: err}
		}
		r.Way, r.Name = w.way, w.name
		failed.Ways = append(failed.Ways, *r)
	}
	return nil, &failed
}

// opened are the ways in the order in which they are tried.
var opened = [...]struct {
	way  Way
	name string
	open func() (physical, error)
}{
	{KCore, "/proc/kcore", openKCore},
	{BPF, "a BPF program", openBPF},
}

// errNotAsked says that a way was left out on request.
var errNotAsked = errors.New("left out on request")

// Close ends the reading. Nothing is left in the kernel.
func (t *Target) Close() error { return t.phys.Close() }

// ReadMem implements [mem.Reader] over physical memory.
func (t *Target) ReadMem(p []byte, addr uint64) error { return t.cache.ReadMem(p, addr) }

// Refresh forgets what was read: what comes after it is read anew.
func (t *Target) Refresh() { t.cache.drop() }

// Live reports that two reads can differ.
func (t *Target) Live() bool { return true }

// Way returns the way by which memory is read.
func (t *Target) Way() Way { return t.way }

// Memory says in words how memory is read: "/proc/kcore", "a BPF program".
func (t *Target) Memory() string { return t.phys.describe() }

// NotedVMCoreInfo returns what the kernel exports for dump tools.
func (t *Target) NotedVMCoreInfo() (vmcore.VMCoreInfo, bool) { return t.phys.info() }

// StoredRanges returns the physical memory that is RAM.
func (t *Target) StoredRanges() ([]vmcore.Range, error) { return t.phys.ranges() }

// BTF returns the kernel's types as it shows them in sysfs, for kernels whose
// symbols do not say where they are in memory.
func (t *Target) BTF() ([]byte, error) { return os.ReadFile("/sys/kernel/btf/vmlinux") }

// CPUs returns nil: the registers of running CPUs cannot be read.
func (t *Target) CPUs() []vmcore.CPU { return nil }

// Meta returns the head of a dump of this kernel, for [vmcore.Write].
func (t *Target) Meta() vmcore.Meta {
	var m vmcore.Meta
	m.Ranges, _ = t.StoredRanges()
	if v, ok := t.NotedVMCoreInfo(); ok {
		m.VMCoreInfo = v.Raw()
	}
	return m
}
