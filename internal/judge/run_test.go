package judge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
)

// matrix are the kernels that every check of a dump is made on.
var matrix = []string{"5.10", "6.1", "6.12", "7.2"}

// ksleuth runs a command on a dump and returns its output. Any exit status but
// want fails the test.
func ksleuth(t testing.TB, want cli.Status, args ...string) string {
	t.Helper()
	status, out, errs := run(t, args...)
	qt.Assert(t, qt.Equals(status, want), qt.Commentf("ksleuth %s\n%s%.2000s", strings.Join(args, " "), errs, out))
	return out
}

func run(t testing.TB, args ...string) (status cli.Status, out, errs string) {
	var o, e bytes.Buffer
	got := cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return cli.Status(got), o.String(), e.String()
}

// record is one line of -o json.
type record[T any] struct {
	V    int    `json:"v"`
	Type string `json:"type"`
	Data T      `json:"data"`
}

// answers runs a command with -o json and returns the data of its lines, all
// of which must be of the given type.
func answers[T any](t testing.TB, want cli.Status, typ, dump string, command ...string) []T {
	t.Helper()
	text := ksleuth(t, want, append([]string{"-t", dump, "-o", "json"}, command...)...)
	return decode[T](t, typ, text)
}

func decode[T any](t testing.TB, typ, text string) []T {
	t.Helper()
	var all []T
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	for dec.More() {
		var r record[T]
		qt.Assert(t, qt.IsNil(dec.Decode(&r)))
		qt.Assert(t, qt.Equals(r.V, 1))
		qt.Assert(t, qt.Equals(r.Type, typ), qt.Commentf("%s", text))
		all = append(all, r.Data)
	}
	return all
}

// need skips the test where a judge is not installed.
func need(t testing.TB, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed (Debian package %s): what it would judge is not checked", program, pkg)
	}
	return path
}

// A task is what bt and ps say of a task.
type task struct {
	Addr    string  `json:"addr"`
	PID     int     `json:"pid"`
	TGID    int     `json:"tgid"`
	PPID    int     `json:"ppid"`
	Comm    string  `json:"comm"`
	State   string  `json:"state"`
	CPU     int     `json:"cpu"`
	Kernel  bool    `json:"kernel_thread"`
	Running bool    `json:"running"`
	Frames  []frame `json:"frames"`
	End     string  `json:"stack_end"`
}

func (t task) String() string {
	return fmt.Sprintf("pid %d (%s), task_struct %s", t.PID, t.Comm, t.Addr)
}

type frame struct {
	PC       string `json:"pc"`
	Symbol   string `json:"symbol"`
	Offset   string `json:"offset"`
	Kind     string `json:"kind"`
	Module   string `json:"module"`
	Reliable bool   `json:"reliable"`
	BPF      *struct {
		Name string `json:"name"`
		Tag  string `json:"tag"`
		ID   int    `json:"id"`
		File string `json:"file"`
		Line int    `json:"line"`
	} `json:"bpf"`
}

func symbols(frames []frame) []string {
	out := []string{}
	for _, f := range frames {
		out = append(out, f.Symbol)
	}
	return out
}

// stacks returns every task with its stack, and checks that each stack is
// followed to its end.
func stacks(t testing.TB, dump string) []task {
	t.Helper()
	status, out, errs := run(t, "-t", dump, "-o", "json", "bt", "all")
	want := cli.StatusOK
	tasks := decode[task](t, "task", out)
	for _, k := range tasks {
		if k.End != "" && stuffing(k) {
			t.Logf("%v was filling the return stack buffer, for which there is no ORC: %s", k, k.End)
			want = cli.StatusDamaged
		} else if k.End != "" {
			t.Errorf("%v: %s", k, k.End)
			want = cli.StatusDamaged
		}
	}
	qt.Assert(t, qt.Equals(status, want), qt.Commentf("%s", errs))
	return tasks
}

// stuffing says whether a task was in the few calls by which __switch_to_asm
// fills the CPU's return stack buffer. They are patched in at boot, and the
// ORC tables do not know what they do to the stack pointer.
func stuffing(k task) bool {
	return k.Running && len(k.Frames) > 0 && k.Frames[0].Symbol == "__switch_to_asm"
}

// A file is what files says of an open file.
type file struct {
	PID     int    `json:"pid"`
	FD      int    `json:"fd"`
	Addr    string `json:"addr"`
	Path    string `json:"path"`
	Private string `json:"private"`
	Ops     string `json:"ops"`
}

// A module is what mods says of a module.
type module struct {
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	Base  string `json:"base"`
	Size  uint64 `json:"size"`
	Refs  int64  `json:"refs"`
	State string `json:"state"`
}
