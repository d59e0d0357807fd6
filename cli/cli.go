// Package cli is the command line of ksleuth. A command opens the target,
// calls the package that knows, and hands the plain data it gets to render or
// to the JSON encoder; nothing is computed here.
package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/live"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/vmcore"
)

// Streams are the files a command talks through.
type Streams struct {
	In  io.Reader
	Out io.Writer // data, and nothing else
	Err io.Writer // everything else
}

// app is what the commands of one invocation share.
type app struct {
	ctx     context.Context
	streams Streams
	log     *slog.Logger

	dumps      []string
	output     string
	color      string
	verbose    bool
	memoryless bool   // the running kernel's memory cannot be read, which was said
	memory     string // how to read the running kernel's memory: a live.Way

	out    *bufio.Writer
	wait   *progress    // nil unless standard error is a terminal
	pager  *pager       // nil unless standard output is a terminal
	core   *vmcore.Core // the dump; nil for the running kernel
	live   *live.Target // the running kernel; nil for a dump
	kernel *kernel.Kernel
	begun  bool // the command line was understood
	fault  bool // the thing examined is at fault
	gaps   bool // something could not be read
}

// Run runs the command line args (without the program's name) and returns the
// exit status; see [ExitStatus] for its meaning.
func Run(ctx context.Context, args []string, s Streams) int {
	a := newApp(ctx, s)
	err := a.execute(args)
	if cerr := a.close(); err == nil {
		err = cerr
	}
	switch {
	case errors.Is(err, unix.EPIPE): // whoever reads has seen enough
	case err != nil:
		a.reportError(err)
		return int(a.statusOf(err))
	}
	switch {
	case a.fault:
		return int(StatusFault)
	case a.gaps:
		return int(StatusDamaged)
	}
	return int(StatusOK)
}

// execute runs a command line. What goes wrong before a command has begun is
// cobra's to say, and about usage.
func (a *app) execute(args []string) error {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(a.ctx)
	if err != nil && !a.begun {
		return usage(err)
	}
	return err
}

func newApp(ctx context.Context, s Streams) *app {
	return &app{ctx: ctx, streams: s, out: bufio.NewWriterSize(s.Out, 64<<10)}
}

// meet prepares for a person at a terminal: progress while they wait, and a
// pager for answers longer than the screen.
func (a *app) meet(c *cobra.Command) {
	if a.wait != nil || a.pager != nil {
		return
	}
	terminal := a.streams.Err
	if isTerminal(terminal) {
		a.wait = startProgress(terminal, c.Name(), progressAfter)
		a.streams.Err = a.wait.over(terminal)
	}
	if !isTerminal(a.streams.Out) || a.output == "json" {
		return
	}
	a.pager = &pager{out: a.streams.Out, err: terminal}
	if a.wait == nil {
		a.out.Reset(a.pager)
		return
	}
	a.out.Reset(a.wait.over(a.pager))
}

func (a *app) close() error {
	err := a.out.Flush()
	if a.wait != nil {
		a.wait.stop()
	}
	if a.pager != nil {
		err = errors.Join(err, a.pager.close())
	}
	if a.core != nil {
		err = errors.Join(err, a.core.Close())
	}
	if a.live != nil {
		err = errors.Join(err, a.live.Close())
	}
	return err
}

// A target is what a command examines.
type target interface {
	kernel.Source
	Meta() vmcore.Meta
}

// open returns the kernel the command is about.
func (a *app) open() (*kernel.Kernel, error) {
	if err := a.ctx.Err(); err != nil {
		return nil, err
	}
	if a.kernel != nil {
		return a.kernel, nil
	}
	src, err := a.openTarget()
	if err != nil {
		return nil, err
	}
	k, err := kernel.FromSource(a.ctx, src)
	if err != nil && a.live != nil {
		return nil, fmt.Errorf("the running kernel, by way of %s: %w", a.live.Memory(), err)
	}
	if err != nil {
		// What is wrong with the file may be why.
		err = fmt.Errorf("%s: %w", strings.Join(a.dumps, ", "), err)
		return nil, errors.Join(append([]error{err}, a.core.Warnings()...)...)
	}
	a.log.Debug("kernel found", "release", k.Release())
	a.kernel = k
	return k, nil
}

// openTarget opens the dump, or, where none is named, the running kernel.
func (a *app) openTarget() (target, error) {
	if len(a.dumps) > 0 {
		err := a.openCore()
		return a.core, err
	}
	l, err := live.Options{Memory: live.Way(a.memory)}.Open(a.ctx)
	if err != nil {
		return nil, err
	}
	a.log.Debug("running kernel opened", "memory", l.Memory())
	a.live = l
	return l, nil
}

// openCore opens the dump.
func (a *app) openCore() error {
	core, err := vmcore.Open(a.dumps...)
	if err != nil {
		return err
	}
	a.log.Debug("dump opened", "files", a.dumps, "format", core.Format())
	a.core = core
	return nil
}

// emit writes one answer: its JSON form under the given type name, or its text
// form by way of text.
func (a *app) emit(typ string, data any, text func(*render.Printer)) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if a.output == "json" {
		return a.emitJSON(typ, data)
	}
	text(a.printer())
	return nil
}

// envelope is the line format of -o json.
type envelope struct {
	V    int    `json:"v"`
	Type string `json:"type"`
	Data any    `json:"data"`
}

func (a *app) emitJSON(typ string, data any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(envelope{V: 1, Type: typ, Data: data})
}

func (a *app) printer() *render.Printer {
	return render.NewPrinter(a.out, render.Options{Color: a.useColor(a.streams.Out), Target: a.target()})
}

// target returns the options that name the target, to print in commands.
func (a *app) target() string {
	var parts []string
	for _, d := range a.dumps {
		if strings.ContainsAny(d, " \t'\"\\$`*?[]();&|<>") {
			d = "'" + strings.ReplaceAll(d, "'", `'\''`) + "'"
		}
		parts = append(parts, "-t "+d)
	}
	return strings.Join(parts, " ")
}

// useColor reports whether what goes to w is coloured.
func (a *app) useColor(w io.Writer) bool {
	switch a.color {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

// errorData is the JSON form of an error.
type errorData struct {
	Message string `json:"message"`
	Status  Status `json:"status"` // the exit status it stands for
}

// reportError says on standard error, or in the JSON stream, why the command
// could not answer.
func (a *app) reportError(err error) {
	if a.output == "json" {
		for _, e := range kernel.Unjoin(err) {
			_ = a.emitJSON("error", errorData{e.Error(), a.statusOf(err)}) // the exit status still tells
		}
		_ = a.out.Flush()
		return
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	for _, e := range kernel.Unjoin(err) {
		fmt.Fprintf(a.streams.Err, "ksleuth: %s\n", oneLine(e))
	}
	var expr interface{ Caret() string } // of package cexpr: shows where in the expression
	if errors.As(err, &expr) {
		fmt.Fprintln(a.streams.Err, expr.Caret())
	}
}

// oneLine words an error in one line, without what a terminal would obey:
// parts of it can be the dump's.
func oneLine(err error) string {
	return render.Clean(strings.ReplaceAll(err.Error(), "\n", "; "))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ksleuth [-t DUMP]... COMMAND",
		Short: "Answers why BPF programs or the Linux kernel misbehave",
		Long: `ksleuth answers the questions people have when BPF programs or the Linux kernel
misbehave, from the memory of the running kernel or from a crash dump alone: types
come from the kernel's own BTF, symbols from its own kallsyms, stacks from its own
ORC tables. No debug info is needed.

Without -t the running kernel is examined. Its memory is read by way of /proc/kcore
(which takes root with CAP_SYS_RAWIO) or else of a BPF program (CAP_BPF, CAP_PERFMON
and CAP_SYS_ADMIN); nothing is changed in it, and nothing stays behind.

On a terminal, long answers go through $KSLEUTH_PAGER, $PAGER or less, and colour
is used unless NO_COLOR is set.`,
		Example: `  ksleuth -t /var/crash/202611210314/dump.202611210314 report
  ksleuth bt 1
  ksleuth -t vmcore bt all
  ksleuth -t vmcore print '((struct bpf_prog *)0xffffc90000185000)->aux->name'
  ksleuth -t part1 -t part2 -o json ps`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			a.meet(c)
			return a.checkFlags()
		},
	}
	root.SetOut(a.streams.Out)
	root.SetErr(a.streams.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &statusError{StatusUsage, err} })
	f := root.PersistentFlags()
	f.StringArrayVarP(&a.dumps, "target", "t", nil, "examine this `DUMP`, not the running kernel; repeat for the\nparts of a split dump")
	f.StringVarP(&a.output, "output", "o", "text", "print `text|json`")
	f.StringVar(&a.color, "color", "auto", "use colour: `auto|always|never`")
	f.StringVar(&a.memory, "memory", string(live.Auto), "read the running kernel's memory by `auto|kcore|bpf|none`")
	_ = f.MarkHidden("memory") // it is there
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say on standard error what is being done")
	root.AddGroup(
		&cobra.Group{ID: groupInvestigate, Title: "Investigate:"},
		&cobra.Group{ID: groupInspect, Title: "Inspect:"},
	)
	for _, c := range a.commands() {
		root.AddCommand(c)
	}
	dress(root)
	return root
}

const (
	groupInvestigate = "investigate"
	groupInspect     = "inspect"
)

func (a *app) checkFlags() error {
	if a.output != "text" && a.output != "json" {
		return &statusError{StatusUsage, fmt.Errorf("--output %q: text or json", a.output)}
	}
	switch a.color {
	case "auto", "always", "never":
	default:
		return &statusError{StatusUsage, fmt.Errorf("--color %q: auto, always or never", a.color)}
	}
	if !slices.Contains(live.Ways[:], live.Way(a.memory)) {
		return &statusError{StatusUsage, fmt.Errorf("--memory %q: auto, kcore, bpf or none", a.memory)}
	}
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}
	a.begun = true
	a.log = slog.New(slog.NewTextHandler(a.streams.Err, &slog.HandlerOptions{Level: level}))
	return nil
}

// commands returns every command. Help lists them by group and name.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.reportCommand(), a.emulateCommand(), a.traceCommand(),
		a.btCommand(), a.psCommand(), a.filesCommand(), a.logCommand(), a.modsCommand(),
		a.progsCommand(), a.mapsCommand(), a.linksCommand(), a.trampolinesCommand(), a.graphCommand(),
		a.symCommand(), a.typeCommand(), a.printCommand(), a.readCommand(), a.disasmCommand(),
		a.captureCommand(),
	}
}

// gap notes that something could not be read: the answer goes on without it.
// That the kernel made and freed objects all the while is no failure.
func (a *app) gap(err error) {
	if err == nil {
		return
	}
	for _, e := range kernel.Unjoin(err) {
		if isChanged(e) {
			a.note(e.Error())
			continue
		}
		a.gaps = true
		if a.output == "json" {
			_ = a.emitJSON("error", errorData{Message: e.Error(), Status: a.statusOf(e)}) // the exit status still tells
			continue
		}
		fmt.Fprintf(a.streams.Err, "ksleuth: %s\n", oneLine(e))
	}
}

// noteData is the JSON form of a note.
type noteData struct {
	Message string `json:"message"`
}

// note says something about how an answer came about that is no error.
func (a *app) note(message string) {
	if a.output == "json" {
		_ = a.emitJSON("note", noteData{message}) // the answer does not depend on it
		return
	}
	fmt.Fprintf(a.streams.Err, "ksleuth: %s\n", oneLine(errors.New(message)))
}
