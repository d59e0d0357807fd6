package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/vmcore"
)

// maxCapture bounds the pages of a captured dump: 1 GiB.
const maxCapture = 1 << 18

type captureData struct {
	File     string   `json:"file"`
	Pages    int      `json:"pages"`
	Bytes    int64    `json:"bytes"`
	Commands []string `json:"commands"`
}

func (a *app) captureCommand() *cobra.Command {
	var commands []string
	c := &cobra.Command{
		Use:     "capture OUT",
		Short:   "Write a small standard dump",
		GroupID: groupInspect,
		Long: `Capture writes a kdump-compressed file with just the pages that some commands
read, so that they answer the same from it: small enough to attach to a bug
report. crash and makedumpfile can open it; what it leaves out is marked as
excluded. Without --for it holds what report reads. A dump can hold secrets: the
file is readable by its owner alone. Of the running kernel, for which --for must be
given, it holds the pages as they were when they were read, one after the other.`,
		Example: `  ksleuth -t vmcore capture small.kdump
  ksleuth capture small.kdump --for 'bt 1'
  ksleuth -t vmcore capture small.kdump --for report --for 'bt all' --for 'files 1'`,
		Args: exactly(1, "the file to write"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(commands) == 0 && len(a.dumps) == 0 {
				return usage(errors.New("of the running kernel, say what the dump is for: --for 'bt 1'"))
			}
			if len(commands) == 0 {
				commands = []string{"report"}
			}
			return a.capture(c.Context(), args[0], commands)
		},
	}
	c.Flags().StringArrayVar(&commands, "for", nil, "a `COMMAND` whose answer the dump must hold; repeatable (default report)")
	return c
}

// capture runs commands over a recorder, and writes the pages they read.
func (a *app) capture(ctx context.Context, out string, commands []string) error {
	src, err := a.openTarget()
	if err != nil {
		return err
	}
	rec := vmcore.NewRecorder(src, maxCapture)
	for _, command := range commands {
		args, err := splitArgs(command)
		if err != nil {
			return usage(fmt.Errorf("--for %q: %w", command, err))
		}
		if err := a.rehearse(ctx, recorded{rec, src}, args); err != nil {
			return fmt.Errorf("--for %q: %w", command, err)
		}
	}
	pfns, complete := rec.Pages()
	if !complete {
		return fmt.Errorf("these commands read more than %d MiB", maxCapture>>8)
	}
	w, err := writeDump(ctx, out, src, pfns)
	if err != nil {
		return err
	}
	d := captureData{File: out, Pages: w.Pages, Bytes: w.Bytes, Commands: commands}
	return a.emit("capture", d, func(p *render.Printer) {
		p.Line(fmt.Sprintf("%s: %d pages, %.1f MiB", d.File, d.Pages, float64(d.Bytes)/(1<<20)))
	})
}

// recorded is a target whose physical memory is read through a recorder.
type recorded struct {
	rec *vmcore.Recorder
	target
}

// ReadMem implements [mem.Reader].
func (r recorded) ReadMem(p []byte, addr uint64) error { return r.rec.ReadMem(p, addr) }

// Live reports whether two reads can differ. There is no Refresh: what a
// capture of the running kernel holds is of as few moments as possible.
func (r recorded) Live() bool {
	l, ok := r.target.(interface{ Live() bool })
	return ok && l.Live()
}

// rehearse runs a command for the sake of what it reads. That something cannot
// be read does not matter: the copy will say the same.
func (a *app) rehearse(ctx context.Context, src recorded, args []string) error {
	k, err := kernel.FromSource(ctx, src)
	if err != nil {
		return err
	}
	sub := newApp(ctx, Streams{In: a.streams.In, Out: io.Discard, Err: io.Discard})
	sub.core, sub.live, sub.kernel = a.core, a.live, k
	if err := sub.execute(args); err != nil && statusOf(err) == StatusUsage {
		return err
	}
	return nil
}

// writeDump writes a copy of some pages to a new file, under its name only
// when it is complete.
func writeDump(ctx context.Context, out string, src target, pfns []uint64) (w vmcore.Written, err error) {
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*") // mode 0600
	if err != nil {
		return w, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w, err = vmcore.Write(ctx, f, src, pfns, src.Meta())
	if err = errors.Join(err, f.Close()); err != nil {
		return w, err
	}
	return w, os.Rename(f.Name(), out)
}

// splitArgs splits a command line as a shell does, with single and double
// quotes and backslashes and nothing else.
func splitArgs(s string) ([]string, error) {
	var out []string
	var word []byte
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			word, in = append(word, s[i]), true
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				out = append(out, string(word))
			}
			word, in = nil, false
		default:
			word, in = append(word, c), true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c is not closed", quote)
	}
	if in {
		out = append(out, string(word))
	}
	if len(out) == 0 {
		return nil, errors.New("no command")
	}
	return out, nil
}
