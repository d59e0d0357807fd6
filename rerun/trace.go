package rerun

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/typeflow"
	"github.com/ksleuth/ksleuth/x86"
)

// The kinds of traces.
const (
	TraceCalls = "calls" // calls and returns, with arguments and results
	TraceLoads = "loads" // what was read and written, by name; and the calls
	TraceInsns = "insns" // every instruction, with what its operands were
)

// DefaultTraceLimit is how many lines a trace has if no limit is given.
const DefaultTraceLimit = 10000

// A Tracer makes the lines of a trace. It is an [emulate.Observer] of one run.
type Tracer struct {
	*typeflow.Flow
	s     *Session
	kind  string
	limit int
	lines []Line
	gap   uint64
	stub  string // that is about to run
}

// NewTracer makes a tracer of a kind for a run of a target; t is nil for a run
// from registers. Of limit 0 it has DefaultTraceLimit lines.
func (s *Session) NewTracer(t *Target, kind string, limit int) (*Tracer, error) {
	f, err := s.Flow(t)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = DefaultTraceLimit
	}
	tr := &Tracer{Flow: f, s: s, kind: kind, limit: limit, lines: []Line{}}
	switch kind {
	case TraceCalls, TraceLoads:
	case TraceInsns:
		f.Each = tr.insn
	default:
		return nil, fmt.Errorf("no trace of %q: there are %s, %s and %s", kind, TraceCalls, TraceLoads, TraceInsns)
	}
	f.On = tr.event
	return tr, nil
}

// Lines returns the trace after the run, and how many lines are left out beyond
// the limit.
func (tr *Tracer) Lines() ([]Line, uint64) {
	tr.Finish()
	return tr.lines, tr.gap
}

// Stub implements [emulate.Observer].
func (tr *Tracer) Stub(m *emulate.Machine, s *emulate.Stub) {
	tr.stub = s.Name
	tr.Flow.Stub(m, s)
}

// room says whether there is room for one more line, and counts those for which
// there is none.
func (tr *Tracer) room() bool {
	if len(tr.lines) < tr.limit {
		return true
	}
	tr.gap++
	return false
}

func (tr *Tracer) add(step uint64, depth int, kind string, at uint64, text string) {
	l := Line{Step: step, Depth: depth, Kind: kind, Text: text}
	if kind == "insn" || kind == "load" || kind == "store" {
		l.Place = tr.s.Place(at)
	} else {
		l.Place = Place{Addr: mem.Addr(at), Symbol: tr.s.Name(at)}
	}
	tr.lines = append(tr.lines, l)
}

func (tr *Tracer) event(e *typeflow.Event) {
	switch e.Kind {
	case typeflow.Call:
		if tr.room() {
			kind := "call"
			if tr.stub != "" {
				kind, tr.stub = "stub", ""
			}
			tr.add(e.Step, e.Frame.Depth, kind, e.Frame.Entry, tr.call(e.Frame))
		}
	case typeflow.Return:
		if tr.room() {
			tr.add(e.Step, e.Frame.Depth, "return", e.Frame.Entry, tr.result(e))
		}
	case typeflow.Load, typeflow.Store:
		if tr.kind == TraceLoads && !e.Stack && e.Inst != nil && tr.room() {
			kind := "load"
			if e.Kind == typeflow.Store {
				kind = "store"
			}
			tr.add(e.Step, e.Frame.Depth, kind, e.Inst.Addr, tr.access(e))
		}
	}
}

// call words the call of a function: each parameter with what was passed for
// it, by the caller's names.
func (tr *Tracer) call(fr *typeflow.Frame) string {
	name := fr.Func.Name
	if name == "" || !fr.Func.Exact {
		name = tr.s.Name(fr.Entry)
	}
	if fr.Func.Proto == nil || !fr.Func.Exact {
		return name + "(...)"
	}
	var args []string
	params := fr.Func.Proto.Params()
	for i, a := range fr.Args {
		if i >= len(params) {
			break
		}
		s := tr.FormatAs(params[i].Type, a.Val, a.Size)
		if from := tr.Name(a, fr.Parent()); from != "" && from != params[i].Name && fr.Parent() != nil {
			s = from + " (" + s + ")"
		}
		if params[i].Name != "" {
			s = params[i].Name + " = " + s
		}
		args = append(args, s)
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

// result words what a function returned.
func (tr *Tracer) result(e *typeflow.Event) string {
	fr := e.Frame
	name := fr.Func.Name
	if name == "" || !fr.Func.Exact {
		name = tr.s.Name(fr.Entry)
	}
	v := e.Value
	if v.Size == 0 { // void
		return name + " returns"
	}
	s := name + " = " + tr.FormatResult(v.Type, v.Val, v.Size)
	if from := tr.Name(v, fr); from != "" {
		s += "  " + from
	}
	return s
}

// access words a load or a store.
func (tr *Tracer) access(e *typeflow.Event) string {
	name := tr.Write(e.Place, e.Frame)
	if name == "" {
		name = fmt.Sprintf("*(%s *)%#x", wordName(e.Size), e.Addr)
	}
	s := name + " = " + tr.Format(e.Value)
	if e.Kind == typeflow.Store {
		if from := tr.Name(e.Value, e.Frame); from != "" && from != name {
			s += "  " + from
		}
	}
	return s
}

func wordName(size uint8) string {
	switch size {
	case 1:
		return "u8"
	case 2:
		return "u16"
	case 4:
		return "u32"
	}
	return "u64"
}

// insn words an instruction that is about to be executed, with what its operands
// hold.
func (tr *Tracer) insn(_ *emulate.Machine, in *x86.Inst) {
	fr := tr.Frame()
	if !tr.room() {
		return
	}
	var parts []string
	for i := range in.Args[:in.NArgs] {
		a := &in.Args[i]
		if a.Kind == x86.KindImm || a.Kind == x86.KindRel || a.Access == 0 || a.Size == 0 || a.Size > 8 {
			continue
		}
		if a.Access == x86.Write && a.Kind == x86.KindReg || i > 0 && *a == in.Args[0] {
			continue // test %rax,%rax says it once
		}
		if in.Op == x86.XOR && in.NArgs == 2 && in.Args[0] == in.Args[1] {
			continue
		}
		v := tr.Arg(i)
		s := tr.Format(v)
		if name := tr.Name(v, fr); name != "" {
			s = name + " = " + s
		}
		if i == 0 && in.NArgs > 1 && a.Access == x86.Write {
			s = "was " + s
		}
		parts = append(parts, s)
	}
	tr.add(tr.Step(), fr.Depth, "insn", in.Addr, strings.Join(parts, "; "))
}
