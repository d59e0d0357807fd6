package judge

import (
	"bufio"
	"debug/elf"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/x86"
)

// A dumpedInst is what objdump's text says of an instruction's flow.
type dumpedInst struct {
	addr, next uint64
	target     uint64 // 0 if none
	goesOn     bool   // to next
	leaves     bool   // the function, whatever target is
}

// dumpLine is a line of objdump -d: address, bytes, mnemonic and operands.
var dumpLine = regexp.MustCompile(`^([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$`)

var dumpPrefix = regexp.MustCompile(`^((bnd|notrack|cs|ds|es|ss|data16|rex\S*|lock|repz|repnz) +)+`)

// dumpedFunctions disassembles a range of a kernel's text by functions.
func dumpedFunctions(t *testing.T, path string, from, to uint64) map[uint64][]dumpedInst {
	t.Helper()
	program, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("needs objdump of GNU binutils")
	}
	cmd := exec.CommandContext(t.Context(), program, "-d", "-w", "-j", ".text",
		fmt.Sprintf("--start-address=%#x", from), fmt.Sprintf("--stop-address=%#x", to), path)
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	functions := make(map[uint64][]dumpedInst)
	entry := uint64(0)
	for sc := bufio.NewScanner(out); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if strings.HasSuffix(line, ">:") {
			entry = hex(t, "0x"+line[:strings.IndexByte(line, ' ')])
			continue
		}
		if m := dumpLine.FindStringSubmatch(line); m != nil {
			addr := hex(t, "0x"+m[1])
			functions[entry] = append(functions[entry], parseDump(addr, addr+uint64(len(m[2])/3), m[3]))
		}
	}
	qt.Assert(t, qt.IsNil(cmd.Wait()))
	return functions
}

func parseDump(addr, next uint64, text string) dumpedInst {
	in := dumpedInst{addr: addr, next: next, goesOn: true}
	fields := strings.Fields(dumpPrefix.ReplaceAllString(text, ""))
	if len(fields) == 0 {
		return in
	}
	switch op, _, _ := strings.Cut(fields[0], ","); {
	case op == "ret" || op == "iretq" || op == "sysretq":
		in.goesOn, in.leaves = false, true
	case op == "ud2" || op == "ud1" || op == "int3" || op == "(bad)":
		in.goesOn = false
	case strings.HasPrefix(op, "j") || strings.HasPrefix(op, "loop") || op == "xbegin":
		in.goesOn = op != "jmp"
		target, err := strconv.ParseUint(fields[1], 16, 64)
		in.target, in.leaves = target, err != nil
	}
	return in
}

// blocksOf finds the blocks of a function by objdump's text alone: of each that
// is reached from the entry its end, and where it goes.
func blocksOf(f []dumpedInst) map[uint64]string {
	at := make(map[uint64]dumpedInst)
	for _, in := range f {
		at[in.addr] = in
	}
	leads := map[uint64]bool{f[0].addr: true}
	seen := map[uint64]bool{}
	for work := []uint64{f[0].addr}; len(work) > 0; {
		in, ok := at[work[0]]
		work = work[1:]
		if !ok || seen[in.addr] {
			continue
		}
		seen[in.addr] = true
		if in.target != 0 {
			leads[in.target] = true
			work = append(work, in.target)
			if in.goesOn {
				leads[in.next] = true
			}
		}
		if in.goesOn {
			work = append(work, in.next)
		}
	}
	out := make(map[uint64]string)
	for start := range leads {
		in, ok := at[start]
		if !ok {
			continue
		}
		for in.goesOn && in.target == 0 && !leads[in.next] && at[in.next].next != 0 {
			in = at[in.next]
		}
		var succs []string
		if _, inside := at[in.next]; in.goesOn && inside {
			succs = append(succs, fmt.Sprintf("%x", in.next))
		}
		if _, inside := at[in.target]; inside && in.target != in.next {
			succs = append(succs, fmt.Sprintf("%x", in.target))
		}
		out[start] = fmt.Sprintf("%x to %v", in.next, succs)
	}
	return out
}

// TestBlocks holds the control flow graphs of some thousand kernel functions
// against blocks found in objdump's text, and dominance in them against its
// definition: what cannot be reached any more when a block is taken away.
func TestBlocks(t *testing.T) {
	path := vmlinux(t)
	f, err := elf.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	text := f.Section(".text")
	data, err := text.Data()
	qt.Assert(t, qt.IsNil(err))
	const size = 1 << 20
	from := text.Addr + text.Size/2
	functions, blocks, pairs := 0, 0, 0
	dump := dumpedFunctions(t, path, from, from+size)
	for entry, insns := range dump {
		end := insns[len(insns)-1].next
		if entry == from || end+x86.MaxLen > from+size {
			continue // cut off
		}
		g, err := cfg.Build(data[entry-text.Addr:end-text.Addr], entry, cfg.Options{})
		qt.Assert(t, qt.IsNil(err))
		got := make(map[uint64]string)
		for _, b := range g.Blocks {
			var succs []string
			for _, s := range b.Succs {
				succs = append(succs, fmt.Sprintf("%x", g.Blocks[s].Start))
			}
			got[b.Start] = fmt.Sprintf("%x to %v", b.End, succs)
		}
		qt.Assert(t, qt.DeepEquals(got, blocksOf(insns)), qt.Commentf("function at %#x", entry))
		functions++
		blocks += len(g.Blocks)
		pairs += checkDominance(t, g)
	}
	t.Logf("%d functions, %d blocks, %d pairs of blocks", functions, blocks, pairs)
	qt.Check(t, qt.IsTrue(functions > 1000))
}

// checkDominance checks some blocks of a graph against all others.
func checkDominance(t *testing.T, g *cfg.Graph) (pairs int) {
	t.Helper()
	n := len(g.Blocks)
	first, _ := g.BlockAt(g.Entry)
	forwards := func(b int) []int { return g.Blocks[b].Succs }
	backwards := func(b int) []int { return g.Blocks[b].Preds }
	var exits []int
	for i, b := range g.Blocks {
		if b.Exit || b.Unknown {
			exits = append(exits, i)
		}
	}
	leaves := reached(exits, -1, n, backwards)
	for a := 0; a < n; a += 1 + n/16 {
		from := reached([]int{first}, a, n, forwards)
		to := reached(exits, a, n, backwards)
		for b := range n {
			qt.Assert(t, qt.Equals(g.Dominates(a, b), !from[b]), qt.Commentf("%#x: %d over %d", g.Entry, a, b))
			if leaves[b] {
				qt.Assert(t, qt.Equals(g.PostDominates(a, b), !to[b]), qt.Commentf("%#x: %d behind %d", g.Entry, a, b))
			}
			pairs++
		}
	}
	return pairs
}

// reached returns which of n blocks can be reached from some without one.
func reached(from []int, without, n int, next func(int) []int) []bool {
	seen := make([]bool, n)
	work := slices.DeleteFunc(slices.Clone(from), func(b int) bool { return b == without })
	for _, b := range work {
		seen[b] = true
	}
	for len(work) > 0 {
		b := work[0]
		work = work[1:]
		for _, s := range next(b) {
			if s != without && !seen[s] {
				seen[s] = true
				work = append(work, s)
			}
		}
	}
	return seen
}
