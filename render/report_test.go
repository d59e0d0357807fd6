package render_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/stack"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file that a person can read.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(got), 0o644)))
	}
	want, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, string(want)))
}

func printed(o render.Options, print func(*render.Printer)) string {
	var out strings.Builder
	print(render.NewPrinter(&out, o))
	return out.String()
}

// TestReport: the whole report of the example.
func TestReport(t *testing.T) {
	r := report.Build(t.Context(), example.Kernel(t), example.Core(t))
	golden(t, "report.txt", printed(render.Options{Target: "-t vmcore"}, func(p *render.Printer) { p.Report(r) }))
	// In colour it is the same text.
	colour := printed(render.Options{Color: true, Target: "-t vmcore"}, func(p *render.Printer) { p.Report(r) })
	qt.Check(t, qt.StringContains(colour, "\x1b[1mWHAT"))
}

func TestTasksAndFiles(t *testing.T) {
	k := example.Kernel(t)
	tasks, err := kobj.Tasks(k, true)
	qt.Assert(t, qt.IsNil(err))
	golden(t, "ps.txt", printed(render.Options{}, func(p *render.Printer) { p.TaskTree(tasks) }))
	task, err := kobj.FindTask(k, 89)
	qt.Assert(t, qt.IsNil(err))
	files, err := kobj.Files(k, task)
	qt.Assert(t, qt.IsNil(err))
	golden(t, "files.txt", printed(render.Options{}, func(p *render.Printer) {
		p.Files(files[:4], func(kobj.File) string { return "" })
	}))
	crashed, err := kobj.FindTask(k, 93)
	qt.Assert(t, qt.IsNil(err))
	s := stack.Of(k, crashed)
	golden(t, "bt.txt", printed(render.Options{}, func(p *render.Printer) { p.Task(crashed); p.Frames(s.Frames, "") }))
}

// TestTaskTreeDamaged: tasks that are each other's parents end.
func TestTaskTreeDamaged(t *testing.T) {
	tasks := []kobj.Task{
		{PID: 1, TGID: 1, PPID: 2, Comm: "a"}, {PID: 2, TGID: 2, PPID: 1, Comm: "b"}, {PID: 3, TGID: 3, PPID: 3, Comm: "c"},
		{PID: 4, TGID: 4, PPID: 0, Comm: "d"}, {PID: 4, TGID: 4, PPID: 4, Comm: "d twice"}, {PID: -1, TGID: -1, PPID: -1, Comm: "e"},
	}
	out := printed(render.Options{}, func(p *render.Printer) { p.TaskTree(tasks) })
	for _, task := range tasks {
		qt.Check(t, qt.StringContains(out, task.Comm))
	}
	qt.Check(t, qt.IsTrue(strings.Count(out, "\n") < 20))
}

// TestNothingReachesTheTerminal: what stands in the target's memory is shown,
// not obeyed.
func TestNothingReachesTheTerminal(t *testing.T) {
	const evil = "\x1b]0;evil\x07\x1b[2J\x9b31m\r"
	task := kobj.Task{PID: 1, TGID: 1, Comm: evil}
	r := &report.Report{
		Panic: evil, Headline: evil, Task: &report.Task{Comm: evil}, StackEnd: evil, Missing: evil, Unread: []string{evil},
		System: report.System{Release: evil, Version: evil, Hostname: evil, Modules: []string{evil}, Dump: evil},
		Frames: []stack.Frame{{Symbol: evil, Module: evil, BPF: &stack.BPF{Name: evil, File: evil, Source: evil}, Recovered: evil}},
		Fault:  &report.Fault{Text: evil}, Log: []kobj.LogRecord{{Text: evil}},
		Registers: []report.Register{{Name: "rax", Note: evil}}, Code: []report.Insn{{Text: evil, Note: evil, Here: true}},
	}
	out := printed(render.Options{}, func(p *render.Printer) {
		p.Report(r)
		p.Task(task)
		p.Tasks([]kobj.Task{task})
		p.TaskTree([]kobj.Task{task})
		p.Files([]kobj.File{{Path: evil, Type: "REG"}}, func(kobj.File) string { return evil })
		p.Log(r.Log, true)
	})
	for i, c := range []byte(out) {
		if c < 0x20 && c != '\n' && c != '\t' || c == 0x9b && (i == 0 || out[i-1] != 0xc2) && !strings.Contains(out[max(0, i-3):i+1], "\u00a0") && !utf8Part(out, i) {
			t.Fatalf("byte %#x is printed after %q", c, out[max(0, i-40):i])
		}
	}
	qt.Check(t, qt.StringContains(out, `\x1b]0;evil\x07`))
}

// utf8Part says whether the byte at i continues a character.
func utf8Part(s string, i int) bool {
	for back := 1; back <= 3 && back <= i; back++ {
		if s[i-back] >= 0xc0 {
			return true
		}
		if s[i-back] < 0x80 {
			return false
		}
	}
	return false
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                     "0.0 s",
		3052 * time.Millisecond:               "3.1 s",
		59*time.Second + 940*time.Millisecond: "59.9 s",
		61 * time.Second:                      "1 min 1 s",
		time.Hour + 61*time.Second:            "1 h 1 min",
		49*time.Hour + time.Minute:            "2 days 1 h",
	} {
		qt.Check(t, qt.Equals(render.Duration(d), want))
	}
}
