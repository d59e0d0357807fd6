package judge

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/rival"
	"github.com/ksleuth/ksleuth/vm"
)

// wantRival returns a program to be judged by, or skips the test.
func wantRival(t testing.TB, tool *rival.Tool, err error) *rival.Tool {
	t.Helper()
	var missing *rival.MissingError
	if errors.As(err, &missing) && os.Getenv("KSLEUTH_REQUIRE_VM") != "1" {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	return tool
}

// TestRivalBpftrace has bpftrace see calls in guests of all kernels: a peer
// that does not work there is no measure.
func TestRivalBpftrace(t *testing.T) {
	found, err := rival.Bpftrace()
	bpftrace := wantRival(t, found, err)
	program, err := dumptest.Build("tracescene")
	qt.Assert(t, qt.IsNil(err))
	files := map[string]string{guestTraceScene: program}
	for to, from := range bpftrace.Files {
		files[to] = from
	}
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootLive(t, kernel, func(c *vm.Config) { c.Init, c.Files, c.MemoryMiB = program, files, 1536 })
			for _, test := range []struct {
				script, line string
				lines        int
			}{
				{"kretfunc:__x64_sys_getpgid { @ = count(); }", `(?m)^@: 1000$`, 1},
				{`kretfunc:__x64_sys_getpgid { printf("%d\n", retval); }`, `(?m)^\d+$`, 1000},
			} {
				words := bpftrace.Words("-e", test.script, "-c", guestTraceScene+" calls getpgid 1000")
				status, out, errs := g.run(words[0], words[1:]...)
				qt.Check(t, qt.Equals(status, cli.StatusOK), qt.Commentf("%s", errs))
				qt.Check(t, qt.HasLen(regexp.MustCompile(test.line).FindAllString(out, -1), test.lines), qt.Commentf("%s: %s", test.script, errs))
			}
		})
	}
}

// TestRivalTcpdump has tcpdump judge a packet in a guest.
func TestRivalTcpdump(t *testing.T) {
	found, err := rival.Find("tcpdump")
	tcpdump := wantRival(t, found, err)
	file := filepath.Join(t.TempDir(), "packets.pcap")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, pcapOf([][]byte{make([]byte, 60)}), 0o644)))
	files := map[string]string{"/packets.pcap": file}
	for to, from := range tcpdump.Files {
		files[to] = from
	}
	g := bootScene(t, "6.1", files)
	words := tcpdump.Words("-Z", "root", "-r", "/packets.pcap", "--count", "len == 60")
	status, out, errs := g.run(words[0], words[1:]...)
	qt.Check(t, qt.Equals(status, cli.StatusOK), qt.Commentf("%s", errs))
	qt.Check(t, qt.IsTrue(strings.HasPrefix(out, "1 packet")), qt.Commentf("%s", out))
}
