package bpf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// target reads what a tracing, lsm, freplace or struct_ops program was loaded
// for (bpf_check_attach_target, check_struct_ops_btf_id).
func (r *progReader) target(p *Program, o, aux *kernel.Object) error {
	typ := int(aux.Uint("attach_btf_id"))
	if typ == 0 || aux.Err() != nil || strings.HasSuffix(p.Attach, "_multi") { // of many functions, by its link
		return aux.Err()
	}
	t := &Target{Kind: TargetFunction, Type: typ, Name: aux.Str("attach_func_name")}
	if aux.Has("attach_btf") && aux.Ptr("attach_btf") != 0 { // 290248a5b7d8, 5.11
		btf := aux.Deref("attach_btf")
		t.BTF = int(btf.Uint("id"))
		if name := btf.Str("name"); name != "vmlinux" {
			t.Module = name
		}
		if err := btf.Err(); err != nil {
			return fmt.Errorf("BTF of its target: %w", err)
		}
	}
	if p.Type == "struct_ops" {
		t.Kind = TargetStructOps
		t.Name = strings.TrimSuffix(r.typeNameOf(t.Module, typ)+"."+t.Name, ".")
		p.Target = t
		return aux.Err()
	}
	dst := aux.Ptr("dst_prog")
	switch {
	case dst != 0:
		prog := aux.Deref("dst_prog").Deref("aux")
		t.Kind, t.ProgID = TargetProgram, int(prog.Uint("id"))
		if prog.Ptr("btf") != 0 {
			t.BTF = int(prog.Deref("btf").Uint("id"))
		}
		if err := prog.Err(); err != nil {
			return fmt.Errorf("its target: %w", err)
		}
	case aux.Uint("saved_dst_prog_type") != 0: // the attachment has taken dst_prog over
		t.Kind = TargetProgram
	case p.Attach == "trace_raw_tp":
		t.Kind, t.Name = TargetTracepoint, strings.TrimPrefix(t.Name, "btf_trace_")
	case p.Attach == "trace_iter":
		t.Kind, t.Name = TargetIterator, strings.TrimPrefix(t.Name, "bpf_iter_")
	}
	p.Target = t
	if tr := aux.Ptr("dst_trampoline"); tr != 0 {
		fn := r.k.Object("bpf_trampoline", tr)
		t.Addr = mem.Addr(fn.Uint("func.addr"))
		return cmp.Or(aux.Err(), fn.Err())
	}
	if t.Kind == TargetFunction || t.Kind == TargetProgram {
		r.open = append(r.open, p)
	}
	return aux.Err()
}

// typeNameOf returns the name of a type of the kernel or a module, or "".
func (r *progReader) typeNameOf(module string, id int) string {
	types, err := r.k.Types()
	if err != nil {
		return ""
	}
	t, err := types.ByID(module, uint32(id))
	if err != nil {
		return ""
	}
	return t.Name()
}

// targets completes the targets of attached programs: their link knows the
// trampoline and the target program; links are only looked at if all may be
// read. The addresses that are still missing are those of symbols.
func (r *progReader) targets(links bool) error {
	if len(r.open) == 0 {
		return nil
	}
	var err error
	if links {
		err = r.fromLinks()
	}
	byName := make(map[string][]*Target)
	for _, p := range r.open {
		switch t := p.Target; {
		case t.Addr != 0 || t.Kind != TargetFunction:
		case t.Module != "":
			if s, ok := r.k.Lookup(t.Module + ":" + t.Name); ok {
				t.Addr = mem.Addr(s.Addr)
			}
		default:
			byName[t.Name] = append(byName[t.Name], t)
		}
	}
	if len(byName) == 0 {
		return err
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	for name, s := range r.k.LookupAll(names...) {
		for _, t := range byName[name] {
			t.Addr = mem.Addr(s.Addr)
		}
	}
	return err
}

// fromLinks takes the open targets out of the tracing links.
func (r *progReader) fromLinks() error {
	idr, err := r.k.Addr("link_idr")
	if err != nil {
		return nil // before 5.8 (a3b80e107894)
	}
	byAddr := make(map[mem.Addr]*Target, len(r.open))
	for _, p := range r.open {
		byAddr[p.Addr] = p.Target
	}
	var errs kernel.Errors
	for e, err := range r.k.XArray(idr) {
		if err != nil {
			break // for Links to report, as are links that cannot be read
		}
		o := r.k.Object("bpf_link", e.Entry)
		prog, typ := o.Ptr("prog"), o.Uint("type")
		t := byAddr[mem.Addr(prog)]
		if t == nil || enumName(r.k, "bpf_link_type", "BPF_LINK_TYPE_", typ) != "tracing" {
			continue
		}
		link := r.k.Object("bpf_tracing_link", e.Entry)
		if link.Ptr("trampoline") != 0 {
			fn := link.Deref("trampoline")
			t.Addr = mem.Addr(fn.Uint("func.addr"))
			errs.Add(fn.Err())
		}
		if link.Ptr("tgt_prog") != 0 && t.Kind == TargetProgram {
			if t.ProgID, err = progID(r.k, link.Ptr("tgt_prog")); err != nil {
				errs.Add(err)
			}
		}
		errs.Add(link.Err())
	}
	return errs.Err()
}
