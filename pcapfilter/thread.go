package pcapfilter

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// A fact is how a test came out on the way to a place in the program.
type fact struct {
	load    int // number of what was loaded
	op      bpf.JumpTest
	val     uint32
	outcome bool
}

// maxFacts bounds the work for long filters. The first facts are the useful
// ones: what the protocols are.
const maxFacts = 48

// A threader leads jumps past tests whose outcome is known on the way: "port 80
// or 443" asks once what the protocol is. What it skips was loaded before on
// the same way, so that no load is left out that could have ended the program.
type threader struct {
	items []item
	tests []fact // what a test that comes out true says; load is -1 if nothing
	place map[label]int
	known map[label][]fact // at a label that is reached
}

// thread returns the items with jumps led on, and without what is no longer
// reached.
func thread(items []item) []item {
	th := threader{items, describe(items), make(map[label]int), make(map[label][]fact)}
	for i, it := range items {
		if it.label != 0 {
			th.place[it.label] = i
		}
	}
	var out []item
	now, alive := []fact(nil), true
	for i, it := range items {
		if it.label != 0 {
			if alive {
				th.reach(it.label, now)
			}
			now, alive = th.known[it.label]
		}
		if !alive {
			continue
		}
		switch {
		case it.jump != nil:
			it.t = th.follow(it.t, th.learn(now, i, true))
			it.f = th.follow(it.f, th.learn(now, i, false))
			alive = false
		case it.t != 0:
			it.t = th.follow(it.t, now)
			alive = false
		case it.ret != nil:
			alive = false
		}
		out = append(out, it)
	}
	return out
}

// follow returns where a jump to l ends up with the facts, and notes that this
// place is reached.
func (th *threader) follow(l label, facts []fact) label {
	for {
		i := th.place[l]
		for th.items[i].label != 0 {
			i++
		}
		it := th.items[i]
		if it.jump == nil && it.t != 0 {
			l = it.t
			continue
		}
		outcome, known := th.decide(facts, i)
		switch {
		case !known:
			th.reach(l, facts)
			return l
		case outcome:
			l = it.t
		default:
			l = it.f
		}
	}
}

// reach keeps only the facts that hold on all ways to a label.
func (th *threader) reach(l label, facts []fact) {
	before, seen := th.known[l]
	if !seen {
		th.known[l] = facts
		return
	}
	var both []fact
	for _, f := range before {
		for _, g := range facts {
			if f == g {
				both = append(both, f)
				break
			}
		}
	}
	th.known[l] = both
}

// describe returns what is said by tests that come out true. Equal loads have
// the same number. Tests with X say nothing.
func describe(items []item) []fact {
	out := make([]fact, len(items))
	numbers := make(map[string]int)
	for i, it := range items {
		j, ok := it.jump.(bpf.JumpIf)
		if !ok {
			out[i].load = -1
			continue
		}
		key := fmt.Sprintf("%#v", it.load)
		n, seen := numbers[key]
		if !seen {
			n = len(numbers)
			numbers[key] = n
		}
		out[i] = fact{n, j.Cond, j.Val, true}
	}
	return out
}

// learn returns the facts behind the test that is item i.
func (th *threader) learn(facts []fact, i int, outcome bool) []fact {
	f := th.tests[i]
	if f.load < 0 || len(facts) >= maxFacts {
		return facts
	}
	f.outcome = outcome
	return append(facts[:len(facts):len(facts)], f)
}

// decide returns the outcome of the test that is item i, by the facts.
func (th *threader) decide(facts []fact, i int) (outcome, known bool) {
	want := th.tests[i]
	if want.load < 0 {
		return false, false
	}
	for _, f := range facts {
		switch {
		case f.load != want.load:
		case f.op == want.op && f.val == want.val:
			return f.outcome, true
		case f.op == bpf.JumpEqual && f.outcome:
			return holds(want.op, f.val, want.val), true
		}
	}
	return false, false
}

// holds compares as BPF does, for the tests it has.
func holds(op bpf.JumpTest, a, v uint32) bool {
	switch op {
	case bpf.JumpEqual:
		return a == v
	case bpf.JumpGreaterThan:
		return a > v
	case bpf.JumpGreaterOrEqual:
		return a >= v
	}
	return a&v != 0 // JumpBitsSet; turnedTests leaves no other
}

// merge leads jumps to the last of several equal tests with equal ends: whether
// TCP, UDP or SCTP, the ports are asked for in one place.
func merge(items []item) []item {
	type test struct {
		load string
		jump bpf.Instruction
		t, f label
	}
	same := make(map[test]label)
	instead := make(map[label]label) // of a label, if it is another one
	lead := func(l label) label {
		if to, ok := instead[l]; ok {
			return to
		}
		return l
	}
	out := slices.Clone(items)
	for i := len(out) - 1; i >= 0; i-- {
		it := &out[i]
		it.t, it.f = lead(it.t), lead(it.f)
		switch {
		case it.label == 0:
		case i+1 < len(out) && out[i+1].label != 0: // two labels in one place
			instead[it.label] = lead(out[i+1].label)
		case i+1 < len(out) && out[i+1].jump != nil:
			next := out[i+1]
			key := test{fmt.Sprintf("%#v", next.load), next.jump, next.t, next.f}
			if to, ok := same[key]; ok {
				instead[it.label] = to
			} else {
				same[key] = it.label
			}
		}
	}
	return out
}
