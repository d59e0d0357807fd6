package rerun

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/typeflow"
)

// maxLoopReasons are as many as are shown of one time around a loop.
const maxLoopReasons = 16

// whyLoop says what keeps an endless loop going: the conditions that are decided
// in it, and what the functions that it calls return, of one time around, in the
// function that all of it stands in.
func (s *Session) whyLoop(t *Target, r *Result, again replay) ([]Reason, string, error) {
	flow, err := s.Flow(t)
	if err != nil {
		return nil, "", err
	}
	l := &loopWatcher{outside: typeflow.Frame{Depth: -1}, tr: &Tracer{Flow: flow, s: s}, from: r.Stop.Loop.Step, to: r.Stop.Loop.Step + r.Stop.Loop.Period}
	l.w = &whyer{s: s, flow: flow}
	flow.On = l.event
	if err := again(flow); err != nil && !errors.Is(err, r.Stop.Err) {
		return nil, "", fmt.Errorf("the run could not be repeated: %w", err)
	}
	l.out = l.told()
	gap := ""
	if n := len(l.out) - maxLoopReasons; n > 0 {
		gap = number(n, "more condition") + " in the loop"
		l.out = l.out[:maxLoopReasons]
	}
	return l.out, gap, nil
}

// A loopWatcher collects what is decided in the outermost function of a part of a run.
type loopWatcher struct {
	tr       *Tracer // words calls
	w        *whyer  // words conditions
	from, to uint64
	depth    int // of that function
	begun    bool
	outside  typeflow.Frame // of a function that the run did not begin in
	out      []Reason
}

func (l *loopWatcher) event(e *typeflow.Event) {
	if e.Step < l.from || e.Step >= l.to {
		return
	}
	frame := e.Frame
	if frame == nil {
		frame = &l.outside
	}
	depth := frame.Depth
	switch e.Kind {
	case typeflow.Return:
		depth-- // it was left: the caller goes on
	case typeflow.Branch:
	default:
		return
	}
	if !l.begun || depth < l.depth {
		l.begun, l.depth, l.out = true, depth, nil
	}
	if depth != l.depth {
		return
	}
	if e.Kind == typeflow.Return {
		if e.Value.Size == 0 || isQuiet(e.Frame.Func.Name) { // of one that returns nothing there is nothing to say
			return
		}
		l.add(Reason{Place: l.w.s.Place(e.Frame.Entry), Kind: "call", Text: l.tr.result(e), Left: &Operand{Name: e.Frame.Func.Name}})
		return
	}
	f := fact{cond: e.Cond, frame: frame, known: true}
	if noise(frame, e.Cond, l.w.flow) {
		return
	}
	l.w.word(&f)
	if f.Left.Name == "" && f.Right.Name == "" { // numbers of its own
		return
	}
	f.Place, f.Kind = l.w.s.Place(e.Inst.Addr), "condition"
	l.add(f.Reason)
}

// told leaves out what functions return where a condition says it.
func (l *loopWatcher) told() []Reason {
	var out []Reason
	for _, r := range l.out {
		said := func(o Reason) bool { return o.Left != nil && strings.HasPrefix(o.Left.Name, r.Left.Name+"(") }
		if r.Kind != "call" || !slices.ContainsFunc(l.out, said) {
			out = append(out, r)
		}
	}
	return out
}

// add adds a reason, or counts it.
func (l *loopWatcher) add(r Reason) {
	for i := range l.out {
		if o := &l.out[i]; o.Addr == r.Addr && o.Text == r.Text {
			o.Count = max(o.Count, 1) + 1
			return
		}
	}
	l.out = append(l.out, r)
}

// loopText says of an endless loop where it is. The run is alone: what waits for
// another CPU, or for an interrupt, looks the same.
func (s *Session) loopText(l *emulate.Loop) string {
	where := "at " + s.Name(l.Low)
	if l.High != l.Low {
		where = "from " + s.Name(l.Low) + " to " + s.Name(l.High)
	}
	return fmt.Sprintf("an endless loop %s: after %s the machine, registers and memory, is what it was; only another CPU or an interrupt could end it",
		where, number(int(l.Period), "instruction"))
}
