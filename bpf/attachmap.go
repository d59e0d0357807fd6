package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
)

// mapPrograms reads the programs of maps that run some, by the map's type.
var mapPrograms = map[string]func(*attachReader, uint64) error{
	"sockmap":    func(r *attachReader, at uint64) error { return r.sockmap(r.k.Object("bpf_stab", at)) },
	"sockhash":   func(r *attachReader, at uint64) error { return r.sockmap(r.k.Object("bpf_shtab", at)) },
	"struct_ops": (*attachReader).structOps,
}

// maps looks through the table of maps.
func (r *attachReader) maps() error {
	idr, err := r.k.Addr("map_idr")
	if err != nil {
		return err
	}
	for e, err := range r.k.XArray(idr) {
		if err != nil {
			return err
		}
		o := r.k.Object("bpf_map", e.Entry)
		read := mapPrograms[enumName(r.k, "bpf_map_type", "BPF_MAP_TYPE_", o.Uint("map_type"))]
		err := o.Err()
		if err == nil && read != nil {
			err = read(r, e.Entry)
		}
		if err != nil {
			r.errs.Add(fmt.Errorf("map id %d: %w", e.Index, err))
		}
		if r.errs.TooMany() {
			break
		}
	}
	return nil
}

// sockmapProgs are the programs of a sockmap or sockhash, struct sk_psock_progs,
// by attach type. Up to a7ba4558e69a (5.13) the two for streams were called
// after sk_skb; the name skb_verdict then got a meaning of its own.
var sockmapProgs = []struct{ member, before, attach string }{
	{"msg_parser", "msg_parser", "sk_msg_verdict"},
	{"stream_parser", "skb_parser", "sk_skb_stream_parser"},
	{"stream_verdict", "skb_verdict", "sk_skb_stream_verdict"},
	{"skb_verdict", "", "sk_skb_verdict"},
}

func (r *attachReader) sockmap(o *kernel.Object) error {
	streams := o.Has("progs.stream_verdict")
	for _, p := range sockmapProgs {
		member := p.member
		if !streams {
			member = p.before
		}
		if member == "" {
			continue
		}
		link := "progs." + member + "_link" // 699c23f02c65, 6.10
		if o.Has(link) && o.Ptr(link) != 0 {
			continue
		}
		t := Target{Kind: TargetMap, MapID: int(o.Uint("map.id"))}
		prog := o.Ptr("progs." + member)
		if err := o.Err(); err != nil {
			return err
		}
		if err := r.add(prog, Attachment{Kind: "sockmap", Attach: p.attach, Target: t}); err != nil {
			return err
		}
	}
	return nil
}

const (
	structOpsLink  = 1 << 13 // BPF_F_LINK in map_flags (68b04864ca42, 6.4): a link registers the map
	structOpsInUse = 1       // BPF_STRUCT_OPS_STATE_INUSE
	maxStructOps   = 1 << 10
)

// structOps reads the programs of a struct_ops map that an update of its one
// element registered. They hang on links of their own since f7e0beaf39d3 (5.19),
// which nobody sees.
func (r *attachReader) structOps(at uint64) error {
	o := r.k.Object("bpf_struct_ops_map", at)
	flags, state := o.Uint("map.map_flags"), o.Uint("kvalue.common.state|kvalue.state")
	if err := o.Err(); err != nil || flags&structOpsLink != 0 || state != structOpsInUse {
		return err
	}
	t, err := structOpsTarget(r.k, at)
	if err != nil {
		return err
	}
	var n uint64
	if o.Has("funcs_cnt") { // 6.11
		n = o.Uint("funcs_cnt")
	} else {
		typ := o.Deref("st_ops_desc|st_ops").Deref("type")
		n = typ.Uint("info") & 0xffff // BTF_INFO_VLEN: one slot a member
		err = typ.Err()
	}
	slots := o.Ptr("links|progs")
	if err := errors.Join(err, o.Err()); err != nil {
		return err
	}
	if n > maxStructOps {
		return fmt.Errorf("bpf_struct_ops_map at 0x%x has %d functions: damaged", at, n)
	}
	progs, err := words(r.k, slots, n)
	for _, p := range progs {
		if p != 0 && o.Has("links") {
			link := r.k.Object("bpf_link", p)
			p = link.Ptr("prog")
			err = errors.Join(err, link.Err())
		}
		err = errors.Join(err, r.add(p, Attachment{Kind: "struct_ops", Target: t}))
	}
	return err
}
