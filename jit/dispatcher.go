package jit

import "strings"

// dispatcherIdioms are the comparisons of a dispatcher: a search tree over the
// addresses of the programs in use, compared with rdx, which spares them the
// indirect jump (emit_bpf_dispatcher).
var dispatcherIdioms = []idiom{
	{steps: []step{
		{code: "cmp ${prog},%rdx; je {prog}", note: "is it {name:prog}? jump there"},
		{code: "jmp {thunk}", note: "any other program: {name:thunk}"},
	}, when: func(r *reader, _ *Prologue) bool {
		name := r.symbol(r.m.addr("thunk"))
		return name == "" || strings.Contains(name, "thunk")
	}},
	{steps: []step{
		{code: "cmp ${prog},%rdx; je {prog}", note: "is it {name:prog}? jump there"},
		{code: "?lfence; jmp *%rdx; ?int3", note: "any other program: indirect jump"},
	}},
	{steps: []step{{code: "cmp ${prog},%rdx; jg {upper}", note: "above {name:prog}? on at {off:upper}"}}},
	{steps: []step{{code: "int3; *int3", note: "padding"}}},
}
