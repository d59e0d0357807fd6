package judge

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// questions are what every form of a dump must answer alike.
var questions = [][]string{
	{"report"}, {"bt", "all"}, {"ps"}, {"log", "--raw"}, {"mods"}, {"files", "1"}, {"sym", "do_syscall_64"},
	{"print", "init_task.comm"}, {"disasm", "prog:2"},
}

// TestQEMUForms asks the same of the two dumps that QEMU wrote of one moment.
func TestQEMUForms(t *testing.T) {
	for _, scene := range scenes {
		t.Run(scene, func(t *testing.T) {
			sameAnswers(t, dumptest.Get(t, scene+".elf"), dumptest.Get(t, scene+".kdump"))
		})
	}
}

// TestMakedumpfileForms asks the same of a dump and of what makedumpfile makes
// of it. What makedumpfile leaves out (free pages, user memory) must not be
// missed.
func TestMakedumpfileForms(t *testing.T) {
	program := need(t, "makedumpfile", "makedumpfile")
	elf := dumptest.Get(t, "casee-6.1.elf")
	vmcore := likeProcVmcore(t, elf)
	for _, form := range makedumpfileForms {
		t.Run(form.name, func(t *testing.T) { sameAnswers(t, elf, form.make(t, program, vmcore)...) })
	}
}

func sameAnswers(t *testing.T, want string, forms ...string) {
	t.Helper()
	for _, q := range questions {
		s1, a := answer(t, q, want)
		qt.Assert(t, qt.Not(qt.Equals(s1, cli.StatusUsage)), qt.Commentf("%s: status %d: %.500s", q, s1, a))
		s2, b := answer(t, q, forms...)
		if a != b || s1 != s2 {
			t.Errorf("%s: status %d from the ELF dump, %d from %s; answers differ at\n%s", q, s1, s2, forms, firstDifference(a, b))
		}
	}
}

// answer asks about a dump; what names the dump itself is taken out.
func answer(t *testing.T, question []string, dumps ...string) (cli.Status, string) {
	t.Helper()
	args := []string{"-o", "json"}
	for _, d := range dumps {
		args = append(args, "-t", d)
	}
	status, out, _ := run(t, append(args, question...)...)
	if _, format, ok := strings.Cut(out, `"dump":"`); ok {
		format, _, _ = strings.Cut(format, `"`)
		out = strings.ReplaceAll(out, format, "")
	}
	return status, out
}

func firstDifference(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	from := max(0, i-200)
	return "- " + a[from:min(len(a), i+200)] + "\n+ " + b[from:min(len(b), i+200)]
}

// A dumpForm is a form in which makedumpfile writes a dump.
type dumpForm struct {
	name string
	args []string
	// parts is the number of files of a split dump.
	parts int
}

// makedumpfileForms are the forms that Debian's makedumpfile, which has
// neither snappy nor zstd, can write.
var makedumpfileForms = []dumpForm{
	{name: "uncompressed"},
	{name: "zlib", args: []string{"-c"}},
	// The default block is larger than these dumps: one part gets all pages.
	{name: "split", args: []string{"-l", "--split", "--splitblock-size", "32"}, parts: 3},
	{name: "split unequally", args: []string{"-l", "--split"}, parts: 2},
	{name: "filtered", args: []string{"-l", "-d", "31"}},
	{name: "zlib filtered", args: []string{"-c", "-d", "31"}},
	{name: "ELF filtered", args: []string{"-E", "-d", "31"}},
	{name: "flattened", args: []string{"-F", "-l", "-d", "31"}},
}

// make writes the form and returns its files.
func (f dumpForm) make(t *testing.T, program, vmcore string) []string {
	t.Helper()
	dir := t.TempDir()
	var outs []string
	for i := range max(f.parts, 1) {
		outs = append(outs, filepath.Join(dir, "part"+itoa(i)))
	}
	cmd := exec.CommandContext(t.Context(), program, append(slices.Clone(f.args), vmcore)...)
	var msg strings.Builder
	cmd.Stderr = &msg
	if slices.Contains(f.args, "-F") {
		out, err := os.Create(outs[0])
		qt.Assert(t, qt.IsNil(err))
		defer out.Close()
		cmd.Stdout = out
	} else {
		cmd.Args = append(cmd.Args, outs...)
	}
	qt.Assert(t, qt.IsNil(cmd.Run()), qt.Commentf("makedumpfile: %s", &msg))
	return outs
}

// likeProcVmcore copies QEMU's dump and rewrites its header as that of
// /proc/vmcore: makedumpfile 1.7.2 wants program headers right behind the
// header, virtual addresses, and no ROM.
func likeProcVmcore(t *testing.T, dump string) string {
	t.Helper()
	const (
		header, entry = 64, 56 // sizes of Elf64_Ehdr and Elf64_Phdr
		ptNote        = 4
		directMap     = 0xffff_8880_0000_0000
		rom           = 0xf000_0000 // to 4 GiB
	)
	le := binary.LittleEndian
	path := filepath.Join(t.TempDir(), "vmcore")
	copyFile(t, path, dump)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	old := make([]byte, 4096)
	_, err = f.ReadAt(old, 0)
	qt.Assert(t, qt.IsNil(err))
	head := slices.Clone(old[:header])
	n := 0
	for i := range int(le.Uint16(old[56:])) {
		p := slices.Clone(old[le.Uint64(old[32:])+uint64(i*entry):][:entry])
		if phys := le.Uint64(p[24:]); le.Uint32(p) != ptNote {
			if phys >= rom && phys < 1<<32 {
				continue
			}
			le.PutUint64(p[16:], directMap+phys)
		}
		head = append(head, p...)
		n++
	}
	le.PutUint64(head[32:], header)             // e_phoff
	le.PutUint64(head[40:], 0)                  // e_shoff
	le.PutUint16(head[52:], header)             // e_ehsize
	le.PutUint16(head[56:], uint16(n))          // e_phnum
	copy(head[58:], "\x00\x00\x00\x00\x00\x00") // e_shentsize, e_shnum, e_shstrndx
	_, err = f.WriteAt(head, 0)
	qt.Assert(t, qt.IsNil(err))
	return path
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	qt.Assert(t, qt.IsNil(err))
	defer in.Close()
	out, err := os.Create(to)
	qt.Assert(t, qt.IsNil(err))
	_, err = io.Copy(out, in)
	qt.Assert(t, qt.IsNil(errors.Join(err, out.Close())))
}
