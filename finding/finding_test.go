package finding_test

import (
	"encoding/json"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/finding"
)

// TestJSON: other programs read findings; the names of their fields stay.
func TestJSON(t *testing.T) {
	b, err := json.Marshal(finding.Finding{
		Title: "NULL pointer dereference", Text: "page fault", Certainty: finding.Proven, Command: "bt 1",
		Evidence: []finding.Evidence{{Text: "rax = 0x0", Addr: 0xffffffff81000000, Bytes: "48 8b 00", Insn: "mov (%rax),%rax"}},
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), `{"title":"NULL pointer dereference","text":"page fault","certainty":"proven",`+
		`"evidence":[{"text":"rax = 0x0","addr":"0xffffffff81000000","bytes":"48 8b 00","insn":"mov (%rax),%rax"}],"command":"bt 1"}`))
}
