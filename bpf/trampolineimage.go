package bpf

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// dispatchers returns the images that choose among XDP programs by direct
// jumps: struct bpf_dispatcher (75ccbef6369e, 5.6), known by its symbol.
func (r *trampolineReader) dispatchers() []*Trampoline {
	const prefix = "bpf_dispatcher_"
	off, err := r.k.Offset("bpf_dispatcher", "ksym")
	if err != nil {
		return nil // built without a JIT
	}
	var out []*Trampoline
	for _, text := range r.text {
		if text.Program || !strings.HasPrefix(text.Name, prefix) {
			continue
		}
		t, err := r.dispatcher(r.k.Object("bpf_dispatcher", text.Ksym-off), text)
		if err != nil {
			r.errs.Add(fmt.Errorf("%s: %w", text.Name, err))
		}
		out = append(out, t)
	}
	return out
}

func (r *trampolineReader) dispatcher(o *kernel.Object, text kernel.BPFText) (*Trampoline, error) {
	t := &Trampoline{Kind: "dispatcher", Name: text.Name, Progs: []TrampolineProg{}, Flags: []string{}}
	// A page in two halves: one is in use, the next version is written to the other.
	t.Image, t.Size = mem.Addr(text.Start), int(min(text.End-text.Start, maxImage))/2
	if off := o.Uint("image_off"); off < text.End-text.Start {
		t.Image += mem.Addr(off)
	}
	t.Target = r.codeTarget(o.Ptr("func"))
	progs, limit := o.Field("progs"), o.Len("progs")
	for i := range limit {
		e := progs.Elem(i)
		addr := e.Ptr("prog")
		if err := e.Err(); err != nil {
			return t, err
		}
		if addr == 0 {
			continue
		}
		if p := r.prog(addr); p != nil {
			t.Progs = append(t.Progs, TrampolineProg{ID: p.ID, Name: p.Name, When: "dispatch"})
		}
	}
	return t, o.Err()
}

// structOps returns the images through which the kernel calls the programs of
// struct_ops maps.
func (r *trampolineReader) structOps() []*Trampoline {
	idr, err := r.k.Addr("map_idr")
	if err != nil {
		r.errs.Add(fmt.Errorf("struct_ops images: %w", err))
		return nil
	}
	var out []*Trampoline
	for e, err := range r.k.XArray(idr) {
		if err != nil {
			r.errs.Add(fmt.Errorf("struct_ops images: %w", err))
			break
		}
		m := r.k.Object("bpf_map", e.Entry)
		typ := m.Uint("map_type")
		if err := m.Err(); err != nil {
			if r.errs.Add(fmt.Errorf("BPF map id %d: %w", e.Index, err)); r.errs.TooMany() {
				break
			}
			continue
		}
		if enumName(r.k, "bpf_map_type", "BPF_MAP_TYPE_", typ) != "struct_ops" {
			continue
		}
		images, err := r.structOpsMap(r.k.Object("bpf_struct_ops_map", e.Entry), int(e.Index))
		if err != nil {
			r.errs.Add(fmt.Errorf("struct_ops map id %d: %w", e.Index, err))
		}
		out = append(out, images...)
	}
	return out
}

// structOpsMap reads the images of a struct_ops map (85d33df357b6, 5.6). The
// struct that the kernel calls through, kvalue, has their addresses; the user's
// copy of it, uvalue, has the ids of the programs in the same places.
func (r *trampolineReader) structOpsMap(o *kernel.Object, id int) ([]*Trampoline, error) {
	desc := o
	if o.Has("st_ops_desc") { // 4c5763ed996a, 6.9
		desc = o.Deref("st_ops_desc")
	}
	ops := desc.Deref("st_ops")
	name := ops.Str("name")
	pages := structOpsPages(r.k, o)
	kdata, uvalue := o.At("kvalue.data"), o.Ptr("uvalue")
	data, err := r.k.Offset("bpf_struct_ops_value", "data")
	if err := cmp.Or(o.Err(), ops.Err(), err); err != nil {
		return nil, err
	}
	types, err := r.k.Types()
	if err != nil {
		return nil, err
	}
	rec, err := types.Struct(name)
	if err != nil {
		return nil, err
	}
	var out []*Trampoline
	for _, member := range rec.Members() {
		if member.Type.Strip().Kind() != ctype.Pointer || member.Type.Strip().Elem().Strip().Kind() != ctype.FuncProto {
			continue
		}
		off := uint64(member.Offset / 8)
		code, err := mem.U64(r.k.Mem(), kdata+off)
		if err != nil {
			return out, err
		}
		if !slices.ContainsFunc(pages, func(p uint64) bool { return code-p < pageSize }) {
			continue // no program for this member
		}
		prog, err := mem.U64(r.k.Mem(), uvalue+data+off)
		if err != nil {
			return out, err
		}
		t := &Trampoline{Kind: "struct_ops", Image: mem.Addr(code), Progs: []TrampolineProg{}, Flags: []string{}, Member: member.Name}
		t.Target = Target{Kind: TargetStructOps, Name: name, MapID: id}
		if p := r.ids[int(prog)]; p != nil {
			t.Progs = append(t.Progs, TrampolineProg{ID: p.ID, Name: p.Name, When: "struct_ops"})
		}
		if text, ok := r.k.BPFTextAt(code); ok { // 7c8ce4ffb684, 6.13, and stable kernels
			t.Name, t.Image, t.Size = text.Name, mem.Addr(text.Start), int(min(text.End-text.Start, maxImage))
		}
		r.readCode(t)
		out = append(out, t)
	}
	return out, nil
}

const pageSize = 4096

// structOpsPages returns the pages that hold a struct_ops map's images: one, or
// up to MAX_TRAMP_IMAGE_PAGES.
func structOpsPages(k *kernel.Kernel, o *kernel.Object) []uint64 {
	if !o.Has("image_pages") {
		return []uint64{o.Ptr("image")}
	}
	first, n := o.At("image_pages"), min(o.Uint("image_pages_cnt"), uint64(o.Len("image_pages")))
	var out []uint64
	for i := range n {
		if p, err := mem.U64(k.Mem(), first+8*i); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// retired returns the images of trampolines that belong to none of known: their
// trampoline has a newer one or is gone, but a task may still be in them. Where
// not all trampolines were seen they may be in use.
func (r *trampolineReader) retired(known []*Trampoline) []*Trampoline {
	const prefix = "bpf_trampoline_"
	used := make(map[uint64]bool)
	for _, t := range known {
		used[uint64(t.Image)] = true
	}
	kind := "retired"
	if r.partial {
		kind = "trampoline"
	}
	var out []*Trampoline
	for _, text := range r.text {
		key, ok := strings.CutPrefix(text.Name, prefix)
		if text.Program || used[text.Start] || !ok {
			continue
		}
		t := &Trampoline{
			Kind: kind, Name: text.Name, Image: mem.Addr(text.Start), Size: int(min(text.End-text.Start, maxImage)),
			Progs: []TrampolineProg{}, Flags: []string{},
		}
		key, _, _ = strings.Cut(key, "_") // a serial number of the image follows in older kernels
		if n, err := strconv.ParseUint(key, 10, 64); err == nil {
			t.Key, t.Target = mem.Addr(n), r.trampolineTarget(0, n)
		}
		out = append(out, t)
	}
	return out
}
