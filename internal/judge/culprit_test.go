package judge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/culprit"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// A culpritReport is what report says of the store that did it.
type culpritReport struct {
	Cause struct {
		Title     string `json:"title"`
		Certainty string `json:"certainty"`
	} `json:"cause"`
	Overwrite *culprit.Culprit `json:"overwrite"`
	Known     *struct {
		ID string `json:"id"`
	} `json:"known"`
	Missing string `json:"missing"`
}

// culprits says of each variant of case E what its store is: the kfunc, the
// function that owns the options and the one that passed them, how far below
// the owner's frame pointer they lie, what size was said, and which bytes of the
// saved register the store hit. All of it is in runscene's C source.
var culprits = map[string]struct {
	kfunc, owner, passed string
	below                int64
	size                 uint64
	first, len           int
}{
	"casee":      {"bpf_skb_ct_lookup", "lookup", "lookup", 1, 0, 3, 4},
	"kexec":      {"bpf_skb_ct_lookup", "lookup", "lookup", 1, 0, 3, 4},
	"caseexdp":   {"bpf_xdp_ct_lookup", "xdp_lookup", "xdp_lookup", 1, 0, 3, 4},
	"caseedeep":  {"bpf_skb_ct_lookup", "deep_lookup", "deep_lookup", 1, 0, 3, 4},
	"caseeptr":   {"bpf_skb_ct_lookup", "ptr_buffer", "ptr_lookup", 1, 0, 3, 4},
	"caseesize2": {"bpf_skb_ct_lookup", "size2_lookup", "size2_lookup", 2, 0, 2, 4},
	"caseesize3": {"bpf_skb_ct_lookup", "size3_lookup", "size3_lookup", 3, 3, 1, 4},
	"caseesize4": {"bpf_skb_ct_lookup", "size4_lookup", "size4_lookup", 4, 4, 0, 4},
	"caseepos5":  {"bpf_skb_ct_lookup", "pos5_lookup", "pos5_lookup", 5, 1, 0, 3},
	"caseemain":  {"bpf_skb_ct_lookup", "main_main", "main_main", 1, 0, 3, 4},
	"caseeplain": {"bpf_skb_ct_lookup", "plain_lookup", "plain_lookup", 1, 0, 3, 4},
	"caseeret":   {"bpf_skb_ct_lookup", "ret_lookup", "ret_lookup", 7, 1, 0, 1},
}

// TestCulprit checks that report, running the code again offline, finds the
// store that damaged a saved register, in every variant of case E.
func TestCulprit(t *testing.T) {
	dumps := []string{"casee-6.1.kdump", "casee-6.12.kdump", "kexec-6.1.elf", "kexec-6.12.elf"}
	for _, c := range dumptest.CaseEVariants {
		for _, kernel := range c.Kernels() {
			dumps = append(dumps, c.Scene(kernel)+".kdump")
		}
	}
	for _, dump := range dumps {
		t.Run(dump, func(t *testing.T) {
			name, _, _ := strings.Cut(dump, "-")
			want := culprits[name]
			r := answers[culpritReport](t, 1, "report", dumptest.Get(t, dump), "report")[0]
			cu := r.Overwrite
			qt.Assert(t, qt.IsNotNil(cu), qt.Commentf("%+v", r))
			qt.Check(t, qt.Equals(r.Cause.Certainty, "proven"))
			qt.Check(t, qt.Equals(r.Missing, ""))
			qt.Check(t, qt.Matches(cu.Store.Symbol, want.kfunc+`\+0x.*`))
			qt.Check(t, qt.Matches(cu.Store.Insn, `mov %eax,0x4\(%r..?\)`))
			qt.Check(t, qt.Equals(cu.Store.Name, "opts->error"))
			qt.Check(t, qt.Equals(fmt.Sprintf("%s %s", cu.Store.Value, cu.Store.Bytes), "0xffffffea eaffffff"))
			qt.Check(t, qt.Equals(cu.First, want.first))
			qt.Check(t, qt.Equals(cu.Len, want.len))
			p := cu.Pointer
			qt.Assert(t, qt.IsNotNil(p))
			qt.Check(t, qt.Equals(p.Name, "opts"))
			qt.Check(t, qt.Equals(p.Owner, want.owner))
			qt.Check(t, qt.Equals(p.Below, want.below))
			qt.Check(t, qt.Equals(uint64(cu.Store.To), uint64(p.Value)+4))
			qt.Assert(t, qt.IsNotNil(p.Passed))
			qt.Check(t, qt.Matches(p.Passed.Symbol, want.passed+`\+0x.*`))
			qt.Check(t, qt.Matches(p.Passed.Source, `casee\.bpf\.c:[0-9]+`))
			qt.Assert(t, qt.IsNotNil(p.Size))
			qt.Check(t, qt.Equals(fmt.Sprint(p.Size.Name, uint64(p.Size.Value)), fmt.Sprint("opts__sz", want.size)))
			qt.Assert(t, qt.IsNotNil(r.Known))
			qt.Check(t, qt.Equals(r.Known.ID, "ct-opts-overflow"))
		})
	}
}

// TestNoCulprit checks that nothing is claimed to be overwritten in crashes
// where nothing was.
func TestNoCulprit(t *testing.T) {
	for _, c := range dumptest.Crashes {
		for _, kernel := range c.Kernels() {
			t.Run(c.Name+" "+kernel, func(t *testing.T) {
				r := answers[culpritReport](t, 1, "report", c.Dump(t, kernel), "report")[0]
				qt.Check(t, qt.IsNil(r.Overwrite))
				qt.Check(t, qt.IsNil(r.Known))
			})
		}
	}
}
