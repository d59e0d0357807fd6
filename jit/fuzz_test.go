package jit_test

import (
	"testing"

	"github.com/ksleuth/ksleuth/jit"
)

// names gives every other address a name that means something to the package.
func names(addr uint64) (string, uint64, bool) {
	list := []string{"", "__bpf_tramp_enter", "__bpf_prog_enter_recur", "__bpf_prog_exit", "bpf_prog_0123456789abcdef_f", "__htab_map_lookup_elem", "cpu_number", "__x86_indirect_thunk_rcx", "__x86_return_thunk"}
	name := list[addr%uint64(len(list))]
	return name, 0, name != ""
}

// FuzzExplain: no bytes make the readers fail, and what they say of any is
// well-formed.
func FuzzExplain(f *testing.F) {
	for _, x := range fixtures(f, "*/*") {
		if len(x.code) < 1<<10 {
			f.Add(x.code, uint8(x.kind), x.addr)
		}
	}
	f.Fuzz(func(t *testing.T, code []byte, kind uint8, addr uint64) {
		yes := true
		o := jit.Options{Kind: jit.Kind(kind % 8), Sym: names, MapAt: func(a uint64) string {
			if a%3 == 0 {
				return "map m"
			}
			return ""
		}, TailCallReachable: &yes}
		checkNotes(t, code, addr, jit.Explain(code, addr, o))
		checkNotes(t, code, addr, jit.Explain(code, addr, jit.Options{Kind: o.Kind}))
		if p, ok := jit.ReadPrologue(code, addr); ok && (p.Len > len(code) || p.TailCallEntry > p.Len) {
			t.Errorf("%+v of %d bytes", p, len(code))
		}
		c, err := jit.ReadTrampoline(code, addr, o)
		if err == nil && (c.Len > len(code) || len(c.Runs) > len(code)) {
			t.Errorf("%+v of %d bytes", c, len(code))
		}
	})
}
