// Package bpf reads BPF objects out of the kernel's memory: programs with
// their subprograms, source lines and maps.
package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

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

	// TailCall: the program or a function of it can be left by a tail call,
	// and so keeps the tail-call count (ebf7d1f508a7, 5.10).
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

	aux uint64 // of its struct bpf_prog_aux
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

// Programs returns the loaded programs by id (prog_idr). With an error comes
// what was read.
func Programs(k *kernel.Kernel) ([]*Program, error) {
	idr, err := k.Addr("prog_idr")
	if err != nil {
		return nil, err
	}
	var out []*Program
	var errs kernel.Errors
	for e, err := range k.XArray(idr) { // struct idr begins with its xarray
		if err != nil {
			errs.Add(fmt.Errorf("BPF programs: %w", err))
			break
		}
		p, err := ProgramAt(k, e.Entry)
		if err != nil {
			if errs.Add(fmt.Errorf("BPF program id %d: %w", e.Index, err)); errs.TooMany() {
				break
			}
			continue
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Program) int { return cmp.Compare(a.ID, b.ID) })
	return out, errs.Err()
}

// ProgramAt reads the struct bpf_prog at addr.
func ProgramAt(k *kernel.Kernel, addr uint64) (*Program, error) {
	o := k.Object("bpf_prog", addr)
	aux := o.Deref("aux")
	p := &Program{
		Addr:  mem.Addr(addr),
		ID:    int(aux.Uint("id")),
		Type:  typeName(k, o.Uint("type")),
		Name:  aux.Str("name"),
		Tag:   tag(k, o),
		Jited: o.Bool("jited"),
		aux:   aux.Addr,
	}
	if aux.Has("tail_call_reachable") { // ebf7d1f508a7, 5.10
		b := aux.Bool("tail_call_reachable")
		p.TailCall = &b
	}
	if err := errors.Join(o.Err(), aux.Err()); err != nil {
		return nil, err
	}
	var err error
	if p.Subprogs, err = subprogs(k, o, aux); err != nil {
		return nil, err
	}
	if len(p.Subprogs) > 0 && strings.HasPrefix(p.Subprogs[0].Name, p.Name) {
		p.Name = p.Subprogs[0].Name
	}
	p.MapIDs, err = mapIDs(k, aux)
	return p, err
}

// subprogs reads the functions of a program. A program with more than one has
// them in aux.func, itself the first (1c2a088a6626, 4.16); the main program's
// own code is that of the first.
func subprogs(k *kernel.Kernel, prog, aux *kernel.Object) ([]Subprog, error) {
	n, fn := aux.Uint("func_cnt"), aux.Ptr("func")
	if n == 0 || fn == 0 {
		s, err := subprog(k, prog, aux)
		return []Subprog{s}, err
	}
	if n > maxSubprogs {
		return nil, fmt.Errorf("bpf_prog_aux at 0x%x has %d functions: damaged", aux.Addr, n)
	}
	out := make([]Subprog, 0, n)
	for i := range n {
		p, err := mem.U64(k.Mem(), fn+8*i)
		if err != nil {
			return out, fmt.Errorf("function %d of bpf_prog_aux at 0x%x: %w", i, aux.Addr, err)
		}
		o := k.Object("bpf_prog", p)
		s, err := subprog(k, o, o.Deref("aux"))
		if err != nil {
			return out, err
		}
		out = append(out, s)
	}
	return out, nil
}

func subprog(k *kernel.Kernel, prog, aux *kernel.Object) (Subprog, error) {
	s := Subprog{
		Addr: mem.Addr(prog.Ptr("bpf_func")),
		Len:  int(prog.Uint("jited_len")),
		Tag:  tag(k, prog),
		aux:  aux.Addr,
	}
	// The symbol of the first function hangs on the main program, so look it
	// up by address.
	if text, ok := k.BPFTextAt(uint64(s.Addr)); ok {
		s.Name = functionName(text.Name)
	}
	if s.Name == "" {
		s.Name = aux.Str("name")
	}
	return s, errors.Join(prog.Err(), aux.Err())
}

// functionName takes the function's name out of its symbol's: bpf_prog_TAG_NAME
// (kernel/bpf/core.c, bpf_prog_ksym_set_name).
func functionName(symbol string) string {
	const tagLen = 16
	rest, ok := strings.CutPrefix(symbol, "bpf_prog_")
	if !ok || len(rest) < tagLen+2 {
		return ""
	}
	return rest[tagLen+1:]
}

func tag(k *kernel.Kernel, prog *kernel.Object) string {
	const size = 8 // BPF_TAG_SIZE
	// An array up to 7.x; either way eight bytes at this place.
	b, err := mem.Bytes(k.Mem(), prog.At("tag"), size)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x", b)
}

// typeName returns the name of a program type, from the kernel's own enum.
func typeName(k *kernel.Kernel, v uint64) string {
	return enumName(k, "bpf_prog_type", "BPF_PROG_TYPE_", v)
}

func enumName(k *kernel.Kernel, enum, prefix string, v uint64) string {
	if name, ok := enumerator(k, enum, prefix, v); ok {
		return strings.ToLower(strings.TrimPrefix(name, prefix))
	}
	return fmt.Sprintf("type %d", v)
}

// CommandName returns the name of a command of bpf(2), such as
// BPF_PROG_TEST_RUN, or its number.
func CommandName(k *kernel.Kernel, cmd uint64) string {
	if name, ok := enumerator(k, "bpf_cmd", "", cmd); ok {
		return name
	}
	return fmt.Sprint(cmd)
}

// enumerator returns the first constant of an enum with a prefix and a value.
func enumerator(k *kernel.Kernel, enum, prefix string, v uint64) (string, bool) {
	types, err := k.Types()
	if err != nil {
		return "", false
	}
	t, err := types.Lookup("enum " + enum)
	if err != nil {
		return "", false
	}
	for _, e := range t.Enumerators() {
		if strings.HasPrefix(e.Name, prefix) && e.Value == v {
			return e.Name, true
		}
	}
	return "", false
}

func mapIDs(k *kernel.Kernel, aux *kernel.Object) ([]int, error) {
	n, maps := aux.Uint("used_map_cnt"), aux.Ptr("used_maps")
	if err := aux.Err(); err != nil {
		return nil, err
	}
	if n > maxMaps {
		return nil, fmt.Errorf("bpf_prog_aux at 0x%x uses %d maps: damaged", aux.Addr, n)
	}
	out := make([]int, 0, n)
	for i := range n {
		p, err := mem.U64(k.Mem(), maps+8*i)
		if err != nil {
			return out, fmt.Errorf("map %d of bpf_prog_aux at 0x%x: %w", i, aux.Addr, err)
		}
		m := k.Object("bpf_map", p)
		out = append(out, int(m.Uint("id")))
		if err := m.Err(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// OwnerOf returns the program that the code at pc belongs to. A program that
// is no longer in the kernel's table (being freed) is read through its symbol;
// it then has id 0.
func OwnerOf(k *kernel.Kernel, pc uint64) (Owner, bool) {
	text, ok := k.BPFTextAt(pc)
	if !ok || !text.Program {
		return Owner{}, false
	}
	progs, _ := Programs(k)
	for _, p := range progs {
		for i, s := range p.Subprogs {
			if uint64(s.Addr) == text.Start || text.Start <= uint64(s.Addr) && uint64(s.Addr) < text.End {
				return Owner{p, i}, true
			}
		}
	}
	ksym, err := k.Offset("bpf_prog_aux", "ksym")
	if err != nil {
		return Owner{}, false
	}
	aux := k.Object("bpf_prog_aux", text.Ksym-ksym)
	p, err := ProgramAt(k, aux.Ptr("prog"))
	if err != nil {
		return Owner{}, false
	}
	return Owner{p, 0}, true
}
