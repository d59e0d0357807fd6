package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/cli"
)

// TestConsole runs the commands in the console blocks of the documentation,
// from the top of the repository, and compares what they print. A command may
// end in "| head -N". With -update the blocks are written anew.
func TestConsole(t *testing.T) {
	t.Chdir("..")
	files, err := filepath.Glob("docs/*.md")
	qt.Assert(t, qt.IsNil(err))
	commands := 0
	for _, name := range append(files, "README.md") {
		b, err := os.ReadFile(name)
		qt.Assert(t, qt.IsNil(err))
		got, n := runConsole(t, string(b))
		commands += n
		if *update {
			qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(got), 0o644)))
			continue
		}
		fresh(t, name, string(b), got)
	}
	qt.Assert(t, qt.IsTrue(commands > 0))
}

// fresh fails the test, with the lines that differ, if a document is not what
// it should be.
func fresh(t *testing.T, name, got, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(got, "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("%s is stale; go test ./cli -run 'Console|Doc' -update writes it:\n%s", name, diff)
	}
}

// runConsole returns the document with the true output of its commands, and
// how many there are.
func runConsole(t *testing.T, doc string) (string, int) {
	t.Helper()
	var out strings.Builder
	console, commands := false, 0
	for line := range strings.Lines(doc) {
		switch {
		case line == "```console\n":
			console = true
			out.WriteString(line)
		case console && line == "```\n":
			console = false
			out.WriteString(line)
		case console && strings.HasPrefix(line, "$ ksleuth "):
			commands++
			out.WriteString(line)
			out.WriteString(runLine(t, strings.TrimSpace(strings.TrimPrefix(line, "$ ksleuth "))))
		case !console:
			out.WriteString(line)
		}
	}
	qt.Assert(t, qt.IsFalse(console), qt.Commentf("a console block does not end"))
	return out.String(), commands
}

func runLine(t *testing.T, line string) string {
	t.Helper()
	command, head, piped := strings.Cut(line, " | head -")
	args, err := cli.SplitArgs(command)
	qt.Assert(t, qt.IsNil(err))
	var out bytes.Buffer
	cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
	if !piped {
		return out.String()
	}
	n, err := strconv.Atoi(head)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", line))
	lines := strings.SplitAfter(out.String(), "\n")
	return strings.Join(lines[:min(n, len(lines))], "")
}

// TestCommandsDoc keeps docs/commands.md what help says.
func TestCommandsDoc(t *testing.T) {
	const name = "../docs/commands.md"
	var doc strings.Builder
	doc.WriteString("# Commands\n\nThis is what `ksleuth help` and `ksleuth help COMMAND` say.\n\n")
	root := cli.Root()
	fmt.Fprintf(&doc, "```\n%s```\n", help(t))
	for _, group := range root.Groups() {
		for _, c := range root.Commands() {
			if c.GroupID == group.ID {
				documentCommand(t, &doc, c)
			}
		}
	}
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(doc.String()), 0o644)))
	}
	b, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	fresh(t, name, string(b), doc.String())
}

func documentCommand(t *testing.T, doc *strings.Builder, c *cobra.Command) {
	t.Helper()
	// What is the same for all commands stands at the top alone.
	text, _, _ := strings.Cut(help(t, c.Name()), "\nOptions of every command:")
	fmt.Fprintf(doc, "\n## %s\n\n%s.\n\n```\n%s```\n", c.Name(), c.Short, text)
}

func help(t *testing.T, command ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	status := cli.Run(t.Context(), append([]string{"help"}, command...), cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	qt.Assert(t, qt.Equals(status, 0), qt.Commentf("%s", errs.String()))
	return out.String()
}

// TestHelp: every command has a description, fits its screen and belongs to a
// group; its examples name commands and flags that there are.
func TestHelp(t *testing.T) {
	root := cli.Root()
	for _, c := range root.Commands() {
		if c.Hidden || c.Name() == "completion" {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			qt.Check(t, qt.Not(qt.Equals(c.GroupID, "")))
			qt.Check(t, qt.Not(qt.Equals(c.Example, "")))
			for line := range strings.Lines(help(t, c.Name())) {
				qt.Check(t, qt.IsTrue(len([]rune(line)) <= 101), qt.Commentf("more than 100 columns: %s", line))
			}
			for line := range strings.Lines(c.Example) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
				line, _, _ = strings.Cut(line, " > ")
				line, _, _ = strings.Cut(line, "   # ")
				args, err := cli.SplitArgs(line)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(args[0], "ksleuth"))
				checkExample(t, args[1:])
			}
		})
	}
}

// checkExample parses a command line without running it.
func checkExample(t *testing.T, args []string) {
	t.Helper()
	root := cli.Root()
	c, rest, err := root.Find(args)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(c != root), qt.Commentf("%q names no command", args))
	qt.Assert(t, qt.IsNil(c.ParseFlags(rest)))
	qt.Assert(t, qt.IsNil(c.ValidateArgs(c.Flags().Args())))
}
