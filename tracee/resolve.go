package tracee

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
)

// A Source is where functions are looked for.
type Source struct {
	BPF bpfview.Source
	// Types are the kernel's and its modules'; if nil they are read.
	Types *ctype.Types
	// Gap, if not nil, is told what could not be read although something else
	// was found.
	Gap func(error)
}

// Options change what is found.
type Options struct {
	// Subprogs adds, of each program that was named as a whole, all functions,
	// the freplace programs that stand in for them, and the programs that it
	// can enter by tail calls; of these the same.
	Subprogs bool
	// Max is how many functions there may be; 0 is 2000.
	Max int
}

const defaultMax = 2000

// A NotFoundError says that a pattern names nothing.
type NotFoundError struct {
	Pattern string
	Text    string   // a sentence
	Near    []string // names that come near
}

// Error returns the sentence, with the names that come near.
func (e *NotFoundError) Error() string {
	if len(e.Near) == 0 {
		return e.Text
	}
	return e.Text + "; did you mean " + strings.Join(e.Near, ", ") + "?"
}

// A LimitError says that more functions were named than are wanted at once.
type LimitError struct {
	Pattern string
	N, Max  int
}

// Error says how many there are.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s names %d functions, more than the %d that are allowed: name less", e.Pattern, e.N, e.Max)
}

// A PatternError says that a pattern is not understood.
type PatternError struct {
	Pattern string
	Text    string
}

// Error returns the reason.
func (e *PatternError) Error() string { return fmt.Sprintf("%q: %s", e.Pattern, e.Text) }

// Resolve returns what patterns name, in the order of the patterns; what one
// names comes in the order in which the kernel lists it, and each function
// once. A pattern that names nothing is an error, a [*NotFoundError] if all
// could be read; too many functions are a [*LimitError].
func Resolve(ctx context.Context, src Source, patterns []string, o Options) ([]*Function, error) {
	if src.BPF.Kernel == nil && !src.BPF.Running {
		return nil, errors.New("there is no kernel to look for functions in")
	}
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	r := newResolver(ctx, src, o, patterns)
	for _, p := range patterns {
		r.pattern = p
		if err := r.resolve(p); err != nil {
			return nil, err
		}
		if r.beyond > 0 {
			return nil, &LimitError{p, r.beyond + o.Max, o.Max}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return r.out, nil
}

// A form is a way to name functions, by what stands in front of the first ":".
type form func(r *resolver, rest string) error

var forms = map[string]form{
	"prog":       (*resolver).byProgram,
	"type":       (*resolver).byType,
	"pin":        (*resolver).byPin,
	"pid":        (*resolver).byProcess,
	"link":       (*resolver).byLink,
	"map":        (*resolver).byMap,
	"tracepoint": (*resolver).byTracepoint,
	"tp":         (*resolver).byTracepoint,
}

// hooks are the kinds of links and attachments that programs are named by with
// "@".
var hooks = map[string][]string{
	"xdp":    {"xdp"},
	"tc":     {"tc", "tcx", "netkit"},
	"tcx":    {"tcx"},
	"netkit": {"netkit"},
	"cgroup": {"cgroup"},
}

// resolve adds what a pattern names.
func (r *resolver) resolve(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return &PatternError{pattern, "this is no pattern: [ is not closed, or \\ stands at its end"}
	}
	if pattern == "" {
		return &PatternError{pattern, "this names nothing"}
	}
	if head, rest, ok := strings.Cut(pattern, "@"); ok && !strings.Contains(head, ":") { // pin:/a@b is none
		kinds := hooks[head]
		if kinds == nil {
			return &PatternError{pattern, "in front of @ stands one of xdp, tc, tcx, netkit and cgroup"}
		}
		return r.byHook(head, kinds, rest)
	}
	head, rest, ok := strings.Cut(pattern, ":")
	switch {
	case !ok:
		return r.byWord(pattern)
	case rest == "":
		return &PatternError{pattern, "nothing stands behind the colon"}
	case forms[head] != nil:
		return forms[head](r, rest)
	}
	fs, err := r.kernelFunctions(head, rest)
	if err != nil {
		return err
	}
	if len(fs) == 0 {
		return r.noKernelFunction(head, rest)
	}
	r.add(fs...)
	return nil
}

// byWord resolves a word alone: see the package's comment.
func (r *resolver) byWord(word string) error {
	fs, err := r.kernelFunctions("", word)
	if err != nil {
		return err
	}
	described := len(fs) > 0 && fs[0].Proto != nil
	if described {
		r.add(fs...)
		return nil
	}
	progs, perr := r.progs()
	named := filter(progs, func(p *bpf.Program) bool { return bpf.Fits(word, p.Name) })
	if len(named) > 0 {
		return r.addPrograms(named)
	}
	if r.addSubprograms(progs, word) {
		return nil
	}
	if len(fs) > 0 {
		r.add(fs...)
		return nil
	}
	if perr != nil && !errors.Is(perr, errors.ErrUnsupported) {
		r.gap(perr)
	}
	return r.noKernelFunction("", word)
}

// add adds functions that are not there yet.
func (r *resolver) add(fs ...*Function) {
	for _, f := range fs {
		if r.there[f] {
			continue
		}
		r.there[f] = true
		if len(r.out) >= r.o.Max {
			r.beyond++
			continue
		}
		r.out = append(r.out, f)
	}
}

// notFound is the error for a pattern that names nothing. If reading failed,
// that is the reason.
func (r *resolver) notFound(err error, near []string, format string, args ...any) error {
	none := &NotFoundError{r.pattern, fmt.Sprintf(format, args...), near}
	if err != nil {
		return fmt.Errorf("%w (not all could be read: %w)", none, err)
	}
	return none
}

func (r *resolver) gap(err error) {
	if err != nil && r.src.Gap != nil {
		r.src.Gap(err)
	}
}

// isGlob reports whether a name has parts that stand for others.
func isGlob(name string) bool { return strings.ContainsAny(name, `*?[\`) }

func filter[T any](all []T, keep func(T) bool) []T {
	var out []T
	for _, v := range all {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}

// gapOnce tells of a gap that concerns many functions.
func (r *resolver) gapOnce(what string, err error) {
	if err != nil && !r.told[what] {
		r.told[what] = true
		r.gap(err)
	}
}
