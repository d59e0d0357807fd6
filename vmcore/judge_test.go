package vmcore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/mem"
)

// openPaths opens real dumps.
func openPaths(t testing.TB, paths ...string) *Core {
	c, err := Open(paths...)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	return c
}

// samePages compares all pages of two dumps. Pages missing from got must be so
// for the given cause; it returns how many there were.
func samePages(t *testing.T, got, want *Core, missing mem.Cause) (lost int) {
	t.Helper()
	ranges, err := want.Ranges()
	qt.Assert(t, qt.IsNil(err))
	piece := uint64(256 * pageSize)
	if missing != 0 {
		piece = pageSize
	}
	a, b := make([]byte, piece), make([]byte, piece)
	for _, r := range ranges {
		for addr := r.Start; addr < r.End; {
			n := min(piece, r.End-addr)
			qt.Assert(t, qt.IsNil(want.ReadMem(b[:n], addr)))
			err := got.ReadMem(a[:n], addr)
			if err != nil {
				f := err.(*mem.Fault)
				qt.Assert(t, qt.Equals(f.Cause, missing), qt.Commentf("%v", err))
				n = f.Addr - addr
				lost++
			}
			qt.Assert(t, qt.IsTrue(bytes.Equal(a[:n], b[:n])), qt.Commentf("%#x", addr))
			addr += n
			if err != nil {
				addr += pageSize
			}
		}
	}
	return lost
}

// TestQEMU holds QEMU's two formats, written of the same stopped machine,
// against each other.
func TestQEMU(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			elf := openPaths(t, dumptest.Get(t, scene+".elf"))
			kdump := openPaths(t, dumptest.Get(t, scene+".kdump"))
			qt.Check(t, qt.Equals(elf.Format(), "ELF core (QEMU)"))
			qt.Check(t, qt.Equals(kdump.Format(), "flattened kdump-compressed v6, zlib"))
			qt.Check(t, qt.HasLen(append(elf.Warnings(), kdump.Warnings()...), 0))
			qt.Check(t, qt.DeepEquals(kdump.CPUs(), elf.CPUs()))
			qt.Check(t, qt.Not(qt.HasLen(elf.CPUs(), 0)))
			a, ok := elf.NotedVMCoreInfo()
			qt.Check(t, qt.IsTrue(ok))
			b, _ := kdump.NotedVMCoreInfo()
			qt.Check(t, qt.Equals(b.Raw(), a.Raw()))
			qt.Check(t, qt.IsTrue(a.plausible()))
			qt.Check(t, qt.Equals(samePages(t, kdump, elf, 0), 0))

			// What a search of memory finds is what the note says.
			ranges, err := kdump.Ranges()
			qt.Assert(t, qt.IsNil(err))
			found, err := FindVMCoreInfo(context.Background(), kdump, ranges, nil)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(found.Raw(), a.Raw()))
		})
	}
}

// TestMakedumpfile lets makedumpfile convert a dump into everything it can
// write, and reads that.
func TestMakedumpfile(t *testing.T) {
	tool, err := exec.LookPath("makedumpfile")
	if err != nil {
		t.Skip("no makedumpfile to compare with")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "vmcore")
	likeProcVmcore(t, src, openPaths(t, dumptest.Get(t, dumptest.Idle[0]+".elf")))
	run := func(t *testing.T, stdout string, args ...string) {
		cmd := exec.Command(tool, args...)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if stdout != "" {
			f, err := os.Create(stdout)
			qt.Assert(t, qt.IsNil(err))
			defer f.Close()
			cmd.Stdout = f
		}
		err := cmd.Run()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("makedumpfile %q: %s", args, log.Bytes()))
	}
	tests := []struct {
		name    string
		args    []string
		flat    bool
		format  string
		missing mem.Cause
	}{
		{"zlib", []string{"-c", "-d", "0"}, false, "kdump-compressed v6, zlib", 0},
		{"lzo", []string{"-l", "-d", "0"}, false, "kdump-compressed v6, lzo", 0},
		{"filtered", []string{"-l", "-d", "31"}, false, "kdump-compressed v6, lzo", mem.Excluded},
		{"flattened", []string{"-F", "-l", "-d", "31"}, true, "flattened kdump-compressed v6, lzo", mem.Excluded},
		{"plain", []string{"-d", "31"}, false, "kdump-compressed v6, uncompressed", mem.Excluded},
		{"ELF", []string{"-E", "-d", "31"}, false, "ELF core (QEMU)", mem.Excluded},
		{"ELF flattened", []string{"-F", "-E", "-d", "31"}, true, "flattened ELF core (QEMU)", mem.Excluded},
	}
	elf := openPaths(t, src)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out := filepath.Join(dir, test.name)
			if test.flat {
				run(t, out, append(test.args, src)...)
			} else {
				run(t, "", append(test.args, src, out)...)
			}
			defer os.Remove(out)
			compare(t, elf, test.missing, test.format, out)
		})
	}
	t.Run("split", func(t *testing.T) {
		var out []string
		for i := range 3 {
			out = append(out, filepath.Join(dir, fmt.Sprint("part", i)))
		}
		run(t, "", append([]string{"--split", "-l", "-d", "31", src}, out...)...)
		compare(t, elf, mem.Excluded, "kdump-compressed v6, lzo, split in 3 files", out[2], out[0], out[1])
	})
	t.Run("ours", func(t *testing.T) {
		checkOurs(t, run, elf, dir)
	})
}

// likeProcVmcore copies a dump into an ELF core with the segments of
// /proc/vmcore, which are RAM and no ROM: makedumpfile 1.7.2 does not take
// QEMU's section header.
func likeProcVmcore(t *testing.T, path string, c *Core) {
	segs := []elfSeg{{typ: ptNote, data: c.Notes()}}
	ram := slices.DeleteFunc(c.Segments(), func(s Segment) bool { return s.Phys >= 0xf0000000 && s.Phys < 1<<32 })
	for _, s := range ram {
		segs = append(segs, elfSeg{typ: ptLoad, virt: 0xffff888000000000 + s.Phys, phys: s.Phys, memSize: s.MemSize})
	}
	head := makeELF(segs, false)
	at := (len(head) + pageSize - 1) &^ (pageSize - 1)
	f, err := os.Create(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for i, s := range ram {
		p := head[elfHeader+(i+1)*elfProgram:]
		binary.LittleEndian.PutUint64(p[8:], uint64(at))
		binary.LittleEndian.PutUint64(p[32:], s.FileSize)
		_, err := io.Copy(io.NewOffsetWriter(f, int64(at)), io.NewSectionReader(mem.ReaderAt{Mem: c, Base: s.Phys}, 0, int64(s.FileSize)))
		qt.Assert(t, qt.IsNil(err))
		at += int(s.FileSize)
	}
	_, err = f.WriteAt(head, 0)
	qt.Assert(t, qt.IsNil(err))
}

// compare holds what makedumpfile wrote against the dump it read.
func compare(t *testing.T, elf *Core, missing mem.Cause, format string, paths ...string) {
	got := openPaths(t, paths...)
	qt.Check(t, qt.Equals(got.Format(), format))
	qt.Check(t, qt.HasLen(got.Warnings(), 0), qt.Commentf("%v", got.Warnings()))
	a, _ := elf.NotedVMCoreInfo()
	b, _ := got.NotedVMCoreInfo()
	qt.Check(t, qt.Equals(b.Raw(), a.Raw()))
	qt.Check(t, qt.DeepEquals(got.CPUs(), elf.CPUs()))
	lost := samePages(t, got, elf, missing)
	qt.Check(t, qt.Equals(lost > 0, missing != 0), qt.Commentf("%d pages missing", lost))
	t.Logf("%d pages missing", lost)
}

// checkOurs writes a dump and has makedumpfile refilter it: if the result is
// right, so is what makedumpfile read.
func checkOurs(t *testing.T, run func(*testing.T, string, ...string), elf *Core, dir string) {
	var pfns []uint64
	ranges, err := elf.Ranges()
	qt.Assert(t, qt.IsNil(err))
	for _, r := range ranges {
		for pfn := r.Start >> pageShift; pfn < r.End>>pageShift; pfn++ {
			pfns = append(pfns, pfn)
		}
	}
	path, again := filepath.Join(dir, "ours"), filepath.Join(dir, "again")
	f, err := os.Create(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	meta := elf.Meta()
	meta.Level = 1
	w, err := Write(context.Background(), f, elf, pfns, meta)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w.Skipped, 0))
	qt.Check(t, qt.Equals(samePages(t, openPaths(t, path), elf, 0), 0))
	run(t, "", "-l", "-d", "31", path, again)
	compare(t, elf, mem.Excluded, "kdump-compressed v6, lzo", again)
}
