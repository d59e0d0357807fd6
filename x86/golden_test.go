package x86

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/objdump"
)

var update = flag.Bool("update", false, "rewrite the golden file's texts with what objdump says")

const (
	goldenFile = "testdata/encodings.txt"
	goldenAddr = 0xffffffff81000000 // where every golden instruction lies
)

// A golden is a line of testdata/encodings.txt: bytes | GNU text | Intel text |
// "ours" where objdump 2.40 is wrong or too old and the texts are ours.
type golden struct {
	code       []byte
	gnu, intel string
	note       string
}

func readGolden(t testing.TB) []golden {
	text, err := os.ReadFile(goldenFile)
	qt.Assert(t, qt.IsNil(err))
	var list []golden
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, " | ")
		for len(f) < 4 {
			f = append(f, "")
		}
		list = append(list, golden{code: hexBytes(t, f[0]), gnu: f[1], intel: f[2], note: f[3]})
	}
	return list
}

// TestGolden checks one instruction of every interesting encoding. With -update
// it first asks objdump for the texts.
func TestGolden(t *testing.T) {
	list := readGolden(t)
	if *update {
		updateGolden(t, list)
		list = readGolden(t)
	}
	qt.Assert(t, qt.IsTrue(len(list) > 300))
	for _, g := range list {
		in, err := Decode(g.code, goldenAddr)
		c := qt.Commentf("% x", g.code)
		if !qt.Check(t, qt.IsNil(err), c) {
			continue
		}
		qt.Check(t, qt.Equals(in.Len, len(g.code)), c)
		qt.Check(t, qt.Equals(string(in.AppendGNU(nil, nil)), g.gnu), c)
		qt.Check(t, qt.Equals(string(in.AppendIntel(nil, nil)), g.intel), c)
		qt.Check(t, qt.DeepEquals(in.Bytes(), g.code), c)
	}
}

func updateGolden(t *testing.T, list []golden) {
	old, err := os.ReadFile(goldenFile)
	qt.Assert(t, qt.IsNil(err))
	texts := map[string][2]string{}
	for i, syntax := range []string{"att", "intel"} {
		for j, s := range objdumpEach(t, list, syntax) {
			key := string(list[j].code)
			v := texts[key]
			v[i] = s
			texts[key] = v
		}
	}
	var out bytes.Buffer
	for _, line := range strings.Split(strings.TrimRight(string(old), "\n"), "\n") {
		f := strings.Split(line, " | ")
		if line == "" || line[0] == '#' || len(f) == 4 {
			fmt.Fprintln(&out, line)
			continue
		}
		code := hexBytes(t, f[0])
		v := texts[string(code)]
		fmt.Fprintf(&out, "% x | %s | %s\n", code, v[0], v[1])
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(goldenFile, out.Bytes(), 0o644)))
}

// objdumpEach lets objdump disassemble every instruction at goldenAddr of its own.
func objdumpEach(t *testing.T, list []golden, syntax string) []string {
	var texts []string
	for _, g := range list {
		path := filepath.Join(t.TempDir(), "code")
		qt.Assert(t, qt.IsNil(os.WriteFile(path, g.code, 0o644)))
		out, err := exec.Command("objdump", objdump.Binary(syntax, goldenAddr, path)...).Output()
		qt.Assert(t, qt.IsNil(err))
		text := ""
		for _, line := range strings.Split(string(out), "\n") {
			if _, n, s, ok := objdump.SplitLine([]byte(line)); ok {
				qt.Check(t, qt.IsTrue(n == len(g.code) || g.note != ""), qt.Commentf("objdump: length of %s", hex.EncodeToString(g.code)))
				text = objdump.Normalise(s)
				break
			}
		}
		texts = append(texts, text)
	}
	return texts
}
