package kernel_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/dumptest/kimage"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/vmcore"
)

// censored is a file in which some words cannot be read.
type censored struct {
	io.ReaderAt
	words []string
}

func (c censored) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	for _, w := range c.words {
		copy(p[:n], bytes.ReplaceAll(p[:n], []byte(w), bytes.Repeat([]byte{'-'}, len(w))))
	}
	return n, err
}

// TestLocate finds the kernel in a dump whose notes do not say where it is, and
// in one that has no VMCOREINFO at all.
func TestLocate(t *testing.T) {
	for _, scene := range dumptest.Idle {
		for _, test := range []struct {
			name  string
			words []string
		}{
			{"noted", nil},
			{"searched", []string{"VMCOREINFO\x00"}},
			{"by page tables", []string{"VMCOREINFO\x00", "OSRELEASE="}},
		} {
			t.Run(scene+" "+test.name, func(t *testing.T) {
				f, err := os.Open(dumptest.Get(t, scene+".elf"))
				qt.Assert(t, qt.IsNil(err))
				defer f.Close()
				stat, err := f.Stat()
				qt.Assert(t, qt.IsNil(err))
				core, err := vmcore.New(vmcore.File{Name: scene, R: censored{f, test.words}, Size: stat.Size()})
				qt.Assert(t, qt.IsNil(err))
				_, noted := core.NotedVMCoreInfo()
				qt.Check(t, qt.Equals(noted, test.words == nil))

				k, err := kernel.FromSource(t.Context(), core)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(k.Info().Raw() == "", len(test.words) == 2))
				image := kimage.Open(t, scene)
				qt.Check(t, qt.Equals(k.Release(), image.Info.OSRelease()))
				stext, err := k.Addr("_stext")
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(stext, image.Text()))
				task := k.Object("task_struct", initTask(t, k))
				qt.Check(t, qt.Equals(task.Str("comm"), "swapper/0"))
				qt.Check(t, qt.IsNil(task.Err()))
			})
		}
	}
}

func initTask(t *testing.T, k *kernel.Kernel) uint64 {
	t.Helper()
	addr, err := k.Addr("init_task")
	qt.Assert(t, qt.IsNil(err))
	return addr
}
