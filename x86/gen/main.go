// Gen compiles insns.txt, the list of encodings, into the decoding tables of package x86.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// A dim is a selector rows can differ in. The tree splits on them in this order.
type dim int

const (
	dimMod dim = iota // 0 memory, 1 register
	dimReg
	dimRM
	dimPP // 0 none, 1 66, 2 F3, 3 F2
	dimOsz
	dimW
	dimL
	numDims
)

var dimNames = [numDims]string{"splitMod", "splitReg", "splitRM", "splitPP", "splitOsz", "splitW", "splitL"}

var dimSize = [numDims]int{2, 8, 8, 4, 3, 2, 3}

const unset = -1

// A row is one line of insns.txt, expanded.
type row struct {
	section string
	opcode  int
	sel     [numDims]int
	gnu     string
	intel   string
	op      string
	args    []string
	flags   []string
	index   int
}

var sections = []string{"1", "0f", "0f38", "0f3a", "vex.0f", "vex.0f38", "vex.0f3a", "evex.0f", "evex.0f38", "evex.0f3a"}

var conditions = []string{"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"}

// selectors maps the words of an encoding to what they select.
var selectors = map[string]struct {
	d dim
	v int
}{
	"np": {dimPP, 0}, "66": {dimPP, 1}, "f3": {dimPP, 2}, "f2": {dimPP, 3},
	"o16": {dimOsz, 0}, "o32": {dimOsz, 1}, "o64": {dimOsz, 2},
	"w0": {dimW, 0}, "w1": {dimW, 1},
	"l0": {dimL, 0}, "l1": {dimL, 1}, "l2": {dimL, 2},
	"m": {dimMod, 0}, "r": {dimMod, 1},
}

// flagNames maps the flags of insns.txt that reach the tables to their constants.
var flagNames = map[string]string{
	"s": "flagSuffix", "D": "flagSuffixDst", "d64": "flagDef64", "f64": "flagForce64",
	"w": "flagW", "r": "flagR", "x": "flagX", "ww": "flagWW", "n": "flagNoAccess",
	"rep": "flagRep", "bnd": "flagBnd", "notrack": "flagNotrack",
	"hle": "flagHLE", "hlex": "flagHLEX", "hler": "flagHLER",
	"jmp": "flagJmp", "jcc": "flagJcc", "call": "flagCall", "ret": "flagRet", "trap": "flagTrap", "halt": "flagHalt",
	"g": "flagIntelOrder", "cc": "flagCC", "pred": "flagPred", "clmul": "flagClmul", "xy": "flagXY",
	"modrm": "flagModRM", "mod3": "flagMod3",
}

// derived lists the flags gen consumes itself.
var derived = []string{"mmx", "mmx4", "avx2", "avx3", "avxs", "ev", "ev0", "ev1"}

func main() {
	log.SetFlags(0)
	out := flag.String("o", "tables.go", "output `file`")
	flag.Parse()
	text, err := os.ReadFile(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	rows, err := parse(string(text))
	if err != nil {
		log.Fatalf("%s: %v", flag.Arg(0), err)
	}
	src, err := format.Source(emit(rows))
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(*out, src, 0o644); err != nil {
		log.Fatal(err)
	}
}

func parse(text string) ([]*row, error) {
	var rows []*row
	section := ""
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			if !slices.Contains(sections, section) {
				return nil, fmt.Errorf("line %d: unknown section %s", n+1, line)
			}
		default:
			rs, err := parseLine(section, line)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
			rows = append(rows, rs...)
		}
	}
	return rows, nil
}

func parseLine(section, line string) ([]*row, error) {
	f := strings.Split(line, "|")
	if len(f) != 4 {
		return nil, fmt.Errorf("%d columns, want 4", len(f))
	}
	r := &row{section: section, opcode: unset}
	for d := range r.sel {
		r.sel[d] = unset
	}
	names := strings.Split(strings.TrimSpace(f[1]), "/")
	r.gnu, r.intel = names[0], names[0]
	if len(names) > 1 {
		r.intel = names[1]
	}
	if len(names) > 2 {
		r.op = names[2]
	}
	r.args = list(f[2])
	r.flags = list(f[3])
	for _, fl := range r.flags {
		if flagNames[fl] == "" && !slices.Contains(derived, fl) {
			return nil, fmt.Errorf("unknown flag %q", fl)
		}
	}
	if strings.Contains(r.gnu, "{p}") || strings.Contains(r.gnu, "{c}") {
		r.flags = append(r.flags, "pred")
	}
	expand, err := r.parseEncoding(strings.Fields(f[0]))
	if err != nil {
		return nil, err
	}
	var rows []*row
	for _, r := range r.expand(expand) {
		rows = append(rows, r)
		rows = append(rows, r.twins()...)
	}
	return rows, nil
}

func list(s string) []string {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// parseEncoding fills in the selectors and the opcode. The opcode is the first
// word that is neither a selector nor preceded by an opcode; it returns what
// follows its plus sign.
func (r *row) parseEncoding(words []string) (expand string, err error) {
	for i, w := range words {
		hex, plus, _ := strings.Cut(w, "+")
		sel, ok := selectors[w]
		// 66, f2 and f3 are opcodes too, where no opcode follows.
		if ok && sel.d == dimPP && w != "np" && r.opcode == unset && !hasOpcode(words[i+1:]) {
			ok = false
		}
		switch {
		case ok:
			r.sel[sel.d] = sel.v
		case w[0] == '/' || w[0] == '=':
			v, err := strconv.Atoi(w[1:])
			if err != nil {
				return "", err
			}
			d := dimReg
			if w[0] == '=' {
				d = dimRM
			}
			r.sel[d] = v
		default:
			v, err := strconv.ParseUint(hex, 16, 8)
			if err != nil {
				return "", err
			}
			r.opcode, expand = int(v), plus
		}
	}
	if r.opcode == unset {
		return "", fmt.Errorf("no opcode in %q", words)
	}
	return expand, nil
}

func hasOpcode(words []string) bool {
	for _, w := range words {
		if w == "66" || w == "f2" || w == "f3" {
			return true
		}
		if _, ok := selectors[w]; !ok && w[0] != '/' && w[0] != '=' {
			return true
		}
	}
	return false
}

func (r *row) clone() *row {
	c := *r
	c.args = slices.Clone(r.args)
	c.flags = slices.Clone(r.flags)
	return &c
}

// expand spreads a row with +r or +cc over its opcodes.
func (r *row) expand(how string) []*row {
	var rows []*row
	switch how {
	case "":
		return []*row{r}
	case "r":
		for i := range 8 - r.opcode&7 {
			c := r.clone()
			c.opcode += i
			rows = append(rows, c)
		}
	case "cc":
		for i, cc := range conditions {
			c := r.clone()
			c.opcode += i
			c.gnu = strings.ReplaceAll(c.gnu, "{cc}", cc)
			c.intel = c.gnu
			c.flags = append(c.flags, "cc")
			rows = append(rows, c)
		}
	}
	return rows
}

func (r *row) has(flag string) bool { return slices.Contains(r.flags, flag) }

// twins derives the MMX, VEX and EVEX forms of an SSE row.
func (r *row) twins() []*row {
	var rows []*row
	if r.has("mmx") || r.has("mmx4") {
		m := r.clone()
		m.sel[dimPP] = 0
		mem := "Qq"
		if r.has("mmx4") {
			mem = "Qd"
		}
		for i, a := range m.args {
			if to := map[string]string{"V": "Pq", "W": mem, "Wx": "Qq"}[a]; to != "" {
				m.args[i] = to
			}
		}
		rows = append(rows, m)
	}
	if !r.has("avx2") && !r.has("avx3") && !r.has("avxs") {
		return rows
	}
	v := r.clone()
	v.section = "vex." + r.section
	v.gnu, v.intel = "v"+v.gnu, "v"+v.intel
	switch {
	case r.has("avx3"):
		h := "H"
		if v.args[0] == "Vo" || v.args[0] == "Wd" || v.args[0] == "Wq" {
			h = "Ho"
		}
		v.args = slices.Insert(v.args, 1, h)
		v.flags = append(v.flags, "w")
	case r.has("avxs"):
		v.args = []string{"H", "W", "Ib"}
		v.flags = append(v.flags, "w")
	}
	rows = append(rows, v)
	for w, name := range []string{"ev0", "ev1", "ev"} {
		if r.has(name) {
			e := v.clone()
			e.section = "evex." + r.section
			if w < 2 {
				e.sel[dimW] = w
			}
			rows = append(rows, e)
		}
	}
	return rows
}

// opName is the name of the Op constant of a row: the Intel mnemonic.
func (r *row) opName() string {
	if r.op != "" {
		return r.op
	}
	s := r.intel
	for {
		i, j := strings.IndexByte(s, '{'), strings.IndexByte(s, '}')
		if i < 0 {
			break
		}
		s = s[:i] + s[j+1:]
	}
	f := strings.Fields(s)
	return strings.ToUpper(strings.ReplaceAll(f[len(f)-1], "-", "_"))
}

func (r *row) needsModRM() bool {
	if strings.Contains(r.section, "vex") {
		return r.section != "vex.0f" || r.opcode != 0x77 // vzeroupper, vzeroall
	}
	if r.sel[dimMod] != unset || r.sel[dimReg] != unset || r.sel[dimRM] != unset {
		return true
	}
	for _, a := range r.args {
		if noModRM[a] {
			continue
		}
		return true
	}
	return false
}

// noModRM lists the operand codes that are not taken from a ModR/M byte.
var noModRM = func() map[string]bool {
	m := map[string]bool{}
	for _, s := range strings.Fields("AL CL DX AX EAX ECX EDX EBX aAX rAX zAX FS GS X0 ST 1 Zb Zv Ib Ibs Iw Iz Iv Jb Jz Ob Ov Xb Xv Xz Xl Yb Yv Yz") {
		m[s] = true
	}
	return m
}()

func emit(rows []*row) []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, "// Code generated by gen from gen/insns.txt. DO NOT EDIT.\n\npackage x86\n\n")
	emitOps(&b, rows)
	emitRows(&b, rows)
	emitTree(&b, rows)
	return b.Bytes()
}

func emitOps(b *bytes.Buffer, rows []*row) {
	set := map[string]bool{}
	for _, r := range rows {
		set[r.opName()] = true
	}
	var ops []string
	for o := range set {
		ops = append(ops, o)
	}
	sort.Strings(ops)
	fmt.Fprint(b, "// The operations, by their Intel mnemonics. BAD is what no instruction has.\nconst (\nBAD Op = iota\n")
	for _, o := range ops {
		fmt.Fprintf(b, "%s\n", o)
	}
	fmt.Fprint(b, "numOps\n)\n\nvar opNames = [numOps]string{\nBAD: \"(bad)\",\n")
	for _, o := range ops {
		fmt.Fprintf(b, "%s: %q,\n", o, strings.ToLower(o))
	}
	fmt.Fprint(b, "}\n\n")
}

func emitRows(b *bytes.Buffer, rows []*row) {
	fmt.Fprint(b, "var rows = [...]row{\n{},\n")
	key := map[string]int{}
	n := 1
	for _, r := range rows {
		if r.needsModRM() {
			r.flags = append(r.flags, "modrm")
		}
		var flags, args []string
		for _, f := range r.flags {
			if c := flagNames[f]; c != "" && !slices.Contains(flags, c) {
				flags = append(flags, c)
			}
		}
		if len(flags) == 0 {
			flags = []string{"0"}
		}
		for _, a := range r.args {
			args = append(args, "o"+a)
		}
		line := fmt.Sprintf("{%q, %q, %s, [4]operand{%s}, %s}", r.gnu, r.intel, r.opName(), strings.Join(args, ", "), strings.Join(flags, "|"))
		if i, ok := key[line]; ok {
			r.index = i
			continue
		}
		key[line] = n
		r.index = n
		n++
		fmt.Fprintf(b, "%s,\n", line)
	}
	fmt.Fprint(b, "}\n\n")
}

// emitTree writes the decision tree: for every section 256 nodes, then the
// splits. A node below 0x8000 is a row; else the rest is the index of a split:
// the dimension, then a node for each of its values.
func emitTree(b *bytes.Buffer, rows []*row) {
	t := &tree{nodes: make([]uint16, 256*len(sections)), seen: map[string]uint16{}}
	for i, s := range sections {
		for op := range 256 {
			var c []*row
			for _, r := range rows {
				if r.section == s && r.opcode == op {
					c = append(c, r)
				}
			}
			t.nodes[256*i+op] = t.build(c, 0)
		}
	}
	if len(t.nodes) > 0x7fff {
		log.Fatal("decision tree too large")
	}
	fmt.Fprint(b, "const (\n")
	for i, n := range dimNames {
		fmt.Fprintf(b, "%s = %d\n", n, i)
	}
	fmt.Fprint(b, ")\n\nvar tree = [...]uint16{\n")
	for i, n := range t.nodes {
		fmt.Fprintf(b, "%d,", n)
		if i%16 == 15 {
			fmt.Fprintln(b)
		}
	}
	fmt.Fprint(b, "\n}\n")
}

type tree struct {
	nodes []uint16
	seen  map[string]uint16
}

func (t *tree) build(c []*row, from dim) uint16 {
	if len(c) == 0 {
		return 0
	}
	for d := from; d < numDims; d++ {
		if !slices.ContainsFunc(c, func(r *row) bool { return r.sel[d] != unset }) {
			continue
		}
		split := []uint16{uint16(d)}
		for v := range dimSize[d] {
			var sub []*row
			for _, r := range c {
				if r.sel[d] == unset || r.sel[d] == v {
					sub = append(sub, r)
				}
			}
			split = append(split, t.build(sub, d+1))
		}
		key := fmt.Sprint(split)
		if n, ok := t.seen[key]; ok {
			return n
		}
		n := 0x8000 | uint16(len(t.nodes))
		t.nodes = append(t.nodes, split...)
		t.seen[key] = n
		return n
	}
	return uint16(mostSpecific(c).index)
}

// mostSpecific picks the row with the most selectors, the first of equals.
func mostSpecific(c []*row) *row {
	best, most := c[0], -1
	for _, r := range c {
		n := 0
		for _, v := range r.sel {
			if v != unset {
				n++
			}
		}
		if n > most {
			best, most = r, n
		}
	}
	return best
}
