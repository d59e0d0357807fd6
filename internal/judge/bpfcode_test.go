package judge

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// A jitedProgram is what internal/bpfscene tells of a program's machine code,
// which it has from bpf(2). Debian's bpftool has no disassembler, and without
// one dumps no machine code at all.
type jitedProgram struct {
	ID    int      `json:"id"`
	Addrs []uint64 `json:"addrs"`
	Lens  []int    `json:"lens"`
	Code  string   `json:"code"`
}

// A codeLine is one function of disasm's answer.
type codeLine struct {
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	Error string `json:"error"`
	Lines []struct {
		Bytes  string `json:"bytes"`
		Xlated []struct {
			Index int    `json:"index"`
			Text  string `json:"text"`
		} `json:"xlated"`
	} `json:"lines"`
}

// checkJited holds the bytes of a program's functions against bpf(2)'s.
func checkJited(t *testing.T, p jitedProgram, code []codeLine) {
	t.Helper()
	rest := p.Code
	if len(code) != len(p.Addrs) {
		t.Errorf("prog %d: %d functions, ours %d", p.ID, len(p.Addrs), len(code))
		return
	}
	for i, f := range code {
		var b strings.Builder
		for _, l := range f.Lines {
			b.WriteString(strings.ReplaceAll(l.Bytes, " ", ""))
		}
		want := rest[:min(len(rest), 2*p.Lens[i])]
		rest = rest[len(want):]
		if addr, _ := strconv.ParseUint(f.Addr, 0, 64); addr != p.Addrs[i] || b.String() != want || f.Error != "" {
			t.Errorf("prog %d, function %d %s: at %#x\n%s\nours at %s\n%s %s", p.ID, i, f.Name, p.Addrs[i], want, f.Addr, b.String(), f.Error)
		}
	}
}

// xlatedChanges make bpftool's text of BPF instructions ours.
var xlatedChanges = []struct {
	why      string
	from, to string // regular expressions, and what they are replaced by
}{
	{"bpftool names a function by its symbol, with the tag", `#bpf_prog_[0-9a-f]{16}_`, "#"},
}

// ourComment is what we add to an instruction: the name of a map.
var ourComment = regexp.MustCompile(`  # .*$`)

// checkXlated holds the BPF instructions against bpftool's.
func checkXlated(t *testing.T, id int, theirs string, code []codeLine) int {
	t.Helper()
	var list []struct {
		Disasm string `json:"disasm"`
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(theirs), &list)), qt.Commentf("%.300s", theirs))
	type insn struct {
		index int
		text  string
	}
	var ours []insn
	for _, f := range code {
		for _, l := range f.Lines {
			for _, x := range l.Xlated {
				ours = append(ours, insn{x.Index, x.Text})
			}
		}
	}
	// The JIT may emit the code of one instruction behind another's.
	slices.SortStableFunc(ours, func(a, b insn) int { return a.index - b.index })
	if len(ours) != len(list) {
		t.Errorf("prog %d: %d BPF instructions, ours %d", id, len(list), len(ours))
		return 0
	}
	for i := range list {
		want := list[i].Disasm
		for _, c := range xlatedChanges {
			want = regexp.MustCompile(c.from).ReplaceAllString(want, c.to)
		}
		if want != ourComment.ReplaceAllString(ours[i].text, "") {
			t.Errorf("prog %d, instruction %d: %s\nours: %s", id, ours[i].index, want, ours[i].text)
		}
	}
	return len(list)
}

// xlatedOf are the programs whose BPF instructions are compared: bpftool reads
// all symbols for each, which takes its time.
var xlatedOf = []string{"zoo_xdp", "zoo_tc", "zoo_cgroup_storage", "xdp_main", "entry2", "z_arena_user"}

// code holds the machine code of every program in a dump against what bpf(2)
// said before, and the BPF instructions of some against bpftool's.
func (g *bpfGuest) code(t *testing.T, l *look, jited string, run func(args ...string) string) {
	programs, insns, dec := 0, 0, json.NewDecoder(strings.NewReader(jited))
	for dec.More() {
		var p jitedProgram
		qt.Assert(t, qt.IsNil(dec.Decode(&p)))
		id := strconv.Itoa(p.ID)
		out := run("disasm", "--xlated", "prog:"+id)
		code := decode[codeLine](t, "code", out)
		checkJited(t, p, code)
		programs++
		if slices.Contains(xlatedOf, text(l.progs[id]["name"])) {
			insns += checkXlated(t, p.ID, g.bpftool("prog", "dump", "xlated", "id", id), code)
		}
	}
	t.Logf("machine code of %d programs compared, %d BPF instructions", programs, insns)
}

// liveCode holds a few programs' code on the running kernel against the same.
func (g *bpfGuest) liveCode(t *testing.T, l *look, jited string) {
	checked := 0
	for line := range strings.Lines(jited) {
		var p jitedProgram
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(line), &p)))
		name := text(l.progs[strconv.Itoa(p.ID)]["name"])
		if !slices.Contains([]string{"zoo_xdp", "entry", "xdp_main", "module3_exit", "z_raw_tp"}, name) {
			continue
		}
		out := g.ksleuth(0, "-o", "json", "disasm", fmt.Sprintf("prog:%d", p.ID))
		checkJited(t, p, decode[codeLine](t, "code", out))
		checked++
	}
	qt.Check(t, qt.Equals(checked, 5))
}
