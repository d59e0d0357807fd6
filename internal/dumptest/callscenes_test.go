package dumptest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
)

// complaint is a line of the console of a kernel that was called wrongly.
var complaint = regexp.MustCompile(`WARNING: |BUG: |Oops: |general protection`)

// TestCallScenes makes the scenes of called functions. The kernels do not mind
// being called so.
func TestCallScenes(t *testing.T) {
	for _, kernel := range every {
		t.Run(kernel, func(t *testing.T) {
			functions := map[string]bool{}
			for _, c := range Calls(t, kernel) {
				functions[c.Func] = true
			}
			qt.Check(t, qt.IsTrue(len(functions) > 500), qt.Commentf("%d functions", len(functions)))
			console, err := os.ReadFile(Get(t, "calls-"+kernel+".console"))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(strings.Contains(string(console), callgate.Done)))
			qt.Check(t, qt.Equals(complaint.FindString(string(console)), ""))
		})
	}
}
