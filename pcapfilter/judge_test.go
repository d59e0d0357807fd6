package pcapfilter_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/net/bpf"

	"github.com/ksleuth/ksleuth/pcapfilter"
)

// The programs that tcpdump 4.99.3 with libpcap 1.10.3 makes of the filters are
// in testdata/tcpdump.txt.
var update = flag.Bool("update", false, "write testdata/tcpdump.txt anew with the tcpdump that is installed")

// A filter is a line of testdata/filters.txt.
type filter struct{ expr, class string }

func filters(t testing.TB) []filter {
	t.Helper()
	b, err := os.ReadFile("testdata/filters.txt")
	qt.Assert(t, qt.IsNil(err))
	var out []filter
	for line := range strings.Lines(string(b)) {
		expr, class, ok := strings.Cut(line, "#")
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("no class: %s", line))
		out = append(out, filter{strings.TrimSpace(expr), strings.TrimSpace(class)})
	}
	return out
}

var links = []struct {
	name string
	link pcapfilter.LinkType
}{{"EN10MB", pcapfilter.Ethernet}, {"RAW", pcapfilter.RawIP}}

// golden is what tcpdump makes of a filter: a program, or an error. Plain is
// the program without its optimizer (-O). The two differ over packets that end
// within the headers: the optimizer asks for the fields in another order, and
// whether a packet matches depends on what is asked before the load that fails.
type golden struct {
	plain, optimized []bpf.Instruction
	err              string
}

// rejects is what tcpdump says of a filter that no packet can match.
const rejects = "expression rejects all packets"

func askTcpdump(link, flag, expr string) string {
	out, err := exec.Command("tcpdump", "-y", link, flag, "--", expr).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		text = strings.TrimPrefix(strings.TrimPrefix(text, "tcpdump: "), "can't parse filter expression: ")
		return "error " + strings.SplitN(text, "\n", 2)[0]
	}
	return strings.ReplaceAll(text, "\n", ", ")
}

// goldens reads the file; the key is the link type and the expression.
func goldens(t testing.TB) map[string]golden {
	t.Helper()
	const name = "testdata/tcpdump.txt"
	if *update {
		var b strings.Builder
		for _, f := range filters(t) {
			for _, l := range links {
				fmt.Fprintf(&b, "%s %s\n  %s\n  %s\n", l.name, f.expr,
					askTcpdump(l.name, "-Oddd", f.expr), askTcpdump(l.name, "-ddd", f.expr))
			}
		}
		qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(b.String()), 0o644)))
	}
	b, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	out := make(map[string]golden)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		plain, msg := parseProgram(t, strings.TrimSpace(lines[i+1]))
		optimized, _ := parseProgram(t, strings.TrimSpace(lines[i+2]))
		out[lines[i]] = golden{plain, optimized, msg}
	}
	return out
}

func parseProgram(t testing.TB, s string) ([]bpf.Instruction, string) {
	t.Helper()
	if msg, bad := strings.CutPrefix(s, "error "); bad {
		if msg == rejects {
			return []bpf.Instruction{bpf.RetConstant{Val: 0}}, ""
		}
		return nil, msg
	}
	var raw []bpf.RawInstruction
	for _, f := range strings.Split(s, ", ")[1:] {
		var r bpf.RawInstruction
		_, err := fmt.Sscan(f, &r.Op, &r.Jt, &r.Jf, &r.K)
		qt.Assert(t, qt.IsNil(err))
		raw = append(raw, r)
	}
	p, ok := bpf.Disassemble(raw)
	qt.Assert(t, qt.IsTrue(ok))
	return p, ""
}

// never and always say that a filter of the class and link type cannot match or
// cannot fail to.
func oneSided(f filter, link string) bool {
	return strings.Contains(f.class, "always") || strings.Contains(f.class, "never") || link == "RAW"
}

// TestTcpdump runs our programs and tcpdump's over the same packets.
func TestTcpdump(t *testing.T) {
	want := goldens(t)
	var verdicts, matches, splits, programs, refusals int
	for _, l := range links {
		base := basePackets(t, l.link)
		corpus := truncated(base)
		for _, f := range filters(t) {
			g, ok := want[l.name+" "+f.expr]
			qt.Assert(t, qt.IsTrue(ok), qt.Commentf("no golden for %q: run with -update", f.expr))
			ours, err := pcapfilter.Compile(f.expr, l.link)
			if g.err != "" || err != nil {
				qt.Check(t, qt.Equals(err != nil, g.err != ""), qt.Commentf("%s %q: %v; tcpdump: %s", l.name, f.expr, err, g.err))
				refusals++
				continue
			}
			programs++
			packets := slices.Concat(corpus, aimed(g.optimized, base, 1000), aimed(g.plain, base, 500), aimed(ours, base, 500))
			hits, runs, split := compareVerdicts(t, l.name+" "+f.expr, ours, g, strings.HasPrefix(f.class, "net"), packets)
			splits += split
			if !oneSided(f, l.name) {
				qt.Check(t, qt.IsTrue(hits > 0 && hits < runs), qt.Commentf("%s %q: %d of %d packets match", l.name, f.expr, hits, runs))
			}
			matches += hits
			verdicts += runs
		}
	}
	t.Logf("%d programs, %d refused by both, %d verdicts, %d of them matches; tcpdump disagrees with itself over %d",
		programs, refusals, verdicts, matches, splits)
}

// compareVerdicts wants ours to be tcpdump's. Split are the packets over which
// tcpdump does not agree with itself: there, it has to be that without the
// optimizer, but for nets, where the optimizer and we drop the load of words
// that the prefix leaves out.
func compareVerdicts(t *testing.T, name string, ours []bpf.Instruction, g golden, net bool, packets [][]byte) (hits, runs, split int) {
	t.Helper()
	vm, err := bpf.NewVM(ours)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", name))
	plain, optimized := machine{program: g.plain}, machine{program: g.optimized}
	for _, p := range packets {
		got, err := vm.Run(p)
		qt.Assert(t, qt.IsNil(err))
		want := plain.run(p)
		if o := optimized.run(p); o != want {
			split++
			if net {
				want = o
			}
		}
		if uint32(got) != want {
			t.Errorf("%s: %d, tcpdump %d, packet %x", name, got, want, p)
			return hits, runs, split
		}
		if want != 0 {
			hits++
		}
		runs++
	}
	return hits, runs, split
}

// TestRefused holds what must be refused, and how that is said.
func TestRefused(t *testing.T) {
	b, err := os.ReadFile("testdata/refused.txt")
	qt.Assert(t, qt.IsNil(err))
	cases := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n\n")
	var out strings.Builder
	for i, c := range cases {
		head, _, _ := strings.Cut(c, "\n")
		link, expr, _ := strings.Cut(head, " ")
		n, _ := strconv.Atoi(link)
		_, err := pcapfilter.Compile(expr, pcapfilter.LinkType(n))
		var bad *pcapfilter.Error
		qt.Assert(t, qt.IsTrue(errors.As(err, &bad)), qt.Commentf("%q: %v", expr, err))
		text := head + "\n" + bad.Error() + "\n" + bad.Caret()
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(text + "\n")
		if !*update {
			qt.Check(t, qt.Equals(text, c))
		}
	}
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile("testdata/refused.txt", []byte(out.String()), 0o644)))
	}
}

// TestTcpdumpReads asks the tcpdump that is installed which packets of a file it
// prints.
func TestTcpdumpReads(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	var asked, matches int
	for _, l := range links {
		packets := truncated(basePackets(t, l.link))
		file := filepath.Join(t.TempDir(), "packets.pcap")
		f, err := os.Create(file)
		qt.Assert(t, qt.IsNil(err))
		w := pcapgo.NewWriter(f)
		qt.Assert(t, qt.IsNil(w.WriteFileHeader(65535, layers.LinkType(l.link))))
		var written [][]byte
		for _, p := range packets {
			if len(p) < 14 { // tcpdump takes an empty record for the end
				continue
			}
			// The time is the packet's number.
			qt.Assert(t, qt.IsNil(w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(int64(len(written)), 0), CaptureLength: len(p), Length: len(p)}, p)))
			written = append(written, p)
		}
		qt.Assert(t, qt.IsNil(f.Close()))
		for n, c := range filters(t) {
			ours, err := pcapfilter.Compile(c.expr, l.link)
			if err != nil || n%2 != 0 { // a half is enough beside TestTcpdump
				continue
			}
			args := []string{"-r", file, "-w", "-", "--", c.expr}
			if !strings.HasPrefix(c.class, "net") { // see compareVerdicts
				args = append([]string{"-O"}, args...)
			}
			out, err := exec.Command("tcpdump", args...).Output()
			if err != nil {
				continue // "rejects all packets"
			}
			asked++
			read, err := pcapgo.NewReader(bytes.NewReader(out))
			qt.Assert(t, qt.IsNil(err))
			var got []int64
			for {
				_, info, err := read.ReadPacketData()
				if err != nil {
					break
				}
				got = append(got, info.Timestamp.Unix())
			}
			vm, err := bpf.NewVM(ours)
			qt.Assert(t, qt.IsNil(err))
			var want []int64
			for i, p := range written {
				if v, _ := vm.Run(p); v != 0 {
					want = append(want, int64(i))
				}
			}
			qt.Check(t, qt.DeepEquals(want, got), qt.Commentf("%s %s", l.name, c.expr))
			matches += len(got)
		}
	}
	qt.Check(t, qt.IsTrue(asked > 100 && matches > 1000))
	t.Logf("%d filters, %d packets printed", asked, matches)
}
