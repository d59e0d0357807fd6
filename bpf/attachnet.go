package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
)

// namespaces reads the network namespaces and their devices.
func (r *attachReader) namespaces() error {
	nets, err := r.globalList("net_namespace_list", "net", "list")
	for _, net := range nets {
		if err := r.netns(net); err != nil {
			r.errs.Add(fmt.Errorf("net at 0x%x: %w", net.Addr, err))
		}
		devs, err := r.listOf(net.At("dev_base_head"), "net_device", "dev_list")
		if err != nil {
			r.errs.Add(fmt.Errorf("devices of the net at 0x%x: %w", net.Addr, err))
		}
		for _, dev := range devs {
			if err := r.device(dev); err != nil {
				r.errs.Add(fmt.Errorf("net_device at 0x%x: %w", dev.Addr, err))
			}
		}
		if r.errs.TooMany() {
			break
		}
	}
	return err
}

// netns reads the programs that a namespace itself has: net.bpf.progs are those
// without a link (a3fd7ceee05d, 5.8).
func (r *attachReader) netns(net *kernel.Object) error {
	if !net.Has("bpf.progs") {
		return nil
	}
	target := Target{Kind: TargetNetns, Netns: net.Uint("ns.inum")}
	for i := range net.Len("bpf.progs") {
		a := Attachment{Kind: "netns", Attach: enumName(r.k, "netns_bpf_attach_type", "NETNS_BPF_", uint64(i)), Target: target}
		if err := r.add(net.Ptr(fmt.Sprintf("bpf.progs[%d]", i)), a); err != nil {
			return err
		}
	}
	return net.Err()
}

func (r *attachReader) device(dev *kernel.Object) error {
	target, err := netdevTarget(r.k, dev.Addr)
	if err != nil {
		return err
	}
	for _, read := range []func(*kernel.Object, Target) error{r.xdp, r.mprogs, r.filters} {
		if err := read(dev, target); err != nil {
			r.errs.Add(fmt.Errorf("net_device %s: %w", target.Name, err))
		}
	}
	return dev.Err()
}

func (r *attachReader) xdp(dev *kernel.Object, t Target) error {
	states, err := xdpStates(r.k, dev.Addr)
	for _, s := range states {
		if s.link == 0 {
			err = errors.Join(err, r.add(s.prog, Attachment{Kind: "xdp", Attach: s.name, Target: t}))
		}
	}
	return err
}

// tcHooks are the two places in a device's path where tc filters and tcx
// programs run, with the pointer to what runs there: a bpf_mprog_entry since
// e420bed02507 (6.6), which also leads to the filters; before, these alone.
var tcHooks = []struct{ name, tcx, miniq string }{
	{"ingress", "tcx_ingress", "miniq_ingress"},
	{"egress", "tcx_egress", "miniq_egress"},
}

// mprogs reads the programs of tcx (e420bed02507, 6.6) and netkit
// (35dfaad7188c, 6.7) that BPF_PROG_ATTACH put there.
func (r *attachReader) mprogs(dev *kernel.Object, t Target) error {
	for _, h := range tcHooks {
		if !dev.Has(h.tcx) {
			return nil
		}
		err := r.mprog(dev.Ptr(h.tcx), Attachment{Kind: "tcx", Attach: "tcx_" + h.name, Target: t})
		if err != nil {
			return fmt.Errorf("%s: %w", h.tcx, err)
		}
	}
	if dev.Ptr("rtnl_link_ops") == 0 || dev.Deref("rtnl_link_ops").Str("kind") != "netkit" {
		return dev.Err()
	}
	nk := r.k.Object("netkit", dev.At("priv"))
	a := Attachment{Kind: "netkit", Attach: "netkit_peer", Target: t}
	if nk.Bool("primary") {
		a.Attach = "netkit_primary"
	}
	return errors.Join(r.mprog(nk.Ptr("active"), a), nk.Err())
}

// mprog reads a struct bpf_mprog_entry: programs, and beside each, in the
// bundle, its link (053c8e1f235d, 6.6).
func (r *attachReader) mprog(entry uint64, a Attachment) error {
	if entry == 0 {
		return nil
	}
	o := r.k.Object("bpf_mprog_entry", entry)
	bundle := o.Deref("parent")
	for i := range o.Len("fp_items") {
		prog := o.Ptr(fmt.Sprintf("fp_items[%d].prog", i))
		if prog == 0 {
			break
		}
		if bundle.Ptr(fmt.Sprintf("cp_items[%d].link", i)) != 0 {
			continue
		}
		if err := r.add(prog, a); err != nil {
			return err
		}
	}
	return errors.Join(o.Err(), bundle.Err())
}
