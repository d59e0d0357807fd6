package bpf

// An Inventory is everything BPF that a kernel had at one moment.
type Inventory struct {
	Programs []*Program
	Maps     []*Map
	// Entries are those of the maps whose values are other objects: program
	// arrays, maps of maps and the like, by map id.
	Entries     map[int][]Entry
	Links       []*Link
	Attachments []Attachment
	Trampolines []*Trampoline
}
