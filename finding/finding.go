// Package finding is the form in which ksleuth states conclusions: a claim,
// what it stands on, how sure it is, and how to see it again. Findings are
// plain data; package render words them.
package finding

import "github.com/ksleuth/ksleuth/mem"

// A Certainty says how sure a finding is.
type Certainty string

// The certainties.
const (
	Proven   Certainty = "proven"   // nothing else explains the evidence
	Likely   Certainty = "likely"   // the evidence points here, a step is not shown
	Possible Certainty = "possible" // fits the evidence, as other things may
)

// A Finding is one conclusion.
type Finding struct {
	Title     string     `json:"title"` // short and stable: the same for every case of one kind
	Text      string     `json:"text"`  // the claim, in a sentence
	Certainty Certainty  `json:"certainty"`
	Evidence  []Evidence `json:"evidence"`
	Command   string     `json:"command,omitempty"` // shows it again
}

// Evidence is one thing that was read and what it says.
type Evidence struct {
	Text   string   `json:"text"`
	Addr   mem.Addr `json:"addr,omitempty"`   // where it was read
	Bytes  string   `json:"bytes,omitempty"`  // what was read there, in hexadecimal
	Insn   string   `json:"insn,omitempty"`   // the instruction there
	Symbol string   `json:"symbol,omitempty"` // the address by name
}
