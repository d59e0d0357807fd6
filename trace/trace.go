// Package trace observes calls of BPF programs and kernel functions and tells
// them as trees of calls, each with what was passed, what came back, who
// answered a tail call, and which packet it was about.
package trace

import (
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// A Call is one call of a function, with the observed calls made within.
type Call struct {
	Function string    `json:"function"`
	Module   string    `json:"module,omitempty"`
	Kind     string    `json:"kind"` // program, subprogram, extension, function, tracepoint
	Prog     *Program  `json:"prog,omitempty"`
	Stub     *Function `json:"stub,omitempty"` // what an extension stands in for

	Time     int64   `json:"time_ns"`               // of its entry, else its return: ns since 1970
	Start    uint64  `json:"start_ns,omitempty"`    // CLOCK_MONOTONIC; 0 if its entry was not seen
	End      uint64  `json:"end_ns,omitempty"`      // 0 if it has not returned
	Duration *uint64 `json:"duration_ns,omitempty"` // nil if not known
	CPU      int     `json:"cpu"`
	PID      int     `json:"pid"` // process
	TID      int     `json:"tid"` // thread
	Comm     string  `json:"comm"`

	Args   []Arg      `json:"args"`
	Shown  []Value    `json:"shown,omitempty"` // what --show asked for
	Return *Return    `json:"return,omitempty"`
	Tail   []TailCall `json:"tail_calls,omitempty"`
	// Refused: it would have made a tail call, made none, and returned.
	Refused *Refusal `json:"tail_call_refused,omitempty"`
	// TailNote says what is not known of its tail calls.
	TailNote string  `json:"tail_call_note,omitempty"`
	Packet   *Packet `json:"packet,omitempty"`
	Stack    []Frame `json:"stack,omitempty"`
	Calls    []*Call `json:"calls,omitempty"`

	// Unfinished: it had not returned when observation ended; Duration is how
	// long it had been under way.
	Unfinished bool `json:"unfinished,omitempty"`
	// Jumped: not a call, but a program that was seen to be entered by a tail
	// call, with nothing observed around it; RAX as in TailCall.
	Jumped bool     `json:"tail_called,omitempty"`
	RAX    mem.Addr `json:"rax,omitempty"`
	// Orphan: it was made in an observed call which is not told: the record of
	// that was lost, or too many calls were made in it to wait for its end.
	Orphan bool `json:"caller_missing,omitempty"`
	// Missing counts calls that were made in it and are told apart from it.
	Missing int `json:"calls_missing,omitempty"`
}

// A Program names a BPF program.
type Program struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
	Tag  string `json:"tag"`
}

// A Function names a function of a BPF program.
type Function struct {
	Prog Program `json:"prog"`
	Name string  `json:"name"`
}

// An Arg is an argument.
type Arg struct {
	Name string      `json:"name"`
	Type string      `json:"type"`
	Raw  mem.Addr    `json:"raw"` // the register
	Text string      `json:"text"`
	Val  ctype.Value `json:"-"`
}

// A Value is what an expression of the user's gave.
type Value struct {
	Expr  string `json:"expr"`
	Value any    `json:"value,omitempty"` // a number, a string or an object
	Text  string `json:"text"`
	Error string `json:"error,omitempty"` // memory that could not be read
}

// A Return is what came back.
type Return struct {
	Raw     mem.Addr `json:"raw"`   // r0, all 64 bits
	Value   int64    `json:"value"` // by the type the function returns
	Text    string   `json:"text"`  // XDP_PASS, -22 (-EINVAL), ...
	Meaning string   `json:"meaning,omitempty"`
	// Odd: it is none of the values that the type of the program knows, which
	// Meaning then says.
	Odd bool `json:"odd,omitempty"`
}

// A TailCall is a program that was entered by a tail call.
type TailCall struct {
	Prog  Program `json:"prog"`
	Map   string  `json:"map,omitempty"` // the program array
	MapID int     `json:"map_id,omitempty"`
	Index int     `json:"index"` // -1 if it is not known
	At    uint64  `json:"at_ns"`
	// RAX is what the register with the tail-call count held at the entry.
	RAX mem.Addr `json:"rax"`
	// Certain: it was seen to be entered; else nothing else can have answered.
	Certain bool `json:"seen"`
	// From are the functions of which one made it, one of them if that is
	// certain; empty if that was the call itself, or the program that was
	// entered before.
	From []string `json:"from,omitempty"`
}

// A Refusal says why a tail call was not made.
type Refusal struct {
	Text     string   `json:"text"`
	Evidence []string `json:"evidence"`
	// Proven: it cannot have been made, whatever was watched.
	Proven bool `json:"proven,omitempty"`
}

// A Packet is what a call was about.
type Packet struct {
	Text    string `json:"text"` // 10.0.0.2:44310 > 10.0.0.1:443 tcp
	Len     int    `json:"len"`
	Ifindex int    `json:"ifindex,omitempty"`
	Iface   string `json:"iface,omitempty"`
	Netns   uint32 `json:"netns_ino,omitempty"`
	ID      string `json:"id,omitempty"` // the same for clones and copies, with --track
	Data    []byte `json:"-"`
	Raw     bool   `json:"-"` // it begins at the network header
}

// A Frame is a caller.
type Frame struct {
	Addr   mem.Addr `json:"addr"`
	Symbol string   `json:"symbol"`
	Offset uint64   `json:"offset"`
}
