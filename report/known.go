package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/culprit"
)

// A Known is a bug of the kernel that a crash was traced to.
type Known struct {
	ID    string   `json:"id"`
	What  string   `json:"what"`
	Fix   string   `json:"fix"`   // commit
	Fixed []string `json:"fixed"` // releases known to have it
}

// String is one sentence.
func (k Known) String() string {
	return fmt.Sprintf("known as %s: %s; this kernel has it; fixed by %s (%s)", k.ID, k.What, k.Fix, strings.Join(k.Fixed, ", "))
}

// knownStores are bugs that are known by the store they make.
var knownStores = []struct {
	Known
	functions []string // that store
	member    string   // what they store to
}{
	{
		Known: Known{
			ID: "ct-opts-overflow", What: "the conntrack kfuncs store opts->error without regard to opts__sz",
			Fix: "6f6183a39533", Fixed: []string{"7.2", "7.1.5", "6.12.114", "6.1.191"},
		},
		functions: []string{"bpf_skb_ct_lookup", "bpf_xdp_ct_lookup", "bpf_skb_ct_alloc", "bpf_xdp_ct_alloc", "__bpf_nf_ct_lookup", "__bpf_nf_ct_alloc_entry"},
		member:    "error",
	},
}

// knownBug returns the bug that a store is known by.
func knownBug(cu *culprit.Culprit) (Known, bool) {
	for _, k := range knownStores {
		_, member, ok := strings.Cut(cu.Store.Name, "->")
		if ok && member == k.member && slices.Contains(k.functions, base(function(cu.Store.Symbol))) {
			return k.Known, true
		}
	}
	return Known{}, false
}
