package ctype

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// vmlinuxBTF returns the BTF of the kernel named by KSLEUTH_VMLINUX, an ELF
// file with a .BTF section or raw BTF, and the file's path.
func vmlinuxBTF(t testing.TB) ([]byte, string) {
	path := os.Getenv("KSLEUTH_VMLINUX")
	if path == "" {
		t.Skip("KSLEUTH_VMLINUX names no kernel (an ELF file with .BTF, or raw BTF)")
	}
	if f, err := elf.Open(path); err == nil {
		defer f.Close()
		s := f.Section(".BTF")
		qt.Assert(t, qt.IsNotNil(s))
		b, err := s.Data()
		qt.Assert(t, qt.IsNil(err))
		return b, path
	}
	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	return b, path
}

var (
	placeRE = regexp.MustCompile(`/\* +(\d+)(?:: *(\d+))? +(\d+) \*/`)
	holeRE  = regexp.MustCompile(`XXX (\d+) (bit|byte)s? hole`)
	sumRE   = regexp.MustCompile(`^\t/\* (size|padding|bit.padding): (\d+)`)
)

// facts reduces a printed struct to its offsets, sizes, holes and padding,
// so that pahole's output and ours can be compared.
func facts(text string) (out []string) {
	for line := range strings.Lines(text) {
		if m := holeRE.FindStringSubmatch(line); m != nil {
			out = append(out, fmt.Sprintf("hole %s %s", m[1], m[2]))
		} else if m := placeRE.FindStringSubmatch(line); m != nil {
			out = append(out, fmt.Sprintf("at %s:%s size %s", m[1], m[2], m[3]))
		} else if m := sumRE.FindStringSubmatch(line); m != nil {
			out = append(out, strings.ReplaceAll(m[1], "_", " ")+" "+m[2])
		}
	}
	return out
}

// TestPahole compares the printed layout of some 300 structs with pahole's.
func TestPahole(t *testing.T) {
	if _, err := exec.LookPath("pahole"); err != nil {
		t.Skip("pahole is not installed")
	}
	raw, path := vmlinuxBTF(t)
	ts, err := New(raw)
	qt.Assert(t, qt.IsNil(err))

	names := pickStructs(ts, 300)
	qt.Assert(t, qt.IsTrue(len(names) >= 300))
	cmd := exec.Command("pahole", "-F", "btf", "-C", strings.Join(names, ","), path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr.String()))

	theirs := make(map[string]string)
	for _, text := range regexp.MustCompile(`(?m)^struct \w+ \{\n(?s:.*?)^\}`).FindAllString(string(out), -1) {
		theirs[strings.Fields(text)[1]] = text
	}
	compared := 0
	for _, name := range names {
		want, ok := theirs[name]
		if !ok {
			continue
		}
		compared++
		typ, err := ts.Struct(name)
		qt.Assert(t, qt.IsNil(err))
		got := FormatType(typ)
		qt.Check(t, qt.DeepEquals(facts(got), facts(want)), qt.Commentf("struct %s\n%s\n%s", name, got, want))
	}
	t.Logf("%d structs compared", compared)
	qt.Check(t, qt.IsTrue(compared >= 300))
}

// pickStructs returns the well-known structs and others spread over the BTF, each
// of a name that only one type has.
func pickStructs(ts *Types, n int) []string {
	names := []string{
		"task_struct", "sk_buff", "page", "mm_struct", "file", "inode", "net_device", "bpf_prog", "bpf_prog_aux",
		"module", "sock", "tcphdr", "iphdr", "tcp_sock", "zone", "rq", "io_uring_sqe", "file_operations",
	}
	step := len(ts.vmlinux.offs) / (6 * n)
	for i := 0; i < len(ts.vmlinux.offs) && len(names) < n+40; i += 1 + step {
		for ; i < len(ts.vmlinux.offs) && ts.vmlinux.kindAt(i) != Struct; i++ {
		}
		if i == len(ts.vmlinux.offs) {
			break
		}
		name := string(ts.vmlinux.nameAt(i))
		typ := ts.vmlinux.byID(ts.vmlinux.firstID + uint32(i))
		if name == "" || typ.size == 0 || len(ts.LookupAll(name)) != 1 || slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
	}
	return names
}
