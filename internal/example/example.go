// Package example opens the dump in testdata for tests: as it is, or with parts
// of its memory overwritten or taken away, for what no real dump at hand has.
package example

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

const pageSize = 4096

// A Change is a change of virtual memory.
type Change struct {
	addr   uint64
	data   []byte
	absent bool // the page is not in the dump
}

// Write overwrites memory.
func Write(addr uint64, data []byte) Change { return Change{addr: addr, data: data} }

// Words overwrites 64-bit words.
func Words(addr uint64, words ...uint64) Change {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return Change{addr: addr, data: b}
}

// Absent takes a page out of the dump.
func Absent(addr uint64) Change { return Change{addr: addr, absent: true} }

// Core opens the dump.
func Core(t testing.TB) *vmcore.Core {
	t.Helper()
	return open(t, path(t))
}

func open(t testing.TB, file string) *vmcore.Core {
	t.Helper()
	c, err := vmcore.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// path finds the dump from a package's folder, where tests run.
func path(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil && len(dir) > 1; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "testdata", "example.kdump")
		}
	}
	t.Fatal("this is not run inside of the module")
	return ""
}

// Kernel opens the kernel of the dump, with changes.
func Kernel(t testing.TB, changes ...Change) *kernel.Kernel {
	t.Helper()
	return KernelWithInfo(t, "", changes...)
}

// KernelWithInfo is [Kernel] with lines added to VMCOREINFO; they replace those
// of the same keys.
func KernelWithInfo(t testing.TB, info string, changes ...Change) *kernel.Kernel {
	t.Helper()
	return change(t, Core(t), info, changes)
}

// KernelOf opens the kernel of another dump, with changes: the one in testdata
// has only the memory that a crash report needs.
func KernelOf(t testing.TB, file string, changes ...Change) *kernel.Kernel {
	t.Helper()
	return change(t, open(t, file), "", changes)
}

func change(t testing.TB, core *vmcore.Core, info string, changes []Change) *kernel.Kernel {
	t.Helper()
	k, err := kernel.FromSource(t.Context(), core)
	if err != nil {
		t.Fatal(err)
	}
	if info == "" && len(changes) == 0 {
		return k
	}
	src := &changed{Core: core, info: info, bytes: make(map[uint64]byte), absent: make(map[uint64]bool)}
	for _, c := range changes {
		if c.absent {
			src.absent[physical(t, k, c.addr)/pageSize] = true
		}
		for i, b := range c.data {
			src.bytes[physical(t, k, c.addr+uint64(i))] = b
		}
	}
	if k, err = kernel.FromSource(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	return k
}

func physical(t testing.TB, k *kernel.Kernel, addr uint64) uint64 {
	t.Helper()
	m, err := k.Walk(addr)
	if err != nil {
		t.Fatal(err)
	}
	return m.Phys
}

// changed is a dump with changes.
type changed struct {
	*vmcore.Core
	info   string
	bytes  map[uint64]byte // by physical address
	absent map[uint64]bool // page frames
}

// NotedVMCoreInfo gives the dump's VMCOREINFO with the added lines.
func (c *changed) NotedVMCoreInfo() (vmcore.VMCoreInfo, bool) {
	v, ok := c.Core.NotedVMCoreInfo()
	return vmcore.ParseVMCoreInfo(v.Raw() + "\n" + c.info), ok
}

// ReadMem implements [mem.Reader].
func (c *changed) ReadMem(p []byte, addr uint64) error {
	for pos := uint64(0); pos < uint64(len(p)); {
		n := min(pageSize-(addr+pos)%pageSize, uint64(len(p))-pos)
		if c.absent[(addr+pos)/pageSize] {
			return &mem.Fault{Space: mem.Physical, Addr: addr + pos, Cause: mem.Excluded}
		}
		err := c.Core.ReadMem(p[pos:pos+n], addr+pos)
		all := true
		for i := range n {
			if b, ok := c.bytes[addr+pos+i]; ok {
				p[pos+i] = b
			} else {
				all = false
			}
		}
		if err != nil && !all {
			return err
		}
		pos += n
	}
	return nil
}
