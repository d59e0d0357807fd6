package render

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", []string{""}},
		{"one two three", []string{"one two", "three"}},
		{"a  b", []string{"a  b"}},
		{"longerthanaline x", []string{"longerthanaline", "x"}},
		{"at 0x10:\u00a0mov x", []string{"at", "0x10: mov", "x"}},
		{"grün grün", []string{"grün grün"}}, // columns, not bytes
	} {
		qt.Check(t, qt.DeepEquals(Wrap(c.text, 9), c.want), qt.Commentf("%q", c.text))
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain, grün\ttab\n": "plain, grün\ttab\n",
		"\x1b[2J":            `\x1b[2J`,
		"a\x00b":             `a\x00b`,
		"\xff":               `\xff`,
		"\u009b1m":           `\xc2\x9b1m`,
	} {
		qt.Check(t, qt.Equals(Clean(in), want))
	}
}

// TestNext: commands stay on one line, whatever their length, with what they
// show beside them or, for want of room, below.
func TestNext(t *testing.T) {
	steps := []nextStep{{"disasm prog:9", "the program's code"}, {"log", "the kernel's log"}}
	for target, want := range map[string]string{
		"-t d": `
NEXT  ksleuth -t d disasm prog:9    the program's code
      ksleuth -t d log              the kernel's log
`,
		"": `
NEXT  ksleuth disasm prog:9    the program's code
      ksleuth log              the kernel's log
`,
		"-t /" + strings.Repeat("x", 80): `
NEXT  ksleuth -t /` + strings.Repeat("x", 80) + ` disasm prog:9
          the program's code
      ksleuth -t /` + strings.Repeat("x", 80) + ` log
          the kernel's log
`,
	} {
		var out strings.Builder
		NewPrinter(&out, Options{Target: target}).next(steps)
		qt.Check(t, qt.Equals(out.String(), want))
	}
}

func TestColor(t *testing.T) {
	var out strings.Builder
	NewPrinter(&out, Options{Color: true}).Paragraph("WHY", "because")
	qt.Assert(t, qt.Equals(out.String(), "\x1b[1mWHY   \x1b[mbecause\n"))
}
