//go:build linux

package bpfsys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rtnetlink, as much of it as two kinds of dumps take. There are libraries, but
// those that know tc filters bring several modules for what is one page here,
// and each would have to be told of the thread's network namespace.

// netlink is a socket of the network namespace it was opened in.
type netlink struct {
	fd  int
	seq uint32
	buf []byte
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return &netlink{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (n *netlink) close() { unix.Close(n.fd) }

// Limits on a dump, and how often one that changed underway is repeated.
const (
	maxDump   = 256 << 20
	dumpTries = 8
)

var errInterrupted = errors.New("the answer changed while it was given")

// dump asks for all objects of a type and returns the messages' bodies.
func (n *netlink) dump(typ uint16, request []byte) ([][]byte, error) {
	for try := 1; ; try++ {
		bodies, err := n.dumpOnce(typ, request)
		if !errors.Is(err, errInterrupted) || try == dumpTries {
			return bodies, err
		}
	}
}

func (n *netlink) dumpOnce(typ uint16, request []byte) (bodies [][]byte, err error) {
	n.seq++
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(request))
	*(*unix.NlMsghdr)(unsafe.Pointer(unsafe.SliceData(msg))) = unix.NlMsghdr{
		Len: uint32(cap(msg)), Type: typ, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Seq: n.seq,
	}
	if err := unix.Sendto(n.fd, append(msg, request...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var interrupted error
	for total := 0; ; {
		got, err := n.receive()
		if err != nil {
			return bodies, err
		}
		if total += got; total > maxDump {
			return bodies, errors.New("an answer without end")
		}
		for b := n.buf[:got]; len(b) >= unix.NLMSG_HDRLEN; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
			if h.Len < unix.NLMSG_HDRLEN || int64(h.Len) > int64(len(b)) {
				return bodies, errors.New("a message longer than what was received")
			}
			body := b[unix.NLMSG_HDRLEN:h.Len]
			b = b[min(len(b), int(h.Len+3)&^3):]
			if h.Seq != n.seq {
				continue
			}
			if h.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = errInterrupted
			}
			switch h.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if len(body) >= 4 {
					if e := int32(binary.LittleEndian.Uint32(body)); e < 0 {
						return bodies, unix.Errno(-e)
					}
				}
				return bodies, interrupted
			case unix.NLMSG_NOOP:
			default:
				bodies = append(bodies, append([]byte(nil), body...))
			}
		}
	}
}

// receive reads one datagram whole.
func (n *netlink) receive() (int, error) {
	for {
		got, _, err := unix.Recvfrom(n.fd, n.buf, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if got > len(n.buf) {
			n.buf = make([]byte, got)
		}
		got, _, err = unix.Recvfrom(n.fd, n.buf, 0)
		if err == unix.EINTR {
			continue
		}
		return got, err
	}
}

// attributes yields the attributes of a message, without the flags of types.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.LittleEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			typ := binary.LittleEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// attribute returns the attribute of a type, following nested ones.
func attribute(b []byte, path ...uint16) []byte {
	for _, want := range path {
		var next []byte
		for typ, data := range attributes(b) {
			if typ == want {
				next = data
				break
			}
		}
		b = next
	}
	return b
}

// number is an attribute's value as the kernel has it in one to four bytes.
func number(b []byte) uint32 {
	switch len(b) {
	case 1:
		return uint32(b[0])
	case 2:
		return uint32(binary.LittleEndian.Uint16(b))
	case 4:
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// A netdev is a network device.
type netdev struct {
	ifindex int
	name    string
	kind    string // netkit, veth, ...; "" of hardware
	peer    int    // the device at the other end, if it is in this namespace
	xdp     []xdpProg
}

// An xdpProg is a program that a device runs on what it receives.
type xdpProg struct {
	mode string
	id   int
}

// xdpAttrs are the attributes of IFLA_XDP that name the program of a mode
// (include/uapi/linux/if_link.h). The modes are called as "ip link" calls them.
var xdpAttrs = [...]struct {
	attr uint16
	mode string
}{
	{unix.IFLA_XDP_SKB_PROG_ID, "xdpgeneric"},
	{unix.IFLA_XDP_DRV_PROG_ID, "xdpdrv"},
	{unix.IFLA_XDP_HW_PROG_ID, "xdpoffload"},
}

// netdevs lists the devices.
func (n *netlink) netdevs() ([]netdev, error) {
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	request := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+8)
	request = binary.LittleEndian.AppendUint16(request, 8)
	request = binary.LittleEndian.AppendUint16(request, unix.IFLA_EXT_MASK)
	request = binary.LittleEndian.AppendUint32(request, skipStats)
	bodies, err := n.dump(unix.RTM_GETLINK, request)
	if err != nil {
		err = fmt.Errorf("network devices: %w", err)
	}
	var out []netdev
	for _, b := range bodies {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		d := netdev{ifindex: int(binary.LittleEndian.Uint32(b[4:]))}
		attrs := b[unix.SizeofIfInfomsg:]
		d.name = cstr(attribute(attrs, unix.IFLA_IFNAME))
		d.kind = cstr(attribute(attrs, unix.IFLA_LINKINFO, unix.IFLA_INFO_KIND))
		if attribute(attrs, unix.IFLA_LINK_NETNSID) == nil {
			d.peer = int(number(attribute(attrs, unix.IFLA_LINK)))
		}
		xdp := attribute(attrs, unix.IFLA_XDP)
		for _, a := range xdpAttrs {
			if id := number(attribute(xdp, a.attr)); id != 0 {
				d.xdp = append(d.xdp, xdpProg{a.mode, int(id)})
			}
		}
		out = append(out, d)
	}
	return out, err
}
