package judge

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// scenes are the dumps whose guests recorded what they know, just before.
var scenes = []string{
	"idle-5.10", "idle-6.1", "idle-6.12", "idle-7.2",
	"casee-6.1", "casee-6.12",
}

// eachScene runs a subtest for each dump; said returns what the guest said.
func eachScene(t *testing.T, test func(t *testing.T, dump string, said func(ext string) string)) {
	for _, scene := range slices.Concat(scenes, kexecScenes) {
		t.Run(scene, func(t *testing.T) {
			test(t, dumptest.Get(t, scene+".elf"), func(ext string) string {
				b, err := os.ReadFile(dumptest.Get(t, scene+ext))
				qt.Assert(t, qt.IsNil(err))
				return string(b)
			})
		})
	}
}

var stamp = regexp.MustCompile(`^<\d+>\[ *([0-9.]+)\] `)

// TestGuestLog holds the log against what syslog(2) gave in the guest: the
// same bytes, and behind them only what came later.
func TestGuestLog(t *testing.T) {
	eachScene(t, func(t *testing.T, dump string, said func(string) string) {
		want, got := said(".dmesg"), ksleuth(t, cli.StatusOK, "-t", dump, "log", "--raw")
		later, ok := strings.CutPrefix(got, want)
		if !ok {
			t.Fatalf("the log differs (-guest +ksleuth):\n%s", cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
		}
		lines := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
		last := seconds(t, lines[len(lines)-1])
		for line := range strings.Lines(later) {
			qt.Check(t, qt.IsTrue(seconds(t, line) >= last), qt.Commentf("%q is not later than %f s", line, last))
		}
		t.Logf("%d lines compared, %d came later", len(lines), strings.Count(later, "\n"))
	})
}

func seconds(t *testing.T, line string) float64 {
	t.Helper()
	m := stamp.FindStringSubmatch(line)
	qt.Assert(t, qt.IsNotNil(m), qt.Commentf("%q", line))
	s, err := strconv.ParseFloat(m[1], 64)
	qt.Assert(t, qt.IsNil(err))
	return s
}

// A process is a line of what the guest's ps says.
type process struct {
	ppid, threads int
	state, comm   string
}

// psChanges are what may change in the moment between the guest's look at
// /proc and the dump.
var psChanges = []struct {
	why string
	may func(guest, dump *process) bool
}{
	{"a worker was started, or ended for want of work", func(g, d *process) bool {
		return g == nil && strings.HasPrefix(d.comm, "kworker/") || d == nil && strings.HasPrefix(g.comm, "kworker/")
	}},
	{"a kernel thread had something to do then", func(g, d *process) bool {
		return g != nil && d != nil && g.ppid == d.ppid && g.comm == d.comm && g.threads == d.threads &&
			g.ppid == kthreadd && strings.Contains("RDSI", g.state) && strings.Contains("RDSI", d.state)
	}},
	{"a Go program, as all processes of the guests are, runs for a moment or has started another thread", func(g, d *process) bool {
		return g != nil && d != nil && g.ppid == d.ppid && g.comm == d.comm && g.threads <= d.threads &&
			g.ppid != kthreadd && strings.Contains("RSD", g.state) && strings.Contains("RSD", d.state)
	}},
}

// kthreadd is the parent of all kernel threads.
const kthreadd = 2

// inMemory returns the name that task_struct.comm has for one that /proc shows.
// /proc makes longer ones up for kernel threads: a worker's says of which queue
// its work is, others are not cut to 15 bytes since d6986ce24fc0 (5.17).
func inMemory(comm string, ppid int) string {
	if ppid != kthreadd {
		return comm
	}
	if strings.HasPrefix(comm, "kworker/") && strings.Contains(comm, ":") {
		if i := strings.IndexAny(comm, "+-"); i >= 0 {
			comm = comm[:i]
		}
	}
	return comm[:min(len(comm), 15)]
}

// TestGuestPS holds the processes against /proc in the guest.
func TestGuestPS(t *testing.T) {
	eachScene(t, func(t *testing.T, dump string, said func(string) string) {
		dumped := map[int]*process{}
		for _, k := range answers[task](t, cli.StatusOK, "task", dump, "ps") {
			if p := dumped[k.TGID]; k.PID != k.TGID {
				p.threads++
			} else if k.PID != 0 {
				dumped[k.PID] = &process{k.PPID, 1, k.State, k.Comm}
			}
		}
		guest := parsePS(said(".ps"))
		qt.Assert(t, qt.IsTrue(len(guest) > 40))
		changed := 0
		for pid := range union(guest, dumped) {
			g, d := guest[pid], dumped[pid]
			if g != nil && d != nil && *g == *d {
				continue
			}
			changed++
			if why := psChange(g, d); why != "" {
				t.Logf("pid %d: guest %v, dump %v: %s", pid, g, d, why)
			} else {
				t.Errorf("pid %d: guest %v, dump %v", pid, g, d)
			}
		}
		qt.Assert(t, qt.IsTrue(changed < 10))
		t.Logf("%d processes compared, %d changed", len(guest), changed)
	})
}

// parsePS reads what the guest program's ps says.
func parsePS(text string) map[int]*process {
	out := map[int]*process{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 5)
		pid, _ := strconv.Atoi(f[0])
		ppid, _ := strconv.Atoi(f[1])
		threads, _ := strconv.Atoi(f[3])
		out[pid] = &process{ppid, threads, f[2], inMemory(f[4], ppid)}
	}
	return out
}

func (p *process) String() string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%s of parent %d, %d threads, state %s", p.comm, p.ppid, p.threads, p.state)
}

func psChange(guest, dump *process) string {
	for _, c := range psChanges {
		if c.may(guest, dump) {
			return c.why
		}
	}
	return ""
}

func union[K comparable, V any](a, b map[K]V) map[K]bool {
	all := map[K]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

// TestGuestModules holds the modules against /proc/modules.
func TestGuestModules(t *testing.T) {
	eachScene(t, func(t *testing.T, dump string, said func(string) string) {
		got := moduleLines(answers[module](t, cli.StatusOK, "module", dump, "mods"))
		qt.Check(t, qt.DeepEquals(got, parseModules(said(".modules"))))
	})
}

// parseModules takes from /proc/modules what [moduleLines] has of modules.
func parseModules(text string) (lines []string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // name size refs users state address
		lines = append(lines, strings.Join([]string{f[0], f[1], f[2], strings.ToLower(f[4]), f[5]}, " "))
	}
	return lines
}

func moduleLines(mods []module) (lines []string) {
	for _, m := range mods {
		lines = append(lines, fmt.Sprintf("%s %d %d %s %s", m.Name, m.Size, m.Refs, m.State, m.Base))
	}
	return lines
}

// TestGuestSymbols holds every 500th symbol of /proc/kallsyms, every 20th of
// the modules and all of BPF, by address and by name.
func TestGuestSymbols(t *testing.T) {
	eachScene(t, func(t *testing.T, dump string, said func(string) string) {
		sample := sampleSymbols(said(".kallsyms"))
		args := []string{"-t", dump, "-o", "json", "sym"}
		byName, byAddr := args, args
		for _, s := range sample {
			byName = append(byName, s.query)
			byAddr = append(byAddr, s.addr)
		}
		for _, q := range [][]string{byName, byAddr} {
			got := decode[struct {
				Name, Addr, Module, Offset string
			}](t, "symbol", ksleuth(t, cli.StatusOK, q...))
			qt.Assert(t, qt.Equals(len(got), len(sample)))
			for i, s := range sample {
				g := got[i]
				if g.Addr != s.addr || g.Offset != "0x0" || !s.names[g.Name] || g.Module != strings.TrimSuffix(s.module, bpfModule) {
					t.Errorf("%v: ksleuth has %v", s, g)
				}
			}
		}
		t.Logf("%d symbols compared", len(sample))
	})
}

// A symbol is a sample of /proc/kallsyms.
type symbol struct {
	query, addr, module string
	names               map[string]bool // all that share the address
}

// bpfModule is the module that /proc/kallsyms gives BPF code, which belongs to
// none.
const bpfModule = "bpf"

func sampleSymbols(kallsyms string) []symbol {
	type line struct{ addr, name, module string }
	var lines []line
	names := map[string]map[string]bool{} // by address
	count := map[string]int{}             // by name
	for text := range strings.Lines(kallsyms) {
		f := strings.Fields(text)
		l := line{addr: "0x" + f[0], name: f[2]}
		if len(f) > 3 {
			l.module = strings.Trim(f[3], "[]")
		}
		lines = append(lines, l)
		if names[l.addr] == nil {
			names[l.addr] = map[string]bool{}
		}
		names[l.addr][l.name] = true
		count[l.name]++
	}
	var out []symbol
	for i, l := range lines {
		every := map[string]int{"": 500, bpfModule: 1}[l.module]
		if every == 0 {
			every = 20
		}
		// Per-CPU symbols of old kernels are offsets, not addresses.
		if i%every == 0 && count[l.name] == 1 && strings.HasPrefix(l.addr, "0xffff") {
			out = append(out, symbol{l.name, l.addr, l.module, names[l.addr]})
		}
	}
	return out
}
