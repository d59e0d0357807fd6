package trace

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxPath is how long a verdict path gets, in bytes.
const maxPath = 1000

// VerdictPath tells on one line which way a run took and what came of it:
// "xdp_main > module1 (fw_mod) = XDP_PASS > module3 > xdp_mod = XDP_PASS >
// XDP_PASS". Behind each function stand the programs that it entered by tail
// calls; what was called in one that is not the first is in brackets.
func (c *Call) VerdictPath() string {
	w := &pathWriter{}
	w.name(c)
	for _, s := range c.Steps() {
		if w.full() {
			break
		}
		w.text(" > ")
		w.step(s, 1)
	}
	switch {
	case c.Unfinished:
		w.text(" > not returned")
	case c.Return == nil:
	case len(c.Calls) == 0:
		w.text(" = " + c.Return.Text)
	default:
		w.text(" > " + c.Return.Text)
	}
	return w.b.String()
}

type pathWriter struct {
	b   strings.Builder
	cut bool
}

func (w *pathWriter) full() bool { return w.cut }

func (w *pathWriter) text(s string) {
	switch {
	case w.cut:
	case w.b.Len()+len(s) > maxPath:
		w.cut = true
		w.b.WriteString(" ...")
	default:
		w.b.WriteString(s)
	}
}

func (w *pathWriter) name(c *Call) {
	if c.Stub != nil {
		w.text(c.Stub.Name + " (" + c.Function + ")")
		return
	}
	w.text(c.Function)
}

func (w *pathWriter) step(s Step, depth int) {
	if s.Tail != nil {
		if len(s.Tail.From) > 0 {
			w.text(strings.Join(s.Tail.From, "|") + " > ")
		}
		w.text(s.Tail.Prog.Name)
		return
	}
	c := s.Call
	w.name(c)
	var in []Step
	for _, k := range c.Steps() {
		if k.Tail == nil || len(k.Tail.From) > 0 {
			in = append(in, k)
			continue
		}
		w.text(" > ")
		w.step(k, depth+1)
	}
	if len(in) > 0 {
		w.text(" [")
		for i, k := range in {
			if w.full() {
				break
			}
			if i > 0 {
				w.text(" > ")
			}
			w.step(k, depth+1)
		}
		w.text("]")
	}
	switch {
	case c.Unfinished:
		w.text(" not returned")
	case c.Return != nil:
		w.text(" = " + c.Return.Text)
	}
}

// A Step is one thing that happened in a call: another call, or a tail call.
type Step struct {
	Call *Call
	Tail *TailCall
}

// At is when it happened, on CLOCK_MONOTONIC.
func (s Step) At() uint64 {
	if s.Tail != nil {
		return s.Tail.At
	}
	return begin(s.Call)
}

// Steps returns what happened in a call, in the order of time.
func (c *Call) Steps() []Step {
	out := make([]Step, 0, len(c.Calls)+len(c.Tail))
	t := 0
	for _, k := range c.Calls {
		for ; t < len(c.Tail) && c.Tail[t].At <= begin(k); t++ {
			out = append(out, Step{Tail: &c.Tail[t]})
		}
		out = append(out, Step{Call: k})
	}
	for ; t < len(c.Tail); t++ {
		out = append(out, Step{Tail: &c.Tail[t]})
	}
	return out
}

// FirstPacket returns what a call was about: its own packet, or else that of
// the first call in it that has one; nil if there is none.
func (c *Call) FirstPacket() *Packet {
	if c.Packet != nil {
		return c.Packet
	}
	for _, k := range c.Calls {
		if p := k.FirstPacket(); p != nil {
			return p
		}
	}
	return nil
}

// Walk calls f for a call and for all that were made in it.
func (c *Call) Walk(f func(*Call)) {
	f(c)
	for _, k := range c.Calls {
		k.Walk(f)
	}
}

// CountRow is how often a function was called, or returned one value.
type CountRow struct {
	Function string  `json:"function"`
	Module   string  `json:"module,omitempty"`
	Kind     string  `json:"kind"`
	Return   *Return `json:"return,omitempty"` // nil: whatever it returned
	Count    uint64  `json:"count"`
}

// A Histogram is how often an expression had values of each range, in calls of
// a function, or in those that returned one value.
type Histogram struct {
	Function string   `json:"function"`
	Module   string   `json:"module,omitempty"`
	Kind     string   `json:"kind"`
	Expr     string   `json:"expr"`
	Return   *Return  `json:"return,omitempty"`
	Buckets  []Bucket `json:"buckets"`
}

// A Bucket is a range of values, both ends included.
type Bucket struct {
	Low   int64  `json:"low"`
	High  int64  `json:"high"`
	Count uint64 `json:"count"`
}

// CountRow tells a count of calls of a point; byReturn: of those that returned
// ret.
func (d *Decoder) CountRow(point int, byReturn bool, ret, count uint64) CountRow {
	p := &d.Points[point]
	row := CountRow{Function: p.Func.Name, Module: p.Func.Module, Kind: string(p.Func.Kind), Count: count}
	if byReturn {
		row.Return = p.result(ret)
	}
	return row
}

// Histogram tells counts of values by their powers of two: counts[0] of zero,
// counts[i] of 2^(i-1) to 2^i-1, counts[64] of those with the highest bit, which
// stand for negative numbers. negative[i], if it is known, is of the same
// ranges as counts[i] below zero.
func (d *Decoder) Histogram(point int, expr string, byReturn bool, ret uint64, counts, negative []uint64) Histogram {
	row := d.CountRow(point, byReturn, ret, 0)
	return Histogram{row.Function, row.Module, row.Kind, expr, row.Return, log2Buckets(counts, negative)}
}

// log2Buckets returns the buckets from the first to the last that is not empty.
func log2Buckets(counts, negative []uint64) []Bucket {
	var out []Bucket
	if len(counts) > 64 {
		out = append(out, Bucket{math.MinInt64, -1, counts[64]})
		counts = counts[:64]
	}
	for i, n := range slices.Backward(negative) {
		if i == 0 {
			continue // there is one zero, which counts[0] is of
		}
		low, high := bucketRange(i)
		out = append(out, Bucket{-high, -low, n})
	}
	for i, n := range counts {
		low, high := bucketRange(i)
		out = append(out, Bucket{low, high, n})
	}
	empty := func(b Bucket) bool { return b.Count == 0 }
	if len(out) > 1 && out[0].Low == math.MinInt64 && !empty(out[0]) && len(negative) == 0 {
		rest := out[1:] // nothing is known of what lies between
		for len(rest) > 0 && empty(rest[0]) {
			rest = rest[1:]
		}
		out = append(out[:1:1], rest...)
	}
	for len(out) > 0 && empty(out[0]) {
		out = out[1:]
	}
	for len(out) > 0 && empty(out[len(out)-1]) {
		out = out[:len(out)-1]
	}
	return out
}

// bucketRange is the range of a bucket of numbers of up to 63 bits.
func bucketRange(i int) (low, high int64) {
	switch {
	case i == 0:
		return 0, 0
	case i >= 63:
		return 1 << 62, math.MaxInt64
	}
	return 1 << (i - 1), 1<<i - 1
}

// RangeText is the range of a bucket: "[64, 127]", "[1K, 2K)".
func (b Bucket) RangeText() string {
	if b.Low == math.MinInt64 && b.High == -1 {
		return "[negative]"
	}
	if b.Low == b.High {
		return "[" + short(b.Low) + "]"
	}
	if b.Low > 0 && b.High >= 1<<10-1 && b.High < 1<<63-1 {
		return "[" + short(b.Low) + ", " + short(b.High+1) + ")"
	}
	return "[" + short(b.Low) + ", " + short(b.High) + "]"
}

// short writes powers of 1024 with their letter.
func short(n int64) string {
	const letters = "KMGTPE"
	for i := len(letters); i > 0; i-- {
		if unit := int64(1) << (10 * i); n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + letters[i-1:i]
		}
	}
	return strconv.FormatInt(n, 10)
}
