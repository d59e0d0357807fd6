// Package bpf reads BPF objects out of the kernel's memory: programs with
// their subprograms and source lines, maps with their entries, links,
// attachments and trampolines.
package bpf

import (
	"errors"
	"slices"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A Program is a loaded BPF program. Fields are named as bpftool names them,
// where it has them. What the source of the data does not tell is zero or nil
// and left out of the JSON form.
type Program struct {
	Addr mem.Addr `json:"addr,omitzero"` // of the struct bpf_prog; 0 where memory cannot be read
	ID   int      `json:"id"`
	Type string   `json:"type"` // as bpftool names it: sched_cls, xdp, ...
	Name string   `json:"name"` // full, where its BTF has it; else cut to 15 characters
	Tag  string   `json:"tag"`
	UID  uint32   `json:"uid"` // who loaded it
	GPL  bool     `json:"gpl_compatible"`

	LoadTime uint64 `json:"load_time_ns"` // nanoseconds since boot
	LoadedAt int64  `json:"loaded_at"`    // seconds of Unix time
	RunCount uint64 `json:"run_cnt"`      // counted while kernel.bpf_stats_enabled is set
	RunTime  uint64 `json:"run_time_ns"`
	Missed   uint64 `json:"recursion_misses"` // runs left out because it was already running on that CPU

	XlatedLen int    `json:"bytes_xlated"` // of BPF instructions after the verifier's rewrites
	Jited     bool   `json:"jited"`
	JitedLen  int    `json:"bytes_jited"`            // of machine code, all functions
	Memory    uint64 `json:"bytes_memlock,omitzero"` // of pages
	Verified  int    `json:"verified_insns"`         // instructions the verifier walked; 0 before 5.16

	// TailCall: a function that it calls can make a tail call, so that its
	// functions hand the tail-call count on (ebf7d1f508a7, 5.10). Tail calls
	// of its main function alone do not count.
	TailCall *bool `json:"tail_call_reachable,omitempty"`
	// Extended: a freplace program stands in for one of its functions
	// (d6083f040d5d, 6.13, and stable kernels that have it).
	Extended  *bool  `json:"is_extended,omitempty"`
	Sleepable bool   `json:"sleepable,omitempty"`
	Attach    string `json:"attach_type,omitempty"` // expected_attach_type, as trace_fentry, where the type has any
	// Target is what a tracing, lsm, freplace or struct_ops program was
	// loaded for.
	Target  *Target `json:"target,omitempty"`
	Ifindex int     `json:"ifindex,omitempty"` // device it was offloaded to or bound to

	Subprogs []Subprog `json:"subprogs"` // the first is the main program
	MapIDs   []int     `json:"map_ids"`
	BTF      int       `json:"btf_id,omitempty"`
	Holders  []Holder  `json:"pids,omitempty"`   // processes with a descriptor of it
	Pins     []string  `json:"pinned,omitempty"` // paths; of the running kernel only

	aux uint64
}

// A Holder is a process that has a descriptor of an object, or of a link to it.
type Holder struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
}

// A Subprog is one function of a program.
type Subprog struct {
	Name string   `json:"name"`
	Tag  string   `json:"tag"`
	Addr mem.Addr `json:"addr"` // of its machine code
	Len  int      `json:"len"`
	// TypeID is the function's number in the program's BTF; 0 if it has none.
	TypeID uint32 `json:"-"`

	prog, aux uint64 // of its struct bpf_prog and bpf_prog_aux
	tailCall  bool   // can be left by a tail call
}

// An Owner says which program some generated code belongs to.
type Owner struct {
	Prog    *Program
	Subprog int // index into Prog.Subprogs
}

// Limits on what is believed of foreign memory.
const (
	maxSubprogs = 1 << 12
	maxMaps     = 1 << 10
)

// Programs returns the loaded programs by id (prog_idr); with ids, those of
// them that there are, and nothing of the others is read. With an error comes
// what was read: a program of which only the surroundings cannot be read is
// listed.
func Programs(k *kernel.Kernel, ids ...int) ([]*Program, error) {
	r := newProgReader(k)
	out, err := listIDR(k, "prog_idr", "BPF program", ids, func(addr uint64) (*Program, int, error) {
		p, err := r.program(addr)
		if p == nil {
			return nil, unreadable, err
		}
		return p, p.ID, err
	})
	return out, errors.Join(err, r.targets(len(ids) == 0))
}

// ProgramAt reads the struct bpf_prog at addr. It returns a program and an
// error where only what surrounds the program could not be read: counters, the
// user who loaded it, its target.
func ProgramAt(k *kernel.Kernel, addr uint64) (*Program, error) {
	r := newProgReader(k)
	p, err := r.program(addr)
	return p, errors.Join(err, r.targets(false))
}

// OwnerOf returns the program that the code at pc belongs to. A program that
// is no longer in the kernel's table (being freed) is read through its symbol;
// it then has id 0.
func OwnerOf(k *kernel.Kernel, pc uint64) (Owner, bool) {
	text, ok := k.BPFTextAt(pc)
	if !ok || !text.Program {
		return Owner{}, false
	}
	ksym, err := k.Offset("bpf_prog_aux", "ksym")
	if err != nil {
		return Owner{}, false
	}
	function := k.Object("bpf_prog_aux", text.Ksym-ksym).Ptr("prog")
	p, _ := ProgramAt(k, mainProgram(k, function))
	if p == nil {
		return Owner{}, false
	}
	for i, s := range p.Subprogs {
		if uint64(s.Addr) == text.Start || text.Start <= uint64(s.Addr) && uint64(s.Addr) < text.End {
			return Owner{p, i}, true
		}
	}
	return Owner{p, 0}, true
}

// mainProgram returns the program in the kernel's table that has the struct
// bpf_prog at function among its functions, or else function itself.
func mainProgram(k *kernel.Kernel, function uint64) uint64 {
	idr, err := k.Addr("prog_idr")
	if err != nil {
		return function
	}
	for e, err := range k.XArray(idr) {
		if err != nil || e.Entry == function {
			break
		}
		aux := k.Object("bpf_prog", e.Entry).Deref("aux")
		n := aux.Uint("func_cnt")
		if n == 0 || n > maxSubprogs || aux.Err() != nil {
			continue
		}
		funcs, err := words(k, aux.Ptr("func"), n)
		if err == nil && slices.Contains(funcs, function) {
			return e.Entry
		}
	}
	return function
}
