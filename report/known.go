package report

import (
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/culprit"
	"github.com/ksleuth/ksleuth/knownbug"
)

// knownStores are bugs that are known by the store they make.
var knownStores = []struct {
	bug       string
	functions []string // that store
	member    string   // what they store to
}{
	{
		bug:       knownbug.CtOptsOverflow,
		functions: []string{"bpf_skb_ct_lookup", "bpf_xdp_ct_lookup", "bpf_skb_ct_alloc", "bpf_xdp_ct_alloc", "__bpf_nf_ct_lookup", "__bpf_nf_ct_alloc_entry"},
		member:    "error",
	},
}

// knownBug returns the bug that a store is known by.
func knownBug(cu *culprit.Culprit) (knownbug.Bug, bool) {
	for _, k := range knownStores {
		_, member, ok := strings.Cut(cu.Store.Name, "->")
		if ok && member == k.member && slices.Contains(k.functions, base(function(cu.Store.Symbol))) {
			return knownbug.Get(k.bug)
		}
	}
	return knownbug.Bug{}, false
}
