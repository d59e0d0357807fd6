package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// classful are the queueing disciplines that can have filters, besides ingress
// and clsact, whose filters the device itself points at: the name that tc has
// for each, its private data, and the filters in it. Some are modules; a kernel
// whose BTF lacks the struct has none of them, or no BTF of its modules.
var classful = map[string]struct{ record, block string }{
	"cake":     {"cake_sched_data", "block"},
	"drr":      {"drr_sched", "block"},
	"ets":      {"ets_sched", "block"},
	"fq_codel": {"fq_codel_sched_data", "block"},
	"hfsc":     {"hfsc_sched", "root.block"},
	"htb":      {"htb_sched", "block"},
	"multiq":   {"multiq_sched_data", "block"},
	"prio":     {"prio_sched_data", "block"},
	"qfq":      {"qfq_sched", "block"},
	"sfb":      {"sfb_sched_data", "block"},
	"sfq":      {"sfq_sched_data", "block"},
}

// filters reads the tc filters of a device.
func (r *attachReader) filters(dev *kernel.Object, t Target) error {
	for _, h := range tcHooks {
		miniq, err := r.miniq(dev, h.tcx, h.miniq)
		if err != nil {
			return fmt.Errorf("%s filters: %w", h.name, err)
		}
		if miniq == 0 {
			continue
		}
		// Only ingress has the block at hand; the first filter leads to it, too.
		o := r.k.Object("mini_Qdisc", miniq)
		first := o.Deref("filter_list").Deref("chain")
		block := first.Ptr("block")
		err = errors.Join(o.Err(), first.Err())
		if err == nil {
			err = r.block(block, Attachment{Kind: "tc", Attach: h.name, Target: t})
		}
		if err != nil {
			return fmt.Errorf("%s filters: %w", h.name, err)
		}
	}
	qdiscs, err := r.qdiscs(dev)
	for _, q := range qdiscs {
		id := q.Deref("ops").Str("id")
		kind, ok := classful[id]
		if !ok || !q.Has("privdata") {
			continue
		}
		priv := r.k.Object(kind.record, q.At("privdata"))
		if !priv.Has(kind.block) {
			continue
		}
		block := priv.Ptr(kind.block)
		berr := errors.Join(priv.Err(), q.Err())
		if berr == nil {
			berr = r.block(block, Attachment{Kind: "tc", Attach: id, Target: t})
		}
		if berr != nil {
			err = errors.Join(err, fmt.Errorf("filters of qdisc %s: %w", id, berr))
		}
	}
	return err
}

// miniq returns the address of the struct mini_Qdisc of a hook; NULL without
// filters.
func (r *attachReader) miniq(dev *kernel.Object, tcx, miniq string) (uint64, error) {
	if !dev.Has(tcx) {
		at := dev.Ptr(miniq)
		return at, dev.Err()
	}
	entry := dev.Ptr(tcx)
	if entry == 0 || dev.Err() != nil {
		return 0, dev.Err()
	}
	o := r.k.Object("bpf_mprog_entry", entry)
	off, err := r.k.Offset("tcx_entry", "bundle")
	x := r.k.Object("tcx_entry", o.Ptr("parent")-off)
	if err := errors.Join(err, o.Err()); err != nil {
		return 0, err
	}
	at := x.Ptr("miniq")
	return at, x.Err()
}

// qdiscs returns a device's queueing disciplines: the root and, in a hash
// table, those below it.
func (r *attachReader) qdiscs(dev *kernel.Object) ([]*kernel.Object, error) {
	var out []*kernel.Object
	if root := dev.Ptr("qdisc"); root != 0 {
		out = append(out, r.k.Object("Qdisc", root))
	}
	node, err := r.k.Offset("Qdisc", "hash")
	if err != nil || !dev.Has("qdisc_hash") {
		return out, err
	}
	heads, n := dev.At("qdisc_hash"), dev.Len("qdisc_hash")
	for i := range uint64(n) {
		nodes, err := hlist(r.k, heads+8*i, 0)
		for _, at := range nodes {
			out = append(out, r.k.Object("Qdisc", at-node))
		}
		if err != nil {
			return out, err
		}
	}
	return out, dev.Err()
}

// block reads the filters of a struct tcf_block, chain by chain.
func (r *attachReader) block(addr uint64, a Attachment) error {
	if addr == 0 {
		return nil
	}
	chains, err := r.listOf(r.k.Object("tcf_block", addr).At("chain_list"), "tcf_chain", "list")
	next, err2 := r.k.Offset("tcf_proto", "next")
	if err2 != nil {
		return errors.Join(err, err2)
	}
	for _, chain := range chains {
		a.Chain = int(chain.Uint("index"))
		protos, perr := hlist(r.k, chain.At("filter_chain"), next)
		err = errors.Join(err, perr, chain.Err())
		for _, at := range protos {
			tp := r.k.Object("tcf_proto", at)
			a.Prio = int(tp.Uint("prio") >> 16) // as in tcm_info: the protocol is below
			read := filterKinds[tp.Deref("ops").Str("kind")]
			if root := tp.Ptr("root"); read != nil && root != 0 && tp.Err() == nil {
				r.errs.Add(read(r, root, a))
			}
			r.errs.Add(tp.Err())
			if r.errs.TooMany() {
				return err
			}
		}
	}
	return err
}

// filterKinds are the kinds of filters (tcf_proto_ops.kind) that are looked
// into.
var filterKinds = map[string]func(*attachReader, uint64, Attachment) error{
	"bpf":      (*attachReader).clsBPF,
	"matchall": (*attachReader).clsMatchall,
}

// clsLayout says where struct cls_bpf_prog has what, from the sizes of the
// types before: the filter, its list, the result, three words of flags, the
// actions, the handle (net/sched/cls_bpf.c, since 4.19). It is for
// kernels without BTF of their modules (before 36e68442d1af, 5.11).
type clsLayout struct{ filter, link, integrated, exts, handle uint64 }

func newClsLayout(k *kernel.Kernel) (clsLayout, error) {
	if k.Sizeof("cls_bpf_prog") == 0 {
		l := clsLayout{filter: 0, link: 8, integrated: 24 + k.Sizeof("tcf_result"), exts: 24 + k.Sizeof("tcf_result") + 16}
		l.handle = l.exts + k.Sizeof("tcf_exts")
		if k.Sizeof("tcf_result") == 0 || k.Sizeof("tcf_exts") == 0 {
			return l, errors.New("this kernel's BTF lacks struct tcf_exts")
		}
		return l, nil
	}
	var l clsLayout
	var errs []error
	for _, m := range []struct {
		name string
		off  *uint64
	}{{"filter", &l.filter}, {"link", &l.link}, {"exts_integrated", &l.integrated}, {"exts", &l.exts}, {"handle", &l.handle}} {
		var err error
		*m.off, err = k.Offset("cls_bpf_prog", m.name)
		errs = append(errs, err)
	}
	return l, errors.Join(errs...)
}

// clsBPF reads the programs of one filter of kind bpf: its struct cls_bpf_head
// begins with their list. A program that does not give the verdict itself
// (direct-action) classifies for actions.
func (r *attachReader) clsBPF(head uint64, a Attachment) error {
	l, err := newClsLayout(r.k)
	if err != nil {
		return err
	}
	for at, err := range r.k.List(head) {
		if err != nil {
			return err
		}
		at -= l.link
		prog, err1 := mem.U64(r.k.Mem(), at+l.filter)
		handle, err2 := mem.U32(r.k.Mem(), at+l.handle)
		direct, err3 := mem.U8(r.k.Mem(), at+l.integrated)
		if err := errors.Join(err1, err2, err3); err != nil {
			return fmt.Errorf("cls_bpf_prog at 0x%x: %w", at, err)
		}
		a.Handle, a.Flags = mem.Addr(handle), nil
		if direct&1 != 0 {
			a.Flags = []string{"direct_action"}
		}
		if err := r.add(prog, a); err != nil {
			return err
		}
		if err := r.actions(at+l.exts, a); err != nil {
			return err
		}
	}
	return nil
}

// clsMatchall reads the actions of a matchall filter: of struct cls_mall_head,
// which begins with them.
func (r *attachReader) clsMatchall(head uint64, a Attachment) error {
	o := r.k.Object("cls_mall_head", head)
	if r.k.Sizeof("cls_mall_head") != 0 {
		a.Handle = mem.Addr(o.Uint("handle"))
		head = o.At("exts")
	}
	return r.actions(head, a)
}

const maxActions = 32 // TCA_ACT_MAX_PRIO

// actions reads the actions of a struct tcf_exts, for those of act_bpf: its
// struct tcf_bpf has the program behind the struct tc_action, which is aligned
// to eight bytes.
func (r *attachReader) actions(exts uint64, a Attachment) error {
	o := r.k.Object("tcf_exts", exts)
	n, table := o.Uint("nr_actions"), o.Ptr("actions")
	if err := o.Err(); err != nil {
		return err
	}
	if n > maxActions {
		return fmt.Errorf("tcf_exts at 0x%x has %d actions: damaged", exts, n)
	}
	acts, err := words(r.k, table, n)
	if err != nil {
		return fmt.Errorf("actions of tcf_exts at 0x%x: %w", exts, err)
	}
	filter, err := r.k.Offset("tcf_bpf", "filter")
	if err != nil {
		filter = r.k.Sizeof("tc_action")
	}
	for _, at := range acts {
		kind := r.k.Object("tc_action", at).Deref("ops")
		name := kind.Str("kind")
		if err := kind.Err(); err != nil {
			return err
		}
		if name != "bpf" {
			continue
		}
		prog, err := mem.U64(r.k.Mem(), at+filter)
		if err != nil {
			return err
		}
		act := a
		act.Kind, act.Flags = "tc_action", nil
		if err := r.add(prog, act); err != nil {
			return err
		}
	}
	return nil
}
