package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/culprit"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/stack"
)

// Bounds of what a report runs again.
const (
	againSteps   = 5e6
	againTime    = 10 * time.Second
	againHistory = 2 << 20
)

// ErrNoCrash says that no task of a kernel crashed.
var ErrNoCrash = errors.New("no task of this kernel crashed: name one whose stack is meant")

// CrashStack returns the task that crashed and its stack as a report shows it:
// from the code at fault outwards. Without one the error is ErrNoCrash.
func CrashStack(k *kernel.Kernel) (kobj.Task, stack.Stack, error) {
	t, ok, err := Panicked(k)
	if err != nil {
		return t, stack.Stack{}, fmt.Errorf("the task that panicked: %w", err)
	}
	if !ok {
		return t, stack.Stack{}, ErrNoCrash
	}
	c := crash{task: t, stack: stack.Of(k, t)}
	c.locate()
	st := c.stack
	if c.first >= len(st.Frames) {
		return t, st, fmt.Errorf("the stack of the task that panicked: %w", cmp.Or(st.End, error(ErrNoCrash)))
	}
	st.Frames = st.Frames[c.first:]
	return t, st, nil
}

// again runs again, offline, what led to a fault of memory, and looks for the
// store that overwrote what a register had been saved in, or else where the
// address came from. The error says how far the evidence reaches.
func (b *builder) again(ctx context.Context, c crash) (*culprit.Culprit, *culprit.Origin, error) {
	if c.regs == nil || b.r.Fault == nil {
		return nil, nil, nil
	}
	if c.lockup != "" {
		return nil, nil, b.goOn(ctx, c)
	}
	switch b.r.Fault.Kind {
	case "page fault", "general protection fault", "stack segment fault", "double fault":
	default:
		return nil, nil, nil
	}
	s, err := b.session(c)
	if err != nil {
		return nil, nil, err
	}
	st := c.stack
	st.Frames = st.Frames[c.first:]
	return culprit.New(s).Trace(ctx, culprit.Crash{Task: c.task, Stack: st, RIP: c.regs.RIP, RSP: c.regs.RSP, Addr: uint64(b.r.Fault.Addr)})
}

func (b *builder) session(c crash) (*rerun.Session, error) {
	return rerun.New(b.k, rerun.Options{
		CPU: c.task.CPU, Task: uint64(c.task.Addr),
		Limits: emulate.Options{Steps: againSteps, Time: againTime, History: againHistory},
	})
}

// goOn runs on, offline, from where a watchdog found a CPU: an endless loop is
// shown to be one, with what keeps it going.
func (b *builder) goOn(ctx context.Context, c crash) error {
	s, err := b.session(c)
	if err != nil {
		return err
	}
	r, err := s.Resume(ctx, *c.regs, nil)
	if err != nil || r.Stop.Outcome != emulate.Looped || b.r.Cause == nil {
		return err
	}
	b.r.Cause.Evidence = append(b.r.Cause.Evidence, finding.Evidence{
		Text: "run on offline from there, it does not get away by itself: " + r.StopText(), Addr: mem.Addr(r.Stop.RIP),
	})
	why, _, err := s.Why(nil, r, func(obs emulate.Observer) error {
		_, err := s.Resume(ctx, *c.regs, func(m *emulate.Machine) { m.Observer = obs })
		return err
	})
	const most = 4
	for _, w := range why[:min(most, len(why))] {
		b.r.Cause.Evidence = append(b.r.Cause.Evidence, finding.Evidence{Text: "in the loop: " + w.Text, Addr: w.Addr, Symbol: w.Symbol, Insn: w.Insn})
	}
	return err
}

// culprit makes the store that was found the cause of the crash. What is
// known of the damage without it stands first.
func (b *builder) culprit(cu *culprit.Culprit) {
	saved := b.savedName(cu)
	f := &finding.Finding{
		Title: "saved register overwritten", Certainty: finding.Proven,
		Text: fmt.Sprintf("%s() overwrote %s that %s() had saved.", function(cu.Store.Symbol), saved, function(cu.Saved.Symbol)),
	}
	if old := b.r.Cause; old != nil && strings.Contains(old.Title, "overwritten") {
		f.Title = old.Title // the same bug has the same fingerprint
	}
	got := word(uint64(cu.Value))
	p := patch{cu.First, cu.Len, got[cu.First : cu.First+cu.Len]}
	f.Evidence = append(f.Evidence, finding.Evidence{
		Text: fmt.Sprintf("%s is %x; %s() had saved %x: %s", cu.Register, uint64(cu.Value), function(cu.Saved.Symbol), uint64(cu.SavedValue), p),
		Addr: cu.Cell, Bytes: fmt.Sprintf("% x", got),
	}, finding.Evidence{
		Text: fmt.Sprintf("run again offline from the beginning of %s(), it comes to the same fault after %d instructions, and one store reaches that cell: %s",
			function(cu.Began.Symbol), cu.Insns, storeText(cu)),
		Addr: cu.Store.Addr, Symbol: cu.Store.Symbol, Bytes: cu.Store.Bytes, Insn: cu.Store.Insn,
	})
	if e, ok := pointerText(cu.Pointer); ok {
		f.Evidence = append(f.Evidence, e)
	}
	if k, ok := knownBug(cu); ok {
		f.Evidence = append(f.Evidence, finding.Evidence{Text: k.String()})
		b.r.Known = &k
	}
	f.Evidence = append(f.Evidence, finding.Evidence{
		Text: "the crash is only where the damage was next used", Addr: cu.Fault.Addr,
	})
	b.r.Cause, b.r.Overwrite, b.r.Missing = f, cu, ""
	if cu.Stack.Frames != nil {
		b.r.Frames, b.r.StackEnd = cu.Stack.Frames, ""
		b.r.Task.Syscall = b.syscall(cu.Stack)
	}
}

// origin adds where the address came from.
func (b *builder) origin(o *culprit.Origin) {
	b.r.Missing = ""
	last := o.Why[len(o.Why)-1]
	b.r.Origin = o
	b.r.Cause.Evidence = append(b.r.Cause.Evidence, finding.Evidence{
		Text: fmt.Sprintf("run again offline from the beginning of %s(), it comes to the same fault: %s", function(o.Began.Symbol), last.Text),
		Addr: last.Addr, Symbol: last.Symbol, Insn: last.Insn,
	})
}

// storeText says what the store stored.
func storeText(cu *culprit.Culprit) string {
	n := len(cu.Store.Bytes) / 2
	v := fmt.Sprintf("%#x", uint64(cu.Store.Value))
	p := patch{0, n, word(uint64(cu.Store.Value))[:min(n, 8)]}
	if e, ok := p.errno(); ok {
		v = errnoText(e)
	}
	if cu.Store.Name != "" {
		return fmt.Sprintf("%s = %s, %d bytes", cu.Store.Name, v, n)
	}
	return fmt.Sprintf("%s, %d bytes at %s", v, n, cu.Store.To)
}

// pointerText says through which argument the store went, and who passed it.
func pointerText(p *culprit.Pointer) (finding.Evidence, bool) {
	if p == nil || p.Owner == "" {
		return finding.Evidence{}, false
	}
	name := p.Name
	if name == "" {
		name = "the pointer"
	}
	text := fmt.Sprintf("%s points into the frame of %s()", name, p.Owner)
	if p.Below > 0 {
		text = fmt.Sprintf("%s is %s()'s own memory, %s below its frame pointer", name, p.Owner, bytesText(p.Below))
	}
	e := finding.Evidence{Text: text, Addr: p.Value}
	if p.Passed == nil {
		return e, true
	}
	by := function(p.Passed.Symbol) + "()"
	if p.Passed.Source != "" {
		by += " (" + p.Passed.Source + ")"
	}
	e.Text += "; passed by " + by
	if p.Size != nil {
		e.Text += fmt.Sprintf(" with %s = %d", p.Size.Name, uint64(p.Size.Value))
	}
	return e, true
}

func bytesText(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

// function removes the offset, and the module, from function+0xoffset [module].
func function(symbol string) string {
	name, _, _ := strings.Cut(symbol, " ")
	name, _, _ = strings.Cut(name, "+")
	return name
}

// savedName says what was saved. Only BPF code keeps frame pointers: in the
// kernel's own rbp is a register like the others.
func (b *builder) savedName(cu *culprit.Culprit) string {
	reg := cu.SavedReg
	switch {
	case cu.Register == "rip":
		return "the return address"
	case reg == "rbp" && b.generated(cu.SavedFor):
		return "the frame pointer"
	case reg == "":
		reg = cu.Register
	}
	return fmt.Sprintf("%s()'s %s", b.name(cu.SavedFor), reg)
}

// generated says whether the code at addr is BPF's.
func (b *builder) generated(addr mem.Addr) bool {
	s, _, ok := b.k.Symbolize(uint64(addr))
	return ok && s.Kind == kernel.KindBPF
}

// name names the function at addr as its source does.
func (b *builder) name(addr mem.Addr) string { return stack.At(b.k, uint64(addr)).Symbol }
