package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// An attr is a netlink attribute: a payload, or attributes within.
type attr struct {
	typ    uint16
	data   []byte
	nested []attr
}

func u32(typ uint16, v uint32) attr {
	return attr{typ: typ, data: binary.LittleEndian.AppendUint32(nil, v)}
}
func str(typ uint16, s string) attr          { return attr{typ: typ, data: append([]byte(s), 0)} }
func nest(typ uint16, attrs ...attr) attr    { return attr{typ: typ, nested: attrs} }
func (a attr) withHeader(header []byte) attr { a.data = header; return a }

// encode appends the attribute, padded to 4 bytes.
func (a attr) encode(b []byte) []byte {
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
func rtnetlink(typ, flags uint16, header []byte, attrs ...attr) error {
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

// addLink makes a device of a kind.
func addLink(name, kind string, data []attr) error {
	info := []attr{str(unix.IFLA_INFO_KIND, kind)}
	if data != nil {
		info = append(info, nest(unix.IFLA_INFO_DATA, data...))
	}
	return rtnetlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, 0, 0),
		str(unix.IFLA_IFNAME, name), nest(unix.IFLA_LINKINFO, info...))
}

// addPair makes two devices that are connected.
func addPair(name, peer, kind string) error {
	// VETH_INFO_PEER and IFLA_NETKIT_PEER_INFO are both 1.
	const infoPeer = 1
	p := nest(infoPeer, str(unix.IFLA_IFNAME, peer)).withHeader(ifinfomsg(0, 0, 0))
	return addLink(name, kind, []attr{p})
}

// raise brings a device up.
func raise(name string) error {
	index, err := ifindex(name)
	if err != nil {
		return err
	}
	return rtnetlink(unix.RTM_NEWLINK, 0, ifinfomsg(index, unix.IFF_UP, unix.IFF_UP))
}

// attachXDP attaches by netlink, without a link.
func attachXDP(index, prog int, flags uint32) error {
	return rtnetlink(unix.RTM_SETLINK, 0, ifinfomsg(index, 0, 0),
		nest(unix.IFLA_XDP|unix.NLA_F_NESTED, u32(unix.IFLA_XDP_FD, uint32(prog)), u32(unix.IFLA_XDP_FLAGS, flags)))
}

// tcmsg is struct tcmsg.
func tcmsg(index int, handle, parent, info uint32) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 4), uint32(index))
	b = binary.LittleEndian.AppendUint32(b, handle)
	b = binary.LittleEndian.AppendUint32(b, parent)
	return binary.LittleEndian.AppendUint32(b, info)
}

// Attributes and handles of traffic control: linux/rtnetlink.h, pkt_cls.h.
const (
	tcaKind, tcaOptions                = 1, 2
	tcaBPFAct, tcaBPFFD                = 1, 6
	tcaBPFName, tcaBPFFlags            = 7, 8
	bpfActDirect                       = 1
	tcaActKind, tcaActOptions          = 1, 2
	tcaActBPFParms, tcaActBPFFD        = 2, 5
	tcaActBPFName                      = 6
	clsactHandle, clsactParent  uint32 = 0xffff0000, 0xfffffff1
	ingressParent, egressParent uint32 = 0xfffffff2, 0xfffffff3
)

// addClsact gives a device the queueing discipline that only classifies.
func addClsact(index int) error {
	return rtnetlink(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg(index, clsactHandle, clsactParent, 0), str(tcaKind, "clsact"))
}

// addFilter attaches a classifier to a clsact hook.
func addFilter(index int, parent uint32, priority uint16, options ...attr) error {
	const allProtocols = 0x0300 // ETH_P_ALL in network order
	return rtnetlink(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg(index, 1, parent, uint32(priority)<<16|allProtocols),
		str(tcaKind, "bpf"), nest(tcaOptions, options...))
}
