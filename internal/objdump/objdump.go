// Package objdump holds a disassembler against objdump of GNU binutils: the
// same length and the same text for every instruction.
package objdump

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// allowed are the differences from objdump that are not ours to
// remove. A line of objdump's (its text, normalised) that matches re may differ.
var allowed = []struct {
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

// A Decode appends the text of the instruction that code, at addr, begins with,
// and returns its length.
type Decode func(buf, code []byte, addr uint64, intel bool) (text []byte, length int)

// A Comparison is the outcome of holding code against objdump.
type Comparison struct {
	Decode       Decode
	Instructions int
	Length       int            // how many differ in length
	Text         int            // how many of the same length differ in text
	Allowed      map[string]int // differences that are not ours, by reason
	classes      map[string]*class
}

type class struct {
	n       int
	example string
}

// String words what was compared and the classes of differences, most frequent
// first.
func (c *Comparison) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d instructions: %d differ in length, %d in text", c.Instructions, c.Length, c.Text)
	for _, reason := range sortedKeys(c.Allowed) {
		fmt.Fprintf(&b, "\nallowed %d: %s", c.Allowed[reason], reason)
	}
	keys := sortedKeys(c.classes)
	slices.SortStableFunc(keys, func(x, y string) int { return c.classes[y].n - c.classes[x].n })
	for _, k := range keys[:min(len(keys), 100)] {
		fmt.Fprintf(&b, "\n%7d %s: %s", c.classes[k].n, k, c.classes[k].example)
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Binary returns the arguments with which objdump disassembles a file of bare
// machine code that stands at base.
func Binary(syntax string, base uint64, file string) []string {
	return []string{"-D", "-w", "-M", syntax, "-b", "binary", "-m", "i386:x86-64", fmt.Sprintf("--adjust-vma=%#x", base), file}
}

// Section returns the arguments for one section of an ELF file.
func Section(syntax, name, file string) []string {
	return []string{"-d", "-w", "-M", syntax, "--section=" + name, file}
}

// Add runs objdump, and decodes the code, which stands at base, wherever it
// did. syntax is "att" or "intel", as in the arguments.
func (c *Comparison) Add(code []byte, base uint64, syntax, objdump string, args []string) error {
	cmd := exec.Command(objdump, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := c.compare(out, code, base, syntax == "intel"); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	return cmd.Wait()
}

func (c *Comparison) compare(lines io.Reader, data []byte, base uint64, intel bool) error {
	sc := bufio.NewScanner(lines)
	var got []byte
	for sc.Scan() {
		addr, length, text, ok := SplitLine(sc.Bytes())
		if !ok {
			continue
		}
		c.Instructions++
		code := data[min(addr-base, uint64(len(data))):]
		want := Normalise(text)
		var n int
		if got, n = c.Decode(got[:0], code, addr, intel); n != length || string(got) != want {
			c.differ(addr, code[:min(len(code), length)], want, string(got), length, n)
		}
	}
	return sc.Err()
}

// differ counts a difference by its class: the mnemonics on both sides.
func (c *Comparison) differ(addr uint64, code []byte, want, got string, wantLen, gotLen int) {
	if c.Allowed == nil {
		c.Allowed, c.classes = map[string]int{}, map[string]*class{}
	}
	for _, a := range allowed {
		if a.re.MatchString(want) {
			c.Allowed[a.reason]++
			return
		}
	}
	kind := "text"
	if wantLen != gotLen {
		kind = "length"
		c.Length++
	} else {
		c.Text++
	}
	key := kind + " " + firstWord(want) + " / " + firstWord(got)
	k := c.classes[key]
	if k == nil {
		k = &class{example: fmt.Sprintf("%#x % x: objdump %q (%d), we %q (%d)", addr, code, want, wantLen, got, gotLen)}
		c.classes[key] = k
	}
	k.n++
}

func firstWord(s string) string { w, _, _ := strings.Cut(s, " "); return w }

// SplitLine takes apart "addr:\tbytes\ttext". objdump -w prints all bytes on one line.
func SplitLine(line []byte) (addr uint64, length int, text string, ok bool) {
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

// Normalise brings objdump's text to our form: single spaces, no symbols, 0x
// before every address.
func Normalise(s string) string {
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
