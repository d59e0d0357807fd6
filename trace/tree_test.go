package trace_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/trace"
	"github.com/ksleuth/ksleuth/tracee"
)

// A world is a set of functions whose calls are made up: main functions,
// subprograms that call each other and jump to programs, which call and jump
// on, and a function that nothing observes.
type world struct {
	points []trace.Point
	rng    *rand.Rand
	clock  uint64
	frame  uint64
	calls  int
}

const (
	funcs = 6  // points 0 to 5 are called
	progs = 12 // points 6 to 17 are entered by tail calls
)

// newWorld returns functions of which each code jumps to programs of its own,
// so that there is one way to each.
func newWorld(rng *rand.Rand) *world {
	w := &world{rng: rng, clock: 1000}
	prog := func(id int) *trace.Program { return &trace.Program{ID: id, Name: fmt.Sprintf("x%d", id)} }
	for i := range funcs + progs {
		kind, name := tracee.Subprogram, fmt.Sprintf("f%d", i)
		if i >= funcs {
			kind, name = tracee.Program, fmt.Sprintf("x%d", i)
		}
		f := &tracee.Function{Kind: kind, Name: name, Prog: &bpf.Program{ID: i, Name: fmt.Sprintf("x%d", i), Type: "xdp"}}
		w.points = append(w.points, trace.Point{Func: f})
	}
	// f0 jumps to x6, which jumps to x7, ...; f1's unobserved function u to x10, that to x11.
	jump := func(id int) []trace.Jump {
		return []trace.Jump{{Map: "jmp", MapID: 9, Index: id, Prog: prog(id), Watched: true}}
	}
	for from, to := range map[int]int{0: 6, 6: 7, 7: 8, 2: 9, 10: 11, 3: 12, 12: 13} {
		w.points[from].Jumps = &trace.Jumps{To: jump(to), Always: true}
	}
	w.points[1].Jumps = &trace.Jumps{Inner: []trace.Inner{{Function: "u", To: jump(10)}}}
	w.points[4].Jumps = &trace.Jumps{To: jump(14), Inner: []trace.Inner{{Function: "v", To: jump(15)}}, Always: true}
	return w
}

func (w *world) tick() uint64 { w.clock += 1 + w.rng.Uint64N(3); return w.clock }

// A want is a call as it should be told.
type want struct {
	name    string
	steps   []string // in order: "( ... )" of calls, "> x6" of tail calls
	refused string   // the code that was refused
}

func (w want) String() string {
	s := w.name + "{" + strings.Join(w.steps, " ") + "}"
	if w.refused != "" {
		s += "!" + w.refused
	}
	return s
}

// call makes up a call and returns its events, in order, and what is to be told.
func (w *world) call(point, depth int, in probe.CallID, tid int) ([]probe.Event, want) {
	w.calls++
	w.frame += 64
	id := probe.CallID{Frame: 1<<40 - w.frame, Start: w.tick()}
	var events []probe.Event
	out := want{name: w.points[point].Func.Name}
	code := point // which code runs in the frame
	enter := func(x int, from string) {
		now := w.tick()
		events = append(events, probe.Event{Kind: probe.Entered, Point: x, Parent: id, Start: now, End: now, TID: tid})
		out.steps = append(out.steps, strings.TrimSpace(from+"> "+w.points[x].Func.Name))
	}
	for range w.rng.IntN(5) {
		j := w.points[code].Jumps
		switch r := w.rng.IntN(10); {
		case r < 5 && depth < 5 && w.calls < 400:
			e, k := w.call(w.rng.IntN(funcs), depth+1, id, tid)
			events = append(events, e...)
			out.steps = append(out.steps, "("+k.String()+")")
		case r < 8 && j != nil && len(j.To) > 0:
			x := j.To[0].Prog.ID
			enter(x, "")
			code = x
		case j != nil && len(j.Inner) > 0:
			x := j.Inner[0].To[0].Prog.ID
			enter(x, j.Inner[0].Function)
			if next := w.points[x].Jumps; next != nil && w.rng.IntN(2) == 0 {
				enter(next.To[0].Prog.ID, "")
			}
		}
	}
	if j := w.points[code].Jumps; j != nil && len(j.To) > 0 {
		out.refused = w.points[code].Func.Name
	}
	events = append(events, probe.Event{Kind: probe.Returned, Point: point, Call: id, Parent: in, Start: id.Start, End: w.tick(), Ret: 2, TID: tid})
	return events, out
}

// told is a call as it was told, in the form of a want.
func told(c *trace.Call) want {
	out := want{name: c.Function}
	for _, s := range c.Steps() {
		if s.Tail != nil {
			out.steps = append(out.steps, strings.Join(s.Tail.From, "|")+"> "+s.Tail.Prog.Name)
			continue
		}
		out.steps = append(out.steps, "("+told(s.Call).String()+")")
	}
	if c.Refused != nil {
		out.refused, _, _ = strings.Cut(c.Refused.Text, "'s tail call")
	}
	return out
}

func size(c *trace.Call) int {
	n := 1 + len(c.Tail)
	for _, k := range c.Calls {
		n += size(k)
	}
	return n
}

// TestTreesAreRebuilt: calls of several threads at once, in whatever order
// their records come among each other, are told as they were made.
func TestTreesAreRebuilt(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(rand.New(rand.NewPCG(seed, 7)))
		var threads [][]probe.Event
		var trees []string
		for tid := range 1 + w.rng.IntN(4) {
			var events []probe.Event
			for range 1 + w.rng.IntN(4) {
				w.calls = 0
				e, tree := w.call(w.rng.IntN(funcs), 0, probe.CallID{}, tid)
				events = append(events, e...)
				trees = append(trees, fmt.Sprint(tid, tree))
			}
			threads = append(threads, events)
		}
		a := trace.NewAssembler(&trace.Decoder{Points: w.points}, trace.Options{Tree: true})
		got := make(map[string]int)
		for len(threads) > 0 {
			i := w.rng.IntN(len(threads))
			for _, c := range a.Add(&threads[i][0]) {
				got[fmt.Sprint(c.TID, told(c))]++
			}
			if threads[i] = threads[i][1:]; len(threads[i]) == 0 {
				threads = append(threads[:i], threads[i+1:]...)
			}
		}
		qt.Assert(t, qt.HasLen(a.Flush(nil, w.clock), 0))
		expect := make(map[string]int)
		for _, s := range trees {
			expect[s]++
		}
		qt.Assert(t, qt.DeepEquals(got, expect), qt.Commentf("seed %d", seed))
	}
}

// TestNothingIsDropped: with records lost, cut off and more calls than are
// kept, each record that comes is told once.
func TestNothingIsDropped(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(rand.New(rand.NewPCG(seed, 8)))
		a := trace.NewAssembler(&trace.Decoder{Points: w.points}, trace.Options{Tree: true, MaxPending: 1 + w.rng.IntN(40)})
		var events []probe.Event
		for range 8 {
			w.calls = 0
			e, _ := w.call(w.rng.IntN(funcs), 0, probe.CallID{}, 1)
			events = append(events, e...)
		}
		n, in := 0, 0
		add := func(calls []*trace.Call) {
			for _, c := range calls {
				n += size(c)
			}
		}
		var open []probe.Event
		for i := range events {
			switch w.rng.IntN(8) {
			case 0: // lost
			case 1:
				if events[i].Kind == probe.Returned {
					in++
					open = append(open, events[i])
				}
			case 2:
				add(a.Sweep(open))
				fallthrough
			default:
				in++
				add(a.Add(&events[i]))
			}
		}
		add(a.Flush(open, w.clock))
		qt.Assert(t, qt.Equals(n, in), qt.Commentf("seed %d", seed))
	}
}

// scene is a few functions of an XDP program, by name.
type scene struct {
	points map[string]int
	d      *trace.Decoder
}

func newScene(names ...string) *scene {
	s := &scene{map[string]int{}, &trace.Decoder{}}
	for i, n := range names {
		kind := tracee.Subprogram
		if strings.HasPrefix(n, "x") {
			kind = tracee.Program
		}
		s.points[n] = i
		s.d.Points = append(s.d.Points, trace.Point{Func: &tracee.Function{Kind: kind, Name: n, Prog: &bpf.Program{ID: i, Name: n, Type: "xdp"}}})
	}
	return s
}

func (s *scene) jump(name string, watched bool) trace.Jump {
	i := s.points[name]
	return trace.Jump{Map: "jmp", MapID: 5, Index: 10 + i, Prog: &trace.Program{ID: i, Name: name}, Watched: watched}
}

func (s *scene) jumps(name string, always bool, to ...trace.Jump) {
	s.d.Points[s.points[name]].Jumps = &trace.Jumps{To: to, Always: always}
}

func (s *scene) returned(name string, start, end, ret uint64, in uint64) probe.Event {
	e := probe.Event{Kind: probe.Returned, Point: s.points[name], Call: probe.CallID{Frame: 1, Start: start}, Start: start, End: end, Ret: ret}
	if in != 0 {
		e.Parent = probe.CallID{Frame: 1, Start: in}
	}
	return e
}

func (s *scene) entered(name string, at, in, rax uint64) probe.Event {
	return probe.Event{Kind: probe.Entered, Point: s.points[name], Parent: probe.CallID{Frame: 1, Start: in}, Start: at, End: at, RAX: rax}
}

func (s *scene) run(o trace.Options, events ...probe.Event) (out []*trace.Call) {
	o.Tree = true
	a := trace.NewAssembler(s.d, o)
	for i := range events {
		out = append(out, a.Add(&events[i])...)
	}
	return out
}

// TestRefused: what is said of a tail call that was not made.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name          string
		always        bool
		watched       bool
		why           *trace.Refusal
		lost          []uint64 // what Lost answers
		empty         bool
		refused, note string
		evidence      []string
	}{
		{name: "refused", always: true, watched: true, refused: "module3's tail call to jmp[12] (xdp_mod) was refused: 33 is what module3 itself returns"},
		{name: "with a reason", always: true, watched: true, why: &trace.Refusal{Evidence: []string{"rax was 0x607f00000000"}},
			refused: "module3's tail call to jmp[12] (xdp_mod) was refused: 33 is what module3 itself returns", evidence: []string{"rax was 0x607f00000000"}},
		{name: "its code may not have come to it", watched: true, note: "module3 made no tail call"},
		{name: "its code did come to it", watched: true, why: &trace.Refusal{Text: "refused as 33 is its default"}, refused: "refused as 33 is its default"},
		{name: "not watched", always: true, note: `module3 can make a tail call to jmp[12] (xdp_mod), which is not watched`},
		{name: "lost", always: true, watched: true, lost: []uint64{1}, note: "whether module3 made a tail call is not known: events may be missing"},
		{name: "empty", always: true, empty: true, refused: "module3's tail call went nowhere: jmp[12] was empty when tracing began; 33 is what module3 itself returns"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene("xdp_main", "module3", "xdp_mod")
			j := s.jump("xdp_mod", tc.watched)
			if tc.empty {
				j.Prog = nil
			}
			s.jumps("module3", tc.always, j)
			o := trace.Options{Why: func(*trace.Call, *trace.Point) *trace.Refusal { return tc.why }}
			if tc.lost != nil {
				o.Lost = func() (uint64, uint64) { return tc.lost[0], 150 }
			}
			calls := s.run(o, s.returned("module3", 110, 120, 33, 100), s.returned("xdp_main", 100, 200, 33, 0))
			qt.Assert(t, qt.HasLen(calls, 1))
			m := calls[0].Calls[0]
			qt.Check(t, qt.Equals(m.TailNote, tc.note))
			if tc.refused == "" {
				qt.Check(t, qt.IsNil(m.Refused))
				return
			}
			qt.Assert(t, qt.IsNotNil(m.Refused))
			qt.Check(t, qt.Equals(m.Refused.Text, tc.refused))
			qt.Check(t, qt.DeepEquals(m.Refused.Evidence, tc.evidence))
			qt.Check(t, qt.StringContains(calls[0].Return.Meaning, "module3 returned it, as its tail call was not made"))
		})
	}
}

// TestLostBefore: events lost before a call leave what is said of it alone.
func TestLostBefore(t *testing.T) {
	s := newScene("xdp_main", "module3", "xdp_mod")
	s.jumps("module3", true, s.jump("xdp_mod", true))
	o := trace.Options{Lost: func() (uint64, uint64) { return 7, 105 }}
	first := []probe.Event{s.returned("module3", 102, 104, 33, 0), s.returned("module3", 110, 120, 33, 0)}
	calls := s.run(o, first...)
	qt.Check(t, qt.IsNil(calls[0].Refused))
	qt.Check(t, qt.IsNotNil(calls[1].Refused))
}

// TestAnswered: the value that comes back is that of the program that was
// entered last.
func TestAnswered(t *testing.T) {
	s := newScene("xdp_main", "module3", "xdp_mod", "xdp_next")
	s.jumps("module3", true, s.jump("xdp_mod", true))
	s.jumps("xdp_mod", false, s.jump("xdp_next", false))
	calls := s.run(trace.Options{}, s.entered("xdp_mod", 112, 110, 1), s.returned("module3", 110, 120, 2, 100), s.returned("xdp_main", 100, 200, 2, 0))
	m := calls[0].Calls[0]
	qt.Check(t, qt.Equals(m.Return.Text, "XDP_PASS"))
	qt.Check(t, qt.Equals(m.TailNote, "xdp_mod can make a tail call to jmp[13] (xdp_next), which is not watched"))
	qt.Check(t, qt.DeepEquals(m.Tail, []trace.TailCall{{
		Prog: trace.Program{ID: 2, Name: "xdp_mod", Type: "xdp"}, Map: "jmp", MapID: 5, Index: 12, At: 112, RAX: 1, Certain: true,
	}}))
	qt.Check(t, qt.Equals(calls[0].VerdictPath(), "xdp_main > module3 > xdp_mod = XDP_PASS > XDP_PASS"))
	// A value that is no action is odd then, in a subprogram as well.
	calls = s.run(trace.Options{}, s.entered("xdp_mod", 112, 110, 1), s.returned("module3", 110, 120, 77, 0))
	qt.Check(t, qt.IsTrue(calls[0].Return.Odd))
}

// TestAmbiguous: two functions that can have made a tail call are both named,
// unless the count in the register tells.
func TestAmbiguous(t *testing.T) {
	for _, tc := range []struct {
		name string
		rax  [2]uint64 // of both programs that are entered
		from [2][]string
	}{
		{"by pointer", [2]uint64{0xffffc90000001000, 0xffffc90000001000}, [2][]string{{"u"}, {"xdp_mod", "u"}}},
		{"counted on", [2]uint64{1, 2}, [2][]string{{"u"}, nil}},
		{"counted anew", [2]uint64{1, 1}, [2][]string{{"u"}, {"u"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene("xdp_main", "xdp_mod", "xdp_next")
			s.d.Points[0].Jumps = &trace.Jumps{Inner: []trace.Inner{{Function: "u", To: []trace.Jump{s.jump("xdp_mod", true), s.jump("xdp_next", true)}}}}
			s.jumps("xdp_mod", true, s.jump("xdp_next", true))
			calls := s.run(trace.Options{}, s.entered("xdp_mod", 110, 100, tc.rax[0]), s.entered("xdp_next", 120, 100, tc.rax[1]), s.returned("xdp_main", 100, 200, 2, 0))
			for i, want := range tc.from {
				qt.Check(t, qt.DeepEquals(calls[0].Tail[i].From, want))
			}
		})
	}
}

// TestLimit: 33 tail calls were made before one that was refused.
func TestLimit(t *testing.T) {
	s := newScene("xdp_main", "sub", "xdp_c")
	s.jumps("sub", true, s.jump("xdp_c", true))
	var events []probe.Event
	for i := range uint64(33) { // each in the one before
		events = append(events, s.entered("xdp_c", 1000+10*i+5, 1000+10*i, i+1))
	}
	for i := 33; i >= 0; i-- {
		in := uint64(1000 + 10*(i-1))
		if i == 0 {
			in = 0
		}
		events = append(events, s.returned("sub", uint64(1000+10*i), uint64(3000-i), 0, in))
	}
	calls := s.run(trace.Options{}, events...)
	qt.Assert(t, qt.HasLen(calls, 1))
	c := calls[0]
	for range 33 {
		qt.Assert(t, qt.IsNil(c.Refused))
		qt.Assert(t, qt.HasLen(c.Tail, 1))
		c = c.Calls[0]
	}
	qt.Assert(t, qt.IsNotNil(c.Refused))
	qt.Check(t, qt.DeepEquals(c.Refused.Evidence, []string{"33 tail calls led there, and the kernel makes no more than 33"}))
}

// TestFlat: without trees each event is told at once.
func TestFlat(t *testing.T) {
	s := newScene("xdp_main", "sub", "xdp_c")
	a := trace.NewAssembler(s.d, trace.Options{})
	for _, e := range []probe.Event{s.entered("xdp_c", 5, 0, 1), s.returned("sub", 4, 6, 0, 2), s.returned("xdp_main", 2, 7, 0, 0)} {
		qt.Check(t, qt.HasLen(a.Add(&e), 1))
	}
	e := s.entered("xdp_c", 5, 0, 1)
	c := a.Add(&e)[0]
	qt.Check(t, qt.IsTrue(c.Jumped))
	qt.Check(t, qt.IsNil(c.Return))
	qt.Check(t, qt.Equals(c.Start, 5))
}

// TestUnfinished: calls that have not returned hold those that were made in them.
func TestUnfinished(t *testing.T) {
	s := newScene("xdp_main", "sub", "xdp_c")
	a := trace.NewAssembler(s.d, trace.Options{Tree: true})
	e := s.returned("sub", 120, 130, 2, 110)
	qt.Check(t, qt.HasLen(a.Add(&e), 0))
	lost := s.returned("sub", 520, 530, 2, 510)
	qt.Check(t, qt.HasLen(a.Add(&lost), 0))
	open := []probe.Event{s.returned("sub", 110, 0, 0, 100), s.returned("xdp_main", 100, 0, 0, 0)}
	calls := a.Flush(open, 1100)
	qt.Assert(t, qt.HasLen(calls, 2))
	c := calls[0]
	qt.Check(t, qt.IsTrue(c.Unfinished))
	qt.Check(t, qt.Equals(*c.Duration, 1000))
	qt.Check(t, qt.Equals(c.VerdictPath(), "xdp_main > sub [sub = 2 (XDP_PASS)] not returned > not returned"))
	qt.Check(t, qt.IsTrue(calls[1].Orphan))
}

// TestTooMany: calls that are told apart from their caller are counted there,
// which nothing is then concluded of.
func TestTooMany(t *testing.T) {
	s := newScene("xdp_main", "sub", "xdp_c")
	s.jumps("xdp_main", true, s.jump("xdp_c", true))
	calls := s.run(trace.Options{MaxPending: 2},
		s.returned("sub", 110, 111, 2, 100), s.returned("sub", 112, 113, 2, 100), s.returned("sub", 114, 115, 2, 100),
		s.returned("sub", 116, 117, 2, 100), s.returned("xdp_main", 100, 200, 2, 0))
	qt.Assert(t, qt.HasLen(calls, 4))
	for _, c := range calls[:3] {
		qt.Check(t, qt.IsTrue(c.Orphan))
	}
	main := calls[3]
	qt.Check(t, qt.Equals(main.Missing, 3))
	qt.Check(t, qt.HasLen(main.Calls, 1))
	qt.Check(t, qt.IsNil(main.Refused))
	qt.Check(t, qt.Equals(main.TailNote, "whether xdp_main made a tail call is not known: events may be missing"))
}

// TestOwnCaller: a record that contradicts itself is told all the same.
func TestOwnCaller(t *testing.T) {
	s := newScene("sub")
	qt.Check(t, qt.HasLen(s.run(trace.Options{}, s.returned("sub", 110, 111, 2, 110)), 1))
}

// BenchmarkAdd: a root with three calls and a tail call.
func BenchmarkAdd(b *testing.B) {
	s := newScene("xdp_main", "sub", "xdp_c")
	s.jumps("sub", true, s.jump("xdp_c", true))
	events := []probe.Event{s.returned("sub", 110, 111, 2, 100), s.entered("xdp_c", 113, 112, 1), s.returned("sub", 112, 114, 2, 100),
		s.returned("sub", 115, 116, 2, 100), s.returned("xdp_main", 100, 200, 2, 0)}
	a := trace.NewAssembler(s.d, trace.Options{Tree: true})
	for b.Loop() {
		for i := range events {
			a.Add(&events[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
}

// TestSweep: a caller that is not under way, and does not come, was lost.
func TestSweep(t *testing.T) {
	s := newScene("xdp_main", "sub", "xdp_c")
	a := trace.NewAssembler(s.d, trace.Options{Tree: true})
	e := s.returned("sub", 120, 130, 2, 110)
	a.Add(&e)
	open := []probe.Event{s.returned("xdp_main", 110, 0, 0, 0)}
	qt.Check(t, qt.HasLen(a.Sweep(open), 0))
	qt.Check(t, qt.HasLen(a.Sweep(open), 0))
	qt.Check(t, qt.HasLen(a.Sweep(nil), 0))
	calls := a.Sweep(nil)
	qt.Assert(t, qt.HasLen(calls, 1))
	qt.Check(t, qt.IsTrue(calls[0].Orphan))
}

// TestPathIsBounded: a path of many calls ends.
func TestPathIsBounded(t *testing.T) {
	s := newScene("xdp_main", "sub", "xdp_c")
	var events []probe.Event
	for i := range uint64(10000) {
		events = append(events, s.returned("sub", 101+i, 102+i, 2, 100))
	}
	calls := s.run(trace.Options{}, append(events, s.returned("xdp_main", 100, 20000, 2, 0))...)
	path := calls[0].VerdictPath()
	qt.Check(t, qt.IsTrue(len(path) < 1100))
	qt.Check(t, qt.IsTrue(strings.HasSuffix(path, " ...")))
}

// TestNotWatched: who answered a tail call that nothing watches follows from
// the code, if it makes the call whatever happens and the limit is far.
func TestNotWatched(t *testing.T) {
	prog := func() *trace.Program { return &trace.Program{ID: 2, Name: "xdp_mod", Type: "xdp"} }
	to := trace.Jump{Map: "jmp", MapID: 5, Index: 12, Prog: prog()}
	for _, tc := range []struct {
		name  string
		jumps trace.Jumps
		spoil bool
		calls int
		want  int // tail calls told of each
	}{
		{"follows", trace.Jumps{To: []trace.Jump{to}, Always: true, Most: 1}, false, 1, 1},
		{"often", trace.Jumps{To: []trace.Jump{to}, Always: true, Most: 1}, false, 32, 1},
		{"too often", trace.Jumps{To: []trace.Jump{to}, Always: true, Most: 1}, false, 33, 0},
		{"a chain", trace.Jumps{To: []trace.Jump{to}, Always: true, Most: 33}, false, 1, 0},
		{"no bound", trace.Jumps{To: []trace.Jump{to}, Always: true, Most: -1}, false, 1, 0},
		{"avoidable", trace.Jumps{To: []trace.Jump{to}, Most: 1}, false, 1, 0},
		{"empty", trace.Jumps{To: []trace.Jump{{Map: "jmp", MapID: 5, Index: 12}}, Always: true}, false, 1, 0},
		{"two slots", trace.Jumps{To: []trace.Jump{to, to}, Always: true, Most: 1}, false, 1, 0},
		{"spoiled", trace.Jumps{To: []trace.Jump{to}, Always: true, Most: 1}, true, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			main := &tracee.Function{Kind: tracee.Program, Name: "main", Prog: &bpf.Program{ID: 1, Type: "xdp"}}
			stub := &tracee.Function{Kind: tracee.Subprogram, Name: "stub", Prog: main.Prog, Subprog: 1}
			a := trace.NewAssembler(&trace.Decoder{Points: []trace.Point{{Func: main}, {Func: stub, Jumps: &tc.jumps, Spoiled: tc.spoil}}}, trace.Options{Tree: true})
			root := probe.CallID{Frame: 1 << 20, Start: 10}
			for i := range tc.calls {
				at := uint64(20 + 10*i)
				qt.Assert(t, qt.HasLen(a.Add(&probe.Event{Kind: probe.Returned, Point: 1, Call: probe.CallID{Frame: 1 << 10, Start: at}, Parent: root, Start: at, End: at + 5}), 0))
			}
			calls := a.Add(&probe.Event{Kind: probe.Returned, Point: 0, Call: root, Start: 10, End: 10000})
			qt.Assert(t, qt.HasLen(calls, 1))
			qt.Assert(t, qt.HasLen(calls[0].Calls, tc.calls))
			for _, c := range calls[0].Calls {
				qt.Check(t, qt.HasLen(c.Tail, tc.want))
			}
		})
	}
}
