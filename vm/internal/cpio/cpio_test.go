package cpio

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func archive(t *testing.T, fill func(*Writer)) []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	fill(w)
	qt.Assert(t, qt.IsNil(w.Close()))
	return b.Bytes()
}

// fill uses every kind of entry, with data of all remainders modulo 4.
func fill(w *Writer) {
	w.Dir("/proc")
	w.File("/a/b/five", 0o640, 5, strings.NewReader("12345"))
	w.File("/a/b/four", 0o755, 4, strings.NewReader("1234"))
	w.File("/a/empty", 0o600, 0, strings.NewReader(""))
	w.Symlink("/a/link", "b/five")
}

func TestLayout(t *testing.T) {
	b := archive(t, func(w *Writer) { w.File("x/y", 0o644, 3, strings.NewReader("abc")) })
	zero := "00000000"
	want := "070701" + "00000001" + "000041ed" + zero + zero + "00000001" + zero + zero + zero + zero + zero + zero + "00000002" + zero + "x\x00" +
		"070701" + "00000002" + "000081a4" + zero + zero + "00000001" + zero + "00000003" + zero + zero + zero + zero + "00000004" + zero + "x/y\x00\x00\x00" + "abc\x00" +
		"070701" + "00000003" + zero + zero + zero + "00000001" + zero + zero + zero + zero + zero + zero + "0000000b" + zero + "TRAILER!!!\x00\x00\x00\x00"
	qt.Assert(t, qt.Equals(string(b), want))
}

// TestUnpack has the archive judged by an unpacker that is not ours.
func TestUnpack(t *testing.T) {
	judge, err := exec.LookPath("cpio")
	args := []string{"-idm", "--quiet"}
	if err != nil {
		if judge, err = exec.LookPath("bsdtar"); err != nil {
			t.Skip("neither cpio nor bsdtar is installed to judge the archive; the guests of package vm do")
		}
		args = []string{"-xf", "-"}
	}
	cmd := exec.Command(judge, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdin = bytes.NewReader(archive(t, fill))
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	got, err := os.ReadFile(filepath.Join(cmd.Dir, "a/link"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(got), "12345"))
	st, err := os.Stat(filepath.Join(cmd.Dir, "a/b/four"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(st.Size(), 4))
	qt.Assert(t, qt.Equals(st.Mode().Perm(), 0o755))
}

func TestErrors(t *testing.T) {
	w := NewWriter(io.Discard)
	w.File("short", 0o644, 10, strings.NewReader("123"))
	w.File("later", 0o644, 1, strings.NewReader("1"))
	qt.Assert(t, qt.ErrorMatches(w.Close(), "short: unexpected EOF"))
	w = NewWriter(io.Discard)
	w.File("huge", 0o644, 1<<32, nil)
	qt.Assert(t, qt.ErrorMatches(w.Close(), "huge: 4294967296 bytes do not fit a cpio archive"))
}
