package guard

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/knownbug"
	"github.com/ksleuth/ksleuth/tracee"
)

// A verdict says whether the kernel's trampolines hand the tail-call count on.
type verdict struct {
	keeps    bool
	err      error // it cannot be told
	evidence []finding.Evidence
	lost     loss
	// entryKeeps: trampolines that only run a program at the entry do,
	// although those that will be used do not.
	entryKeeps bool
}

// tailCalls warns of functions to which rax is handed with a tail-call count,
// on kernels whose trampolines do not hand it on.
func (c *checker) tailCalls() {
	var v *verdict
	for _, f := range c.funcs {
		if f.Prog == nil || f.Prog.TailCall != nil && !*f.Prog.TailCall {
			continue
		}
		p, err := c.prologue(f)
		if err == nil && (p.CountBy == jit.CountNone || p.Resets) {
			continue
		}
		if v == nil {
			v = c.keepsTailCalls()
		}
		switch {
		case v.err == nil && v.keeps:
			continue
		case err != nil || v.err != nil:
			c.undecided(f, errors.Join(err, v.err))
		default:
			c.losesTailCalls(f, p, v)
		}
	}
}

// prologue reads the entry of a function of a program.
func (c *checker) prologue(f *tracee.Function) (jit.Prologue, error) {
	const enough = 160 // bytes, more than any prologue
	b, err := c.code(f, enough)
	if err != nil {
		return jit.Prologue{}, fmt.Errorf("the machine code of %s cannot be read: %w", f.Name, err)
	}
	p, ok := jit.ReadPrologue(b, uint64(f.Addr))
	if !ok {
		return jit.Prologue{}, fmt.Errorf("the machine code of %s does not begin as that of BPF programs", f.Name)
	}
	return p, nil
}

func (c *checker) undecided(f *tracee.Function, err error) {
	c.warn(f, Warning{
		ID: TailCallTrampoline, Severity: Refuse, Undecided: true,
		Title:  "tracing it may change its result: it may make tail calls, and whether this kernel's trampolines keep the tail-call count cannot be told here, because " + because(err),
		Remedy: "observe it where the kernel's memory can be read (/proc/kcore), or a function that makes no tail calls",
	})
}

// because is an error's text in one line.
func because(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (c *checker) losesTailCalls(f *tracee.Function, p jit.Prologue, v *verdict) {
	evidence := []finding.Evidence{c.takes(f, p)}
	evidence = append(evidence, v.evidence...)
	evidence = append(evidence, finding.Evidence{Text: v.lost.consequence(f.Name, p.CountBy)})
	if tr := c.tramps.on(f); tr != nil && tr.Original && tr.KeepsTailCalls != nil && !*tr.KeepsTailCalls {
		evidence = append(evidence, finding.Evidence{Text: "a trampoline is on it now: it has this effect already, by " + programs(tr), Addr: tr.Image})
	}
	if b, ok := knownbug.Get(knownbug.TailCallTrampoline); ok {
		evidence = append(evidence, finding.Evidence{Text: fmt.Sprintf("known as %s, %s", b.ID, b.FixedBy())})
	}
	w := Warning{
		ID: TailCallTrampoline, Severity: Refuse, Evidence: evidence,
		Title:  "on this kernel tracing it would change its result",
		Remedy: "observe what it is called by and what it tail-calls instead, or use a kernel with the fix",
	}
	if v.entryKeeps {
		w.Remedy = "observe its entry alone (fentry), which does no harm here; " + w.Remedy
	}
	c.warn(f, w)
}

// takes shows that a function is handed a count.
func (c *checker) takes(f *tracee.Function, p jit.Prologue) finding.Evidence {
	return finding.Evidence{
		Text: fmt.Sprintf("it makes tail calls, or what it calls does: it takes the tail-call count from its caller in rax (%s, kept at %s)", countKinds[p.CountBy], slot(p.CountSlot)),
		Addr: f.Addr, Symbol: f.Name,
	}
}

var countKinds = map[jit.CountBy]string{jit.CountValue: "by value", jit.CountPointer: "by a pointer to it"}

func slot(off int) string {
	if off < 0 {
		return fmt.Sprintf("rbp-%#x", -off)
	}
	return fmt.Sprintf("rbp+%#x", off)
}

// A loss is what stands in rax in place of the count.
type loss struct {
	function string // that changed rax last; "" if unknown
	rax      string // what it leaves
	pointer  bool   // it is like an address: a count that is too high
}

// losses are what the functions that trampolines call leave in rax. Their
// results do not matter to the kernel: it is what they computed last.
var losses = []struct {
	prefix, rax string
	pointer     bool
}{
	{"__bpf_tramp_enter", "leaves a per-CPU pointer in rax", true}, // percpu_ref_get
	{"__bpf_prog_exit", "leaves in rax what the traced program returned, 0, or while run statistics are on a time", false},
}

func lossBy(function string) loss {
	for _, l := range losses {
		if strings.HasPrefix(function, l.prefix) {
			return loss{function, l.rax, l.pointer}
		}
	}
	return loss{function: function, rax: "leaves in rax what it computed last"}
}

// consequence says in plain words what becomes of a function.
func (l loss) consequence(name string, by jit.CountBy) string {
	switch {
	case by == jit.CountPointer:
		return fmt.Sprintf("%s would take what is in rax for a pointer to the count, and write there: the kernel may crash", name)
	case l.pointer:
		return fmt.Sprintf("with a pointer in rax %s can see a count above the limit, skip its tail calls and go on to its default result", name)
	}
	return fmt.Sprintf("with 0 in rax every call of %s starts to count again, and nothing ends a chain of tail calls through it; with anything high in rax its tail calls are skipped", name)
}

// evidenceOf are the instructions of a trampoline that tell whether it keeps
// the count, given the image.
func (c *checker) evidenceOf(code jit.TrampolineCode, image []byte, at uint64) ([]finding.Evidence, loss) {
	var out []finding.Evidence
	var l loss
	for i, addr := range code.EvidenceAt {
		in, sym := c.insn(image, at, addr)
		in.Symbol = sym
		last := i == len(code.EvidenceAt)-1
		switch {
		case *code.KeepsTailCalls:
			in.Text = [...]string{"rax saved", "rax restored", "on to the function"}[min(i, 2)]
		case last:
			in.Text = "on to the function: rax not restored"
		default:
			l = lossBy(c.callee(image, at, addr))
			in.Text = l.rax
		}
		out = append(out, in)
	}
	return out, l
}
