package kallsyms

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestSuggest(t *testing.T) {
	names := []string{"_stext", "tcp_sendmsg", "tcp_sendmsg_locked", "udp_sendmsg", "tcp_recvmsg", "__x64_sys_open", "foo.isra.0", "foo.cold", "fop", "foobar", "do_exit"}
	var syms []Symbol
	for i, n := range names {
		syms = append(syms, Symbol{n, textBase + uint64(i), 'T', 0})
	}
	for i := range 3000 { // more near misses than are kept at a time
		syms = append(syms, Symbol{fmt.Sprintf("crowd_of_names_%04d", i), textBase + 100 + uint64(i), 't', 0})
	}
	m, loc := versions["5.10 relative"].build(syms)
	tab, err := Load(m, loc, stext)
	qt.Assert(t, qt.IsNil(err))
	for query, want := range map[string][]string{
		"tcp_sendmgs":         {"tcp_sendmsg"}, // udp_sendmsg is three edits away
		"tcp_sendmsg_lcked":   {"tcp_sendmsg_locked"},
		"foo":                 {"foo.cold", "foo.isra.0", "fop"},
		"open":                {"__x64_sys_open"},
		"sys_open":            {"__x64_sys_open"},
		"do_exi":              {"do_exit"},
		"doexitt":             {"do_exit"},
		"":                    nil,
		"nothing_like_it":     nil,
		"crowd_of_names_0007": {"crowd_of_names_0007", "crowd_of_names_0000", "crowd_of_names_0001", "crowd_of_names_0002", "crowd_of_names_0003"},
	} {
		qt.Check(t, qt.DeepEquals(tab.Suggest(query), want), qt.Commentf("%s", query))
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"kitten", "kitten", 0}, {"kitten", "sitten", 1}, {"kitten", "ktiten", 1}, {"kitten", "kittens", 1},
		{"kitten", "itten", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"a", "xyz", 3}, {"abcdef", "uvwxyz", 4},
	} {
		qt.Check(t, qt.Equals(newEditor(tt.a).distance([]byte(tt.b), 3), tt.want), qt.Commentf("%s %s", tt.a, tt.b))
	}
}
