package judge

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vm"
)

// A sceneGuest is a guest in which internal/tracescene sets its scenes.
type sceneGuest struct{ *liveGuest }

const guestTraceScene = "/tracescene"

// sceneModules are what the scenes attach through.
var sceneModules = []string{"veth", "sch_ingress", "cls_bpf"}

// bootScene boots a kernel with more files, if any.
func bootScene(t testing.TB, kernel string, files map[string]string) *sceneGuest {
	t.Helper()
	program, err := dumptest.Build("tracescene")
	qt.Assert(t, qt.IsNil(err))
	return &sceneGuest{bootLive(t, kernel, func(c *vm.Config) {
		all := map[string]string{guestTraceScene: program}
		for _, from := range []map[string]string{c.Files, files} {
			for path, file := range from {
				all[path] = file
			}
		}
		c.Files, c.Modules = all, sceneModules
	})}
}

// set sets a scene.
func (g *sceneGuest) set(args ...string) {
	g.t.Helper()
	g.start(guestTraceScene, args...)
}

// tell has a scene do something and parses its answer.
func tell[T any](g *sceneGuest, args ...string) T {
	g.t.Helper()
	status, out, errs := g.run(guestTraceScene, append([]string{"do"}, args...)...)
	qt.Assert(g.t, qt.Equals(status, cli.StatusOK), qt.Commentf("%v: %s", args, errs))
	var answer T
	qt.Assert(g.t, qt.IsNil(json.Unmarshal([]byte(out), &answer)), qt.Commentf("%v: %s", args, out))
	return answer
}

// A tally is what a scene counted of a function: by the values it returned.
type tally struct {
	Entered  uint64            `json:"entered"`
	Returned map[string]uint64 `json:"returned"`
}

// arrived is where a scene's packets went.
type arrived struct{ Sent, Passed, Back int }

// sceneObjects are what a scene made.
type sceneObjects struct {
	Progs    map[string]int
	LeftOut  []string `json:"left_out"`
	Pid      int
	Sender   string
	Receiver string
}

// always is a tally of a function that always returned the same.
func always(n uint64, value string) tally {
	if n == 0 {
		return tally{0, map[string]uint64{}}
	}
	return tally{n, map[string]uint64{value: n}}
}

// TestSceneA judges case A without a tracer of ours: the verdict is 2, and on
// an unfixed kernel a bare fexit makes it 33.
func TestSceneA(t *testing.T) {
	const n = 1000
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, nil)
			g.set("casea", "--percpu")
			right := map[string]tally{
				"xdp_main": always(n, "2"), "module1": always(n, "2"), "module2": always(n, "2"), "module3": always(n, "2"),
				"fw_mod": always(n, "2"), "xdp_mod": always(n, "2"),
			}
			wrong := map[string]tally{
				"xdp_main": always(n, "33"), "module1": always(n, "2"), "module2": always(n, "2"), "module3": always(n, "33"),
				"fw_mod": always(n, "2"), "xdp_mod": always(0, ""),
			}
			for _, step := range []struct {
				trace  string
				harmed bool
			}{{"none", false}, {"exit", kernel == "5.10"}, {"both", false}, {"none", false}} {
				tell[any](g, "casea", "trace", step.trace)
				tell[any](g, "casea", "reset")
				got := tell[arrived](g, "casea", "send", strconv.Itoa(n))
				want, passed := right, n
				if step.harmed {
					want, passed = wrong, 0
				}
				qt.Check(t, qt.DeepEquals(tell[map[string]tally](g, "casea", "counters"), want), qt.Commentf("traced: %s", step.trace))
				qt.Check(t, qt.Equals(got, arrived{n, passed, 0}), qt.Commentf("traced: %s", step.trace))
			}
			run := tell[struct{ Runs, Returned int }](g, "casea", "run", "3")
			qt.Check(t, qt.Equals(run.Returned, 2))
		})
	}
}

// TestSceneD judges case D.
func TestSceneD(t *testing.T) {
	for _, test := range []struct {
		kernel string
		want   map[string]int
	}{
		{"5.10", map[string]int{"count0": 33, "count1": 33, "count2": 100}},
		{"6.1", map[string]int{"count0": 33, "count1": 33, "count2": 100}},
		{"6.12", map[string]int{"count0": 33, "count1": 0, "count2": 34}},
		{"7.2", map[string]int{"count0": 33, "count1": 0, "count2": 34}},
	} {
		t.Run(test.kernel, func(t *testing.T) {
			g := bootScene(t, test.kernel, nil)
			g.set("cased")
			tell[any](g, "cased", "run", "1")
			tell[any](g, "cased", "twice", "2")
			qt.Check(t, qt.DeepEquals(tell[map[string]int](g, "cased", "counters"), test.want))
		})
	}
}

// A fate is what happened to one packet of the dispatcher.
type fate struct {
	verdict int
	path    []string // who was entered
}

// dispatched tells what the dispatcher does to a packet, from what it was built
// to do. How the sixth module and tail8_hook are built is up to the kernel.
func dispatched(seq int, progs map[string]int) fate {
	const drop, pass, tx, aborted = 1, 2, 3, 0
	f := fate{pass, []string{"dispatcher"}}
	decider := seq % 10
	if decider != 7 {
		f.verdict = []int{pass, drop, tx, aborted}[seq/10%4]
	}
	for module := range 10 {
		early := module == 8 && decider == 8 && seq/40%2 == 0
		f.path = append(f.path, fmt.Sprintf("stub%d", module))
		switch module {
		case 0:
			f.path = append(f.path, "ext0")
		case 2:
			f.path = append(f.path, "tail2")
		case 3:
			f.path = append(f.path, "ext3", "ext3_sub")
		case 4:
			f.path = append(f.path, "tail4", "tail4_jump", "tail4b")
		case 5:
			f.path = append(f.path, "plain5")
		case 6:
			f.path = append(f.path, "ext6")
			if progs["ext6_plain"] == 0 {
				f.path = append(f.path, "tail6")
			}
		case 8:
			f.path = append(f.path, "tail8", "tail8_plain")
			if early {
				break
			}
			f.path = append(f.path, "tail8_hook")
			if progs["ext8"] != 0 {
				f.path = append(f.path, "ext8")
			}
			f.path = append(f.path, "tail8_jump", "tail8b", "tail8b_jump", "tail8c")
		}
		if module == decider && decider != 7 {
			break
		}
	}
	return f
}

// TestSceneDispatcher has packets go through the dispatcher, and judges each
// one's path and verdict by what the dispatcher was built to do.
// KSLEUTH_LONG=1 makes it 10,000.
func TestSceneDispatcher(t *testing.T) {
	n := dispatcherPackets()
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, nil)
			g.set("dispatcher")
			made := tell[sceneObjects](g, "dispatcher", "objects")
			t.Logf("%s: left out: %s", kernel, strings.Join(made.LeftOut, "; "))
			got := tell[arrived](g, "dispatcher", "send", strconv.Itoa(n))
			tell[any](g, "dispatcher", "records", "/records.txt")
			verdicts := map[int]int{}
			entered := map[string]uint64{}
			lines := strings.Split(strings.TrimSpace(g.file("/records.txt")), "\n")
			qt.Assert(t, qt.HasLen(lines, n))
			for seq, line := range lines {
				want := dispatched(seq, made.Progs)
				words := strings.Fields(line)
				qt.Assert(t, qt.DeepEquals(words[:3], []string{strconv.Itoa(seq), "1", strconv.Itoa(want.verdict)}))
				path := words[3:]
				slices.Sort(path)
				slices.Sort(want.path)
				qt.Assert(t, qt.DeepEquals(path, want.path), qt.Commentf("packet %d", seq))
				verdicts[want.verdict]++
				for _, name := range path {
					entered[name]++
				}
			}
			qt.Check(t, qt.Equals(got, arrived{n, verdicts[2], verdicts[3]}))
			for name, c := range tell[map[string]tally](g, "dispatcher", "counters") {
				qt.Check(t, qt.Equals(c.Entered, entered[name]), qt.Commentf(name))
				returned := uint64(0)
				for _, times := range c.Returned {
					returned += times
				}
				// A program that makes a tail call has not returned itself.
				if name == "ext6" && made.Progs["tail6"] != 0 && made.Progs["ext6_plain"] == 0 {
					qt.Check(t, qt.Equals(returned, 0))
				} else {
					qt.Check(t, qt.Equals(returned, c.Entered), qt.Commentf(name))
				}
				if name == "dispatcher" {
					for value, times := range c.Returned {
						v, err := strconv.Atoi(value)
						qt.Assert(t, qt.IsNil(err))
						qt.Check(t, qt.Equals(int(times), verdicts[v]), qt.Commentf("verdict %s", value))
					}
				}
			}
		})
	}
}

// dispatcherPackets is how many packets tests send through the dispatcher: each
// path is taken by one in 80.
func dispatcherPackets() int {
	if os.Getenv("KSLEUTH_LONG") == "1" {
		return 10000
	}
	return 400
}

// TestScenePackets sends the packets of a file and has them seen.
func TestScenePackets(t *testing.T) {
	var sent [][]byte
	for i := range 200 {
		p := make([]byte, 14+i*13%1400)
		for j := range p {
			p[j] = byte(i + j*7)
		}
		copy(p, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
		sent = append(sent, p)
	}
	file := filepath.Join(t.TempDir(), "packets.pcap")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, pcapOf(sent), 0o644)))
	type seen struct {
		Len      int
		Returned int
		Class    int
		Head     string
	}
	var want []seen
	for _, p := range sent {
		want = append(want, seen{len(p), 2, len(p) / 100, fmt.Sprintf("%x", p[:min(len(p), 96)])})
	}
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, map[string]string{"/packets.pcap": file})
			g.set("packets")
			got := tell[arrived](g, "packets", "send-file", "/packets.pcap")
			qt.Check(t, qt.Equals(got, arrived{len(sent), len(sent), 0}))
			all := tell[map[string][]seen](g, "packets", "seen")
			qt.Check(t, qt.DeepEquals(all["see"], want))
			qt.Assert(t, qt.HasLen(all["see_tc"], len(sent)))
			for i, p := range all["see_tc"] {
				qt.Check(t, qt.Equals(p.Head, want[i].Head))
				qt.Check(t, qt.Equals(p.Returned, []int{0, -1, 2, 3}[len(sent[i])%4]))
			}
		})
	}
}

// TestSceneCalls has system calls be made, and told what they took. That they
// are so many is for TestRivalBpftrace to judge.
func TestSceneCalls(t *testing.T) {
	type took struct {
		Calls   int
		Threads int
		CPU     int64 `json:"cpu_ns"`
		Wall    int64 `json:"wall_ns"`
	}
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			g := bootScene(t, kernel, nil)
			for _, test := range []struct {
				args string
				want took
			}{
				{"calls getpgid 10000 2", took{Calls: 10000, Threads: 2}},
				{"rate getppid 5000 1", took{Calls: 5000, Threads: 1}},
			} {
				_, out, errs := g.run(guestTraceScene, strings.Fields(test.args)...)
				var got took
				qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &got)), qt.Commentf("%s", errs))
				qt.Check(t, qt.IsTrue(got.CPU > 0 && got.Wall > 0), qt.Commentf("%s", out))
				got.CPU, got.Wall = 0, 0
				qt.Check(t, qt.Equals(got, test.want))
			}
		})
	}
}

// pcapOf makes a classic pcap file of Ethernet packets.
func pcapOf(packets [][]byte) []byte {
	u32 := func(b []byte, values ...uint32) []byte {
		for _, v := range values {
			b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
		}
		return b
	}
	const ethernet = 1
	b := u32(nil, 0xa1b2c3d4, 4<<16|2, 0, 0, 1<<16, ethernet)
	for i, p := range packets {
		b = append(u32(b, uint32(i), 0, uint32(len(p)), uint32(len(p))), p...)
	}
	return b
}
