// Package kimage gives tests the kernel's image in a standard dump, for what is
// found in it below package kernel.
package kimage

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vmcore"
)

// Memory is the virtual memory of a kernel's image, by arithmetic alone: for
// tests of what is found in it, below package kernel.
type Memory struct {
	core *vmcore.Core
	base uint64
	Info vmcore.VMCoreInfo
}

// Open opens the kernel image in a scene's dump.
func Open(t testing.TB, scene string) *Memory {
	t.Helper()
	core, err := vmcore.Open(dumptest.Get(t, scene+".elf"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	info, ok := core.NotedVMCoreInfo()
	qt.Assert(t, qt.IsTrue(ok))
	base, ok := info.Number("phys_base")
	qt.Assert(t, qt.IsTrue(ok))
	return &Memory{core, uint64(base), info}
}

// ReadMem implements [mem.Reader].
func (m *Memory) ReadMem(p []byte, addr uint64) error {
	const image = 0xffff_ffff_8000_0000 // __START_KERNEL_map
	return m.core.ReadMem(p, addr-image+m.base)
}

// Text returns where the kernel's text starts.
func (m *Memory) Text() uint64 {
	addr, _ := m.Info.Symbol("_stext")
	return addr
}
