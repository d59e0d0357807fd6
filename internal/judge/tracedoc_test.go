package judge

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/vm"
)

const traceDoc = "../../docs/trace.md"

// docExample is an example of traceDoc: kernel; scene; what it does; command.
var docExample = regexp.MustCompile("<!-- ([0-9.]+); ([^;]*); ([^;]*); ([^;]*) -->\n```text\n((?s:.*?))```\n")

// TestTraceDoc keeps the examples of traceDoc true: but for numbers, they are
// what ksleuth says. KSLEUTH_UPDATE=1 writes them anew.
func TestTraceDoc(t *testing.T) {
	b, err := os.ReadFile(traceDoc)
	qt.Assert(t, qt.IsNil(err))
	doc := string(b)
	guests := map[string]*sceneGuest{}
	for _, m := range docExample.FindAllStringSubmatch(doc, -1) {
		kernel, scene, do, command, want := m[1], m[2], m[3], m[4], m[5]
		g := guests[kernel+scene]
		if g == nil {
			g = bootScene(t, kernel, nil)
			g.set(strings.Fields(scene)...)
			guests[kernel+scene] = g
		}
		got := g.says(t, strings.Fields(command), append([]string{strings.Fields(scene)[0]}, strings.Fields(do)...))
		if os.Getenv("KSLEUTH_UPDATE") == "1" {
			doc = strings.Replace(doc, m[0], strings.TrimSuffix(m[0], want+"```\n")+got+"```\n", 1)
			continue
		}
		qt.Check(t, qt.Equals(withoutNumbers(got), withoutNumbers(want)), qt.Commentf("%s", command))
	}
	qt.Check(t, qt.IsTrue(len(guests) > 0))
	if os.Getenv("KSLEUTH_UPDATE") == "1" {
		qt.Assert(t, qt.IsNil(os.WriteFile(traceDoc, []byte(doc), 0o644)))
	}
}

// says returns what a person sees who runs ksleuth while a scene does
// something.
func (g *sceneGuest) says(t *testing.T, command, do []string) string {
	t.Helper()
	var both lockedBuffer
	p, err := g.StartProcess(t.Context(), vm.Cmd{Path: guestKsleuth, Args: command, Stdout: &both, Stderr: &both})
	qt.Assert(t, qt.IsNil(err))
	ended := make(chan error, 1)
	go func() { ended <- p.Wait(t.Context()) }()
	for attached := regexp.MustCompile(`(?m)^(tracing |traced without )`); ; {
		select {
		case <-ended: // a dry run
			return "$ ksleuth " + strings.Join(command, " ") + "\n" + both.String()
		case <-time.After(50 * time.Millisecond):
		}
		if attached.MatchString(both.String()) {
			break
		}
	}
	tell[any](g, do...)
	qt.Assert(t, qt.IsNil(p.Signal(t.Context(), syscall.SIGINT)))
	qt.Assert(t, qt.IsNil(<-ended))
	return "$ ksleuth " + strings.Join(command, " ") + "\n" + both.String()
}

var numbers = regexp.MustCompile(`0x[0-9a-f]+|bpf_prog_[0-9a-f]+|-?[0-9]+(\.[0-9]+)?( [nµm]?s\b)?|[\s│]+`)

// withoutNumbers leaves of a text what is the same on every run.
func withoutNumbers(text string) string {
	return numbers.ReplaceAllStringFunc(text, func(s string) string {
		if strings.Trim(s, " \n│") == "" { // lines are broken elsewhere
			return " "
		}
		return "#"
	})
}
