// Package rtnl makes network devices in guests, and attaches BPF programs to
// them in the ways that leave no link: the little of rtnetlink(7) that takes.
package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// An Attr is a netlink attribute: a payload, or attributes within.
type Attr struct {
	typ    uint16
	data   []byte
	nested []Attr
}

// U32 is an attribute that is a number.
func U32(typ uint16, v uint32) Attr {
	return Bytes(typ, binary.LittleEndian.AppendUint32(nil, v))
}

// Str is an attribute that is a string.
func Str(typ uint16, s string) Attr { return Bytes(typ, append([]byte(s), 0)) }

// Bytes is an attribute that is a structure.
func Bytes(typ uint16, b []byte) Attr { return Attr{typ: typ, data: b} }

// Nest is an attribute of attributes.
func Nest(typ uint16, attrs ...Attr) Attr { return Attr{typ: typ, nested: attrs} }

func (a Attr) withHeader(header []byte) Attr { a.data = header; return a }

// encode appends the attribute, padded to 4 bytes.
func (a Attr) encode(b []byte) []byte {
	payload := append([]byte(nil), a.data...)
	for _, n := range a.nested {
		payload = n.encode(payload)
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(4+len(payload)))
	b = binary.LittleEndian.AppendUint16(b, a.typ)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// rtnetlink sends one request and waits for its acknowledgement.
func rtnetlink(typ, flags uint16, header []byte, attrs ...Attr) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	body := append([]byte(nil), header...)
	for _, a := range attrs {
		body = a.encode(body)
	}
	msg := binary.LittleEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	msg = binary.LittleEndian.AppendUint16(msg, typ)
	msg = binary.LittleEndian.AppendUint16(msg, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = binary.LittleEndian.AppendUint64(msg, 1) // sequence number, port
	msg = append(msg, body...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 || binary.LittleEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("rtnetlink: an answer of %d bytes is no acknowledgement", n)
	}
	if errno := int32(binary.LittleEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// ifinfomsg is struct ifinfomsg of a device.
func ifinfomsg(index int, flags, change uint32) []byte {
	b := make([]byte, 4, unix.SizeofIfInfomsg)
	b = binary.LittleEndian.AppendUint32(b, uint32(index))
	b = binary.LittleEndian.AppendUint32(b, flags)
	return binary.LittleEndian.AppendUint32(b, change)
}

// AddLink makes a device of a kind.
func AddLink(name, kind string, data []Attr) error {
	info := []Attr{Str(unix.IFLA_INFO_KIND, kind)}
	if data != nil {
		info = append(info, Nest(unix.IFLA_INFO_DATA, data...))
	}
	return rtnetlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, 0, 0),
		Str(unix.IFLA_IFNAME, name), Nest(unix.IFLA_LINKINFO, info...))
}

// AddPair makes two devices that are connected.
func AddPair(name, peer, kind string) error {
	// VETH_INFO_PEER and IFLA_NETKIT_PEER_INFO are both 1.
	const infoPeer = 1
	p := Nest(infoPeer, Str(unix.IFLA_IFNAME, peer)).withHeader(ifinfomsg(0, 0, 0))
	return AddLink(name, kind, []Attr{p})
}

// Index returns the index of a device.
func Index(name string) (int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("device %s: %w", name, err)
	}
	return i.Index, nil
}

// Raise brings a device up.
func Raise(name string) error {
	index, err := Index(name)
	if err != nil {
		return err
	}
	return rtnetlink(unix.RTM_NEWLINK, 0, ifinfomsg(index, unix.IFF_UP, unix.IFF_UP))
}

// SetMTU sets how many bytes of payload a device takes.
func SetMTU(name string, mtu uint32) error {
	index, err := Index(name)
	if err != nil {
		return err
	}
	return rtnetlink(unix.RTM_NEWLINK, 0, ifinfomsg(index, 0, 0), U32(unix.IFLA_MTU, mtu))
}

// AttachXDP attaches by netlink, without a link.
func AttachXDP(index, prog int, flags uint32) error {
	return rtnetlink(unix.RTM_SETLINK, 0, ifinfomsg(index, 0, 0),
		Nest(unix.IFLA_XDP|unix.NLA_F_NESTED, U32(unix.IFLA_XDP_FD, uint32(prog)), U32(unix.IFLA_XDP_FLAGS, flags)))
}

// tcmsg is struct tcmsg.
func tcmsg(index int, handle, parent, info uint32) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 4), uint32(index))
	b = binary.LittleEndian.AppendUint32(b, handle)
	b = binary.LittleEndian.AppendUint32(b, parent)
	return binary.LittleEndian.AppendUint32(b, info)
}

// Attributes of a BPF classifier and a BPF action: linux/pkt_cls.h,
// linux/tc_act/tc_bpf.h, linux/rtnetlink.h.
const (
	TCABPFAct      = 1
	TCABPFFD       = 6
	TCABPFName     = 7
	TCABPFFlags    = 8
	TCAActKind     = 1
	TCAActOptions  = 2
	TCAActBPFParms = 2
	TCAActBPFFD    = 5
	TCAActBPFName  = 6

	// BPFActDirect has a classifier's value be the verdict.
	BPFActDirect = 1

	tcaKind, tcaOptions = 1, 2
)

// Handles of traffic control: linux/pkt_sched.h.
const (
	IngressParent uint32 = 0xfffffff2
	EgressParent  uint32 = 0xfffffff3
	clsactHandle  uint32 = 0xffff0000
	clsactParent  uint32 = 0xfffffff1
)

// AddClsact gives a device the queueing discipline that only classifies.
func AddClsact(index int) error {
	return rtnetlink(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg(index, clsactHandle, clsactParent, 0), Str(tcaKind, "clsact"))
}

// AddFilter attaches a classifier to a clsact hook.
func AddFilter(index int, parent uint32, priority uint16, options ...Attr) error {
	const allProtocols = 0x0300 // ETH_P_ALL in network order
	return rtnetlink(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg(index, 1, parent, uint32(priority)<<16|allProtocols),
		Str(tcaKind, "bpf"), Nest(tcaOptions, options...))
}
