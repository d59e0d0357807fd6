package pcapfilter_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/net/bpf"

	"github.com/ksleuth/ksleuth/pcapfilter"
)

// FuzzCompile holds that whatever is compiled runs, is translated, and that
// whatever is not has an error with a place in the expression.
func FuzzCompile(f *testing.F) {
	for _, c := range filters(f) {
		f.Add(c.expr)
	}
	for _, s := range []string{"port 1 or (2 and (3 or not 4))", "ip[((((ip[0]))))] = - - 1", "host ::ffff:1.2.3.4", "\\", "0x", "vlan (5)", "é"} {
		f.Add(s)
	}
	pkt := make([]byte, 64)
	pkt[12], pkt[14] = 8, 0x45
	f.Fuzz(func(t *testing.T, expr string) {
		for _, l := range links {
			prog, err := pcapfilter.Compile(expr, l.link)
			if err != nil {
				var bad *pcapfilter.Error
				qt.Assert(t, qt.IsTrue(errors.As(err, &bad)))
				qt.Assert(t, qt.IsTrue(bad.Pos >= 0 && bad.Pos <= len(expr)))
				_, _ = bad.Error(), bad.Caret()
				continue
			}
			vm, err := bpf.NewVM(prog)
			qt.Assert(t, qt.IsNil(err))
			_, err = vm.Run(pkt)
			qt.Assert(t, qt.IsNil(err))
			_, err = pcapfilter.ToEBPF(prog, pcapfilter.Options{ABI: pcapfilter.ABI{Head: 8, Len: 12, Short: 16}, Prefix: "f"})
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%q", expr))
		}
	})
}

// TestLimits is about expressions that are only there to exhaust something.
func TestLimits(t *testing.T) {
	var sums []string
	for i := range 1000 {
		sums = append(sums, fmt.Sprintf("ip[%d] + ip[%d] = len", i, i/2))
	}
	for _, c := range []struct{ expr, want string }{
		{strings.Repeat("(", 100000), "longer than 65536 bytes"},
		{strings.Repeat("(", 10000) + "tcp" + strings.Repeat(")", 10000), "more than 200"},
		{strings.Repeat("not ", 10000) + "tcp", "more than 200"},
		{"port " + strings.Repeat("(", 10000) + "80", "more than 200"},
		{strings.Repeat("-", 10000) + "1 = 1", "more than 200"},
		{"ip[0] + " + strings.Repeat("(ip[0] + ", 30) + "1" + strings.Repeat(")", 30) + " = 1", "nested too deep"},
		{"port 1" + strings.Repeat(" or 2", 10000), ""},
		{strings.Join(sums, " or "), "instructions"},
		{strings.Repeat("(", 190) + "1 = 1" + strings.Repeat(")", 190), ""},
		{strings.Repeat("1 + ", 10000) + "1 = 10001", ""},
	} {
		_, err := pcapfilter.Compile(c.expr, pcapfilter.Ethernet)
		if c.want == "" {
			qt.Check(t, qt.IsNil(err))
			continue
		}
		qt.Check(t, qt.ErrorMatches(err, ".*"+c.want+".*"), qt.Commentf("%.40s", c.expr))
	}
}
