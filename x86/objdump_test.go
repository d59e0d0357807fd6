package x86

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// allowedMismatches are the differences from objdump that are not ours to
// remove. A line of objdump's (its text, normalised) that matches re may differ.
var allowedMismatches = []struct {
	re     *regexp.Regexp
	reason string
}{
	{regexp.MustCompile(`^\.byte`), "objdump stops at the next symbol; we decode on"},
	{regexp.MustCompile(`^((rex(\.[WRXB]+)?|data16|cs|ds|es|ss|fs|gs|repz|repnz|lock|addr32) ?)+$`), "objdump takes apart what it cut short before a symbol, and a REX that another prefix follows"},
	{regexp.MustCompile(`^rep(n?)z clac$`), "erets and eretu are younger than objdump 2.40"},
	{regexp.MustCompile(`%\?|,\?$`), "segment registers 6 and 7 do not exist"},
	{regexp.MustCompile(`\beip\b`), "objdump does not cut addresses relative to eip to 32 bits"},
	{regexp.MustCompile(`^f(init|clex|stcw|stsw|stenv|save)\b`), "objdump joins fwait with the x87 instruction after it; to the processor they are two"},
	{regexp.MustCompile(`\(bad\)`), "bytes objdump does not know: data in text, or instructions younger than this objdump"},
}

// A listing is objdump's view of a stretch of code.
type listing struct {
	code   func(addr uint64) []byte
	lines  io.Reader
	intel  bool
	report func(addr uint64, code []byte, want, got string, wantLen int, in *Inst)
}

// compare decodes wherever objdump did and returns how many instructions it saw.
func (l *listing) compare() (int, error) {
	sc := bufio.NewScanner(l.lines)
	n := 0
	var buf []byte
	var in Inst
	for sc.Scan() {
		addr, raw, text, ok := splitLine(sc.Bytes())
		if !ok {
			continue
		}
		n++
		code := l.code(addr)
		want := normalise(text)
		in.Decode(code, addr) // a failure leaves (bad), which is compared
		if l.intel {
			buf = in.AppendIntel(buf[:0], nil)
		} else {
			buf = in.AppendGNU(buf[:0], nil)
		}
		if in.Len != raw || string(buf) != want {
			l.report(addr, code, want, string(buf), raw, &in)
		}
	}
	return n, sc.Err()
}

// splitLine takes apart "addr:\tbytes\ttext". objdump -w prints all bytes on one line.
func splitLine(line []byte) (addr uint64, length int, text string, ok bool) {
	f := bytes.SplitN(line, []byte{'\t'}, 3)
	if len(f) != 3 {
		return 0, 0, "", false
	}
	addr, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(string(f[0])), ":"), 16, 64)
	if err != nil {
		return 0, 0, "", false
	}
	return addr, (len(bytes.TrimSpace(f[1])) + 1) / 3, string(f[2]), true
}

var (
	symbolRE = regexp.MustCompile(` <[^>]*>`)
	branchRE = regexp.MustCompile(`((?:j[a-z]+|call|loop[a-z]*|xbegin)(?:,p[nt])?) ([0-9a-f]+)$`)
	ripRE    = regexp.MustCompile(`# ([0-9a-f]+)$`)
)

// normalise brings objdump's text to our form: single spaces, no symbols, 0x
// before every address.
func normalise(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if strings.Contains(s, "<") {
		s = symbolRE.ReplaceAllString(s, "")
	}
	if i := strings.Index(s, "# "); i >= 0 {
		return ripRE.ReplaceAllString(s, "# 0x$1")
	}
	switch s[0] {
	case 'j', 'c', 'l', 'b', 'd', 'r', 'x', 'n', 'g', 'f', 'e', 's', 'a':
		return branchRE.ReplaceAllString(s, "$1 0x$2")
	}
	return s
}

// mismatches counts differences by class: the mnemonics on both sides.
type mismatches struct {
	t       *testing.T
	classes map[string]*class
	allowed map[string]int
	total   int
	length  int
	text    int
}

type class struct {
	n       int
	example string
}

func (m *mismatches) add(addr uint64, code []byte, want, got string, wantLen int, in *Inst) {
	for _, a := range allowedMismatches {
		if a.re.MatchString(want) {
			m.allowed[a.reason]++
			return
		}
	}
	kind := "text"
	if wantLen != in.Len {
		kind = "length"
		m.length++
	} else {
		m.text++
	}
	key := kind + " " + firstWord(want) + " / " + firstWord(got)
	c := m.classes[key]
	if c == nil {
		c = &class{example: fmt.Sprintf("%#x % x: objdump %q (%d), we %q (%d)", addr, code[:min(len(code), wantLen)], want, wantLen, got, in.Len)}
		m.classes[key] = c
	}
	c.n++
}

func firstWord(s string) string { w, _, _ := strings.Cut(s, " "); return w }

func (m *mismatches) log() {
	m.t.Logf("%d instructions: %d differ in length, %d in text", m.total, m.length, m.text)
	for reason, n := range m.allowed {
		m.t.Logf("allowed %d: %s", n, reason)
	}
	var keys []string
	for k := range m.classes {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return m.classes[keys[i]].n > m.classes[keys[j]].n })
	for _, k := range keys[:min(len(keys), 100)] {
		m.t.Logf("%7d %s: %s", m.classes[k].n, k, m.classes[k].example)
	}
}

// TestObjdump compares every instruction of a kernel's code with objdump.
//
// KSLEUTH_VMLINUX names ELF files (vmlinux, modules), separated by colons; all their
// sections with code are compared. KSLEUTH_TEXT is a file of raw code and its base address in
// hex after a colon.
func TestObjdump(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("needs objdump of GNU binutils")
	}
	file, text := os.Getenv("KSLEUTH_VMLINUX"), os.Getenv("KSLEUTH_TEXT")
	if file == "" && text == "" {
		t.Skip("needs KSLEUTH_VMLINUX=vmlinux (or a module) or KSLEUTH_TEXT=file:base-address")
	}
	for _, syntax := range []string{"att", "intel"} {
		t.Run(syntax, func(t *testing.T) {
			m := &mismatches{t: t, classes: map[string]*class{}, allowed: map[string]int{}}
			for _, path := range filepath.SplitList(file) {
				m.compareELF(objdump, path, syntax)
			}
			if text != "" {
				m.compareText(objdump, text, syntax)
			}
			m.log()
			qt.Check(t, qt.Equals(m.length, 0), qt.Commentf("lengths"))
			qt.Check(t, qt.Equals(m.text, 0), qt.Commentf("texts"))
		})
	}
}

func (m *mismatches) compareELF(objdump, path, syntax string) {
	t := m.t
	f, err := elf.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || s.Flags&elf.SHF_WRITE != 0 || s.Type != elf.SHT_PROGBITS || s.Size == 0 {
			continue
		}
		data, err := s.Data()
		qt.Assert(t, qt.IsNil(err))
		m.run(data, s.Addr, syntax, objdump, "-d", "-w", "-M", syntax, "--section="+s.Name, path)
	}
}

func (m *mismatches) compareText(objdump, spec, syntax string) {
	t := m.t
	i := strings.LastIndexByte(spec, ':')
	qt.Assert(t, qt.IsTrue(i > 0), qt.Commentf("KSLEUTH_TEXT=%s", spec))
	base, err := strconv.ParseUint(strings.TrimPrefix(spec[i+1:], "0x"), 16, 64)
	qt.Assert(t, qt.IsNil(err))
	data, err := os.ReadFile(spec[:i])
	qt.Assert(t, qt.IsNil(err))
	m.run(data, base, syntax, objdump, "-D", "-w", "-M", syntax, "-b", "binary", "-m", "i386:x86-64",
		fmt.Sprintf("--adjust-vma=%#x", base), spec[:i])
}

func (m *mismatches) run(data []byte, base uint64, syntax string, args ...string) {
	t := m.t
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	l := &listing{
		code:   func(addr uint64) []byte { return data[min(addr-base, uint64(len(data))):] },
		lines:  out,
		intel:  syntax == "intel",
		report: m.add,
	}
	n, err := l.compare()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Wait()))
	m.total += n
}
