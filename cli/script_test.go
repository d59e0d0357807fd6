package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ksleuth/ksleuth/cli"
)

// TestMain makes the command ksleuth of the scripts from this test binary.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ksleuth": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
		},
	})
}

// TestScript runs the command lines of testdata/script, with the example dump
// as example.kdump.
//
// Commands of these scripts besides testscript's own:
//
//	status N ksleuth ARG...   run ksleuth, which must exit with N
//	nobody N ksleuth ARG...   the same as a user without rights
//	json TYPE [FIELD...]      the last standard output is lines of -o json, of this
//	                          type, each as documented and with these fields
func TestScript(t *testing.T) {
	dump, err := filepath.Abs(example)
	qt.Assert(t, qt.IsNil(err))
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TERM", "xterm")
			return os.Symlink(dump, filepath.Join(env.WorkDir, "example.kdump"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": scriptStatus,
			"nobody": scriptNobody,
			"json":   scriptJSON,
		},
	})
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "ksleuth" {
		ts.Fatalf("usage: status N ksleuth ARG...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// scriptNobody runs ksleuth as a user who owns nothing, if the test's user is
// root and could read everything.
func scriptNobody(ts *testscript.TestScript, neg bool, args []string) {
	if os.Getuid() != 0 {
		scriptStatus(ts, neg, args)
		return
	}
	if neg || len(args) < 2 || args[1] != "ksleuth" {
		ts.Fatalf("usage: nobody N ksleuth ARG...")
	}
	// The test binary lies where this user cannot run it.
	dir, err := os.MkdirTemp("", "ksleuth")
	ts.Check(err)
	defer os.RemoveAll(dir)
	ts.Check(os.Chmod(dir, 0o755))
	self, err := os.Executable()
	ts.Check(err)
	binary, err := os.ReadFile(self)
	ts.Check(err)
	copied := filepath.Join(dir, "ksleuth")
	ts.Check(os.WriteFile(copied, binary, 0o755))
	cmd := exec.Command(copied, args[2:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: json TYPE [FIELD...]")
	}
	out := ts.ReadFile("stdout")
	if out == "" {
		ts.Fatalf("no output")
	}
	for line := range strings.Lines(out) {
		if err := checkLine(line, args[0], args[1:]); err != nil {
			ts.Fatalf("%v\n%s", err, line)
		}
	}
}

// checkLine checks a line of -o json.
func checkLine(line, typ string, fields []string) error {
	var env struct {
		V    int             `json:"v"`
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := strict(line, &env); err != nil {
		return fmt.Errorf("not an object {v, type, data}: %w", err)
	}
	if env.V != 1 || env.Type != typ {
		return fmt.Errorf("version %d and type %q, want 1 and %q", env.V, env.Type, typ)
	}
	data, ok := cli.JSONTypes()[typ]
	if !ok {
		return fmt.Errorf("%q is no documented type", typ)
	}
	if err := strict(string(env.Data), data); err != nil {
		return err
	}
	var tree any
	if err := json.Unmarshal(env.Data, &tree); err != nil {
		return err
	}
	for _, f := range jsonFields(reflect.TypeOf(data), "") {
		if !f.optional && !strings.ContainsAny(f.path, ".[") {
			fields = append(fields, f.path)
		}
	}
	for _, f := range fields {
		if missing(tree, strings.Split(f, ".")) {
			return fmt.Errorf("no field %s", f)
		}
	}
	return nil
}

// strict decodes an object that must have no fields but those of v.
func strict(s string, v any) error {
	dec := json.NewDecoder(bytes.NewBufferString(s))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// missing says whether a field is not in the tree, or null. Of an array, which
// is written with [], the first element is looked at.
func missing(tree any, path []string) bool {
	if len(path) == 0 {
		return tree == nil
	}
	name, array := strings.CutSuffix(path[0], "[]")
	object, _ := tree.(map[string]any)
	next := object[name]
	if array {
		elems, _ := next.([]any)
		// One element with the field will do: not every frame is BPF's.
		return !slices.ContainsFunc(elems, func(e any) bool { return !missing(e, path[1:]) })
	}
	return missing(next, path[1:])
}

// TestInterrupted: Ctrl-C ends a command, with the shells' status for it.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"report"}, {"bt", "all"}, {"ps"}, {"log"}, {"capture", filepath.Join(t.TempDir(), "x")}} {
		var out, errs bytes.Buffer
		status := cli.Run(ctx, append([]string{"-t", example}, args...), cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
		qt.Check(t, qt.Equals(status, 130), qt.Commentf("%s", args))
		qt.Check(t, qt.Equals(errs.String(), "ksleuth: interrupted\n"), qt.Commentf("%s", args))
		qt.Check(t, qt.Equals(out.String(), ""), qt.Commentf("%s", args))
	}
}

func TestCheckLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"v":1,"type":"memory","data":{"addr":"0x1","bytes":"AA=="}}`, ""},
		{`{"v":2,"type":"memory","data":{"addr":"0x1","bytes":"AA=="}}`, "version 2 .*"},
		{`{"v":1,"type":"memory","data":{"addr":"0x1"}}`, "no field bytes"},
		{`{"v":1,"type":"memory","data":{"addr":"0x1","bytes":"","x":1}}`, `json: unknown field "x"`},
		{`{"v":1,"type":"symbol","data":{}}`, "version 1 and type .*"},
		{`memory`, "not an object .*"},
	} {
		err := checkLine(c.line, "memory", nil)
		if c.want == "" {
			qt.Check(t, qt.IsNil(err))
		} else {
			qt.Check(t, qt.ErrorMatches(err, c.want), qt.Commentf("%s", c.line))
		}
	}
}
