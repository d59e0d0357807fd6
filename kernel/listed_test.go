package kernel_test

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/kernel"
)

const listedText = `0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_hot
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000010 t twin
ffffffff81000020 T twin
ffffffff81000020 t __twin_alias
ffffffff82000000 B _end
ffffffffc0201000 t nat_new	[nf_nat]
ffffffffc0200000 t twin	[nf_nat]
ffffffffc0202000 t nat_last	[nf_nat]
ffffffffc0300000 t helper	[other]
ffffffffc0400000 t bpf_prog_6deef7357e7b4530_count	[bpf]
ffffffffc0400100 t bpf_trampoline_6442535	[bpf]
`

func listed(t *testing.T, text string) *kernel.Listed {
	l, err := kernel.ReadListed(strings.NewReader(text))
	qt.Assert(t, qt.IsNil(err))
	return l
}

func show(s kernel.Symbol) string { return fmt.Sprintf("%s %x+%x %s", s, s.Addr, s.Size, s.Kind) }

func TestListedFind(t *testing.T) {
	l := listed(t, listedText)
	for name, want := range map[string]string{
		"_text":                           "_text ffffffff81000000+10 kernel",
		"twin":                            "twin ffffffff81000020+ffffe0 kernel", // the global one
		"nf_nat:twin":                     "twin [nf_nat] ffffffffc0200000+1000 module",
		"nat_last":                        "nat_last [nf_nat] ffffffffc0202000+0 module",
		"fixed_percpu_data":               "fixed_percpu_data 0+1000 kernel",
		"cpu_hot":                         "cpu_hot 1000+0 kernel",
		"_end":                            "_end ffffffff82000000+0 kernel",
		"bpf_prog_6deef7357e7b4530_count": "bpf_prog_6deef7357e7b4530_count ffffffffc0400000+100 bpf",
		"bpf_trampoline_6442535":          "bpf_trampoline_6442535 ffffffffc0400100+0 trampoline",
	} {
		s, err := l.Find(name)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(show(s), want))
	}
	for name, want := range map[string]string{
		"nat_lost":  "this kernel has no symbol nat_lost .did you mean nat_last.*",
		"other:new": "this kernel has no symbol other:new.*",
	} {
		_, err := l.Find(name)
		qt.Check(t, qt.ErrorMatches(err, want))
	}
}

func TestListedSymbolize(t *testing.T) {
	l := listed(t, listedText)
	for addr, want := range map[uint64]string{
		0x10:               "",
		0xffffffff80ffffff: "",
		0xffffffff81000001: "_stext+1",
		0xffffffff8100002f: "twin+f",
		0xffffffff82000000: "_end+0",
		0xffffffff82000001: "",
		0xffffffffc0200fff: "twin [nf_nat]+fff",
		0xffffffffc0202001: "", // where nf_nat ends is not known
		0xffffffffc04000ff: "bpf_prog_6deef7357e7b4530_count+ff",
		0xffffffffc0400101: "",
	} {
		got := ""
		if s, off, ok := l.Symbolize(addr); ok {
			got = fmt.Sprintf("%s+%x", s, off)
		}
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%x", addr))
	}
}

func TestListedMatch(t *testing.T) {
	l := listed(t, listedText)
	syms, err := l.Match("*tw?n")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(fmt.Sprint(syms), "[twin twin twin [nf_nat]]"))
	_, err = l.Match("[")
	qt.Check(t, qt.ErrorIs(err, path.ErrBadPattern))
}

func TestListedErrors(t *testing.T) {
	_, err := kernel.ReadListed(strings.NewReader("0000000000000000 T _text\n0000000000000000 t f\t[m]\n"))
	qt.Check(t, qt.ErrorIs(err, kernel.ErrHidden))
	qt.Check(t, qt.ErrorIs(err, fs.ErrPermission))
	_, err = kernel.ReadListed(strings.NewReader(""))
	qt.Check(t, qt.ErrorMatches(err, ".*no symbols"))
	_, err = kernel.ReadListed(strings.NewReader("x\n"))
	qt.Check(t, qt.ErrorMatches(err, "line 1 .*"))
}
