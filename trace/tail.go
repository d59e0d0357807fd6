package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
)

// Jumps are the tail calls that a function's code can make.
type Jumps struct {
	// To are the elements of program arrays that its own code jumps to; of one
	// whose index is computed, all of the array.
	To []Jump
	// Always: its code has no way to its end that leaves its tail calls out.
	Always bool
	// Most is how many tail calls can follow from one call of the function,
	// without those of functions that are observed themselves; -1 if there is
	// no bound to be found.
	Most int
	// Inner are functions that are not observed and are called by it, or by
	// others that are not observed, and make tail calls.
	Inner []Inner
}

// A Jump is an element of a program array.
type Jump struct {
	Map   string
	MapID int
	Index int
	Prog  *Program // nil: there was none when observation began
	// Watched: a breakpoint tells when the program is entered.
	Watched bool
}

// An Inner is a function that makes tail calls and is not observed.
type Inner struct {
	Function string
	To       []Jump
}

// MaxTailCalls is MAX_TAIL_CALL_CNT: so many are made in a run, or by kernels
// that count them by value on every way down from its start
// (include/linux/bpf.h; ebf7f6f0a6cd, 5.16, made the constant what was done).
const MaxTailCalls = 33

// A run is what is known of the tail calls made since the root of a tree was
// entered.
type run struct {
	path  int  // those on the way down to a call
	total *int // all, in the order of time
	// few: there cannot be as many as the kernel has a limit for.
	few bool
}

// A level is code that can be running in a frame: the call's own, or what took
// its place; above it programs that were entered from functions which that
// code called, and which may have returned since.
type level struct {
	name  string
	point *Point
	count uint64 // tail calls counted at its entry
	known bool   // whether count is
}

// A way is how a program can have been entered.
type way struct {
	level int
	inner string // the function that made the jump; "" for the code's own
	to    []Jump
}

// A frame follows the tail calls made in the stack frame of one call.
type frame struct {
	levels []level
	made   int  // tail calls that the call's own code, and what took its place, made for certain
	maybe  bool // it may have made others
}

// resolve tells the tail calls of a call and of those made in it.
func (a *Assembler) resolve(n *node, r run) {
	slices.SortStableFunc(n.kids, func(x, y *node) int { return cmp.Compare(begin(x.call), begin(y.call)) })
	f := &frame{levels: []level{{name: n.call.Function, point: n.point}}}
	for _, k := range n.kids {
		if !k.call.Jumped || !n.ofBPF() {
			a.resolve(k, run{r.path + f.made, r.total, r.few})
			if ret := k.call.Return; ret != nil && ret.Odd && k.ofBPF() && n.ofBPF() {
				ret.Meaning = NoAction // what comes of it is its caller's to say
			}
			n.call.Calls = append(n.call.Calls, k.call)
			continue
		}
		*r.total++
		n.call.Tail = append(n.call.Tail, f.enter(k))
	}
	if n.call.Unfinished || n.call.Jumped || n.call.Return == nil || !a.o.Tree {
		return
	}
	if f.made > 0 && !f.maybe {
		n.point.decided(n.call.Return)
	}
	a.refused(n, f, run{r.path + f.made, r.total, r.few})
	oddReason(n.call)
}

func begin(c *Call) uint64 {
	if c.Start != 0 {
		return c.Start
	}
	return c.End
}

// enter notes that a program was entered by a tail call.
func (f *frame) enter(k *node) TailCall {
	t := TailCall{Index: -1, At: begin(k.call), RAX: k.call.RAX, Certain: true}
	if p := k.call.Prog; p != nil {
		t.Prog = *p
	}
	ways := f.ways(t.Prog.ID)
	if fit := f.counted(ways, t.RAX); len(fit) > 0 {
		ways = fit
	}
	next := level{name: k.call.Function, point: k.point}
	next.count, next.known = counter(t.RAX)
	f.place(&t, ways)
	if len(ways) != 1 {
		for _, w := range ways {
			f.maybe = f.maybe || w.level == 0 && w.inner == ""
			name := cmp.Or(w.inner, f.levels[w.level].name)
			if !slices.Contains(t.From, name) {
				t.From = append(t.From, name)
			}
		}
		f.maybe = f.maybe || len(ways) == 0
		f.levels = append(f.levels, next)
		return t
	}
	w := ways[0]
	if at := &f.levels[w.level]; next.known && !at.known {
		at.count, at.known = next.count-1, true
	}
	f.levels = f.levels[:w.level+1]
	if w.inner != "" {
		t.From = []string{w.inner}
		f.levels = append(f.levels, next)
		return t
	}
	if w.level == 0 {
		f.made++
	}
	f.levels[w.level] = next
	return t
}

// ways are how a program can have been entered, as the code has it.
func (f *frame) ways(prog int) (out []way) {
	for i, l := range slices.Backward(f.levels) {
		if l.point == nil || l.point.Jumps == nil {
			continue
		}
		if to := leading(l.point.Jumps.To, prog); len(to) > 0 {
			out = append(out, way{level: i, to: to})
		}
		for _, in := range l.point.Jumps.Inner {
			if to := leading(in.To, prog); len(to) > 0 {
				out = append(out, way{level: i, inner: in.Function, to: to})
			}
		}
	}
	return out
}

func leading(to []Jump, prog int) (out []Jump) {
	for _, j := range to {
		if j.Prog != nil && j.Prog.ID == prog {
			out = append(out, j)
		}
	}
	return out
}

// counter returns the tail-call count that the register holds at a program's
// entry, on kernels where that is the count itself and not a pointer to it.
func counter(rax mem.Addr) (uint64, bool) {
	return uint64(rax), rax > 0 && rax <= MaxTailCalls+1
}

// counted are the ways on which the count is as it was found.
func (f *frame) counted(ways []way, rax mem.Addr) []way {
	n, ok := counter(rax)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(ways), func(w way) bool {
		l := f.levels[w.level]
		return l.known && l.count+1 != n
	})
}

// place says which element of which array led to the program, if that is sure.
func (f *frame) place(t *TailCall, ways []way) {
	var all []Jump
	for _, w := range ways {
		all = append(all, w.to...)
	}
	if len(all) == 0 {
		return
	}
	j, index := all[0], all[0].Index
	for _, o := range all[1:] {
		if o.MapID != j.MapID {
			return
		}
		if o.Index != index {
			index = -1
		}
	}
	t.Map, t.MapID, t.Index = j.Map, j.MapID, index
}

// few says whether a tree of calls is too small for the kernel's limit of tail
// calls to have been reached in it.
func few(n *node) bool {
	most, ok := mostJumps(n)
	return ok && most < MaxTailCalls
}

// mostJumps returns how many tail calls there can have been in a tree of calls.
func mostJumps(n *node) (most int, ok bool) {
	if n.point.Spoiled {
		return 0, false
	}
	if j := n.point.Jumps; j != nil {
		if j.Most <= 0 && len(j.To)+len(j.Inner) > 0 {
			return 0, false
		}
		most = j.Most
	}
	for _, k := range n.kids {
		m, ok := mostJumps(k)
		if !ok {
			return 0, false
		}
		most += m
	}
	return most, true
}

// refused says of the code that returned from a call, if it can make tail
// calls, that it made none, or why that is not known.
func (a *Assembler) refused(n *node, f *frame, r run) {
	last := f.levels[0]
	if f.maybe || last.point.Jumps == nil || len(last.point.Jumps.To) == 0 {
		return
	}
	j := last.point.Jumps
	full := slices.DeleteFunc(slices.Clone(j.To), func(t Jump) bool { return t.Prog == nil })
	unwatched := slices.DeleteFunc(slices.Clone(full), func(t Jump) bool { return t.Watched })
	var why *Refusal
	if a.o.Why != nil {
		why = a.o.Why(n.call, last.point)
	}
	proven := why != nil && why.Proven
	switch {
	case proven:
	case len(unwatched) > 0 && r.few && j.Always && len(j.To) == 1 && last.point == n.point && !a.doubtful(n.call):
		// Its slot was not empty and the limit is far: nothing else can have
		// answered.
		n.call.Tail = append(n.call.Tail, TailCall{
			Prog: *full[0].Prog, Map: full[0].Map, MapID: full[0].MapID, Index: full[0].Index, At: begin(n.call),
		})
		n.point.decided(n.call.Return)
		return
	case len(unwatched) > 0:
		n.call.TailNote = fmt.Sprintf("%s can make a tail call to %s, which is not watched", last.name, targets(unwatched))
		return
	case a.doubtful(n.call):
		n.call.TailNote = fmt.Sprintf("whether %s made a tail call is not known: events may be missing", last.name)
		return
	}
	if why == nil && !j.Always {
		n.call.TailNote = last.name + " made no tail call"
		return
	}
	out := Refusal{Proven: proven, Text: refusalText(last.name, j.To, full, n.call.Return)}
	if why != nil {
		out.Text, out.Evidence = cmp.Or(why.Text, out.Text), slices.Clone(why.Evidence)
	}
	out.Evidence = append(out.Evidence, r.limit()...)
	n.call.Refused = &out
}

func refusalText(name string, to, full []Jump, ret *Return) string {
	if len(full) == 0 {
		return fmt.Sprintf("%s's tail call went nowhere: %s was empty when tracing began; %s is what %s itself returns", name, targets(to), ret.Text, name)
	}
	return fmt.Sprintf("%s's tail call to %s was refused: %s is what %s itself returns", name, targets(full), ret.Text, name)
}

// limit is what speaks for the limit as the reason.
func (r run) limit() []string {
	switch {
	case r.path >= MaxTailCalls:
		return []string{fmt.Sprintf("%d tail calls led there, and the kernel makes no more than %d", r.path, MaxTailCalls)}
	case *r.total >= MaxTailCalls:
		return []string{fmt.Sprintf("%d tail calls had been made before in this run, and the kernel makes no more than %d", *r.total, MaxTailCalls)}
	}
	return nil
}

// targets names elements of program arrays, not too many.
func targets(to []Jump) string {
	const shown = 3
	var names []string
	for i, t := range to {
		if i == shown {
			names = append(names, fmt.Sprintf("%d more", len(to)-shown))
			break
		}
		s := fmt.Sprintf("%s[%d]", cmp.Or(t.Map, fmt.Sprintf("map %d", t.MapID)), t.Index)
		if t.Prog != nil {
			s += " (" + t.Prog.Name + ")"
		}
		names = append(names, s)
	}
	if len(names) > 1 {
		return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	}
	return strings.Join(names, "")
}

// NoAction is the meaning of a value that is none of the actions of a program's
// type, and is returned to other code of the program.
const NoAction = "no action"

// oddReason says of a value that is no action where it comes from.
func oddReason(c *Call) {
	if !c.Return.Odd {
		return
	}
	for _, k := range c.Calls {
		if k.Refused != nil && k.Return != nil && k.Return.Value == c.Return.Value {
			c.Return.Meaning += fmt.Sprintf("; %s returned it, as its tail call was not made", k.Function)
			return
		}
	}
}
