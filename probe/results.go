package probe

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// CPULost is what a CPU could not tell.
type CPULost struct {
	CPU       int
	Buffer    uint64 // events, as the ring buffer was full
	Open      uint64 // entries of calls, as too many were under way: these are told without Start, or not at all where their entry decides
	Undecided uint64 // packets whose filter asked for bytes that are not in the packet's first piece of memory
	Counts    uint64 // calls that were not counted, as there are too many different values
}

// Lost returns what was lost so far, of the CPUs that lost anything. After Close
// nothing is known.
func (s *Session) Lost() []CPULost {
	var raw [][]byte
	m := s.maps["lost"]
	if m == nil || m.Lookup(uint32(0), &raw) != nil { // an array's element is there
		return nil
	}
	var out []CPULost
	for cpu, b := range raw {
		le := binary.LittleEndian
		l := CPULost{cpu, le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
		if l != (CPULost{CPU: cpu}) {
			out = append(out, l)
		}
	}
	return out
}

// Open returns the calls under way, oldest first.
func (s *Session) Open() ([]Event, error) {
	var out []Event
	var key uint64
	var value []byte
	d := newDecoder(s.layouts)
	it := s.maps["open_calls"].Iterate()
	for it.Next(&key, &value) {
		if e, ok := d.unfinished(key, value); ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Event) int { return cmp.Compare(a.Start, b.Start) })
	out = underWay(out, isThread)
	for i := range out {
		if e := &out[i]; e.Comm == "" {
			e.Comm = commOf(e.PID, e.TID)
		}
	}
	if err := it.Err(); err != nil {
		return out, fmt.Errorf("read the calls under way: %w", err)
	}
	return out, nil
}

// stackShift makes a stack's number of an address: stacks are aligned to their
// size of 16 KiB (THREAD_SIZE).
const stackShift = 14

// underWay leaves out calls whose return was missed: the kernel does not run a
// program that a preempted task on the same CPU is in. Such a call is over if a
// later one has its place on the stack or above, if the call that it was made in
// is over, or if its thread is. calls are in the order of their entry.
func underWay(calls []Event, exists func(pid, tid int) bool) []Event {
	highest := make(map[uint64]uint64) // by stack: the frame of the later calls
	keep := make([]bool, len(calls))
	for i := len(calls) - 1; i >= 0; i-- {
		e := &calls[i]
		stack := e.Call.Frame >> stackShift
		keep[i] = e.Call.Frame > highest[stack] && (e.TID == 0 || exists(e.PID, e.TID))
		highest[stack] = max(highest[stack], e.Call.Frame)
	}
	open := make(map[CallID]bool)
	out := calls[:0]
	for i, e := range calls {
		if keep[i] && (e.Parent == CallID{} || open[e.Parent]) {
			open[e.Call] = true
			out = append(out, e)
		}
	}
	return out
}

// isThread reports whether there is a thread, as far as is known.
func isThread(pid, tid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, tid))
	return !errors.Is(err, fs.ErrNotExist) || selfID() == 0
}

// commOf returns the name of a thread; "" if it is gone.
func commOf(pid, tid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/comm", pid, tid))
	return strings.TrimSuffix(string(b), "\n")
}

// A Tally is how many calls of a function there were.
type Tally struct {
	Point int
	Ret   uint64 // with Config.ByReturn
	N     uint64
}

// Counts returns the numbers of calls, with Mode Count.
func (s *Session) Counts() ([]Tally, error) {
	if !s.cfg.ByReturn {
		return s.totals()
	}
	var out []Tally
	err := s.eachCount(func(point int, _ int, ret, n uint64) {
		out = append(out, Tally{point, ret, n})
	})
	slices.SortFunc(out, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(a.Point, b.Point), cmp.Compare(a.Ret, b.Ret))
	})
	return out, err
}

// totals returns the numbers of calls of the points that had any.
func (s *Session) totals() ([]Tally, error) {
	var out []Tally
	for i := range s.cfg.Points {
		var perCPU []uint64
		if err := s.maps["totals"].Lookup(uint32(i), &perCPU); err != nil {
			return out, fmt.Errorf("read the counts: %w", err)
		}
		t := Tally{Point: i}
		for _, n := range perCPU {
			t.N += n
		}
		if t.N > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

// A Histogram is how often values were of which magnitude.
type Histogram struct {
	Point int
	Ret   uint64 // with Config.ByReturn
	// Buckets: the first is of value 0, number i of 2^(i-1) to 2^i - 1. The last
	// is of values with the highest bit, which are negative in signed types.
	Buckets [65]uint64
}

// Hists returns the histograms, with Mode Hist.
func (s *Session) Hists() ([]Histogram, error) {
	type key struct {
		point int
		ret   uint64
	}
	all := make(map[key]*Histogram)
	err := s.eachCount(func(point, bucket int, ret, n uint64) {
		k := key{point, ret}
		if all[k] == nil {
			all[k] = &Histogram{Point: point, Ret: ret}
		}
		all[k].Buckets[bucket] += n
	})
	var out []Histogram
	for _, h := range all {
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Histogram) int {
		return cmp.Or(cmp.Compare(a.Point, b.Point), cmp.Compare(a.Ret, b.Ret))
	})
	return out, err
}

// eachCount yields the elements of the map of counts.
func (s *Session) eachCount(yield func(point, bucket int, ret, n uint64)) error {
	var k []byte
	var perCPU []uint64
	it := s.maps["counts"].Iterate()
	for it.Next(&k, &perCPU) {
		r := bytes.NewReader(k)
		var e struct {
			Point, Bucket uint32
			Ret           uint64
		}
		if binary.Read(r, binary.LittleEndian, &e) != nil || int(e.Point) >= len(s.layouts) || e.Bucket > 64 {
			continue
		}
		n := uint64(0)
		for _, v := range perCPU {
			n += v
		}
		yield(int(e.Point), int(e.Bucket), e.Ret, n)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the counts: %w", err)
	}
	return nil
}

// PointCost is what the programs of one point, or of points that share them,
// have cost.
type PointCost struct {
	Points []int
	Runs   uint64 // of all programs: two a call where entry and return are looked at
	Time   uint64 // ns in the programs, without the way there
	// Missed is how often a program was not run, as it was running on the CPU
	// already: in a task that was preempted, or around an interrupt (5.12). Of
	// such a call its entry, its return or both were not seen.
	Missed uint64
}

// Costs returns what the session's programs have cost so far. Runs and Time are
// counted with Config.Stats.
func (s *Session) Costs() ([]PointCost, error) {
	var out []PointCost
	for _, p := range s.progs {
		if len(p.points) == 0 { // what packets are followed by
			continue
		}
		st, err := statsOf(p.fd)
		if err != nil {
			return out, fmt.Errorf("read what programs cost: %w", err)
		}
		i := slices.IndexFunc(out, func(c PointCost) bool { return slices.Equal(c.Points, p.points) })
		if i < 0 {
			i = len(out)
			out = append(out, PointCost{Points: p.points})
		}
		out[i].Runs += st.runs
		out[i].Time += st.time
		out[i].Missed += st.missed
	}
	slices.SortFunc(out, func(a, b PointCost) int { return cmp.Compare(a.Points[0], b.Points[0]) })
	return out, nil
}
