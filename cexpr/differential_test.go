package cexpr

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
)

// A generator makes integer expressions that C defines, as far as syntax can
// tell; division and shifts get right operands that are in range.
type generator struct{ rnd *rand.Rand }

func (g generator) pick(of ...string) string { return of[g.rnd.IntN(len(of))] }

func (g generator) leaf() string {
	return g.pick("0", "1", "7", "255", "0x7fffffff", "0x80000000", "0xffffffff", "4294967296", "0x8000000000000000", "1u", "3L", "5ul",
		"0xffffffffffffffffULL", "'A'", "'\\xf0'", "010", "2147483648", "F_EXEC", "STATE_BAD",
		"sizeof(int)", "sizeof(struct task *)", "sizeof(char[7])", "(u8)200", "(s8)-3", "(u16)65535", "(s16)-32768", "(bool)3", "(u32)-1", "(s64)-9")
}

func (g generator) expr(depth int) string {
	if depth == 0 || g.rnd.IntN(8) == 0 {
		return g.leaf()
	}
	x := func() string { return "(" + g.expr(depth-1) + ")" }
	switch g.rnd.IntN(10) {
	case 0:
		return g.pick("- ", "~", "!", "+ ") + x()
	case 1:
		return "(" + g.pick("u8", "s8", "u16", "s16", "u32", "int", "unsigned int", "long", "u64", "bool", "unsigned char", "enum flags") + ")" + x()
	case 2:
		return x() + " ? " + x() + " : " + x()
	case 3:
		return x() + g.pick(" / ", " % ") + g.pick("3", "7u", "-5L", "11ul", "(u8)9")
	case 4:
		return x() + g.pick(" << ", " >> ") + g.pick("0", "1", "13", "31u", "(u8)5")
	case 5:
		return x() + g.pick(" && ", " || ") + x()
	case 6:
		return x() + g.pick(" < ", " <= ", " > ", " >= ", " == ", " != ") + x()
	case 7: // precedence without parentheses
		return strings.Join([]string{g.leaf(), g.leaf(), g.leaf(), g.leaf()}, g.pick(" + ", " - ", " * ", " & ", " | ", " ^ ", " < ", " == "))
	case 8:
		return g.leaf() + g.pick(" + ", " & ", " < ") + g.leaf() + g.pick(" * ", " ^ ", " == ", " | ") + g.leaf() + g.pick(" - ", " && ", " >> 1 + ") + "(u8)3"
	}
	return x() + g.pick(" + ", " - ", " * ", " & ", " | ", " ^ ") + x()
}

// TestAgainstCompiler compares values and types with those a C compiler gives.
// -fwrapv makes signed overflow what it is here.
func TestAgainstCompiler(t *testing.T) {
	cc := ""
	for _, name := range []string{"cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			cc = path
			break
		}
	}
	if cc == "" {
		t.Skip("no C compiler (cc, gcc, clang) is installed")
	}
	g := generator{rand.New(rand.NewPCG(1, 2))}
	exprs := make([]string, 600)
	for i := range exprs {
		exprs[i] = g.expr(1 + i%5)
	}

	fixture, err := os.ReadFile("../ctype/testdata/fixture.c")
	qt.Assert(t, qt.IsNil(err))
	var src bytes.Buffer
	src.Write(fixture)
	src.WriteString("typedef short s16; typedef long s64; typedef signed char s8;\nint printf(const char *, ...);\n")
	// Of the result: its bits as u64, its size, and whether its type is signed.
	src.WriteString("#define P(e) printf(\"%llu %d %d\\n\", (unsigned long long)(e), (int)sizeof(+(e)), ((__typeof__(+(e)))-1 < 1) ? 1 : 0);\nint main(void) {\n")
	for _, e := range exprs {
		fmt.Fprintf(&src, "P(%s)\n", e)
	}
	src.WriteString("return 0; }\n")

	dir := t.TempDir()
	file, bin := filepath.Join(dir, "x.c"), filepath.Join(dir, "x")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, src.Bytes(), 0o644)))
	out, err := exec.Command(cc, "-w", "-O0", "-fwrapv", "-o", bin, file).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	out, err = exec.Command(bin).Output()
	qt.Assert(t, qt.IsNil(err))
	want := strings.Split(strings.TrimSpace(string(out)), "\n")
	qt.Assert(t, qt.HasLen(want, len(exprs)))

	env := newEnv(t)
	for i, e := range exprs {
		r, err := Eval("+("+e+")", env)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", e))
		qt.Check(t, qt.Equals(describe(r.Values[0]), want[i]), qt.Commentf("%s", e))
	}
}

func describe(v ctype.Value) string {
	u, err := v.Uint()
	size, err2 := v.Type().Size()
	if err != nil || err2 != nil {
		return fmt.Sprint(err, err2)
	}
	signed := 0
	if v.Type().IsSigned() {
		signed = 1
	}
	return fmt.Sprintf("%d %d %d", u, size, signed)
}
