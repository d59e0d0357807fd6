package judge

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/objdump"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vm"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

// TestLiveText holds the text of running kernels, as ksleuth reads it in the
// guest, against QEMU's view of it, and how it is decoded against objdump:
// every instruction, in both syntaxes. Live text differs from the file's:
// alternatives, static calls and keys, return thunks are patched in.
func TestLiveText(t *testing.T) {
	program := need(t, "objdump", "binutils")
	for _, name := range matrix {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := liveScene(t, name)
			start, end := textOf(t, g.file("/proc/kallsyms"))
			args := []string{"capture", "/tmp/text.kdump"}
			for at := start; at < end; at += 8 << 20 {
				args = append(args, "--for", fmt.Sprintf("read %#x %d", at, min(end-at, 8<<20)))
			}
			g.ksleuth(cli.StatusOK, args...)
			read := memoryOf(t, copyOut(t, g, "/tmp/text.kdump"), start, end)
			whole := filepath.Join(t.TempDir(), "dump.elf")
			qt.Assert(t, qt.IsNil(g.DumpMemory(whole, vm.DumpELF)))
			qt.Assert(t, qt.IsTrue(bytes.Equal(read, memoryOf(t, whole, start, end))), qt.Commentf("the text read in the guest is not what QEMU dumps"))
			qt.Assert(t, qt.IsNil(g.Close()))

			file := filepath.Join(t.TempDir(), "text")
			qt.Assert(t, qt.IsNil(os.WriteFile(file, read, 0o600)))
			for _, syntax := range []string{"att", "intel"} {
				c := objdump.Comparison{Decode: forObjdump}
				qt.Assert(t, qt.IsNil(c.Add(read, start, syntax, program, objdump.Binary(syntax, start, file))))
				t.Logf("%s: %v", syntax, &c)
				qt.Check(t, qt.IsTrue(c.Instructions > 1_000_000))
				qt.Check(t, qt.Equals(c.Length, 0), qt.Commentf("lengths"))
				qt.Check(t, qt.Equals(c.Text, 0), qt.Commentf("texts"))
			}
		})
	}
}

// forObjdump is how instructions are decoded to be compared.
func forObjdump(buf, code []byte, addr uint64, intel bool) ([]byte, int) {
	var in x86.Inst
	_ = in.Decode(code, addr) // a failure leaves (bad), which is compared
	if intel {
		return in.AppendIntel(buf, nil), in.Len
	}
	return in.AppendGNU(buf, nil), in.Len
}

// textOf returns where the kernel's text is, by /proc/kallsyms.
func textOf(t *testing.T, kallsyms string) (start, end uint64) {
	for line := range strings.Lines(kallsyms) {
		f := strings.Fields(line)
		switch f[2] {
		case "_stext":
			start = hex(t, "0x"+f[0])
		case "_etext":
			end = hex(t, "0x"+f[0])
		}
	}
	qt.Assert(t, qt.IsTrue(start != 0 && end > start))
	return start, end
}

// memoryOf returns the kernel's memory in a dump.
func memoryOf(t *testing.T, dump string, start, end uint64) []byte {
	core, err := vmcore.Open(dump)
	qt.Assert(t, qt.IsNil(err))
	defer core.Close()
	k, err := kernel.FromSource(t.Context(), core)
	qt.Assert(t, qt.IsNil(err))
	b, err := mem.Bytes(k.Mem(), start, int(end-start))
	qt.Assert(t, qt.IsNil(err))
	return b
}
