package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/guard"
	"github.com/ksleuth/ksleuth/hwbreak"
	"github.com/ksleuth/ksleuth/knownbug"
	"github.com/ksleuth/ksleuth/pcapfilter"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/trace"
	"github.com/ksleuth/ksleuth/tracee"
)

// A tracing is one run of the command trace.
type tracing struct {
	*app
	flags *traceFlags
	src   bpfview.Source
	req   trace.Request
	plan  *trace.Plan

	warnings []guard.Warning
	pcap     *trace.PcapWriter
	text     *render.Printer // of the calls
	odd      uint64
	refused  uint64
}

// trace observes what the command line names.
func (a *app) trace(args []string, f *traceFlags) (err error) {
	if len(a.dumps) > 0 {
		return usage(errors.New("trace observes the running kernel; a dump does not run"))
	}
	t := &tracing{app: a, flags: f}
	if t.req, err = f.request(); err != nil {
		return err
	}
	if err := probe.Permitted(); err != nil {
		return err // in one line, before much else is found not to be permitted
	}
	if err := t.resolve(args); err != nil {
		return err
	}
	if err := t.guard(); err != nil {
		return err
	}
	if t.plan, err = trace.NewPlan(t.req); err != nil {
		return traceUsage(err)
	}
	if f.dryRun {
		return t.dryRun()
	}
	if len(t.plan.Config.Points) == 0 {
		return t.nothing()
	}
	return t.run()
}

// resolve finds the functions.
func (t *tracing) resolve(args []string) (err error) {
	if t.src, err = t.bpfSource(); err != nil {
		return err
	}
	src := tracee.Source{BPF: t.src, Gap: t.gap}
	if src.Types, err = src.KernelTypes(); err != nil {
		return err
	}
	t.req.Types = src.Types
	if t.req.Funcs, err = tracee.Resolve(t.ctx, src, args, tracee.Options{Subprogs: t.flags.subprogs}); err != nil {
		return traceUsage(err)
	}
	code, err := trace.ReadCode(t.ctx, t.src, t.req.Funcs)
	t.gap(err)
	t.req.Code = code
	known := make(map[probe.Mechanism]error) // asking the kernel costs
	t.req.Supports = func(m probe.Mechanism) error {
		err, ok := known[m]
		if !ok {
			err = probe.Supports(m)
			known[m] = err
		}
		return err
	}
	n, err := hwbreak.Free()
	if err != nil {
		t.log.Debug("no breakpoints", "reason", err)
	}
	t.req.Breakpoints = n
	return nil
}

// guard asks what would happen, and leaves out what must not be observed.
func (t *tracing) guard() error {
	ws, err := guard.Check(t.ctx, t.src, t.req.Funcs, guard.Options{
		Exit: true, Entry: !t.flags.exitOnly, Sample: t.sample(), MaxRate: float64(t.flags.maxRate),
	})
	if err != nil && t.ctx.Err() != nil {
		return t.ctx.Err()
	}
	t.gap(err)
	t.req.Spoils = make(map[*tracee.Function]bool)
	for i := range ws {
		w := &ws[i]
		if w.ID == guard.TailCallTrampoline && t.req.Code.Endless(w.Func) {
			w.Severity = guard.Unable
			w.Title = "on this kernel tracing it loses the tail-call count, and its tail calls can go round: nothing would end them but the end of the kernel's stack"
		}
		refused := w.Severity == guard.Unable || w.Severity == guard.Refuse && !t.flags.force
		if refused && w.Func.Refused == nil {
			w.Func.Refused = &tracee.Refusal{Reason: w.Title, Remedy: w.Remedy}
		}
		if w.ID == guard.TailCallTrampoline && !refused {
			t.req.Spoils[w.Func] = true
		}
	}
	t.warnings = ws
	return nil
}

// sample is how long it is counted how often programs run: only where there is
// someone to be told before anything is attached.
func (t *tracing) sample() time.Duration {
	if t.flags.dryRun || t.flags.maxRate > 0 {
		return 0 // the default
	}
	return -1
}

// dryRun shows what would be attached.
func (t *tracing) dryRun() error {
	if t.output == "json" {
		for _, o := range t.plan.Observed {
			if err := t.emitJSON("target", planData(o)); err != nil {
				return err
			}
		}
		return emitAll(t.app, "warning", t.telling())
	}
	p := t.printer()
	var rows []render.TracePlanRow
	for _, o := range t.plan.Observed {
		d := planData(o)
		note := d.Reason
		if d.Remedy != "" {
			note += "; " + d.Remedy
		}
		rows = append(rows, render.TracePlanRow{Function: d.Function, Kind: d.Kind, Mechanism: d.Mechanism, Note: note})
	}
	p.TracePlan(rows)
	if ws := t.telling(); len(ws) > 0 {
		p.Line("")
		p.GuardWarnings(ws, t.flags.force)
	}
	return nil
}

// targetData is the JSON form of a function that would be observed.
type targetData struct {
	Function  string `json:"function"`
	Kind      string `json:"kind"`
	Prog      int    `json:"prog_id,omitempty"`
	For       string `json:"for"`
	Mechanism string `json:"mechanism,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Remedy    string `json:"remedy,omitempty"`
}

func planData(o trace.Observed) targetData {
	d := targetData{Function: o.Func.String(), Kind: string(o.Func.Kind), For: string(o.Role), Mechanism: string(o.Mechanism)}
	if o.Func.Prog != nil {
		d.Prog = o.Func.Prog.ID
	}
	switch {
	case o.Mechanism != "":
	case o.Err != nil:
		d.Reason = o.Err.Error()
	case o.Refused != nil:
		d.Reason, d.Remedy = o.Refused.Reason, o.Refused.Remedy
	}
	return d
}

// nothing says why there is nothing left to observe.
func (t *tracing) nothing() error {
	t.tellWarnings()
	var why []string
	for _, o := range t.plan.Refused() {
		if d := planData(o); d.Reason != "" && !slices.Contains(why, d.Reason) {
			why = append(why, d.Reason)
		}
	}
	text := "none of what was named can be observed"
	if len(t.plan.Observed) == 1 {
		text = fmt.Sprintf("%v cannot be observed", t.plan.Observed[0].Func)
	}
	switch {
	case t.warned(guard.Refuse):
		return &statusError{StatusFault, errors.New(text + "; --force attaches all the same")}
	case t.warned(guard.Unable): // why has been told
		return &statusError{StatusUnsupported, errors.New(text)}
	}
	return &statusError{StatusUnsupported, fmt.Errorf("%s: %s", text, strings.Join(why, "; "))}
}

// warned reports whether there is a warning so severe.
func (t *tracing) warned(s guard.Severity) bool {
	return slices.ContainsFunc(t.warnings, func(w guard.Warning) bool { return w.Severity == s })
}

// telling are the warnings that are to be told: what only concerns functions
// that a breakpoint sees is not.
func (t *tracing) telling() []guard.Warning {
	return slices.DeleteFunc(slices.Clone(t.warnings), func(w guard.Warning) bool {
		return w.Severity == guard.Unseen && t.watched(w.Func)
	})
}

// tellWarnings says what is to be known before.
func (t *tracing) tellWarnings() {
	told := t.telling()
	if t.output == "json" {
		_ = emitAll(t.app, "warning", told)
		return
	}
	t.errPrinter().GuardWarnings(told, t.flags.force)
}

// watched reports whether a breakpoint sees a program being entered.
func (t *tracing) watched(f *tracee.Function) bool {
	return slices.ContainsFunc(t.plan.Observed, func(o trace.Observed) bool {
		return o.Func == f && o.Role == trace.Jumped && o.Mechanism != ""
	})
}

// errPrinter prints to standard error: what is said about the observation.
func (t *tracing) errPrinter() *render.Printer {
	return render.NewPrinter(t.streams.Err, render.Options{Color: t.useColor(t.streams.Err)})
}

// run observes until Ctrl-C or a limit.
func (t *tracing) run() (err error) {
	if t.flags.pcap != "" {
		if t.pcap, err = trace.CreatePcap(t.flags.pcap); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.pcap.Close()) }()
	}
	s, err := trace.Start(t.ctx, t.plan, trace.Setting{
		Types: t.req.Types, Symbol: t.symbolizer(), Why: t.why,
		Limits: trace.Limits{Time: t.flags.during, Calls: t.flags.calls, MaxRate: t.flags.maxRate},
	})
	if err != nil {
		return err
	}
	t.stream()
	t.text = t.printer()
	t.tellWarnings()
	t.begun(s)
	sum, err := s.Run(t.ctx, trace.Sink{Call: t.call, Note: t.note, Idle: t.out.Flush})
	return errors.Join(t.end(sum), err)
}

// beginData is the JSON form of what is observed, once it is.
type beginData struct {
	Functions []string `json:"functions"`
}

// begun says what is observed, and what of that was named is not.
func (t *tracing) begun(s *trace.Session) {
	failed := make(map[int]error)
	for _, f := range s.Failed() {
		failed[f.Point] = f.Err
	}
	var names []string
	left := 0
	for _, o := range t.plan.Observed {
		err := failed[o.Point]
		switch {
		case o.Role != trace.Called:
		case o.Mechanism != "" && err == nil:
			names = append(names, o.Func.String())
		case o.Mechanism != "":
			t.note(fmt.Sprintf("%v is not observed: %v", o.Func, err))
		case o.Err != nil:
			left++
			t.log.Debug("not observed", "function", o.Func.String(), "reason", o.Err)
		}
	}
	if left > 0 {
		t.note(fmt.Sprintf("what is filtered by or shown does not fit %d of the functions, which are not observed; --dry-run says why", left))
	}
	if t.output == "json" {
		_ = t.emitJSON("begin", beginData{names}) // programs wait for it
		_ = t.out.Flush()
		return
	}
	if !t.flags.force && t.warned(guard.Refuse) {
		t.errPrinter().TracedInstead(names)
		return
	}
	const shown = 6
	text := strings.Join(names[:min(len(names), shown)], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	fmt.Fprintf(t.streams.Err, "tracing %s; Ctrl-C ends\n", text)
}

// symbolizer names addresses of stacks and pointers to code.
func (t *tracing) symbolizer() func(uint64) (string, uint64, bool) {
	if t.kernel != nil {
		t.kernel.Refresh() // there are new trampolines
		return func(addr uint64) (string, uint64, bool) {
			s, off, ok := t.kernel.Symbolize(addr)
			return s.Name, off, ok
		}
	}
	return nil
}

// why says of a refused tail call what the guard knows of the machine code.
func (t *tracing) why(f *tracee.Function, rax uint64, seen bool) *trace.Refusal {
	i := slices.IndexFunc(t.warnings, func(w guard.Warning) bool {
		return w.Func == f && w.ID == guard.TailCallTrampoline && !w.Undecided
	})
	if i < 0 {
		return nil
	}
	r := &trace.Refusal{}
	if n, ok := t.req.Code.Count(f, rax); ok && seen {
		r.Proven = n > trace.MaxTailCalls
		r.Evidence = append(r.Evidence, fmt.Sprintf("the trampoline entered %s with %#x in rax, which it takes for %d tail calls made before; the limit is %d", f.Name, rax, n, trace.MaxTailCalls))
	}
	bug, _ := knownbug.Get(guard.TailCallTrampoline)
	r.Evidence = append(r.Evidence, fmt.Sprintf("this kernel's trampolines lose the tail-call count: %s, %s", bug.ID, bug.FixedBy()))
	return r
}

// call tells a call.
func (t *tracing) call(c *trace.Call) error {
	t.tally(c)
	if t.pcap != nil {
		if p := c.FirstPacket(); p != nil {
			if err := t.pcap.Write(p, c.Time, c.VerdictPath()); err != nil {
				return err
			}
		}
	}
	if t.output == "json" {
		return t.emitJSON("call", c)
	}
	t.text.TraceCall(c, render.TraceOptions{Flat: t.flags.flat || t.flags.exitOnly})
	return nil
}

func (t *tracing) tally(c *trace.Call) {
	if c.Return != nil && c.Return.Odd {
		t.odd++
	}
	if c.Refused != nil {
		t.refused++
	}
	for _, k := range c.Calls {
		t.tally(k)
	}
}

// end tells what the session came to.
func (t *tracing) end(sum *trace.Summary) error {
	if sum == nil {
		return nil
	}
	if t.output == "json" {
		for _, err := range []error{
			emitAll(t.app, "count", sum.Counts), emitAll(t.app, "hist", sum.Hists),
			emitAll(t.app, "lost", sum.Lost), t.emitJSON("summary", sum),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	}
	p := t.printer()
	if len(sum.Counts) > 0 {
		p.TraceCounts(sum.Counts)
	}
	for i, h := range sum.Hists {
		if i > 0 {
			p.Line("")
		}
		p.TraceHistogram(h)
	}
	if err := t.out.Flush(); err != nil {
		return err
	}
	e := t.errPrinter()
	lost := make(map[int]uint64)
	for _, l := range sum.Lost {
		lost[l.CPU] = l.Buffer
	}
	e.TraceLost(lost)
	if sum.Missed > 0 {
		t.note(fmt.Sprintf("%d calls were not seen: the kernel left their programs out, as they were running on the CPU already", sum.Missed))
	}
	e.TraceEnd(t.summary(sum))
	return nil
}

func (t *tracing) summary(sum *trace.Summary) render.TraceSummary {
	out := render.TraceSummary{
		Calls: uint64(sum.Calls), Elapsed: time.Duration(sum.Seconds * float64(time.Second)), Odd: t.odd, Refused: t.refused,
	}
	for _, c := range sum.Counts {
		out.Calls += c.Count
	}
	for _, h := range sum.Hists {
		for _, b := range h.Buckets {
			out.Calls += b.Count
		}
	}
	if sum.Calls > 0 && sum.Runs > 0 {
		out.Cost = float64(sum.RunTime) / float64(sum.Runs)
	}
	return out
}

// traceUsage marks the error of a search for what the command line names.
func traceUsage(err error) error {
	var none *tracee.NotFoundError
	var pattern *tracee.PatternError
	var many *tracee.LimitError
	var filter *pcapfilter.Error
	var packet *trace.NoPacketError
	if errors.As(err, &none) || errors.As(err, &pattern) || errors.As(err, &many) || errors.As(err, &filter) || errors.As(err, &packet) || errors.Is(err, ctype.ErrNotFound) {
		return usage(err)
	}
	return asked(err)
}

// stream makes what is written appear at once: no pager, no line of progress.
func (a *app) stream() {
	if a.wait != nil {
		a.wait.stop()
		a.wait = nil
	}
	_ = a.out.Flush() // what JSON has so far; text has nothing yet
	a.pager = nil
	a.out.Reset(a.streams.Out)
}
