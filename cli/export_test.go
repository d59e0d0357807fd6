package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/graph"
	"github.com/ksleuth/ksleuth/guard"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/trace"
)

// JSONTypes returns an empty value of each type that -o json prints, by the
// name it has there.
func JSONTypes() map[string]any {
	return map[string]any{
		"report":     &report.Report{},
		"emulation":  &rerun.Emulation{},
		"task":       &taskStack{},
		"file":       &fileData{},
		"log":        &kobj.LogRecord{},
		"module":     &moduleData{},
		"symbol":     &symbolData{},
		"type":       &typeData{},
		"value":      &printedData{},
		"memory":     &memoryData{},
		"code":       &disasm.Listing{},
		"prog":       &bpf.Program{},
		"map":        &bpf.Map{},
		"map_entry":  &entryData{},
		"link":       &bpf.Link{},
		"attachment": &bpf.Attachment{},
		"trampoline": &bpf.Trampoline{},
		"graph":      &graph.Graph{},
		"capture":    &captureData{},
		"call":       &trace.Call{},
		"target":     &targetData{},
		"warning":    &guard.Warning{},
		"begin":      &beginData{},
		"count":      &trace.CountRow{},
		"hist":       &trace.Histogram{},
		"lost":       &trace.Lost{},
		"summary":    &trace.Summary{},
		"note":       &noteData{},
		"error":      &errorData{},
	}
}

// Root returns the command tree.
func Root() *cobra.Command {
	return newApp(context.Background(), Streams{Out: io.Discard, Err: io.Discard}).root()
}

// SplitArgs splits a command line.
func SplitArgs(s string) ([]string, error) { return splitArgs(s) }
