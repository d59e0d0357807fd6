package trace_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/trace"
)

func packet(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	qt.Assert(t, qt.IsNil(err))
	return b
}

// tool runs a tool of Wireshark's; without it the test is skipped.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	qt.Assert(t, qt.IsNil(cmd.Run()), qt.Commentf("%s", errs.String()))
	return out.String()
}

// TestPcapng: tshark reads what was written.
func TestPcapng(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pcapng")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte("old"), 0o666)))
	w, err := trace.CreatePcap(path)
	qt.Assert(t, qt.IsNil(err))
	st, err := os.Stat(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.Mode().Perm(), 0o600))

	eth := packet(t, "020000000001 020000000002 0800 4500 003c 1c46 4000 40 06 0000 0a000002 0a000001 ad16 01bb 00000001 00000000 50 02 7210 0000 0000")
	raw := packet(t, "4500 001c 0000 0000 40 11 0000 0a000003 0a000001 d431 0035 0008 0000")
	const at = 1763724067_114000123
	long := strings.Repeat("é", 40000)
	for i, p := range []struct {
		trace.Packet
		comment string
	}{
		{trace.Packet{Data: eth, Len: 98, Ifindex: 2, Iface: "eth0", Netns: 10}, "xdp_main > module1 (fw_mod) = XDP_PASS > XDP_PASS"},
		{trace.Packet{Data: raw, Len: 28, Ifindex: 2, Iface: "eth0", Netns: 10, Raw: true}, "a"},
		{trace.Packet{Data: eth, Len: 54, Ifindex: 2, Iface: "eth0", Netns: 11}, "bc\x00d \xff"},
		{trace.Packet{Data: eth[:53], Len: 54, Ifindex: 2, Netns: 10}, long},
		{trace.Packet{Data: eth, Ifindex: 3, Netns: 10}, ""},
		{trace.Packet{Len: 60, Ifindex: 3, Netns: 10}, "no bytes"},
	} {
		qt.Assert(t, qt.IsNil(w.Write(&p.Packet, at+int64(i), p.comment)))
		// It is in the file at once.
		b, err := os.ReadFile(path)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Contains(b, p.Data)))
	}
	qt.Assert(t, qt.IsNil(w.Close()))

	got := tool(t, "tshark", "-r", path, "-T", "fields", "-e", "frame.number", "-e", "frame.comment", "-e", "ip.src",
		"-e", "frame.len", "-e", "frame.cap_len", "-e", "frame.interface_id", "-e", "frame.interface_name", "-e", "frame.time_epoch")
	cut := strings.Repeat("é", 16384)
	var want strings.Builder
	for i, l := range []string{
		"xdp_main > module1 (fw_mod) = XDP_PASS > XDP_PASS\t10.0.0.2\t98\t54\t0\teth0",
		"a\t10.0.0.3\t28\t28\t1\teth0",
		"bcd ?\t10.0.0.2\t54\t54\t2\teth0",
		cut + "\t10.0.0.2\t54\t53\t0\teth0",
		"\t10.0.0.2\t54\t54\t3\tif3",
		"no bytes\t\t60\t0\t3\tif3",
	} {
		fmt.Fprintf(&want, "%d\t%s\t1763724067.%09d\n", i+1, l, 114000123+i)
	}
	qt.Check(t, qt.Equals(got, want.String()))

	info := tool(t, "capinfos", "-M", path)
	qt.Check(t, qt.Matches(info, `(?s).*File type: .*pcapng.*Number of packets: +6\n.*Number of interfaces in file: 4\n.*`))
}

// TestPcapngEmpty: a file without packets is read as one.
func TestPcapngEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pcapng")
	w, err := trace.CreatePcap(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(w.Close()))
	qt.Check(t, qt.Equals(tool(t, "tshark", "-r", path), ""))
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestPcapngErrors: what cannot be written is said.
func TestPcapngErrors(t *testing.T) {
	_, err := trace.CreatePcap(filepath.Join(t.TempDir(), "none", "x"))
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
	w := trace.NewPcapWriter(full{})
	qt.Check(t, qt.ErrorIs(w.Write(&trace.Packet{Data: []byte{1}, Len: 1}, 0, "x"), errFull))
	qt.Check(t, qt.ErrorIs(trace.NewPcapWriter(full{}).Close(), errFull))
}
