package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A progReader reads programs; it keeps what all of them need.
type progReader struct {
	k     *kernel.Kernel
	wall  int64 // see bootTime
	stats statsReader
	// open are the programs of whose target the address, or the program that
	// it is of, is still to be found.
	open []*Program
}

func newProgReader(k *kernel.Kernel) *progReader {
	return &progReader{k: k, wall: bootTime(k), stats: newStatsReader(k)}
}

// program reads the struct bpf_prog at addr. It returns a program and an error
// where only what surrounds the program could not be read.
func (r *progReader) program(addr uint64) (*Program, error) {
	o := r.k.Object("bpf_prog", addr).Load()
	aux := o.Deref("aux").Load()
	p := &Program{
		Addr:      mem.Addr(addr),
		ID:        int(aux.Uint("id")),
		Type:      typeName(r.k, o.Uint("type")),
		Name:      aux.Str("name"),
		Tag:       tag(r.k, o),
		GPL:       o.Bool("gpl_compatible"),
		LoadTime:  aux.Uint("load_time"),
		XlatedLen: int(o.Uint("len")) * insnSize,
		Jited:     o.Bool("jited"),
		Memory:    o.Uint("pages") * pageSize,
		aux:       aux.Addr,
	}
	p.optional(o, aux)
	if err := cmp.Or(o.Err(), aux.Err()); err != nil {
		return nil, err
	}
	if r.wall != 0 {
		p.LoadedAt = (r.wall + int64(p.LoadTime)) / 1e9
	}
	p.Attach = expectedAttach(r.k, p.Type, o.Uint("expected_attach_type"))
	var err error
	if p.Subprogs, err = subprogs(r.k, o, aux); err != nil {
		return nil, err
	}
	for _, s := range p.Subprogs {
		p.JitedLen += s.Len
		if s.tailCall && p.TailCall != nil {
			*p.TailCall = true
		}
	}
	if len(p.Subprogs) > 0 && strings.HasPrefix(p.Subprogs[0].Name, p.Name) {
		p.Name = p.Subprogs[0].Name
	}
	if p.MapIDs, err = mapIDs(r.k, aux); err != nil {
		return nil, err
	}
	return p, errors.Join(r.stats.read(p, o, aux), r.around(p, o, aux))
}

// optional reads what only some kernels have.
func (p *Program) optional(o, aux *kernel.Object) {
	if aux.Has("tail_call_reachable") { // ebf7d1f508a7, 5.10
		b := aux.Bool("tail_call_reachable")
		p.TailCall = &b
	}
	if aux.Has("is_extended") { // d6083f040d5d, 6.13
		b := aux.Bool("is_extended")
		p.Extended = &b
	}
	if aux.Has("verified_insns") { // aba64c7da983, 5.16
		p.Verified = int(aux.Uint("verified_insns"))
	}
	switch {
	case o.Has("sleepable"): // 66c8473135c6, 6.9
		p.Sleepable = o.Bool("sleepable")
	case aux.Has("sleepable"): // 1e6c62a88215, 5.10
		p.Sleepable = aux.Bool("sleepable")
	}
}

// around reads what hangs on a program: its owner, device, BTF and target.
func (r *progReader) around(p *Program, o, aux *kernel.Object) error {
	var errs []error
	if aux.Ptr("user") != 0 {
		user := aux.Deref("user")
		p.UID = uint32(user.Uint("uid.val"))
		errs = append(errs, user.Err())
	}
	if aux.Ptr("btf") != 0 {
		btf := aux.Deref("btf")
		p.BTF = int(btf.Uint("id"))
		errs = append(errs, btf.Err())
	}
	if aux.Ptr("offload") != 0 {
		if offload := aux.Deref("offload"); offload.Ptr("netdev") != 0 {
			dev := offload.Deref("netdev")
			p.Ifindex = int(dev.Uint("ifindex"))
			errs = append(errs, dev.Err())
		}
	}
	return errors.Join(append(errs, aux.Err(), r.target(p, o, aux))...)
}

// expectedAttach names the attach type that a program was loaded for, where
// its type has any. 0 is one of cgroup_skb's, but also what programs of other
// types have that need none. Of a struct_ops program the word is the number of
// a member; a freplace program has it from its target. A kernel that does not
// look at it takes any number: those it has no name for mean nothing.
func expectedAttach(k *kernel.Kernel, typ string, v uint64) string {
	if v == 0 && typ != "cgroup_skb" || typ == "struct_ops" || typ == "ext" {
		return ""
	}
	name, _ := enumerator(k, "bpf_attach_type", "BPF_", v)
	return strings.ToLower(strings.TrimPrefix(name, "BPF_"))
}

// subprogs reads the functions of a program. A program with more than one has
// them in aux.func, itself the first (1c2a088a6626, 4.16); the main program's
// own code is that of the first.
func subprogs(k *kernel.Kernel, prog, aux *kernel.Object) ([]Subprog, error) {
	n, fn := aux.Uint("func_cnt"), aux.Ptr("func")
	if n == 0 || fn == 0 {
		s, err := subprog(k, prog, aux, aux)
		return []Subprog{s}, err
	}
	if n > maxSubprogs {
		return nil, fmt.Errorf("bpf_prog_aux at 0x%x has %d functions: damaged", aux.Addr, n)
	}
	addrs, err := words(k, fn, n)
	if err != nil {
		return nil, fmt.Errorf("functions of bpf_prog_aux at 0x%x: %w", aux.Addr, err)
	}
	out := make([]Subprog, 0, n)
	named := aux // the symbol of the first function hangs on the main program
	for i, addr := range addrs {
		o := k.Object("bpf_prog", addr).Load()
		own := o.Deref("aux").Load()
		if i > 0 {
			named = own
		}
		s, err := subprog(k, o, own, named)
		if err != nil {
			return out, fmt.Errorf("function %d of bpf_prog_aux at 0x%x: %w", i, aux.Addr, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// subprog reads a function; named is the bpf_prog_aux that has its symbol.
func subprog(k *kernel.Kernel, prog, aux, named *kernel.Object) (Subprog, error) {
	s := Subprog{Tag: tag(k, prog), Len: int(prog.Uint("jited_len")), prog: prog.Addr, aux: aux.Addr}
	if prog.Bool("jited") { // else bpf_func is the interpreter
		s.Addr = mem.Addr(prog.Ptr("bpf_func"))
	}
	if named.Has("ksym.name") { // 535911c80ad4, 5.7
		s.Name = functionName(named.Str("ksym.name"))
	}
	if s.Name == "" {
		s.Name = aux.Str("name")
	}
	err := cmp.Or(prog.Err(), aux.Err(), named.Err())
	s.TypeID = functionType(k, aux)
	// The main program's flag says the same on kernels of today.
	s.tailCall = aux.Has("tail_call_reachable") && aux.Bool("tail_call_reachable")
	return s, err
}

// functionType returns the number of a function's type in its program's BTF:
// that in its struct bpf_func_info, or 0 if there is none (ba64e7d85252, 5.0).
func functionType(k *kernel.Kernel, aux *kernel.Object) uint32 {
	infos, i := aux.Ptr("func_info"), aux.Uint("func_idx")
	if infos == 0 || i >= maxSubprogs || aux.Err() != nil {
		return 0
	}
	o := k.Object("bpf_func_info", infos+i*k.Sizeof("bpf_func_info"))
	id := uint32(o.Uint("type_id"))
	if o.Err() != nil {
		return 0
	}
	return id
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

func mapIDs(k *kernel.Kernel, aux *kernel.Object) ([]int, error) {
	n, maps := aux.Uint("used_map_cnt"), aux.Ptr("used_maps")
	if err := aux.Err(); err != nil {
		return nil, err
	}
	if n > maxMaps {
		return nil, fmt.Errorf("bpf_prog_aux at 0x%x uses %d maps: damaged", aux.Addr, n)
	}
	addrs, err := words(k, maps, n)
	if err != nil {
		return nil, fmt.Errorf("maps of bpf_prog_aux at 0x%x: %w", aux.Addr, err)
	}
	out := make([]int, 0, n)
	for _, addr := range addrs {
		id, err := mapID(k, addr)
		if err != nil {
			return out, err
		}
		out = append(out, id)
	}
	return out, nil
}
