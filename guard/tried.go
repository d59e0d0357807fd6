package guard

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// maxTried bounds the kernel functions that are tried: each takes the kernel a
// search through its symbols, and attaching says the same.
const maxTried = 32

// tried asks the verifier: it loads a program that does nothing for each
// function, and unloads it. That tells whether a tracing program may be traced
// here, and whether a function's type is one that trampolines know.
func (c *checker) tried() {
	if !c.src.Running {
		return
	}
	left := maxTried
	for _, f := range c.funcs {
		if f.ID == 0 || c.unable(f) || f.Module != "" && f.BTF == 0 {
			continue
		}
		if f.Prog == nil {
			if left == 0 {
				continue
			}
			left--
		}
		err := c.try(f)
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENOMEM):
			c.fail(fmt.Errorf("which functions this kernel lets be traced cannot be tried: bpf(BPF_PROG_LOAD): %w", err))
			return
		case errors.Is(err, unix.ENOENT) && lastWords(err) == "":
			c.fail(fmt.Errorf("%s is gone", f)) // its program was unloaded
		default:
			c.rejected(f, err)
		}
	}
}

func (c *checker) try(f *tracee.Function) error {
	if c.opts.Exit {
		return probe.TryReturn(f)
	}
	return probe.TryEntry(f)
}

// rejected says what the verifier said.
func (c *checker) rejected(f *tracee.Function, err error) {
	w := Warning{
		ID: Rejected, Severity: Unable,
		Title:    "the kernel's verifier accepts no tracing program for it",
		Evidence: []finding.Evidence{{Text: fmt.Sprintf("a program that does nothing was refused: %s", said(err))}},
	}
	if f.Prog != nil && f.Prog.Type == "tracing" {
		w.ID = TracingProg
		w.Title = "it is a program that itself traces: this kernel lets no other trace it"
		w.Remedy = "observe it by a hardware breakpoint"
	}
	if c.opts.Exit && c.opts.Entry {
		if probe.TryEntry(f) == nil {
			w.Title = "the kernel's verifier accepts no program for its return"
			w.Remedy = entryOnly
		}
	}
	c.warn(f, w)
}

// said is the verifier's last word, and the kernel's answer.
func said(err error) string {
	var refused *probe.LoadError
	if errors.As(err, &refused) {
		err = refused.Err
		if last := refused.Last(); last != "" {
			return fmt.Sprintf("%s (%v)", last, err)
		}
	}
	return err.Error()
}

// lastWords is what the verifier said last; "" if it was not reached.
func lastWords(err error) string {
	var refused *probe.LoadError
	if errors.As(err, &refused) {
		return refused.Last()
	}
	return ""
}
