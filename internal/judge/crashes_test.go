package judge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// crashes says what a report must say of each way to crash: the kind of fault
// and its access, a part of why, the function on top of the stack, and a part
// of the panic's text.
var crashes = map[string]struct {
	kind, access, why string
	top               string
	panic             string
}{
	"sysrq":        {"", "", "", "sysrq_handle_crash", "sysrq triggered crash"},
	"null-read":    {"page fault", "read", "rax is NULL", patchedFunction, "Fatal exception"},
	"null-write":   {"page fault", "write", "rax is NULL", patchedFunction, "Fatal exception"},
	"null-call":    {"page fault", "execute", "NULL pointer", "", "Fatal exception"},
	"wild-read":    {"page fault", "read", "not mapped", patchedFunction, "Fatal exception"},
	"wild-call":    {"page fault", "execute", "not mapped", "", "Fatal exception"},
	"data-call":    {"page fault", "execute", "not executable", "init_task", "Fatal exception"},
	"list-poison":  {"general protection fault", "read", "LIST_POISON", patchedFunction, "Fatal exception"},
	"bug":          {"BUG", "", "ud2", patchedFunction, "Fatal exception"},
	"read-only":    {"page fault", "write", "read-only", patchedFunction, "Fatal exception"},
	"divide":       {"divide error", "", "", patchedFunction, "Fatal exception"},
	"user-read":    {"page fault", "read", "user address", patchedFunction, "Fatal exception"},
	"double-fault": {"double fault", "", "stack pointer", patchedFunction, "Fatal exception"},
	"soft-lockup":  {"soft lockup", "", "", patchedFunction, "softlockup: hung tasks"},
	"hung-task":    {"", "", "", "watchdog", "hung_task: blocked tasks"},
	"null-module":  {"page fault", "read", "rax is NULL", "dummy_get_stats64", "Fatal exception"},
	"oom":          {"", "", "", "out_of_memory", "Out of memory: compulsory panic_on_oom is enabled"},
}

const patchedFunction = "__x64_sys_getpgid"

// TestCrashes holds reports of crashes of every kind to what was done.
func TestCrashes(t *testing.T) {
	for _, c := range dumptest.Crashes {
		for _, kernel := range c.Kernels() {
			t.Run(c.Name+" "+kernel, func(t *testing.T) {
				want, ok := crashes[c.Name]
				qt.Assert(t, qt.IsTrue(ok))
				r := answers[faultReport](t, 1, "report", c.Dump(t, kernel), "report")[0]
				said := fmt.Sprintf("%+v", r)
				qt.Check(t, qt.StringContains(r.Panic, want.panic))
				qt.Check(t, qt.Equals(r.Fault.Kind, want.kind), qt.Commentf("%s", said))
				qt.Check(t, qt.Equals(r.Fault.Access, want.access), qt.Commentf("%s", said))
				qt.Check(t, qt.StringContains(r.Fault.Why, want.why), qt.Commentf("%s", said))
				qt.Assert(t, qt.IsTrue(len(r.Frames) > 0))
				top, _, _ := strings.Cut(r.Frames[0].Symbol, ".") // without .cold and the like
				qt.Check(t, qt.Equals(top, want.top), qt.Commentf("%s", said))
				if c.Name == "soft-lockup" { // shown to be one by running on
					qt.Check(t, qt.StringContains(said, "an endless loop at "+patchedFunction+": after 1 instruction "), qt.Commentf("%s", said))
				}
				// Nothing is claimed to be overwritten where nothing was.
				qt.Check(t, qt.IsFalse(strings.Contains(r.Cause.Title, "overwritten")), qt.Commentf("%s", said))
				if c.Name != "double-fault" { // it has no stack left
					qt.Check(t, qt.Equals(r.StackEnd, ""), qt.Commentf("%s", said))
				}
			})
		}
	}
}

// A faultReport is what TestCrashes looks at in a report.
type faultReport struct {
	Panic string `json:"panic"`
	Fault struct {
		Kind   string `json:"kind"`
		Access string `json:"access"`
		Why    string `json:"why"`
	} `json:"fault"`
	Frames   []frame `json:"frames"`
	StackEnd string  `json:"stack_end"`
	Cause    struct {
		Title string `json:"title"`
		Text  string `json:"text"`

		Evidence []struct {
			Text string `json:"text"`
		} `json:"evidence"`
	} `json:"cause"`
}
