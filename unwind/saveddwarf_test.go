package unwind

import (
	"bufio"
	"cmp"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/vm"
	"github.com/ksleuth/ksleuth/x86"
)

// TestSavedByDWARF holds what following the code says of where registers are
// against the compiler's call frame information, as readelf prints it, before
// each instruction of a sample of the functions of a kernel.
//
// KSLEUTH_VMLINUX names the kernel; KSLEUTH_ALL=1 takes all its functions.
func TestSavedByDWARF(t *testing.T) {
	path := debugKernel(t)
	every := 16
	if os.Getenv("KSLEUTH_ALL") != "" {
		every = 1
	}
	f, err := elf.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	text := f.Section(".text")
	code, err := text.Data()
	qt.Assert(t, qt.IsNil(err))
	syms, err := f.Symbols()
	qt.Assert(t, qt.IsNil(err))
	names := make(map[uint64]elf.Symbol)
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Size > 0 && s.Value >= text.Addr && s.Value+s.Size <= text.Addr+text.Size {
			names[s.Value] = s
		}
	}
	part := func(s elf.Symbol) cfg.Part { return cfg.Part{Addr: s.Value, Code: code[s.Value-text.Addr:][:s.Size]} }
	j := dwarfJudge{rules: readRules(t, path), wrongIn: map[string]int{}, unknownIn: map[string]int{}}
	entries := make([]uint64, 0, len(names))
	for a := range names {
		entries = append(entries, a)
	}
	slices.Sort(entries)
	for i, entry := range entries {
		s := names[entry]
		if i%every != 0 || j.rules[entry] == nil || strings.Contains(s.Name, coldSuffix) {
			continue
		}
		var o cfg.Options
		g, err := cfg.Build(part(s).Code, entry, o)
		qt.Assert(t, qt.IsNil(err))
		cold := uint64(0)
		for to := range jumpsOut(g) {
			if c, ok := symbolAt(entries, names, to); ok && strings.Contains(c.Name, coldSuffix) {
				o.Parts, cold = []cfg.Part{part(c)}, c.Value
			}
		}
		j.functions++
		done := make(map[uint64]bool)
		for _, warn := range []bool{false, true} { // as follow does
			o.Warn = func(uint64) bool { return warn }
			g, err = cfg.Build(part(s).Code, entry, o)
			qt.Assert(t, qt.IsNil(err))
			j.function(s, g, cold, done)
		}
	}
	t.Logf("%d functions, %d places of registers: %d the same, %d unknown, %d wrong", j.functions, j.places, j.same, j.unknown, j.wrong)
	t.Logf("of them before calls %d, unknown %d, wrong %d", j.calls, j.callsUnknown, j.callsWrong)
	t.Logf("wrong in %d functions: %s", len(j.wrongIn), most(j.wrongIn))
	t.Logf("unknown in %d functions: %s", len(j.unknownIn), most(j.unknownIn))
	t.Log(strings.Join(j.examples, "\n"))
	qt.Check(t, qt.IsTrue(j.functions*every > 30000))
	qt.Check(t, qt.Equals(j.wrong, 0))
	qt.Check(t, qt.IsTrue(j.unknown*200 < j.places))
}

// symbolAt returns the function an address lies in.
func symbolAt(entries []uint64, names map[uint64]elf.Symbol, addr uint64) (elf.Symbol, bool) {
	i, exact := slices.BinarySearch(entries, addr)
	if !exact {
		i--
	}
	if i < 0 {
		return elf.Symbol{}, false
	}
	s := names[entries[i]]
	return s, addr < s.Value+s.Size
}

func most(in map[string]int) string {
	var all []string
	for name := range in {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(in[b]-in[a], strings.Compare(a, b)) })
	for i, name := range all {
		all[i] = fmt.Sprintf("%s %d", name, in[name])
	}
	return strings.Join(all[:min(len(all), 12)], ", ")
}

func debugKernel(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("KSLEUTH_VMLINUX"); path != "" {
		return path
	}
	cache, err := vm.CacheDir()
	qt.Assert(t, qt.IsNil(err))
	path := filepath.Join(cache, "kernels", "6.1", "vmlinux")
	if _, err := os.Stat(path); err != nil {
		t.Skip("no kernel with debug info: get it with scripts/kernels --dbg 6.1, or name a vmlinux in KSLEUTH_VMLINUX")
	}
	return path
}

// dwarfRow is where registers are from some address on: the offset from the
// canonical frame address of the saved copy, 0 for the register itself.
type dwarfRow struct {
	addr uint64
	cfa  string
	at   map[x86.Reg]int64
}

// readRules reads the rows of each function by its address.
func readRules(t *testing.T, path string) map[uint64][]dwarfRow {
	t.Helper()
	cmd := exec.Command("readelf", "--debug-dump=frames-interp", path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Skipf("needs readelf of GNU binutils: %v", err)
	}
	defer cmd.Wait()
	columns := map[string]x86.Reg{"rbx": x86asm.RBX, "rbp": x86asm.RBP, "r12": x86asm.R12, "r13": x86asm.R13, "r14": x86asm.R14, "r15": x86asm.R15}
	rules := make(map[uint64][]dwarfRow)
	var entry uint64
	var head []string
	for sc := bufio.NewScanner(out); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		switch {
		case len(fields) == 0:
			entry, head = 0, nil
		case strings.Contains(sc.Text(), " FDE "):
			_, from, _ := strings.Cut(sc.Text(), " pc=")
			from, _, _ = strings.Cut(from, ".")
			entry, err = strconv.ParseUint(from, 16, 64)
			qt.Assert(t, qt.IsNil(err))
			rules[entry] = []dwarfRow{{addr: entry}}
		case fields[0] == "LOC":
			head = fields
			if entry != 0 {
				rules[entry] = nil
			}
		case entry != 0 && head != nil:
			row := dwarfRow{cfa: fields[1], at: map[x86.Reg]int64{}}
			row.addr, err = strconv.ParseUint(fields[0], 16, 64)
			qt.Assert(t, qt.IsNil(err))
			for i, name := range head {
				reg, ok := columns[name]
				if n, isCell := strings.CutPrefix(fields[min(i, len(fields)-1)], "c"); ok && isCell {
					row.at[reg], err = strconv.ParseInt(n, 10, 64)
					qt.Assert(t, qt.IsNil(err))
				} else if ok && fields[i] != "u" && fields[i] != "s" {
					row.at[reg] = 1 // an expression: not compared
				}
			}
			rules[entry] = append(rules[entry], row)
		}
	}
	return rules
}

// A dwarfJudge counts.
type dwarfJudge struct {
	rules                           map[uint64][]dwarfRow
	functions, places               int
	same, unknown, wrong            int
	calls, callsUnknown, callsWrong int
	wrongIn, unknownIn              map[string]int
	examples                        []string
}

func (j *dwarfJudge) function(s elf.Symbol, g *cfg.Graph, cold uint64, done map[uint64]bool) {
	at := flow(g)
	for i, b := range g.Blocks {
		rows := j.rules[g.Entry]
		if b.Start < g.Entry || b.Start >= g.Entry+s.Size {
			rows = j.rules[cold]
		}
		if len(rows) == 0 || at[i] == nil {
			continue
		}
		st := at[i].clone()
		code := g.Code(i)
		for off := 0; off < len(code); {
			in, err := x86.Decode(code[off:], b.Start+uint64(off))
			if err != nil {
				break
			}
			n, exact := slices.BinarySearchFunc(rows, in.Addr, func(r dwarfRow, a uint64) int { return cmp.Compare(r.addr, a) })
			if !exact {
				n--
			}
			if !done[in.Addr] {
				j.compare(s.Name, &in, st, rows, n)
			}
			done[in.Addr] = true
			st.step(&in, g.Entry)
			off += in.Len
		}
	}
}

// aligned says whether a function that aligns its stack keeps the address of its
// frame in a register. GCC calls it saved only while the frame is found by it.
func aligned(rows []dwarfRow, reg x86.Reg) bool {
	name := strings.ToLower(reg.String()) + "+"
	return reg != x86asm.RBP && slices.ContainsFunc(rows, func(r dwarfRow) bool { return strings.HasPrefix(r.cfa, name) })
}

func (j *dwarfJudge) compare(name string, in *x86.Inst, st *state, rows []dwarfRow, n int) {
	row := rows[n]
	call := in.Flow() == x86.FlowCall || in.Flow() == x86.FlowIndirectCall
	for _, reg := range calleeSaved {
		want := row.at[reg]
		if want > 0 || aligned(rows, reg) {
			continue
		}
		j.places++
		if call {
			j.calls++
		}
		mine := value{entryOf, int64(reg)}
		inReg := st.get(reg) == mine
		cells := []int64{}
		for _, c := range st.cells {
			if c.v == mine {
				cells = append(cells, int64(c.off))
			}
		}
		switch {
		case inReg || slices.Contains(cells, want): // what has been saved can still be in the register
			j.same++
		case !inReg && len(cells) == 0:
			j.unknown++
			j.unknownIn[name]++
			if call {
				j.callsUnknown++
			}
		default:
			j.wrong++
			j.wrongIn[name]++
			if call {
				j.callsWrong++
			}
			if len(j.examples) < 20 {
				j.examples = append(j.examples, fmt.Sprintf("%s %#x: %v: DWARF %d, we: register %v, cells %v", name, in.Addr, reg, want, inReg, cells))
			}
		}
	}
}
