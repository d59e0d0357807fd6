package kallsyms_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/kallsyms"
)

func readText(text string) (out []string, err error) {
	for l, err := range kallsyms.ReadText(strings.NewReader(text)) {
		if err != nil {
			return out, err
		}
		out = append(out, fmt.Sprintf("%x %c %s %s", l.Addr, l.Type, l.Name, l.Module))
	}
	return out, nil
}

func TestReadText(t *testing.T) {
	for _, tt := range []struct{ text, want, err string }{
		{"", "", ""},
		{"ffffffff81000000 T _text\n", "ffffffff81000000 T _text ", ""},
		{"0000000000000000 A fixed_percpu_data\n", "0 A fixed_percpu_data ", ""},
		{"ffffffffc0200000 t f\t[nf_nat]\n", "ffffffffc0200000 t f nf_nat", ""},
		{"ffffffffc0200000 t bpf_prog_6deef7357e7b4530_x\t[bpf]", "ffffffffc0200000 t bpf_prog_6deef7357e7b4530_x bpf", ""},
		{"ffffffff81000000 T _text\nrubbish\n", "ffffffff81000000 T _text ", `line 2 of kallsyms: "rubbish" is no symbol`},
		{"ffffffff81000000 T \n", "", `line 1 of kallsyms: .*`},
		{"ffffffff81000000 T \t[m]\n", "", `line 1 of kallsyms: .*`},
		{"ffffffff81000000 T f\tm\n", "", `line 1 of kallsyms: .*`},
		{"ffffffff81000000 T f\t[m\n", "", `line 1 of kallsyms: .*`},
		{"ffffffff81000000 T f\tm]\n", "", `line 1 of kallsyms: .*`},
		{"ffffffff81000000 T f\t[]\n", "", `line 1 of kallsyms: .*`},
		{"1ffffffff81000000 T f\n", "", `line 1 of kallsyms: .*`},
		{"ffffffff81000000 Tf x\n", "", `line 1 of kallsyms: .*`},
	} {
		got, err := readText(tt.text)
		qt.Check(t, qt.Equals(strings.Join(got, "|"), tt.want), qt.Commentf("%q", tt.text))
		if tt.err == "" {
			qt.Check(t, qt.IsNil(err))
		} else {
			qt.Check(t, qt.ErrorMatches(err, tt.err), qt.Commentf("%q", tt.text))
		}
	}
}

func TestReadTextError(t *testing.T) {
	broken := errors.New("broken")
	for _, err := range kallsyms.ReadText(iotest.ErrReader(broken)) {
		qt.Check(t, qt.ErrorIs(err, broken))
	}
}

func FuzzReadText(f *testing.F) {
	f.Add("ffffffff81000000 T _text\nffffffffc0200000 t f\t[nf_nat]\n")
	f.Fuzz(func(t *testing.T, text string) {
		for l, err := range kallsyms.ReadText(strings.NewReader(text)) {
			if err == nil && (len(l.Name) == 0 || strings.ContainsAny(string(l.Name), "\t\n")) {
				t.Errorf("name %q", l.Name)
			}
		}
	})
}
