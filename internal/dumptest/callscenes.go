package dumptest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
)

// callFacts are those of callScenes; the calls are made after the trigger.
var callFacts = []fact{{ext: "kallsyms", file: "/proc/kallsyms"}, {ext: "calls", file: callgate.Path, after: true}}

// callsEnd is the line of the console that says that there is nothing to wait
// for: all calls are made, or there is no file of them.
var callsEnd = regexp.MustCompile(callgate.Done + `|` + callgate.Failed + `|BUG: |Oops: `)

// callScenes are the scenes of internal/callscene: guests that called functions
// of their kernel.
func callScenes() []scene {
	var out []scene
	for _, kernel := range every {
		out = append(out, scene{
			name: "calls-" + kernel, kernel: kernel, guest: "callscene", workload: "calls", brief: true, modules: []string{"dummy"},
			patch: callgate.Code, trigger: callsEnd,
		})
	}
	return out
}

// Calls returns the calls of the scene "calls-KERNEL" in their order.
func Calls(t testing.TB, kernel string) []callgate.Record {
	t.Helper()
	f, err := os.Open(Get(t, "calls-"+kernel+".calls"))
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	var out []callgate.Record
	for dec := json.NewDecoder(f); ; {
		var r callgate.Record
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
}
