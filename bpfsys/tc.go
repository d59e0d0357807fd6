//go:build linux

package bpfsys

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/mem"
)

// Of include/uapi/linux/pkt_sched.h and rtnetlink.h.
const (
	tcClsact    = 0xffff0000 // TC_H_CLSACT, also TC_H_INGRESS
	tcIngress   = tcClsact | 0xfff2
	tcEgress    = tcClsact | 0xfff3
	sizeofTcmsg = 20

	tcaKind    = 1 // TCA_KIND
	tcaOptions = 2 // TCA_OPTIONS
	tcaChain   = 11

	tcaBPFID     = 11 // TCA_BPF_ID
	tcaBPFFlags  = 8  // TCA_BPF_FLAGS
	tcaBPFDirect = 1  // TCA_BPF_FLAG_ACT_DIRECT
	tcaActKind   = 1  // TCA_ACT_KIND
	tcaActOption = 2  // TCA_ACT_OPTIONS
	tcaActBPFID  = 9  // TCA_ACT_BPF_ID
)

// actionAttrs is where the options of a type of filter have its actions, which
// can be programs, too.
var actionAttrs = map[string]uint16{
	"bpf":      1, // TCA_BPF_ACT
	"basic":    3, // TCA_BASIC_ACT
	"cgroup":   1, // TCA_CGROUP_ACT
	"flow":     9, // TCA_FLOW_ACT
	"flower":   3, // TCA_FLOWER_ACT
	"fw":       4, // TCA_FW_ACT
	"matchall": 2, // TCA_MATCHALL_ACT
	"route":    6, // TCA_ROUTE4_ACT
	"u32":      7, // TCA_U32_ACT
}

// filterless are queueing disciplines that take no filters.
var filterless = map[string]bool{
	"noqueue": true, "pfifo_fast": true, "pfifo": true, "bfifo": true, "mq": true, "fq": true, "tbf": true, "netem": true,
}

// A tcParent is where filters hang: ingress, egress, or a class of a qdisc.
type tcParent struct {
	ifindex int
	handle  uint32
	name    string // ingress, egress, or the qdisc's kind
}

// filters returns the programs that the filters and actions of the devices
// are. target describes a device.
func (n *netlink) filters(target func(ifindex int) bpf.Target) ([]bpf.Attachment, error) {
	parents, err := n.parents()
	if err != nil {
		return nil, err
	}
	var out []bpf.Attachment
	var errs []error
	for _, p := range parents {
		bodies, err := n.dump(unix.RTM_GETTFILTER, tcmsg(p.ifindex, p.handle))
		if err != nil && !tcAbsent(err) {
			errs = append(errs, fmt.Errorf("tc filters of device %d, %s: %w", p.ifindex, p.name, err))
		}
		for _, b := range bodies {
			if len(b) < sizeofTcmsg {
				continue
			}
			info := binary.LittleEndian.Uint32(b[16:])
			a := bpf.Attachment{
				Kind: "tc", Attach: p.name, Target: target(p.ifindex),
				Handle: mem.Addr(binary.LittleEndian.Uint32(b[8:])), Prio: int(info >> 16),
			}
			attrs := b[sizeofTcmsg:]
			a.Chain = int(number(attribute(attrs, tcaChain)))
			kind, options := cstr(attribute(attrs, tcaKind)), attribute(attrs, tcaOptions)
			if id := number(attribute(options, tcaBPFID)); kind == "bpf" && id != 0 {
				p := a
				p.ProgID = int(id)
				if number(attribute(options, tcaBPFFlags))&tcaBPFDirect != 0 {
					p.Flags = []string{"direct_action"}
				}
				out = append(out, p)
			}
			out = append(out, actions(a, attribute(options, actionAttrs[kind]))...)
		}
	}
	return out, errors.Join(errs...)
}

// actions returns those of a filter that are programs.
func actions(filter bpf.Attachment, acts []byte) []bpf.Attachment {
	var out []bpf.Attachment
	for _, act := range attributes(acts) {
		if cstr(attribute(act, tcaActKind)) != "bpf" {
			continue
		}
		if id := number(attribute(act, tcaActOption, tcaActBPFID)); id != 0 {
			filter.Kind, filter.ProgID = "tc_action", int(id)
			out = append(out, filter)
		}
	}
	return out
}

// parents lists where filters can hang.
func (n *netlink) parents() ([]tcParent, error) {
	bodies, err := n.dump(unix.RTM_GETQDISC, tcmsg(0, 0))
	if err != nil {
		if tcAbsent(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("queueing disciplines: %w", err)
	}
	var out []tcParent
	var errs []error
	for _, b := range bodies {
		if len(b) < sizeofTcmsg {
			continue
		}
		dev, handle := int(binary.LittleEndian.Uint32(b[4:])), binary.LittleEndian.Uint32(b[8:])
		switch kind := cstr(attribute(b[sizeofTcmsg:], tcaKind)); {
		case kind == "clsact":
			out = append(out, tcParent{dev, tcIngress, "ingress"}, tcParent{dev, tcEgress, "egress"})
		case kind == "ingress":
			out = append(out, tcParent{dev, tcIngress, "ingress"})
		case handle != 0 && !filterless[kind]:
			out = append(out, tcParent{dev, handle, kind})
			classes, err := n.dump(unix.RTM_GETTCLASS, tcmsg(dev, handle))
			if err != nil && !tcAbsent(err) {
				errs = append(errs, fmt.Errorf("tc classes of device %d: %w", dev, err))
			}
			for _, c := range classes {
				if len(c) < sizeofTcmsg {
					continue
				}
				if h := binary.LittleEndian.Uint32(c[8:]); h>>16 == handle>>16 && h != handle {
					out = append(out, tcParent{dev, h, kind})
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

// tcAbsent: a kernel without traffic control, or a device or discipline that
// is gone or takes no filters.
func tcAbsent(err error) bool {
	return unsupported(err) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// tcmsg is struct tcmsg.
func tcmsg(ifindex int, parent uint32) []byte {
	b := make([]byte, sizeofTcmsg)
	binary.LittleEndian.PutUint32(b[4:], uint32(ifindex))
	binary.LittleEndian.PutUint32(b[12:], parent)
	return b
}
